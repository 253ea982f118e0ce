"""Selective kernel (SK): branches of different window sizes, mixed channel by channel by a softmax.

Li, Wang, Hu, Yang: "Selective Kernel Networks", CVPR 2019, arXiv 1903.06586, section 3.1.

    U_m    = relu(BN(conv_m x))              m = 1 .. M: 3x3 with dilation m, grouped: b c h w
    z      = relu(BN(W mean_hw sum_m U_m))   b d,  d = max(c/r, 32)
    a_m    = softmax over m of V_m z         b c
    output = sum_m a_m U_m                   b c h w
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from attnlib._checks import check_divides, check_feature_map, check_positive


class SelectiveKernel(nn.Module):
    """Replace a feature map by a mixture of convolutions whose weights depend on all of it.

    Args:
        channels: c, the number of channels of the input.
        reduction: r, of the hidden layer.
        groups: of the branches' convolutions; must divide ``channels``.
        branches: M, how many; branch m has windows of 2m + 1 pixels.
        minimum: the least width of the hidden layer.

    Shapes: ``x`` (b, c, h, w) -> ``weights(x)``, the mixture a (b, M, c, 1, 1), and ``forward(x)``
    (b, c, h, w). A wrong argument or shape raises ValueError, and so does a training batch of a single
    image, for which the hidden layer's batch norm has no variance.

    Source: arXiv 1903.06586, section 3.1.
    """

    def __init__(
        self,
        channels: int,
        *,
        reduction: int = 16,
        groups: int = 32,
        branches: int = 2,
        minimum: int = 32,
    ) -> None:
        super().__init__()
        check_divides("channels", channels, "groups", groups)
        check_positive("reduction", reduction)
        check_positive("branches", branches)
        check_positive("minimum", minimum)
        self.channels = channels
        hidden = max(channels // reduction, minimum)
        self.branches = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels, channels, 3, padding=m, dilation=m, groups=groups, bias=False),
                nn.BatchNorm2d(channels),
                nn.ReLU(),
            )
            for m in range(1, branches + 1)
        )
        self.W = nn.Linear(channels, hidden, bias=False)
        self.norm = nn.BatchNorm1d(hidden)
        self.V = nn.ModuleList(nn.Linear(hidden, channels) for _ in range(branches))

    def _mixture(self, u: Float[Tensor, "b m c h w"]) -> Float[Tensor, "b m c 1 1"]:
        z = F.relu(self.norm(self.W(u.sum(1).mean((2, 3)))))  # b d
        return torch.stack([v(z) for v in self.V], 1).softmax(1)[..., None, None]  # b m c 1 1

    def _branches(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b m c h w"]:
        check_feature_map(x, self.channels)
        return torch.stack([branch(x) for branch in self.branches], 1)

    def weights(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b m c 1 1"]:
        """The mixture a: for each image and channel the branches' weights, which sum to 1."""
        return self._mixture(self._branches(x))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        u = self._branches(x)
        return (self._mixture(u) * u).sum(1)
