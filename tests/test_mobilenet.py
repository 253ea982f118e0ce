"""MobileNetV2: sizes, names as in torchvision, and where a mechanism stands."""

import pytest
import torch

from attnlib.backbone import MobileNetV2


def count(**options: object) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in MobileNetV2(**options).parameters())


@pytest.mark.parametrize(
    ("options", "parameters"),
    [
        ({}, 3_504_872),
        ({"attention": "coordinate"}, 3_950_648),
        ({"attention": "nam"}, 3_519_080),
        ({"attention": "nam", "position": "output"}, 3_507_880),
        (
            {
                "attention": "eca",
                "options": {"kernel_size": [1, 1, 1, 1, 3, 3, 3]},
                "position": "output",
            },
            3_504_903,
        ),
        ({"attention": "se", "options": {"reduction": 24}}, 3_888_208),
    ],
)
def test_parameters(options, parameters):
    assert count(**options) == parameters


def test_names_are_torchvision_s():
    names = set(MobileNetV2().state_dict())
    expected = {
        "features.0.0.weight",
        "features.1.conv.0.0.weight",
        "features.1.conv.1.weight",
        "features.2.conv.2.weight",
        "features.17.conv.3.running_var",
        "features.18.1.bias",
        "classifier.1.weight",
    }
    assert expected <= names


def test_where_mechanisms_stand():
    expanded, output = (MobileNetV2(attention="nam", position=p) for p in ("expanded", "output"))
    assert expanded.features[1].attention is None
    assert expanded.features[2].attention.channels == 96
    assert [block.attention.channels for block in output.features[1:4]] == [16, 24, 24]


def test_it_runs_and_adds_where_sizes_agree():
    network = MobileNetV2(classes=7, attention="simam").eval()
    assert network(torch.randn(2, 3, 33, 40)).shape == (2, 7)
    block, x = network.features[3], torch.randn(1, 24, 5, 6)
    before = block.conv[:-2](x)
    torch.testing.assert_close(block(x), x + block.conv[-2:](block.attention(before)))


@pytest.mark.no_shape_hook
def test_wrong_arguments():
    with pytest.raises(ValueError, match=r"^position='branch' is not one of 'expanded', 'output'$"):
        MobileNetV2(position="branch")
    with pytest.raises(ValueError, match=r"^classes=0 should be a whole number of at least 1$"):
        MobileNetV2(classes=0)
    with pytest.raises(ValueError, match=r"^options bias go with a mechanism's name"):
        MobileNetV2(options={"bias": True})
