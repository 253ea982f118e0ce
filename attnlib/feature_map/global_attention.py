"""Global Attention Mechanism (GAM): a channel gate and a spatial gate, neither of which pools anything.

Liu, Shao, Hoffmann: "Global Attention Mechanism: Retain Information to Enhance Channel-Spatial
Interactions", 2021, arXiv 2112.05561, section 3.

    M_c(x) = sigmoid(W_2 relu(W_1 x))                     b c h w, the same two layers at every place
    M_s(x) = sigmoid(BN(f_2 relu(BN(f_1 x))))             b c h w, f_1 and f_2 are 7x7 convolutions
    x'     = M_c(x) x,   output = M_s(x') x'              b c h w

    W_1 (c/r, c), W_2 (c, c/r); f_1 from c to c/r channels, f_2 back; all four with biases.

Where sources differ:
    reduction       The published size of a ResNet-50, 149.5 million, is that of r = 16 without groups;
                    code that circulates has r = 4 with 4 groups.
    groups          For large networks the paper groups the convolutions and shuffles channels. Here the
                    shuffle stands between them, where it mixes the groups; code that circulates shuffles
                    the finished gate. `shuffle=False` leaves it out.
    channel_sigmoid Code that circulates multiplies by the raw output of the two layers:
                    `channel_sigmoid=False`.
"""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from attnlib._checks import check_divides, check_feature_map


class GlobalAttention(nn.Module):
    """Rescale every number of a feature map by the product of a channel gate and a spatial gate.

    Args:
        channels: c, the number of channels of the input.
        reduction: r, by which both gates are narrower inside; must divide ``channels``.
        groups: of the two 7x7 convolutions; must divide ``channels / reduction``.
        shuffle: whether the groups' channels are interleaved between the two convolutions.
        channel_sigmoid: whether the channel gate ends in a sigmoid.

    Shapes: ``x`` (b, c, h, w) -> ``weights(x)`` and ``forward(x)`` (b, c, h, w), with
    forward(x) = x * weights(x). A wrong argument or shape raises ValueError, and so does a training batch
    with a single place.

    Source: arXiv 2112.05561, section 3. No official code is known.
    """

    def __init__(
        self,
        channels: int,
        *,
        reduction: int = 16,
        groups: int = 1,
        shuffle: bool = True,
        channel_sigmoid: bool = True,
    ) -> None:
        super().__init__()
        check_divides("channels", channels, "reduction", reduction)
        hidden = channels // reduction
        check_divides("channels / reduction", hidden, "groups", groups)
        self.channels, self.groups = channels, groups
        self.shuffle, self.channel_sigmoid = shuffle, channel_sigmoid
        self.W_1, self.W_2 = nn.Linear(channels, hidden), nn.Linear(hidden, channels)
        self.f_1 = nn.Conv2d(channels, hidden, 7, padding=3, groups=groups)
        self.f_2 = nn.Conv2d(hidden, channels, 7, padding=3, groups=groups)
        self.norm_1, self.norm_2 = nn.BatchNorm2d(hidden), nn.BatchNorm2d(channels)

    def channel_gate(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """M_c: every place on its own."""
        v = self.W_2(F.relu(self.W_1(x.movedim(1, 3)))).movedim(3, 1)  # b h w c and back
        return v.sigmoid() if self.channel_sigmoid else v

    def spatial_gate(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """M_s: every place sees 13 x 13 others."""
        hidden = F.relu(self.norm_1(self.f_1(x)))  # b c/r h w
        if self.shuffle:
            hidden = hidden.unflatten(1, (self.groups, -1)).transpose(1, 2).flatten(1, 2)
        return self.norm_2(self.f_2(hidden)).sigmoid()  # b c h w

    def weights(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """M_c(x) M_s(M_c(x) x), one number for each image, channel and place."""
        check_feature_map(x, self.channels)
        gate = self.channel_gate(x)
        return gate * self.spatial_gate(x * gate)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return x * self.weights(x)
