"""Global context against its equations, place by place."""

import re

import pytest
import torch
from by_hand import EPS, assert_same, drawn, randomised

from attnlib.feature_map import GlobalContext

B, C, H, W = 2, 6, 3, 4


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("combine", ["add", "multiply"])
def test_written_out(train, combine):
    module = randomised(GlobalContext(C, reduction=2, combine=combine), train)

    def oracle(x):
        places = x.flatten(2)
        scores = torch.einsum("c,bcn->bn", module.W_k.weight.flatten(), places) + module.W_k.bias
        alpha = torch.exp(scores) / torch.exp(scores).sum(1, keepdim=True)
        first, norm, _, last = module.transform
        hidden = torch.einsum("bn,bcn->bc", alpha, places) @ first.weight.T + first.bias
        mean = hidden.mean(1, keepdim=True)
        hidden = (hidden - mean) / ((hidden - mean).square().mean(1, keepdim=True) + EPS).sqrt()
        t = (norm.weight * hidden + norm.bias).clamp(min=0) @ last.weight.T + last.bias
        t = t[:, :, None, None]
        return x + t if combine == "add" else x * t.sigmoid()

    x = drawn(B, C, H, W)
    assert_same(module, oracle, x, without=("W_k.bias",))
    torch.testing.assert_close(module.weights(x).sum((2, 3)), torch.ones(B, 1, dtype=torch.float64))


def test_every_place_gets_the_same_vector():
    module, x = randomised(GlobalContext(C, reduction=2)), drawn(B, C, H, W)
    added = module(x) - x
    torch.testing.assert_close(added, added[:, :, :1, :1].expand_as(added))


def test_parameters():
    count = sum(p.numel() for p in GlobalContext(64).parameters())
    assert count == 2 * 64 * 4 + 65 + 4 + 8 + 64


@pytest.mark.no_shape_hook
@pytest.mark.parametrize(
    ("channels", "options", "text"),
    [
        (30, {}, "channels=30 is not divisible by reduction=16; use 15 or 10"),
        (32, {"combine": "ad"}, "combine='ad' is not one of 'add', 'multiply'; did you mean 'add'?"),
    ],
)
def test_wrong_arguments(channels, options, text):
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        GlobalContext(channels, **options)


@pytest.mark.no_shape_hook
def test_wrong_inputs():
    with pytest.raises(ValueError, match=r"^this module was built for channels=6, the input"):
        GlobalContext(C, reduction=2)(torch.zeros(1, 4, 2, 2))
