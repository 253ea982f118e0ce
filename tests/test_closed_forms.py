"""Closed forms against counts, and the sizes of networks that they add up to."""

import pytest
import torch

from attnlib.feature_map import REGISTRY, build_attention
from attnlib.feature_map.non_local import SIMILARITIES
from attnlib.lab.closed_forms import MACS, PARAMETERS
from attnlib.lab.cost import Cost, closed_form, count_macs, count_parameters

# name, channels, height, width, options: a mechanism that joins the registry adds its rows
CASES = [
    ("se", 6, 3, 5, {"reduction": 2}),
    ("se", 12, 7, 2, {"reduction": 3, "bias": False}),
    ("se", 64, 5, 4, {"pool": "max", "gate": "hard_sigmoid"}),
    ("se", 10, 1, 1, {"reduction": 10}),
    ("eca", 48, 3, 5, {}),
    ("eca", 300, 1, 2, {"gamma": 1.0, "b": 3.0}),
    ("eca", 10, 4, 3, {"kernel_size": 7, "bias": True, "padding": "circular"}),
    ("cbam", 64, 6, 9, {}),
    ("cbam", 12, 4, 5, {"reduction": 3, "kernel_size": 3, "bias": False, "norm": False}),
    ("bam", 64, 6, 9, {}),
    ("bam", 12, 9, 5, {"reduction": 3, "dilation": 2, "combine": "multiply"}),
    ("sam", 7, 6, 9, {}),
    ("sam", 9, 4, 3, {"kernel_size": 5, "norm": False, "bias": True}),
    ("point_sam", 7, 6, 9, {}),
    ("point_sam", 6, 2, 3, {"norm": False}),
    ("nam", 7, 6, 9, {}),
    ("nam", 7, 6, 9, {"branch": "pixel", "size": (6, 9)}),
    ("nam", 7, 6, 9, {"branch": "both", "size": (6, 9), "absolute": False}),
    ("gam", 64, 6, 9, {}),
    ("gam", 24, 3, 5, {"reduction": 2, "groups": 4, "channel_sigmoid": False}),
    *(("nonlocal", 10, 5, 7, {"similarity": similarity}) for similarity in SIMILARITIES),
    *(("nonlocal", 9, 5, 7, {"similarity": s, "pool": True, "inner": 4}) for s in SIMILARITIES),
    ("nonlocal", 8, 3, 4, {"bias": False, "norm": False}),
    ("emau", 12, 6, 9, {}),
    ("emau", 10, 3, 5, {"bases": 5, "iterations": 2, "detach": True}),
    ("ema", 64, 6, 9, {}),
    ("ema", 12, 3, 5, {"groups": 3}),
    ("coordinate", 10, 6, 9, {}),
    ("coordinate", 60, 3, 5, {"reduction": 5}),
    ("simam", 10, 6, 9, {}),
    ("gc", 64, 6, 9, {}),
    ("gc", 12, 3, 5, {"reduction": 3, "combine": "multiply"}),
    ("sk", 64, 6, 9, {}),
    ("sk", 12, 3, 5, {"reduction": 2, "groups": 3, "branches": 3, "minimum": 4}),
    ("triplet", 10, 6, 9, {}),
    ("triplet", 7, 3, 5, {"kernel_size": 3}),
]

# outputs of the blocks of ResNet-50 at 224 pixels: how many, channels, height = width
RESNET_50 = [(3, 256, 56), (4, 512, 28), (6, 1024, 14), (3, 2048, 7)]
RESNET_50_CIFAR = [(3, 256, 32), (4, 512, 16), (6, 1024, 8), (3, 2048, 4)]
TOTALS = [
    ("se", {}, RESNET_50, 28_088_024, 2_514_944),
    ("se", {"bias": False}, RESNET_50, 28_071_976, 2_514_944),
    ("eca", {}, RESNET_50, 25_557_118, 87_808),
    ("cbam", {}, RESNET_50, 28_089_624, 6_388_854),
    ("bam", {}, [(1, 256, 56), (1, 512, 28), (1, 1024, 14)], 25_915_099, 82_147_072),
    ("point_sam", {}, RESNET_50, 45_706_792, 3_288_334_336),
    ("nam", {}, RESNET_50, 25_587_240, 0),
    ("gam", {}, RESNET_50, 151_368_424, 20_552_089_600),
    ("gam", {"reduction": 4}, RESNET_50, 528_621_352, 82_208_358_400),
    ("gam", {"reduction": 4, "groups": 4}, RESNET_50, 158_924_584, 21_785_214_976),
    ("gam", {"groups": 4}, RESNET_50, 58_944_232, 5_446_303_744),
    ("ema", {}, RESNET_50, 25_755_400, 938_377_216),
    ("coordinate", {}, RESNET_50, 27_474_864, 27_066_368),
    ("simam", {}, RESNET_50, 25_557_032, 0),
    ("gc", {}, RESNET_50, 28_105_032, 8_034_304),
    ("triplet", {}, RESNET_50, 25_561_832, 46_316_662),
    ("gam", {}, RESNET_50_CIFAR, 149_516_644, 6_710_886_400),
    ("gam", {"reduction": 4, "groups": 4}, RESNET_50_CIFAR, 157_072_804, 7_113_539_584),
]


@pytest.mark.parametrize(("name", "channels", "height", "width", "options"), CASES)
def test_closed_form_equals_the_count(name, channels, height, width, options):
    module = build_attention(name, channels, **options)
    counted = Cost(count_parameters(module), count_macs(module, torch.rand(1, channels, height, width)))
    assert closed_form(name, channels, height, width, **options) == counted


def test_every_mechanism_has_a_closed_form_and_cases():
    assert set(PARAMETERS) == set(MACS) == set(REGISTRY) == {case[0] for case in CASES}


@pytest.mark.parametrize(("name", "options", "blocks", "parameters", "macs"), TOTALS)
def test_the_sizes_of_a_whole_network(name, options, blocks, parameters, macs):
    plain = 25_557_032 if blocks is not RESNET_50_CIFAR else 23_705_252
    costs = [(n, closed_form(name, c, size, size, **options)) for n, c, size in blocks]
    assert plain + sum(n * cost.parameters for n, cost in costs) == parameters
    assert sum(n * cost.macs for n, cost in costs) == macs


def test_eca_with_the_released_kernels_is_eighty_parameters():
    kernels = zip(RESNET_50, (3, 5, 5, 7), strict=True)
    costs = [(n, closed_form("eca", c, 1, 1, kernel_size=k)) for (n, c, _), k in kernels]
    assert sum(n * cost.parameters for n, cost in costs) == 80
    assert sum(n * cost.macs for n, cost in costs) == 86_272


def test_multi_scale_ema_for_cifar():
    added = sum(n * closed_form("ema", c, size, size).parameters for n, c, size in RESNET_50_CIFAR)
    assert 23_705_252 + added == 23_903_620


def test_nam_with_pixels_and_five_non_local_blocks():
    pixels = [
        n * closed_form("nam", c, size, size, branch="both", size=(size, size)).parameters
        for n, c, size in RESNET_50
    ]
    assert 25_557_032 + sum(pixels) == 25_614_974
    blocks = [closed_form("nonlocal", 512, 28, 28)] * 2 + [closed_form("nonlocal", 1024, 14, 14)] * 3
    assert sum(block.parameters for block in blocks) == 7_358_464
