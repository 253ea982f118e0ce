"""ResNets: sizes to the parameter, names as in torchvision, and where a mechanism stands."""

import re

import pytest
import torch
from torch import nn

from attnlib.backbone import ResNet
from attnlib.feature_map import REGISTRY, SqueezeExcitation


def count(*arguments: object, **options: object) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in ResNet(*arguments, **options).parameters())


@pytest.mark.parametrize(
    ("depth", "options", "parameters"),
    [
        (18, {}, 11_689_512),
        (34, {}, 21_797_672),
        (50, {}, 25_557_032),
        (101, {}, 44_549_160),
        (50, {"stride_in": "1x1"}, 25_557_032),
        (18, {"stem": "cifar", "classes": 100}, 11_220_132),
        (50, {"stem": "cifar", "classes": 100}, 23_705_252),
        (101, {"stem": "cifar", "classes": 100}, 42_697_380),
        (20, {"classes": 10}, 269_722),
        (18, {"attention": "se"}, 11_778_592),
        (34, {"attention": "se", "options": {"bias": False}}, 21_954_856),
        (50, {"attention": "se"}, 28_088_024),
        (50, {"attention": "se", "options": {"bias": False}}, 28_071_976),
        (50, {"attention": "eca"}, 25_557_118),
        (50, {"attention": "eca", "options": {"kernel_size": [3, 5, 5, 7]}}, 25_557_112),
        (101, {"attention": "eca"}, 44_549_331),
        (18, {"attention": "cbam"}, 11_779_392),
        (50, {"attention": "cbam"}, 28_089_624),
        (18, {"attention": "bam"}, 11_712_503),
        (50, {"attention": "bam"}, 25_915_099),
        (50, {"attention": "nam"}, 25_587_240),
        (50, {"attention": "nam", "options": {"branch": "both"}, "image": 224}, 25_614_974),
        (18, {"attention": "nam", "options": {"branch": "both"}, "image": 224}, 11_710_012),
        (50, {"attention": "gam"}, 151_368_424),
        (50, {"attention": "gam", "stem": "cifar", "classes": 100}, 149_516_644),
        (50, {"attention": "ema"}, 25_755_400),
        (101, {"attention": "ema"}, 44_923_784),
        (50, {"attention": "coordinate"}, 27_474_864),
        (50, {"attention": "triplet"}, 25_561_832),
        (50, {"attention": "nonlocal"}, 32_915_496),
        (50, {"attention": "point_sam"}, 45_706_792),
        (50, {"attention": "gc"}, 28_105_032),
        (50, {"attention": "simam"}, 25_557_032),
    ],
)
def test_parameters(depth, options, parameters):
    assert count(depth, **options) == parameters


def test_names_are_torchvision_s():
    names = set(ResNet(18).state_dict())
    assert {"conv1.weight", "bn1.running_mean", "layer2.0.downsample.1.weight", "layer4.1.bn2.bias"} <= names
    assert "fc.bias" in names
    assert {"layer1.0.conv3.weight", "layer3.5.bn3.weight"} <= set(ResNet(50).state_dict())
    assert all(".attention." not in name for name in names)


def blocks_with_attention(network: ResNet) -> list[str]:
    return [
        name.removesuffix(".attention") for name, _ in network.named_modules() if name.endswith(".attention")
    ]


def test_where_mechanisms_stand():
    with torch.device("meta"):
        assert len(blocks_with_attention(ResNet(50, attention="se"))) == 16
        assert blocks_with_attention(ResNet(50, attention="bam")) == ["layer1.2", "layer2.3", "layer3.5"]
        found = blocks_with_attention(ResNet(50, attention="nonlocal"))
        assert found == ["layer2.1", "layer2.3", "layer3.1", "layer3.3", "layer3.5"]
        everywhere = ResNet(50, attention="bam", position="branch")
    assert len(blocks_with_attention(everywhere)) == 16


class Doubling(nn.Module):
    """A stand-in for a mechanism whose place can be told from the result."""

    def forward(self, x):
        return 2 * x


@pytest.mark.parametrize("position", ["branch", "pre", "post", "identity"])
def test_positions(position):
    network = ResNet(20, attention=lambda channels: Doubling(), position=position).eval()
    block, x = network.layer2[0], torch.randn(2, 16, 8, 8)
    plain, shortcut = block.branch, block.downsample(x)
    expected = {
        "branch": (2 * plain(x) + shortcut).relu(),
        "pre": (plain(2 * x) + shortcut).relu(),
        "post": 2 * (plain(x) + shortcut).relu(),
        "identity": (plain(x) + 2 * shortcut).relu(),
    }
    torch.testing.assert_close(block(x), expected[position])


def test_pre_is_given_the_channels_that_come_in():
    network = ResNet(18, attention="se", position="pre")
    assert network.layer2[0].attention.channels == 64
    assert network.layer2[1].attention.channels == 128


def test_the_short_cut_without_parameters():
    network, x = ResNet(20), torch.randn(1, 16, 6, 6)
    short = network.layer2[0].downsample(x)
    assert torch.equal(short[:, :16], x[:, :, ::2, ::2])
    assert (short[:, 16:] == 0).all()


# options that fit 16, 32 and 64 channels
FITTING = {
    "se": {"reduction": 4},
    "cbam": {"reduction": 4},
    "bam": {"reduction": 4},
    "gam": {"reduction": 4},
    "ema": {"groups": 8},
    "gc": {"reduction": 4},
    "sk": {"groups": 8},
    "emau": {"bases": 4},
}


@pytest.mark.parametrize("name", REGISTRY)
def test_every_mechanism_runs_and_learns_in_a_small_one(name):
    torch.manual_seed(0)
    network = ResNet(20, classes=10, attention=name, options=FITTING.get(name))
    images, labels = torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 2, 3])
    optimizer, losses = torch.optim.SGD(network.parameters(), lr=0.01), []
    for _ in range(3):
        loss = nn.functional.cross_entropy(network(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert network(images).shape == (4, 10)
    assert losses[-1] < losses[0]


@pytest.mark.no_shape_hook
@pytest.mark.parametrize(
    ("arguments", "options", "text"),
    [
        ((51,), {}, "depth=51 is not one of 18, 20, 32, 34, 50, 56, 101, 152"),
        ((18,), {"classes": 0}, "classes=0 should be a whole number of at least 1"),
        (
            (18,),
            {"stem": "cifar10"},
            "stem='cifar10' is not one of 'imagenet', 'cifar'; did you mean 'cifar'?",
        ),
        ((18,), {"stride_in": "1"}, "stride_in='1' is not one of '3x3', '1x1'"),
        (
            (18,),
            {"attention": "se", "position": "after"},
            "position='after' is not one of 'branch', 'pre', 'post', 'identity'",
        ),
        (
            (18,),
            {"options": {"bias": False}},
            "options bias go with a mechanism's name, and attention is None; leave them out",
        ),
        (
            (18,),
            {"attention": SqueezeExcitation, "options": {"bias": False}},
            "options bias go with a mechanism's name, and attention is a function; leave them out",
        ),
        (
            (18,),
            {"attention": "eca", "options": {"kernel_size": [3, 5]}},
            "kernel_size=[3, 5] has no value for stage 3; give one for each stage",
        ),
        ((20,), {"attention": "ema"}, "channels=16 is not divisible by groups=32; use 16 or 8"),
    ],
)
def test_wrong_arguments(arguments, options, text):
    with pytest.raises(ValueError, match=f"^{re.escape(text)}"):
        ResNet(*arguments, **options)
