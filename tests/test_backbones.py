"""Every mechanism in every backbone: it fits and learns, or says in one sentence why not."""

import re

import pytest
import torch

from attnlib.backbone import HRNet, MobileNetV2, ResNet
from attnlib.backbone.hrnet import Design
from attnlib.feature_map import REGISTRY
from attnlib.lab.networks import network_cost

SMALL = Design(6, bottlenecks=1, bottleneck_width=4, units=(1, 1, 1), blocks=1)  # 6, 12, 24 and 48 channels
BACKBONES = {
    "cifar": lambda **options: ResNet(20, classes=3, **options),
    "bottlenecks": lambda **options: ResNet(50, stem="cifar", classes=3, **options),
    "mobile": lambda **options: MobileNetV2(classes=3, **options),
    "mobile, outputs": lambda **options: MobileNetV2(classes=3, position="output", **options),
    "parallel": lambda **options: HRNet(SMALL, classes=3, **options),
    "parallel, blocks": lambda **options: HRNet(SMALL, classes=3, at="blocks", **options),
    "key-points": lambda **options: HRNet(SMALL, classes=3, head="keypoints", **options),
}
DIVISORS = {"se": "reduction", "cbam": "reduction", "bam": "reduction", "gam": "reduction", "gc": "reduction"}
DIVISORS |= {"ema": "groups", "sk": "groups"}


def fits(name: str, backbone: str) -> bool:
    """Whether the paper's r = 16 or 32 groups divide every width in the backbone."""
    divisor = {"reduction": 16, "groups": 32}.get(DIVISORS.get(name), 1)
    smallest = {"cifar": 16, "bottlenecks": 256, "mobile": 48, "mobile, outputs": 8}.get(backbone, 6)
    if name == "bam" and backbone == "bottlenecks":
        return True
    return smallest % divisor == 0


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("name", REGISTRY)
def test_a_pair_learns_or_says_why_not(name, backbone):
    torch.manual_seed(0)
    if not fits(name, backbone):
        with pytest.raises(ValueError, match=rf"^channels=\d+ is not divisible by {DIVISORS[name]}=\d+; use"):
            BACKBONES[backbone](attention=name)
        options = {DIVISORS[name]: 2}  # fits everywhere: all widths are even
    else:
        options = {}
    network = BACKBONES[backbone](attention=name, options=options)
    images = torch.randn(3, 3, 32, 64)
    output = network(images)
    assert output.shape == ((3, 3, 8, 16) if backbone == "key-points" else (3, 3))
    output.square().sum().backward()
    missing = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not missing
    own = [p for n, p in network.named_parameters() if "attention" in n.split(".")]
    assert not own or any(p.grad.abs().max() > 0 for p in own)
    assert bool(own) == (name != "simam")


@pytest.mark.parametrize(
    ("network", "options"),
    [
        ("resnet50", {}),
        ("resnet20", {"image": 32}),
        ("mobilenetv2", {"image": 64}),
        ("hrnet-w32", {"image": 64}),
    ],
)
@pytest.mark.parametrize("name", REGISTRY)
def test_the_count_is_the_closed_form(network, options, name):
    if name in DIVISORS:
        options = options | {"options": {DIVISORS[name]: 8}}
    cost = network_cost(network, attention=name, **options)
    counted = tuple(cost.parts.loc["attention"]) if "attention" in cost.parts.index else (0, 0)
    assert (cost.formula.parameters, cost.formula.macs) == counted
    assert cost.parameters == network_cost(network, image=options.get("image", 224)).parameters + counted[0]


@pytest.mark.no_shape_hook
def test_what_fits_is_named():
    for variant, options, text in [
        ("w18", {}, "channels=18 is not divisible by groups=32; use 18 or 9 (the branches have 18, 36, 72"),
        ("w32", {"groups": 24}, "channels=32 is not divisible by groups=24; use 16 or 32 (the branches have"),
    ]:
        with pytest.raises(ValueError, match=f"^{re.escape(text)}"):
            HRNet(variant, attention="ema", options=options)
