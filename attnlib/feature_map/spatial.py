"""Spatial attention, three things under one acronym (SAM): a gate for each place.

CBAM's: Woo, Park, Lee, Kweon: "CBAM: Convolutional Block Attention Module", ECCV 2018, arXiv 1807.06521,
section 3, equation (3):

    M_s(x) = sigmoid(f([max_c x; mean_c x]))   x (b, c, h, w) -> (b, 1, h, w)
    output = M_s(x) x                          f is a 7x7 convolution from 2 channels to 1

YOLOv4's: Bochkovskiy, Wang, Liao, arXiv 2004.10934, section 3.4, "from spatial-wise to point-wise attention":

    M(x)   = sigmoid(BN(W x))                  W (c, c), a 1x1 convolution; the gate is (b, c, h, w)
    output = M(x) x

Darknet's layers `[sam]` and `[scale_channels]` are only the products: `sam_layer`, `scale_channels`.

Where sources differ:
    norm        CBAM's equation has none; its code puts a batch norm of one channel behind f, whose scale
                starts at 0, so that the gate starts at 1/2 everywhere. `zero_start=False` starts it at 1,
                `norm=False` leaves it out. YOLOv4's is shown with and without: `norm=False`.
    bias        f has none in CBAM's code; copies without the norm give it one: `bias=True`.
    order       The paper writes [mean; max], its code joins [max, mean], as here; weights carry over.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from attnlib._checks import check_feature_map, check_odd, check_positive


class SpatialAttention(nn.Module):
    """Rescale each place of a feature map by a gate in (0, 1) that sees the max and mean over channels.

    Args:
        channels: c, the number of channels of the input.
        kernel_size: width of the window that a gate sees; odd.
        norm: whether a batch norm of one channel stands behind the convolution.
        zero_start: whether its scale starts at 0, so that every gate is 1/2 at the start.
        bias: whether the convolution has a bias.

    Shapes: ``x`` (b, c, h, w) -> ``weights(x)`` (b, 1, h, w) and ``forward(x)`` (b, c, h, w), with
    forward(x) = x * weights(x). A wrong argument or shape raises ValueError, and so does a training batch
    with a single place, if there is a norm.

    Source: arXiv 1807.06521, equation (3), and its released code.
    """

    def __init__(
        self,
        channels: int,
        *,
        kernel_size: int = 7,
        norm: bool = True,
        zero_start: bool = True,
        bias: bool = False,
    ) -> None:
        super().__init__()
        check_positive("channels", channels)
        check_odd("kernel_size", kernel_size)
        self.channels = channels
        self.conv = nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2, bias=bias)
        self.norm = nn.BatchNorm2d(1, momentum=0.01) if norm else nn.Identity()
        if norm and zero_start:
            nn.init.zeros_(self.norm.weight)

    def weights(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 1 h w"]:
        """The gate M_s of equation (3), one number for each image and place."""
        check_feature_map(x, self.channels)
        pooled = torch.cat([x.amax(1, keepdim=True), x.mean(1, keepdim=True)], 1)  # b 2 h w
        return self.norm(self.conv(pooled)).sigmoid()  # (3)  b 1 h w

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return x * self.weights(x)


class PointwiseSpatialAttention(nn.Module):
    """Rescale every number of a feature map by a gate in (0, 1) that sees all channels at its own place.

    Args:
        channels: c, the number of channels of the input.
        norm: whether a batch norm stands behind the 1x1 convolution; without it the convolution has a bias.

    Shapes: ``x`` (b, c, h, w) -> ``weights(x)`` and ``forward(x)`` (b, c, h, w), with
    forward(x) = x * weights(x). A wrong argument or shape raises ValueError, and so does a training batch
    with a single place, if there is a norm.

    Source: arXiv 2004.10934, section 3.4; Darknet's network definitions for the norm.
    """

    def __init__(self, channels: int, *, norm: bool = True) -> None:
        super().__init__()
        check_positive("channels", channels)
        self.channels = channels
        self.conv = nn.Conv2d(channels, channels, 1, bias=not norm)
        self.norm = nn.BatchNorm2d(channels) if norm else nn.Identity()

    def weights(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """The gate M, one number for each image, channel and place."""
        check_feature_map(x, self.channels)
        return self.norm(self.conv(x)).sigmoid()

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return x * self.weights(x)


def sam_layer(x: Float[Tensor, "b c h w"], other: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """Darknet's `[sam]`: the product of two feature maps of the same shape, and nothing else.

    A map of another shape raises ValueError: nothing is broadcast, as in Darknet.
    """
    if x.shape != other.shape:
        raise ValueError(
            f"sam_layer multiplies two maps of one shape, got {tuple(x.shape)} and {tuple(other.shape)}; for "
            f"a gate that is constant over places or over channels use scale_channels"
        )
    return x * other


def scale_channels(
    x: Float[Tensor, "b c h w"], scale: Float[Tensor, "b _ _ _"], *, scale_wh: bool = False
) -> Float[Tensor, "b c h w"]:
    """Darknet's `[scale_channels]`: the product with one number for each channel, or for each place.

    Args:
        x: features (b, c, h, w).
        scale: (b, c, 1, 1), or (b, 1, h, w) if ``scale_wh``; another shape raises ValueError.
        scale_wh: whether ``scale`` is a map over places, as in the option of the same name.
    """
    b, c, h, w = x.shape
    wanted = (b, 1, h, w) if scale_wh else (b, c, 1, 1)
    if tuple(scale.shape) != wanted:
        raise ValueError(
            f"with scale_wh={scale_wh} and features of shape {tuple(x.shape)} expected a scale of shape "
            f"{wanted}, got {tuple(scale.shape)}"
        )
    return x * scale
