"""HRNet: sizes to the parameter, the fusion by hand, and mechanisms in it."""

import re

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from attnlib.backbone import HRNet
from attnlib.backbone.hrnet import Design, ExchangeUnit

TINY = Design(4, bottlenecks=1, bottleneck_width=4, units=(1, 1, 1), blocks=1)


def count(*arguments: object, **options: object) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in HRNet(*arguments, **options).parameters())


@pytest.mark.parametrize(
    ("variant", "options", "parameters"),
    [
        ("w18", {}, 21_299_004),
        ("w30", {}, 37_712_220),
        ("w32", {}, 41_232_680),
        ("w40", {}, 57_557_160),
        ("w44", {}, 67_064_984),
        ("w48", {}, 77_469_864),
        ("w64", {}, 128_059_944),
        ("small-v1", {}, 13_187_464),
        ("small-v2", {}, 15_597_464),
        ("w32", {"head": "keypoints", "classes": 17}, 28_536_113),
        ("w48", {"head": "keypoints", "classes": 17}, 63_595_745),
        ("w18", {"attention": "ema", "options": {"groups": 6}}, 21_306_834),
        ("w32", {"attention": "ema", "options": {"groups": 8}}, 41_246_520),
        ("w18", {"attention": "ema", "options": {"groups": 6}, "at": "blocks"}, 21_426_492),
        ("w32", {"attention": "ema", "options": {"groups": 8}, "at": "blocks"}, 41_457_704),
    ],
)
def test_parameters(variant, options, parameters):
    assert count(variant, **options) == parameters


def test_parts_of_w18():
    with torch.device("meta"):
        network = HRNet("w18")

    def size(module):
        return sum(p.numel() for p in module.parameters())

    assert (size(network.stem), size(network.stage_1)) == (38_848, 286_208)
    assert size(network.first_branch) + size(network.new_branch[0]) == 124_524
    assert [size(stage) for stage in network.stages] == [124_092, 2_162_880, 6_708_636]
    assert [size(new) for new in network.new_branch[1:]] == [23_472, 93_600]
    assert size(network.head.fc) == 2_049_000


def test_the_fusion_of_two_branches_by_hand():
    unit = ExchangeUnit([2, 4], blocks=1).eval()
    unit.branches = nn.ModuleList([nn.Identity(), nn.Identity()])
    fine, coarse = torch.randn(1, 2, 4, 6), torch.randn(1, 4, 2, 3)
    up, down = unit.fusion[0][1], unit.fusion[1][0]
    enlarged = up(coarse).repeat_interleave(2, 2).repeat_interleave(2, 3)
    first, second = unit([fine, coarse])
    torch.testing.assert_close(first, F.relu(fine + enlarged))
    torch.testing.assert_close(second, F.relu(coarse + down(fine)))


def test_the_paths_between_branches():
    unit = ExchangeUnit([2, 4, 8], blocks=1)
    assert isinstance(unit.fusion[1][1], nn.Identity)
    down = [m for m in unit.fusion[2][0].modules() if isinstance(m, nn.Conv2d)]
    assert [(m.in_channels, m.out_channels, m.stride) for m in down] == [(2, 2, (2, 2)), (2, 8, (2, 2))]
    relus = [m for m in unit.fusion[2][0].modules() if isinstance(m, nn.ReLU)]
    assert len(relus) == 1
    assert [m.kernel_size for m in unit.fusion[0][2].modules() if isinstance(m, nn.Conv2d)] == [(1, 1)]


def test_branches_and_heads_have_their_sizes():
    images = torch.randn(2, 3, 64, 96)
    network = HRNet(TINY, classes=7).eval()
    shapes = [tuple(m.shape) for m in network.branches(images)]
    assert shapes == [(2, 4, 16, 24), (2, 8, 8, 12), (2, 16, 4, 6), (2, 32, 2, 3)]
    assert network(images).shape == (2, 7)
    assert HRNet(TINY, classes=3, head="keypoints").eval()(images).shape == (2, 3, 16, 24)


@pytest.mark.parametrize("at", ["outputs", "blocks"])
@pytest.mark.parametrize(
    ("name", "options"), [("se", {"reduction": 2}), ("ema", {"groups": [1, 2, 4, 8]}), ("simam", {})]
)
def test_mechanisms_in_every_branch_learn(at, name, options):
    torch.manual_seed(0)
    network = HRNet(TINY, classes=2, head="keypoints", attention=name, options=options, at=at)
    images, wanted, losses = torch.randn(4, 3, 32, 32), torch.randn(4, 2, 8, 8), []
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(4):
        loss = (network(images) - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    mechanisms = [
        n for n, m in network.named_modules() if type(m).__module__.startswith("attnlib.feature_map")
    ]
    assert len(mechanisms) == (1 if at == "outputs" else 2 + 3 + 4)


@pytest.mark.no_shape_hook
@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda: HRNet("w18", attention="ema"),
            "channels=18 is not divisible by groups=32; use 18 or 9 (the branches have 18, 36, 72, 144 "
            "channels)",
        ),
        (lambda: HRNet("w81"), "variant='w81' is not one of 'w18', 'w30', 'w32', 'w40', 'w44', 'w48', 'w64'"),
        (lambda: HRNet(TINY, classes=0), "classes=0 should be a whole number of at least 1"),
        (lambda: HRNet(TINY, head="class"), "head='class' is not one of 'classes', 'keypoints'; did you"),
        (
            lambda: HRNet(TINY, at="block"),
            "at='block' is not one of 'outputs', 'blocks'; did you mean 'blocks'?",
        ),
        (lambda: HRNet(TINY, options={"groups": 2}), "options groups go with a mechanism's name"),
        (
            lambda: HRNet(TINY)(torch.zeros(1, 3, 48, 64)),
            "height and width should be divisible by 32, got (1, 3, 48, 64)",
        ),
    ],
)
def test_wrong_arguments(call, text):
    with pytest.raises(ValueError, match=f"^{re.escape(text)}"):
        call()
