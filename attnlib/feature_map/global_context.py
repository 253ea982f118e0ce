"""Global context (GC): one attention map for all places, and what it finds is added everywhere.

Cao, Xu, Lin, Wei, Hu: "GCNet: Non-local Networks Meet Squeeze-Excitation Networks and Beyond", ICCV
workshops 2019, arXiv 1904.11492, section 3.

    alpha  = softmax over places of W_k x        b 1 h w, W_k a 1x1 convolution to one channel
    g      = sum_p alpha_p x_p                   context: b c
    t      = W_2 relu(LN(W_1 g))                 b c, hidden width c/r
    output = x + t                               b c h w

Where sources differ: some libraries multiply by sigmoid(t) instead: `combine="multiply"`.
"""

from jaxtyping import Float
from torch import Tensor, nn

from attnlib._checks import check_choice, check_divides, check_feature_map


class GlobalContext(nn.Module):
    """Add to each place of a feature map the same vector, computed from an attention-weighted mean.

    Args:
        channels: c, the number of channels of the input.
        reduction: r, by which the hidden layer is narrower; must divide ``channels``.
        combine: ``"add"`` as in the paper, or ``"multiply"`` by the sigmoid.

    Shapes: ``x`` (b, c, h, w) -> ``weights(x)``, the attention map alpha (b, 1, h, w), and ``forward(x)``
    (b, c, h, w). A wrong argument or shape raises ValueError.

    Source: arXiv 1904.11492, section 3.
    """

    def __init__(self, channels: int, *, reduction: int = 16, combine: str = "add") -> None:
        super().__init__()
        check_divides("channels", channels, "reduction", reduction)
        check_choice("combine", combine, ["add", "multiply"])
        self.channels, self.combine = channels, combine
        hidden = channels // reduction
        self.W_k = nn.Conv2d(channels, 1, 1)
        self.transform = nn.Sequential(
            nn.Linear(channels, hidden), nn.LayerNorm(hidden), nn.ReLU(), nn.Linear(hidden, channels)
        )

    def weights(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 1 h w"]:
        """The attention map alpha, which sums to 1 over the places."""
        check_feature_map(x, self.channels)
        return self.W_k(x).flatten(2).softmax(-1).unflatten(2, x.shape[2:])

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        context = (x * self.weights(x)).sum((2, 3))  # g: b c
        t = self.transform(context)[:, :, None, None]  # b c 1 1
        return x + t if self.combine == "add" else x * t.sigmoid()
