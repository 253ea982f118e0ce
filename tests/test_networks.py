"""The cost of whole networks: exact totals, parts that add up, and what is refused."""

import re

import pytest

from attnlib.backbone import ResNet
from attnlib.feature_map import SqueezeExcitation
from attnlib.lab.networks import NETWORKS, network_cost


@pytest.mark.parametrize(
    ("name", "options", "parameters", "macs"),
    [
        ("resnet18", {}, 11_689_512, 1_814_073_344),
        ("resnet50", {}, 25_557_032, 4_089_184_256),
        ("resnet50", {"attention": "se"}, 28_088_024, 4_091_699_200),
        ("resnet50", {"attention": "cbam"}, 28_089_624, 4_095_573_110),
        ("resnet50", {"attention": "triplet"}, 25_561_832, 4_135_500_918),
        ("resnet50", {"attention": "gam"}, 151_368_424, 4_089_184_256 + 20_552_089_600),
        ("resnet50", {"image": 32, "classes": 100}, 23_705_252, 1_298_014_208),
        ("resnet50", {"image": 32, "classes": 100, "attention": "gam"}, 149_516_644, 8_008_900_608),
        ("mobilenetv2", {}, 3_504_872, 300_774_272),
        ("hrnet-w18", {}, 21_299_004, 4_283_537_072),
        ("hrnet-w32", {}, 41_232_680, 8_921_133_056),
    ],
)
def test_parameters_and_macs(name, options, parameters, macs):
    cost = network_cost(name, **options)
    assert (cost.parameters, cost.macs) == (parameters, macs)


def test_the_parts_add_up_and_attention_stands_apart():
    cost = network_cost("resnet50", attention="se")
    assert cost.parts["parameters"].sum() == cost.parameters
    assert cost.parts["macs"].sum() == cost.macs
    assert cost.parts.loc["attention"].tolist() == [2_530_992, 2_514_944]
    assert list(cost.table().index)[-1] == "total"
    assert cost.table().loc["total"].tolist() == [cost.parameters, cost.macs]
    assert "attention" not in network_cost("resnet50").parts.index


def test_a_function_may_stand_for_a_name():
    cost = network_cost("resnet18", attention=lambda channels: SqueezeExcitation(channels, bias=False))
    assert cost.parameters == 11_776_552


def test_small_images_get_the_small_stem():
    assert network_cost("resnet18", image=64).parameters == sum(
        p.numel() for p in ResNet(18, stem="cifar").parameters()
    )
    assert network_cost("resnet18", image=65).parameters == 11_689_512


def test_every_name_builds():
    assert {"resnet152", "resnet20", "mobilenetv2", "hrnet-small-v1"} <= set(NETWORKS)


@pytest.mark.no_shape_hook
@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("resnet5", {}, "name='resnet5' is not one of 'resnet18'"),
        ("resnet50", {"image": 0}, "image=0 should be a whole number of at least 1"),
        ("resnet50", {"attention": "sea"}, "attention='sea' is not one of 'se', 'eca'"),
        ("hrnet-w18", {"image": 100}, "height and width should be divisible by 32, got (1, 3, 100, 100)"),
    ],
)
def test_wrong_arguments(name, options, text):
    with pytest.raises(ValueError, match=f"^{re.escape(text)}"):
        network_cost(name, **options)
