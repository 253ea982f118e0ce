"""CBAM, a channel gate and behind it a spatial gate, and BAM, the two side by side in one gate.

Woo, Park, Lee, Kweon: "CBAM: Convolutional Block Attention Module", ECCV 2018, arXiv 1807.06521, section 3.
Equation numbers are the paper's.

    M_c(x) = sigmoid(MLP(mean_hw x) + MLP(max_hw x))          (2)   b c 1 1, one shared MLP
    M_s(x) = sigmoid(f([max_c x; mean_c x]))                  (3)   b 1 h w, see spatial.py
    x'     = M_c(x) x,   output = M_s(x') x'                  (1)   b c h w

    MLP(z) = W_2 relu(W_1 z): W_1 (c/r, c), W_2 (c, c/r), with biases c/r and c.

Park, Woo, Lee, Kweon: "BAM: Bottleneck Attention Module", BMVC 2018, arXiv 1807.06514, section 3.

    M(x)   = sigmoid(M_c(x) + M_s(x)),   output = (1 + M(x)) x      b c h w
    M_c    = W_2 relu(BN(W_1 mean_hw x))                            b c 1 1
    M_s    = a 1x1 convolution to c/r channels, two dilated 3x3 convolutions, a 1x1 to one: b 1 h w

Where sources differ:
    biases      CBAM's equations have none, its released code has them: `bias=False` gives the equations.
    order       The paper compares the two orders and keeps channel first: `order="spatial-channel"`.
    combine     BAM adds its two maps in the paper and multiplies them in the released code:
                `combine="multiply"`.
    BN of BAM   Where the released code has it: behind every layer but the last of each branch.
"""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from attnlib._checks import check_choice, check_divides, check_feature_map, check_positive
from attnlib.feature_map.spatial import SpatialAttention


class ChannelAttention(nn.Module):
    """CBAM's channel gate: one number in (0, 1) for each channel, from the means and the maxima.

    Args:
        channels: c, the number of channels of the input.
        reduction: r, by which the hidden layer is narrower; must divide ``channels``.
        bias: whether the two layers have biases.

    Shapes: ``x`` (b, c, h, w) -> ``weights(x)`` (b, c, 1, 1) and ``forward(x)`` (b, c, h, w), with
    forward(x) = x * weights(x). A wrong argument or shape raises ValueError.

    Source: arXiv 1807.06521, equation (2).
    """

    def __init__(self, channels: int, *, reduction: int = 16, bias: bool = True) -> None:
        super().__init__()
        check_divides("channels", channels, "reduction", reduction)
        self.channels = channels
        self.W_1 = nn.Linear(channels, channels // reduction, bias=bias)
        self.W_2 = nn.Linear(channels // reduction, channels, bias=bias)

    def weights(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c 1 1"]:
        """The gate M_c of equation (2), one number for each image and channel."""
        check_feature_map(x, self.channels)
        v = sum(self.W_2(F.relu(self.W_1(z))) for z in (x.mean((2, 3)), x.amax((2, 3))))  # b c
        return v.sigmoid()[:, :, None, None]  # (2)  b c 1 1

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return x * self.weights(x)


class CBAM(nn.Module):
    """The channel gate, then the spatial gate of what it leaves.

    Args:
        channels: c, the number of channels of the input.
        reduction: r, of the channel gate's hidden layer; must divide ``channels``.
        kernel_size: width of the spatial gate's window; odd.
        bias: whether the two layers of the channel gate have biases.
        norm: whether a batch norm of one channel stands behind the spatial gate's convolution.
        zero_start: whether its scale starts at 0, so that every spatial gate is 1/2 at the start.
        order: ``"channel-spatial"`` as in equation (1), or ``"spatial-channel"``, which the paper ablates.

    Shapes: ``x`` (b, c, h, w) -> ``weights(x)``, the pair M_c (b, c, 1, 1) and M_s (b, 1, h, w), and
    ``forward(x)`` (b, c, h, w), with forward(x) = x * M_c * M_s. A wrong argument or shape raises ValueError,
    and so does a training batch with a single place, if there is a norm.

    Source: arXiv 1807.06521, equations (1) to (3), and its released code.
    """

    def __init__(
        self,
        channels: int,
        *,
        reduction: int = 16,
        kernel_size: int = 7,
        bias: bool = True,
        norm: bool = True,
        zero_start: bool = True,
        order: str = "channel-spatial",
    ) -> None:
        super().__init__()
        check_choice("order", order, ["channel-spatial", "spatial-channel"])
        self.channels, self.order = channels, order
        self.channel = ChannelAttention(channels, reduction=reduction, bias=bias)
        self.spatial = SpatialAttention(channels, kernel_size=kernel_size, norm=norm, zero_start=zero_start)

    def weights(
        self, x: Float[Tensor, "b c h w"]
    ) -> tuple[Float[Tensor, "b c 1 1"], Float[Tensor, "b 1 h w"]]:
        """M_c and M_s; the second one of the order sees the features that the first one leaves."""
        if self.order == "spatial-channel":
            m_s = self.spatial.weights(x)
            return self.channel.weights(x * m_s), m_s
        m_c = self.channel.weights(x)
        return m_c, self.spatial.weights(x * m_c)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        m_c, m_s = self.weights(x)
        return x * m_c * m_s  # (1)


class BAM(nn.Module):
    """Rescale a feature map by 1 + M in (1, 2): a channel map and a spatial map, combined before the sigmoid.

    Args:
        channels: c, the number of channels of the input.
        reduction: r, by which both branches are narrower inside; must divide ``channels``.
        dilation: of the two 3x3 convolutions.
        combine: ``"add"`` as in the paper, or ``"multiply"`` as in the released code.

    Shapes: ``x`` (b, c, h, w) -> ``weights(x)`` and ``forward(x)`` (b, c, h, w), with
    forward(x) = x * weights(x). A wrong argument or shape raises ValueError, and so does a training batch of
    a single image, for which the channel branch's batch norm has no variance.

    Source: arXiv 1807.06514, section 3, and its released code.
    """

    def __init__(
        self, channels: int, *, reduction: int = 16, dilation: int = 4, combine: str = "add"
    ) -> None:
        super().__init__()
        check_divides("channels", channels, "reduction", reduction)
        check_positive("dilation", dilation)
        check_choice("combine", combine, ["add", "multiply"])
        self.channels, self.combine = channels, combine
        hidden = channels // reduction
        self.channel = nn.Sequential(  # M_c: b c -> b c
            nn.Linear(channels, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, channels)
        )
        dilated = {"kernel_size": 3, "padding": dilation, "dilation": dilation}
        self.spatial = nn.Sequential(  # M_s: b c h w -> b 1 h w
            *_with_norm(nn.Conv2d(channels, hidden, 1)),
            *_with_norm(nn.Conv2d(hidden, hidden, **dilated)),
            *_with_norm(nn.Conv2d(hidden, hidden, **dilated)),
            nn.Conv2d(hidden, 1, 1),
        )

    def weights(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """1 + M, one number between 1 and 2 for each image, channel and place."""
        check_feature_map(x, self.channels)
        m_c, m_s = self.channel(x.mean((2, 3)))[:, :, None, None], self.spatial(x)
        return 1 + (m_c + m_s if self.combine == "add" else m_c * m_s).sigmoid()

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return x * self.weights(x)


def _with_norm(conv: nn.Conv2d) -> tuple[nn.Module, ...]:
    return conv, nn.BatchNorm2d(conv.out_channels), nn.ReLU()
