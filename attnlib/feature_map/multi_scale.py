"""Efficient Multi-scale Attention (EMA): a 1x1 and a 3x3 branch, each read by the means of the other.

Ouyang, He, Zhang, Luo, Guo, Zhan, Huang: "Efficient Multi-Scale Attention Module with Cross-Spatial
Learning", ICASSP 2023, arXiv 2305.13563, section 3.

Each of the G groups of d = c/G channels is treated as an image of its own, X (b G, d, h, w):

    u, v = conv_1x1([mean over columns of X; mean over rows of X])   d h 1 and d 1 w, one convolution for both
    X_1  = GN(X sigmoid(u) sigmoid(v))                               d h w, each channel normed by itself
    X_2  = conv_3x3(X)                                               d h w
    a_1  = softmax over d of the mean of X_1,  a_2 likewise of X_2   d
    A    = a_1 . X_2 + a_2 . X_1                                     1 h w
    output = sigmoid(A) X                                            d h w

The mean of X_1 is the bias of its norm, whatever the input: so a_1 does not depend on x.

Where sources differ: the released code asks only that there are at least G channels; here G must divide c,
without which its reshape fails.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from attnlib._checks import check_divides, check_feature_map


class EfficientMultiScaleAttention(nn.Module):
    """Rescale a feature map by a gate in (0, 1) for each group of channels and each place.

    Args:
        channels: c, the number of channels of the input.
        groups: G, which must divide ``channels``; all groups share the same weights.

    Shapes: ``x`` (b, c, h, w) -> ``weights(x)`` (b, c, h, w), equal within a group, and ``forward(x)``
    (b, c, h, w), with forward(x) = x * weights(x). A wrong argument or shape raises ValueError.

    Source: arXiv 2305.13563, section 3, and its released code.
    """

    def __init__(self, channels: int, *, groups: int = 32) -> None:
        super().__init__()
        check_divides("channels", channels, "groups", groups)
        self.channels, self.groups = channels, groups
        d = channels // groups
        self.conv_1x1 = nn.Conv2d(d, d, 1)
        self.conv_3x3 = nn.Conv2d(d, d, 3, padding=1)
        self.norm = nn.GroupNorm(d, d)

    def weights(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """The gate sigmoid(A), one number for each image, group and place, repeated for its channels."""
        check_feature_map(x, self.channels)
        h, w = x.shape[2:]
        grouped = x.unflatten(1, (self.groups, -1)).flatten(0, 1)  # X: bG d h w
        strips = torch.cat([grouped.mean(3), grouped.mean(2)], 2)[..., None]  # bG d h+w 1
        u, v = self.conv_1x1(strips).sigmoid().split([h, w], 2)  # bG d h 1 and bG d w 1
        x_1 = self.norm(grouped * u * v.mT)  # bG d h w
        x_2 = self.conv_3x3(grouped)  # bG d h w
        a_1, a_2 = (t.mean((2, 3)).softmax(1)[:, :, None, None] for t in (x_1, x_2))  # bG d 1 1
        gate = (a_1 * x_2 + a_2 * x_1).sum(1, keepdim=True).sigmoid()  # bG 1 h w
        return gate.expand_as(grouped).reshape(x.shape)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return x * self.weights(x)
