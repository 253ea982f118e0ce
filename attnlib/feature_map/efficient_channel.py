"""Efficient Channel Attention (ECA): one gate for each channel, computed from the means of its neighbours.

Wang, Wu, Zhu, Li, Zuo, Hu: "ECA-Net: Efficient Channel Attention for Deep Convolutional Neural Networks",
CVPR 2020, arXiv 1910.03151, section 3.

    y_c = 1/(HW) sum_ij x_c(i, j)                      x (b, c, h, w) -> y (b, c)
    s_c = sigmoid(sum_t w_t y_(c+t)), |t| <= (k-1)/2   y (b, c)       -> s (b, c)
    output = s_c x_c                                   (b, c, h, w)

    w is one kernel of k weights that all channels share; beyond the first and the last channel y is 0.
    k is the odd number nearest to (log2 C + b) / gamma, with gamma = 2 and b = 1.

Where sources differ:
    kernel_size  The paper gives the rule; the released networks set k by hand (3, 5, 5, 7 in the four stages
                 of ResNet-50). `kernel_size=` takes any odd number.
    bias         None in the paper and its code; some copies leave one in: `bias=True`.
    padding      Zeros in the paper's code; a variant closes the channels to a ring: `padding="circular"`.
"""

import math

from jaxtyping import Float
from torch import Tensor, nn

from attnlib._checks import check_choice, check_feature_map, check_odd, check_positive


def eca_kernel_size(channels: int, *, gamma: float = 2.0, b: float = 1.0) -> int:
    """The odd number nearest to (log2(channels) + b) / gamma, the larger one of two that are equally near.

    For gamma = 2 and b = 1 such ties are at 8, 128, 2048 ... channels. Raises ValueError for channels below
    1, for a gamma that is not positive, and where log2(channels) + b is negative.

    Source: arXiv 1910.03151, section 3.2, whose code truncates and adds 1 to an even result: the same number.
    """
    check_positive("channels", channels)
    if not gamma > 0:
        raise ValueError(f"gamma={gamma!r} should be above 0")
    t = (math.log2(channels) + b) / gamma
    if t < 0:
        raise ValueError(f"b={b!r} makes log2(channels={channels}) + b negative; use a larger b")
    return 2 * int(t / 2) + 1  # the odd number between the two even ones that enclose t


class EfficientChannelAttention(nn.Module):
    """Rescale each channel of a feature map by a gate in (0, 1) that sees the means of k channels.

    Args:
        channels: c, the number of channels of the input.
        kernel_size: k, odd; None for ``eca_kernel_size(channels, gamma=gamma, b=b)``.
        gamma: of the rule for the kernel size; without effect if ``kernel_size`` is given.
        b: likewise.
        bias: whether one number is added before the sigmoid, the same for all channels.
        padding: what lies beyond the first and the last channel: ``"zeros"`` or, ``"circular"``, the
            channels of the other end.

    Shapes: ``x`` (b, c, h, w) -> ``weights(x)`` (b, c, 1, 1) and ``forward(x)`` (b, c, h, w), with
    forward(x) = x * weights(x). A wrong argument or shape raises ValueError.

    Source: arXiv 1910.03151, section 3.2.
    """

    def __init__(
        self,
        channels: int,
        *,
        kernel_size: int | None = None,
        gamma: float = 2.0,
        b: float = 1.0,
        bias: bool = False,
        padding: str = "zeros",
    ) -> None:
        super().__init__()
        check_positive("channels", channels)
        k = eca_kernel_size(channels, gamma=gamma, b=b) if kernel_size is None else kernel_size
        check_odd("kernel_size", k)
        check_choice("padding", padding, ["zeros", "circular"])
        if padding == "circular" and k // 2 > channels:
            raise ValueError(
                f"kernel_size={k} reaches more than once round a ring of channels={channels}; use "
                f"kernel_size={2 * channels + 1} or less"
            )
        self.channels = channels
        self.conv = nn.Conv1d(1, 1, k, padding=k // 2, padding_mode=padding, bias=bias)

    def weights(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c 1 1"]:
        """The gate s, one number for each image and channel."""
        check_feature_map(x, self.channels)
        y = x.mean((2, 3))  # b c
        v = self.conv(y[:, None])[:, 0]  # the kernel moves along the channels: b 1 c, then b c
        return v.sigmoid()[:, :, None, None]  # b c 1 1

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return x * self.weights(x)
