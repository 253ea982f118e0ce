"""Key-points as heatmaps: how they are written and read, and the network that HRNet is held against."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from attnlib._checks import check_positive
from attnlib.backbone.hrnet import Design, conv
from attnlib.backbone.resnet import BasicBlock, Bottleneck


def heatmaps(
    keypoints: Float[Tensor, "n k 2"], size: int, *, image: int, sigma: float = 1.0
) -> Float[Tensor, "n k size size"]:
    """A bump exp(-r^2 / (2 sigma^2)) around each key-point, on a square map of ``size`` cells.

    Args:
        keypoints: (x, y) in pixels of the image, the centre of the first pixel being (0, 0).
        size: height and width of the map; a cell covers image / size pixels in each direction.
        image: height and width of the image.
        sigma: width of the bump, in cells. The released code of HRNet takes 2 or 3 on maps of 64 cells.

    Raises ValueError for sizes below 1 and for a sigma that is not positive.
    """
    check_positive("size", size)
    check_positive("image", image)
    if not sigma > 0:
        raise ValueError(f"sigma={sigma!r} should be above 0")
    cells = torch.arange(size, dtype=keypoints.dtype)
    x, y = ((keypoints + 0.5) * size / image - 0.5).unbind(-1)  # in cells
    along_x = torch.exp(-((cells - x[..., None]) ** 2) / (2 * sigma**2))
    along_y = torch.exp(-((cells - y[..., None]) ** 2) / (2 * sigma**2))
    return along_y[..., :, None] * along_x[..., None, :]


def read_heatmaps(maps: Float[Tensor, "n k h w"], *, image: int) -> Float[Tensor, "n k 2"]:
    """The (x, y) in pixels that each map points at: the centre of mass of the 3x3 cells around its maximum.

    Negative values count as 0. ``image`` is the height and width of the image. For a whole bump of
    ``heatmaps`` the result is off by a fraction of a cell at most.
    """
    h, w = maps.shape[2:]
    top = maps.flatten(2).argmax(2)
    rows, columns = torch.arange(h, dtype=maps.dtype), torch.arange(w, dtype=maps.dtype)
    near_rows = (rows - (top // w)[..., None]).abs() <= 1
    near_columns = (columns - (top % w)[..., None]).abs() <= 1
    mass = maps.clamp(min=1e-9) * (near_rows[..., :, None] & near_columns[..., None, :])
    total = mass.sum((2, 3))
    x, y = (mass.sum(2) * columns).sum(2) / total, (mass.sum(3) * rows).sum(2) / total
    return (torch.stack([x, y], 2) + 0.5) * image / h - 0.5


class DownUp(nn.Module):
    """One path down to 1/32 of the image and up again, with HRNet's blocks, and no branch beside it.

    Stem, first stage and head are those of ``HRNet(design, head="keypoints")``; between them come, at 1/4,
    1/8, 1/16, 1/32, 1/16, 1/8 and 1/4, ``design.blocks`` basic blocks each. What the way down loses, nothing
    brings back.

    Shapes: images (b, 3, h, w), h and w divisible by 32 -> heatmaps (b, points, h / 4, w / 4).
    """

    def __init__(self, design: Design, points: int) -> None:
        super().__init__()
        check_positive("points", points)
        w, first = design.widths, 4 * design.bottleneck_width

        def blocks(width: int) -> list[nn.Module]:
            return [BasicBlock(width, width) for _ in range(design.blocks)]

        stage_1 = [
            Bottleneck(64 if i == 0 else first, design.bottleneck_width) for i in range(design.bottlenecks)
        ]
        down = [layer for i in range(3) for layer in (*blocks(w[i]), conv(w[i], w[i + 1], 3, stride=2))]
        up = [
            layer
            for i in (2, 1, 0)
            for layer in (conv(w[i + 1], w[i], 1), nn.Upsample(scale_factor=2), *blocks(w[i]))
        ]
        self.stem = nn.Sequential(conv(3, 64, 3, stride=2), conv(64, 64, 3, stride=2))
        self.path = nn.Sequential(*stage_1, conv(first, w[0], 3), *down, *blocks(w[3]), *up)
        self.head = nn.Conv2d(w[0], points, 1)

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b points h_out w_out"]:
        return self.head(self.path(self.stem(x)))
