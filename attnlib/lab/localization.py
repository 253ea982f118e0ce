"""How well a map points at an object: two scores that need nothing but the object's box.

A map is what a network gives each place, such as a spatial gate or the strength of its features. Boxes are
those of ``Images``: x0, y0, x1, y1 in pixels, the ends left out. Hold both scores against those of a flat
map (chance) and of the place that most boxes cover: objects seldom lie anywhere with equal probability.

Sources: the pointing game is that of Zhang, Lin, Brandt, Shen, Sclaroff, "Top-down neural attention by
excitation backprop", ECCV 2016, arXiv 1608.00507, here without its tolerance of 15 pixels; the energy is
that of Wang et al., "Score-CAM", CVPR workshops 2020, arXiv 1910.01279.
"""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from attnlib._checks import check_positive


def inside_boxes(boxes: Int64[Tensor, "n 4"], height: int, width: int) -> Bool[Tensor, "n h w"]:
    """For each box whether a pixel lies in it; its mean over n is the share of boxes that cover a pixel.

    Raises ValueError for boxes that are empty or reach beyond the image.
    """
    check_positive("height", height)
    check_positive("width", width)
    x0, y0, x1, y1 = (ends[:, None, None] for ends in boxes.unbind(1))
    if not ((x0 >= 0) & (x0 < x1) & (x1 <= width) & (y0 >= 0) & (y0 < y1) & (y1 <= height)).all():
        raise ValueError(
            f"expected boxes x0, y0, x1, y1 with 0 <= x0 < x1 <= {width} and 0 <= y0 < y1 <= {height}; "
            f"check their order, and that maps and boxes have the same scale"
        )
    rows, columns = torch.arange(height)[:, None], torch.arange(width)
    return (x0 <= columns) & (columns < x1) & (y0 <= rows) & (rows < y1)


def pointing_game(maps: Float[Tensor, "n h w"], boxes: Int64[Tensor, "n 4"]) -> Float[Tensor, " n"]:
    """Whether the largest value of each map lies in its box, 1 or 0.

    Where several places share the largest value, the share of those that lie in the box: so a flat map
    scores what chance does. Raises ValueError for shapes or boxes that do not fit.
    """
    largest = maps == maps.amax((1, 2), keepdim=True)
    hits = largest & _inside(maps, boxes)
    return hits.sum((1, 2)) / largest.sum((1, 2))


def energy_in_box(maps: Float[Tensor, "n h w"], boxes: Int64[Tensor, "n 4"]) -> Float[Tensor, " n"]:
    """The share of each map's sum that lies in its box, between 0 and 1; a map of zeros counts as flat.

    Raises ValueError for maps with negative values, of which a share has no meaning, and for shapes or
    boxes that do not fit.
    """
    inside = _inside(maps, boxes)
    if maps.min() < 0:
        raise ValueError(
            "expected maps without negative values, got some; take their absolute or their positive part"
        )
    empty = maps.sum((1, 2), keepdim=True) == 0
    maps = maps + empty  # ones in place of zeros
    return (maps * inside).sum((1, 2)) / maps.sum((1, 2))


def _inside(maps: Tensor, boxes: Tensor) -> Tensor:
    if maps.ndim != 3 or boxes.shape != (len(maps), 4):
        raise ValueError(
            f"expected maps (n, h, w) and boxes (n, 4), got {tuple(maps.shape)} and {tuple(boxes.shape)}; "
            f"give one map and one box for each image"
        )
    return inside_boxes(boxes, *maps.shape[1:])
