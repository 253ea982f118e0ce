"""Triplet attention: three spatial gates, each along another pair of the three axes, averaged.

Misra, Nalamada, Arasanipalai, Hou: "Rotate to Attend: Convolutional Triplet Attention Module", WACV 2021,
arXiv 2010.03045, section 3.

    gate over (p, q) = sigmoid(BN(conv([max_r x; mean_r x])))   r the third of the axes c, h, w; 7x7
    output           = x (gate_hw + gate_cw + gate_hc) / 3      b c h w
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from attnlib._checks import check_feature_map, check_odd, check_positive


class TripletAttention(nn.Module):
    """Rescale a feature map by the mean of three gates in (0, 1), one for each pair of axes.

    Args:
        channels: c, the number of channels of the input; no weight depends on it.
        kernel_size: width of the gates' windows; odd.

    Shapes: ``x`` (b, c, h, w) -> ``weights(x)`` and ``forward(x)`` (b, c, h, w), with
    forward(x) = x * weights(x). A wrong argument or shape raises ValueError, and so does a training batch
    with a single number.

    Source: arXiv 2010.03045, section 3.
    """

    def __init__(self, channels: int, *, kernel_size: int = 7) -> None:
        super().__init__()
        check_positive("channels", channels)
        check_odd("kernel_size", kernel_size)
        self.channels = channels
        self.gates = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2, bias=False),
                nn.BatchNorm2d(1, momentum=0.01),
            )
            for _ in range(3)
        )

    def weights(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """The mean of the three gates, one number for each image, channel and place."""
        check_feature_map(x, self.channels)
        total = 0
        for pooled_axis, gate in zip((1, 2, 3), self.gates, strict=True):
            rotated = x.transpose(1, pooled_axis)  # the axis to pool comes first
            pooled = torch.cat([rotated.amax(1, keepdim=True), rotated.mean(1, keepdim=True)], 1)
            total = total + gate(pooled).sigmoid().transpose(1, pooled_axis)
        return total / 3

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return x * self.weights(x)
