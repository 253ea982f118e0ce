"""Selective kernel against its equations, branch by branch."""

import re

import pytest
import torch
from by_hand import assert_same, batch_norm, convolution, drawn, randomised

from attnlib.feature_map import SelectiveKernel

B, C, H, W = 3, 6, 4, 5


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize(("groups", "branches"), [(2, 2), (3, 3), (1, 1)])
def test_written_out(train, groups, branches):
    module = randomised(SelectiveKernel(C, groups=groups, branches=branches, minimum=4), train)

    def oracle(x):
        u = []
        for m, (conv, norm, _) in enumerate(module.branches, start=1):
            features = convolution(x, conv.weight, None, dilation=m, groups=groups)
            u.append(batch_norm(features, norm, train).clamp(min=0))
        z = sum(u).mean((2, 3)) @ module.W.weight.T
        z = batch_norm(z, module.norm, train).clamp(min=0)
        e = [torch.exp(z @ layer.weight.T + layer.bias) for layer in module.V]
        mixture = [(part / sum(e))[:, :, None, None] for part in e]
        return sum(a * features for a, features in zip(mixture, u, strict=True))

    x = drawn(B, C, H, W)
    assert_same(module, oracle, x)
    weights = module.eval().weights(x)
    assert weights.shape == (B, branches, C, 1, 1)
    torch.testing.assert_close(weights.sum(1), torch.ones(B, C, 1, 1, dtype=torch.float64))


def test_the_hidden_width_has_a_least_value():
    assert SelectiveKernel(64).W.weight.shape == (32, 64)
    assert SelectiveKernel(1024).W.weight.shape == (64, 1024)


@pytest.mark.no_shape_hook
@pytest.mark.parametrize(
    ("channels", "options", "text"),
    [
        (48, {}, "channels=48 is not divisible by groups=32; use 24 or 16"),
        (32, {"reduction": 0}, "reduction=0 should be a whole number of at least 1"),
        (32, {"branches": 0}, "branches=0 should be a whole number of at least 1"),
        (32, {"minimum": 0}, "minimum=0 should be a whole number of at least 1"),
    ],
)
def test_wrong_arguments(channels, options, text):
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        SelectiveKernel(channels, **options)


@pytest.mark.no_shape_hook
def test_wrong_inputs():
    with pytest.raises(ValueError, match=r"^this module was built for channels=6, the input"):
        SelectiveKernel(C, groups=2)(torch.zeros(1, 4, 2, 2))
    with pytest.raises(ValueError, match="more than 1 value"):
        SelectiveKernel(C, groups=2).train()(torch.zeros(1, C, 4, 4))
