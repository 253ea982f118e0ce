"""Heatmaps are written where the key-points lie and read back; the down-up network has HRNet's parts."""

import math
import re

import pytest
import torch

from attnlib.backbone import HRNet
from attnlib.backbone.hrnet import Design
from attnlib.lab.data import cluttered_digits
from attnlib.lab.keypoints import DownUp, heatmaps, read_heatmaps

DESIGN = Design(4, bottlenecks=1, bottleneck_width=4, units=(1, 1, 1), blocks=1)


def test_a_bump_by_hand():
    # 8 cells on 32 pixels: pixel 13.5 is the middle of cell 3, pixel 5.5 that of cell 1
    bump = heatmaps(torch.tensor([[[13.5, 5.5]]]), 8, image=32, sigma=0.5)[0, 0]
    assert bump.argmax() == 1 * 8 + 3 and bump[1, 3] == 1
    assert bump[1, 4].item() == pytest.approx(math.exp(-2)) == bump[0, 3].item()
    assert bump[2, 5].item() == pytest.approx(math.exp(-2 * 5))


def test_what_is_written_is_read_back():
    points = cluttered_digits(200).keypoints
    for size, sigma, allowed in [(8, 1.0, 1.0), (16, 1.0, 0.5), (32, 1.0, 0.25)]:
        found = read_heatmaps(heatmaps(points, size, image=32, sigma=sigma), image=32)
        inside = ((points > 32 / size) & (points < 31 - 32 / size)).all(2)  # whole bumps
        assert (found - points).abs()[inside].max() < allowed


def test_a_map_of_nothing_and_negative_values():
    maps = torch.full((1, 1, 4, 6), -1.0)
    maps[0, 0, 2, 4] = 5
    assert read_heatmaps(maps, image=8).tolist() == [[[pytest.approx(8.5), pytest.approx(4.5)]]]
    assert read_heatmaps(torch.zeros(1, 1, 4, 4), image=8).isfinite().all()


def test_the_down_up_network():
    network, other = DownUp(DESIGN, 3), HRNet(DESIGN, classes=3, head="keypoints")
    assert network(torch.randn(2, 3, 64, 32)).shape == (2, 3, 16, 8)
    for part in ("stem", "head"):
        sizes = [[p.shape for p in getattr(n, part).parameters()] for n in (network, other)]
        assert sizes[0] == sizes[1]
    network(torch.randn(2, 3, 32, 32)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    blocks = [m for m in network.modules() if type(m).__name__ == "BasicBlock"]
    assert [m.conv1.weight.shape[0] for m in blocks] == [4, 8, 16, 32, 16, 8, 4]


@pytest.mark.no_shape_hook
@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: heatmaps(torch.zeros(1, 1, 2), 0, image=8), "size=0 should be a whole number of at least 1"),
        (lambda: heatmaps(torch.zeros(1, 1, 2), 4, image=8, sigma=0.0), "sigma=0.0 should be above 0"),
        (lambda: DownUp(DESIGN, 0), "points=0 should be a whole number of at least 1"),
    ],
)
def test_wrong_arguments(call, text):
    with pytest.raises(ValueError, match=f"^{re.escape(text)}"):
        call()
