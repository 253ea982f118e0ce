"""Efficient multi-scale attention, group by group from its equations; the softmax that sees no input."""

import re

import pytest
import torch
from by_hand import EPS, assert_same, convolution, drawn, randomised

from attnlib.feature_map import EfficientMultiScaleAttention

B, C, H, W = 2, 6, 3, 5


def group_gate(module, x):
    """sigmoid(A) for one group of one image, x (d, h, w)."""
    weight, bias = module.conv_1x1.weight[:, :, 0, 0], module.conv_1x1.bias[:, None]
    u, v = weight @ x.mean(2) + bias, weight @ x.mean(1) + bias  # d h and d w
    gated = x * u.sigmoid()[:, :, None] * v.sigmoid()[:, None]
    mean = gated.mean((1, 2), keepdim=True)
    deviation = (gated - mean).square().mean((1, 2), keepdim=True).add(EPS).sqrt()
    x_1 = module.norm.weight[:, None, None] * (gated - mean) / deviation + module.norm.bias[:, None, None]
    x_2 = convolution(x[None], module.conv_3x3.weight, module.conv_3x3.bias)[0]
    a_1, a_2 = (torch.softmax(t.mean((1, 2)), 0) for t in (x_1, x_2))
    return torch.sigmoid(torch.einsum("d,dhw->hw", a_1, x_2) + torch.einsum("d,dhw->hw", a_2, x_1))


@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize("train", [False, True])
def test_group_by_group(groups, train):
    module, d = randomised(EfficientMultiScaleAttention(C, groups=groups), train), C // groups

    def oracle(x):
        images = []
        for image in x:
            parts = [image[g * d : (g + 1) * d] for g in range(groups)]
            images.append(torch.cat([part * group_gate(module, part) for part in parts]))
        return torch.stack(images)

    x = drawn(B, C, H, W)
    assert_same(module, oracle, x)
    torch.testing.assert_close(module(x), x * module.weights(x))


def test_one_of_the_softmaxes_does_not_see_the_input():
    """The mean of a normed channel is the bias of the norm."""
    module, seen = randomised(EfficientMultiScaleAttention(C, groups=2)), []
    module.norm.register_forward_hook(lambda *call: seen.append(call[2].mean((2, 3))))
    module(drawn(B, C, H, W))
    module(7 * drawn(B, C, H, W, seed=5))
    torch.testing.assert_close(torch.cat(seen), module.norm.bias.expand(8, -1))


def test_groups_share_their_weights():
    module, x = randomised(EfficientMultiScaleAttention(C, groups=3)), drawn(B, C, H, W)
    order = torch.tensor([4, 5, 0, 1, 2, 3])  # the groups (2, 0, 1)
    torch.testing.assert_close(module(x[:, order]), module(x)[:, order])
    inside = torch.tensor([1, 0, 2, 3, 4, 5])
    assert not torch.allclose(module(x[:, inside]), module(x)[:, inside])


def test_by_hand_with_one_channel_a_group():
    """Both softmaxes are 1, so A = x_1 + x_2; on a map of one place x_1 is the norm's bias."""
    module = EfficientMultiScaleAttention(2, groups=2)
    for p in module.parameters():
        p.data.fill_(0.5)
    x = torch.tensor([2.0, -4.0]).view(1, 2, 1, 1)
    expected = torch.tensor([0.5 + 0.5 * 2 + 0.5, 0.5 + 0.5 * -4 + 0.5]).sigmoid()
    torch.testing.assert_close(module.weights(x)[0, :, 0, 0], expected)


@pytest.mark.parametrize(
    ("channels", "count"), [(64, 48), (128, 176), (256, 672), (512, 2624), (1024, 10368)]
)
def test_parameters(channels, count):
    assert sum(p.numel() for p in EfficientMultiScaleAttention(channels).parameters()) == count


@pytest.mark.no_shape_hook
def test_wrong_arguments():
    text = "channels=48 is not divisible by groups=32; use 24 or 16"
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        EfficientMultiScaleAttention(48)
    with pytest.raises(ValueError, match=r"^this module was built for channels=6, the input"):
        EfficientMultiScaleAttention(C, groups=2)(torch.zeros(1, 4, 2, 2))
