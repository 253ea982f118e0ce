"""SimAM: a gate without parameters, higher where a value lies far from its channel's mean.

Yang, Zhang, Li, Xie: "SimAM: A Simple, Parameter-Free Attention Module for Convolutional Neural Networks",
ICML 2021.

    gate = sigmoid((x - mean)^2 / (4 (v + lambda)) + 1/2),   v = sum (x - mean)^2 / (hw - 1)     b c h w

    mean and sum run over the places of a channel. The sigmoid of a positive number: no gate is below 0.62.

Where sources differ: on a map of one place the released code divides by zero; here hw - 1 counts as 1.
"""

from jaxtyping import Float
from torch import Tensor, nn

from attnlib._checks import check_feature_map, check_positive


class SimAM(nn.Module):
    """Rescale every number of a feature map by a gate in (0.62, 1) that sees its channel's mean and variance.

    Args:
        channels: c, the number of channels of the input; nothing depends on it but the check of the input.
        regularization: lambda, added to the variance.

    Shapes: ``x`` (b, c, h, w) -> ``weights(x)`` and ``forward(x)`` (b, c, h, w), with
    forward(x) = x * weights(x). A wrong argument or shape raises ValueError.

    Source: the paper's section 3 and its released code.
    """

    def __init__(self, channels: int, *, regularization: float = 1e-4) -> None:
        super().__init__()
        check_positive("channels", channels)
        if not regularization > 0:
            raise ValueError(f"regularization={regularization!r} should be above 0")
        self.channels, self.regularization = channels, regularization

    def weights(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """The gate, one number for each image, channel and place."""
        check_feature_map(x, self.channels)
        squares = (x - x.mean((2, 3), keepdim=True)).square()  # b c h w
        v = squares.sum((2, 3), keepdim=True) / max(x[0, 0].numel() - 1, 1)  # b c 1 1
        return (squares / (4 * (v + self.regularization)) + 0.5).sigmoid()

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return x * self.weights(x)
