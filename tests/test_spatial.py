"""The three things called SAM: CBAM's spatial gate, YOLOv4's point-wise one, Darknet's products."""

import re

import pytest
import torch
from by_hand import assert_same, batch_norm, convolution, drawn, randomised

from attnlib.feature_map import PointwiseSpatialAttention, SpatialAttention, sam_layer, scale_channels

B, C, H, W = 3, 5, 4, 6


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("options", [{}, {"kernel_size": 3}, {"norm": False, "bias": True}])
def test_spatial_gate(train, options):
    module = randomised(SpatialAttention(C, **options), train)

    def oracle(x):
        strongest = torch.stack([x[:, c] for c in range(C)]).amax(0)
        mean = sum(x[:, c] for c in range(C)) / C
        v = convolution(torch.stack([strongest, mean], 1), module.conv.weight, module.conv.bias)
        v = batch_norm(v, module.norm, train) if options.get("norm", True) else v
        return x / (1 + torch.exp(-v))

    assert_same(module, oracle, drawn(B, C, H, W))


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("norm", [False, True])
def test_pointwise_gate(train, norm):
    module = randomised(PointwiseSpatialAttention(C, norm=norm), train)

    def oracle(x):
        v = convolution(x, module.conv.weight, module.conv.bias)
        return x / (1 + torch.exp(-(batch_norm(v, module.norm, train) if norm else v)))

    assert_same(module, oracle, drawn(B, C, H, W))


def test_by_hand():
    """Max 3 and mean 1 over the channels; the middle of the kernel weighs them 1 and -2: sigmoid(3 - 2)."""
    module = SpatialAttention(3, kernel_size=1, norm=False)
    module.conv.weight.data = torch.tensor([1.0, -2.0]).view(1, 2, 1, 1)
    gate = module.weights(torch.tensor([3.0, 1.0, -1.0]).view(1, 3, 1, 1))
    torch.testing.assert_close(gate, torch.tensor(1.0).sigmoid().view(1, 1, 1, 1))


def test_every_gate_is_one_half_at_the_start():
    x = torch.randn(2, C, H, W)
    assert (SpatialAttention(C).weights(x) == 0.5).all()
    assert SpatialAttention(C, zero_start=False).eval().weights(x).std() > 0


def test_permuting_channels_leaves_the_spatial_gate_alone():
    x, order = torch.randn(2, C, H, W), torch.tensor([4, 2, 0, 1, 3])
    module = SpatialAttention(C, zero_start=False).eval()
    torch.testing.assert_close(module.weights(x[:, order]), module.weights(x))


def test_parameters():
    assert sum(p.numel() for p in SpatialAttention(64).parameters()) == 98 + 2
    assert sum(p.numel() for p in PointwiseSpatialAttention(64).parameters()) == 64**2 + 2 * 64
    assert SpatialAttention(4).norm.momentum == 0.01


def test_darknet_s_products():
    x, gate = drawn(B, C, H, W), drawn(B, C, H, W, seed=1)
    torch.testing.assert_close(sam_layer(x, gate)[1, 2, 3, 4], x[1, 2, 3, 4] * gate[1, 2, 3, 4])
    by_channel, by_place = drawn(B, C, 1, 1, seed=2), drawn(B, 1, H, W, seed=3)
    assert scale_channels(x, by_channel)[1, 2, 3, 4] == x[1, 2, 3, 4] * by_channel[1, 2, 0, 0]
    assert scale_channels(x, by_place, scale_wh=True)[1, 2, 3, 4] == x[1, 2, 3, 4] * by_place[1, 0, 3, 4]


@pytest.mark.no_shape_hook
@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: SpatialAttention(0), "channels=0 should be a whole number of at least 1"),
        (
            lambda: SpatialAttention(4, kernel_size=6),
            "kernel_size=6 is even, so its window would have no middle; use 5 or 7",
        ),
        (lambda: PointwiseSpatialAttention(0), "channels=0 should be a whole number of at least 1"),
        (
            lambda: sam_layer(torch.zeros(2, 3, 4, 5), torch.zeros(2, 3, 1, 1)),
            "sam_layer multiplies two maps of one shape, got (2, 3, 4, 5) and (2, 3, 1, 1); for a gate that "
            "is constant over places or over channels use scale_channels",
        ),
        (
            lambda: scale_channels(torch.zeros(2, 3, 4, 5), torch.zeros(2, 1, 4, 5)),
            "with scale_wh=False and features of shape (2, 3, 4, 5) expected a scale of shape (2, 3, 1, 1), "
            "got (2, 1, 4, 5)",
        ),
        (
            lambda: scale_channels(torch.zeros(2, 3, 4, 5), torch.zeros(2, 3, 1, 1), scale_wh=True),
            "with scale_wh=True and features of shape (2, 3, 4, 5) expected a scale of shape (2, 1, 4, 5), "
            "got (2, 3, 1, 1)",
        ),
        (
            lambda: PointwiseSpatialAttention(3)(torch.zeros(2, 4, 5, 5)),
            "this module was built for channels=3, the input of shape (2, 4, 5, 5) has 4; build it with "
            "channels=4 or check the axis order (b, c, h, w)",
        ),
    ],
)
def test_wrong_arguments(call, text):
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        call()
