"""Published sizes: each equals our count in its own unit, or has its reason, and the reason explains it."""

import pytest
import torch
from torch import nn

from attnlib.backbone import ResNet
from attnlib.lab.cost import count_macs
from attnlib.lab.networks import network_cost
from attnlib.lab.published import NO_BIAS, NORMS, PUBLISHED, STRIDE, UNITS, published


def cost_of(row, **options):
    size = {"image": 32, "classes": 100} if row.cifar else {}
    return network_cost(row.network, attention=row.attention, **size, **options)


def identified(row):
    return f"{row.network}-{row.attention}-{row.printed}"


@pytest.mark.parametrize("row", PUBLISHED, ids=identified)
def test_a_printed_size_is_ours_or_says_why_not(row):
    same = row.counted(cost_of(row)) == row.printed
    assert same or row.reason, f"{row} is {row.counted(cost_of(row))} here"


@pytest.mark.parametrize("row", [r for r in PUBLISHED if r.reason == NO_BIAS], ids=identified)
def test_without_biases_it_is_the_printed_one(row):
    assert row.counted(cost_of(row, options={"bias": False})) == row.printed


@pytest.mark.parametrize("row", [r for r in PUBLISHED if r.reason == NORMS], ids=identified)
def test_without_the_norms_it_is_the_printed_one(row):
    network = ResNet(50, stem="cifar", classes=100, attention=row.attention)
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d | nn.GroupNorm)]
    kept = sum(p.numel() for p in network.parameters()) - sum(
        p.numel() for m in norms for p in m.parameters()
    )
    assert f"{kept / UNITS[row.unit]:.2f}" == row.printed


@pytest.mark.parametrize("row", [r for r in PUBLISHED if r.reason == STRIDE], ids=identified)
def test_with_the_stride_in_the_first_convolution_it_is_the_printed_one(row):
    with torch.device("meta"):
        network = ResNet(int(row.network.removeprefix("resnet")), attention=row.attention, stride_in="1x1")
        macs = count_macs(network, torch.zeros(1, 3, 224, 224))
    assert f"{macs / UNITS[row.unit]:.3f}" == row.printed


def test_rows_are_found_by_network_mechanism_and_data():
    assert [row.printed for row in published("resnet50", "nam", cifar=True)] == ["23.71"]
    assert published("resnet50", "nam", cifar=False) == []
    assert len(published("resnet50", None, cifar=False)) == 3
