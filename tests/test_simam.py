"""SimAM against a loop."""

import math

import pytest
import torch
from by_hand import assert_same, drawn

from attnlib.feature_map import SimAM

B, C, H, W = 2, 3, 3, 4


@pytest.mark.parametrize("regularization", [1e-4, 0.1])
def test_loop(regularization):
    module = SimAM(C, regularization=regularization)

    def oracle(x):
        out = []
        for channel in x.flatten(2).flatten(0, 1):
            mean = sum(channel) / len(channel)
            squares = [(value - mean) ** 2 for value in channel]
            v = sum(squares) / (len(channel) - 1)
            energy = torch.stack(squares) / (4 * (v + regularization)) + 0.5
            out.append(channel / (1 + torch.exp(-energy)))
        return torch.stack(out).view(x.shape)

    assert_same(module, oracle, drawn(B, C, H, W))


def test_no_gate_is_below_the_sigmoid_of_one_half():
    gate = SimAM(C).weights(drawn(B, C, H, W))
    assert gate.min() >= 1 / (1 + math.exp(-0.5))
    assert torch.equal(SimAM(C).weights(torch.ones(1, C, 1, 1)), torch.full((1, C, 1, 1), 0.5).sigmoid())


def test_it_has_no_parameters():
    assert list(SimAM(C).parameters()) == []


@pytest.mark.no_shape_hook
def test_wrong_arguments():
    with pytest.raises(ValueError, match=r"^channels=0 should be a whole number of at least 1$"):
        SimAM(0)
    with pytest.raises(ValueError, match=r"^regularization=0 should be above 0$"):
        SimAM(3, regularization=0)
    with pytest.raises(ValueError, match=r"^this module was built for channels=3, the input"):
        SimAM(C)(torch.zeros(1, 4, 2, 2))
