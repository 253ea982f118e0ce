"""Triplet attention, each gate written for its own pair of axes."""

import re

import pytest
import torch
from by_hand import assert_same, batch_norm, convolution, drawn, randomised

from attnlib.feature_map import TripletAttention

B, C, H, W = 2, 4, 3, 5


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("kernel_size", [3, 7])
def test_written_out(train, kernel_size):
    module = randomised(TripletAttention(C, kernel_size=kernel_size), train)

    def gate(index, planes):
        """planes (b, pooled axis, p, q) -> (b, p, q)."""
        conv, norm = module.gates[index]
        pooled = torch.stack([planes.sort(1).values[:, -1], planes.sum(1) / planes.shape[1]], 1)
        return batch_norm(convolution(pooled, conv.weight, None), norm, train).sigmoid()[:, 0]

    def oracle(x):
        over_hw = gate(0, x)
        over_cw = gate(1, x.permute(0, 2, 1, 3))
        over_hc = gate(2, x.permute(0, 3, 2, 1))
        mean = over_hw[:, None] + over_cw[:, :, None] + over_hc.transpose(1, 2)[:, :, :, None]
        return x * mean / 3

    assert_same(module, oracle, drawn(B, C, H, W))


def test_parameters():
    assert sum(p.numel() for p in TripletAttention(64).parameters()) == 300


@pytest.mark.no_shape_hook
def test_wrong_arguments():
    text = "kernel_size=4 is even, so its window would have no middle; use 3 or 5"
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        TripletAttention(8, kernel_size=4)
    with pytest.raises(ValueError, match=r"^channels=0 should be a whole number of at least 1$"):
        TripletAttention(0)
    with pytest.raises(ValueError, match=r"^this module was built for channels=4, the input"):
        TripletAttention(C)(torch.zeros(1, 5, 2, 2))
