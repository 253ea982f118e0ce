"""Coordinate attention: a gate that is the product of one for the row and one for the column.

Hou, Zhou, Feng: "Coordinate Attention for Efficient Mobile Network Design", CVPR 2021, arXiv 2103.02907,
section 3.

    f      = hswish(BN(conv_1([mean over columns; mean over rows])))     m channels, at h + w places
    a_h    = sigmoid(conv_h f_h),  a_w = sigmoid(conv_w f_w)             c h 1 and c 1 w
    output = a_h a_w x                                                   b c h w

    three 1x1 convolutions with biases; m = max(8, c/r).
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from attnlib._checks import check_feature_map, check_positive


class CoordinateAttention(nn.Module):
    """Rescale a feature map by a gate in (0, 1) for each row and one for each column, by channel.

    Args:
        channels: c, the number of channels of the input.
        reduction: r; the middle has max(8, c // r) channels.

    Shapes: ``x`` (b, c, h, w) -> ``weights(x)`` and ``forward(x)`` (b, c, h, w), with
    forward(x) = x * weights(x). A wrong argument or shape raises ValueError.

    Source: arXiv 2103.02907, section 3.
    """

    def __init__(self, channels: int, *, reduction: int = 32) -> None:
        super().__init__()
        check_positive("channels", channels)
        check_positive("reduction", reduction)
        self.channels = channels
        middle = max(8, channels // reduction)
        self.conv_1 = nn.Conv2d(channels, middle, 1)
        self.norm = nn.BatchNorm2d(middle)
        self.conv_h = nn.Conv2d(middle, channels, 1)
        self.conv_w = nn.Conv2d(middle, channels, 1)

    def weights(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """The gate a_h a_w, one number for each image, channel and place."""
        check_feature_map(x, self.channels)
        strips = torch.cat([x.mean(3), x.mean(2)], 2)[..., None]  # b c h+w 1
        f_h, f_w = F.hardswish(self.norm(self.conv_1(strips))).split(x.shape[2:], 2)  # b m h 1, b m w 1
        return self.conv_h(f_h).sigmoid() * self.conv_w(f_w).sigmoid().mT  # b c h 1 times b c 1 w

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return x * self.weights(x)
