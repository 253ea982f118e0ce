"""Squeeze-and-Excitation (SE): one gate for each channel, computed from the means of all channels.

Hu, Shen, Sun: "Squeeze-and-Excitation Networks", CVPR 2018, arXiv 1709.01507, section 3.
Equation numbers are the paper's.

    z_c = 1/(HW) sum_ij x_c(i, j)             (2)   squeeze:    x (b, c, h, w) -> z (b, c)
    s   = sigmoid(W_2 relu(W_1 z))            (3)   excitation: z (b, c)       -> s (b, c)
    y_c = s_c x_c                             (4)   scale:      y (b, c, h, w)

    W_1 is (c/r, c), W_2 is (c, c/r), r is the reduction: 2 c^2/r weights, and c/r + c biases if any.

Where sources differ:
    biases      The paper writes none and counts 2 c^2/r; its released networks have them. `bias=False` gives
                the paper's count.
    pool        The paper squeezes by the mean and ablates the maximum: `pool="max"`.
    gate        MobileNetV3 swaps the sigmoid for relu6(v + 3)/6: `gate="hard_sigmoid"`.
    hidden      c/r here, so r must divide c. Some libraries round c/r to a multiple of 8 instead: for that
                width choose r = c/width.
"""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from attnlib._checks import check_choice, check_divides, check_feature_map

GATES = {"sigmoid": F.sigmoid, "hard_sigmoid": F.hardsigmoid}


class SqueezeExcitation(nn.Module):
    """Rescale each channel of a feature map by a gate in (0, 1) that sees the mean of every channel.

    Args:
        channels: c, the number of channels of the input.
        reduction: r, by which the hidden layer is narrower; must divide ``channels``.
        bias: whether the two layers have biases (the released networks do, the paper's equations do not).
        pool: ``"mean"`` as in equation (2), or ``"max"``, which the paper ablates.
        gate: ``"sigmoid"`` as in equation (3), or ``"hard_sigmoid"`` as in MobileNetV3.

    Shapes: ``x`` (b, c, h, w) -> ``weights(x)`` (b, c, 1, 1) and ``forward(x)`` (b, c, h, w), with
    forward(x) = x * weights(x). A wrong argument or shape raises ValueError.

    Source: arXiv 1709.01507, equations (2) to (4).
    """

    def __init__(
        self,
        channels: int,
        *,
        reduction: int = 16,
        bias: bool = True,
        pool: str = "mean",
        gate: str = "sigmoid",
    ) -> None:
        super().__init__()
        check_divides("channels", channels, "reduction", reduction)
        check_choice("pool", pool, ["mean", "max"])
        check_choice("gate", gate, GATES)
        self.channels, self.pool, self.gate = channels, pool, gate
        self.W_1 = nn.Linear(channels, channels // reduction, bias=bias)
        self.W_2 = nn.Linear(channels // reduction, channels, bias=bias)

    def weights(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c 1 1"]:
        """The gate s of equation (3), one number for each image and channel."""
        check_feature_map(x, self.channels)
        z = x.mean((2, 3)) if self.pool == "mean" else x.amax((2, 3))  # (2)  b c
        v = self.W_2(F.relu(self.W_1(z)))  # inside of (3)  b c/r, then b c
        return GATES[self.gate](v)[:, :, None, None]  # (3)  b c 1 1

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return x * self.weights(x)  # (4)
