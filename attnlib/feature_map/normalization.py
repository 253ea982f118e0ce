"""Normalization-based Attention (NAM): a gate at every place, weighted by the scales of a batch norm.

Liu, Shao, Teng, Hoffmann: "NAM: Normalization-based Attention Module", NeurIPS 2021 workshop,
arXiv 2111.12419, section 3. The equations stand in the paper's order.

    BN(x)_c = gamma_c (x_c - mean_c) / sqrt(var_c + eps) + beta_c     (1)   b c h w, for each channel
    M_c(x)  = sigmoid(w_c BN(x)_c),   w_c = gamma_c / sum_j gamma_j   (2)   b c h w
    M_s(x)  = sigmoid(w_p BN(x)_p),   w_p = lambda_p / sum_q lambda_q (3)   b c h w, p one of h w pixels
    output  = x * gate                                                      b c h w
    loss    = task loss + p (sum_c |gamma_c| + sum_p |lambda_p|)      (4)   `scale_penalty` is the bracket

Where sources differ:
    absolute    The formulas divide gamma by its sum; the released code takes |gamma| first, so that no weight
                is negative. `absolute=False` gives the formulas.
    detach      The released code reads gamma out of the graph, so gamma learns through BN alone.
                `detach=False` lets the gradient of the formulas through the weights too.
    branch      The released code has the channel branch only; "pixel" stood in it for some days, behind the
                channel branch: `branch="both"`. One scale for each pixel fixes the size of the map.
    x           The formulas end at the gate; the code multiplies the features by it, as here.
    penalty     The released training script never reaches the norms it means to penalise; `scale_penalty`
                refuses a network without any.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from attnlib._checks import check_choice, check_feature_map, check_positive


def shares(scale: Float[Tensor, " n"], *, absolute: bool = True, detach: bool = True) -> Float[Tensor, " n"]:
    """The weights w of equations (2) and (3): each scale as a share of their sum.

    Args:
        scale: gamma of all channels, or lambda of all pixels.
        absolute: divide |scale| by the sum of |scale| (all zeros then give zeros), not scale by its sum.
        detach: return them without a gradient.
    """
    scale = scale.detach() if detach else scale
    if not absolute:
        return scale / scale.sum()
    return scale.abs() / scale.abs().sum().clamp(min=torch.finfo(scale.dtype).tiny)


class NormalizationAttention(nn.Module):
    """Rescale a feature map by a gate in (0, 1) at every place, weighted by the scales of a batch norm.

    Args:
        channels: c, the number of channels of the input.
        branch: ``"channel"`` for equation (2), ``"pixel"`` for (3), ``"both"`` for one behind the other.
        size: (height, width) of the input; needed for the pixel branch, and fixed from then on.
        absolute: whether the weights are shares of |gamma| (released code) or of gamma (formulas).
        detach: whether the weights are without a gradient (released code) or not (formulas).

    Shapes: ``x`` (b, c, h, w) -> ``weights(x)`` and ``forward(x)`` (b, c, h, w), with
    forward(x) = x * weights(x). A wrong argument or shape raises ValueError, and so does a training batch
    with a single value for a channel (or for a pixel): it has no variance.

    Source: arXiv 2111.12419, equations (1) to (3), and its released code.
    """

    def __init__(
        self,
        channels: int,
        *,
        branch: str = "channel",
        size: tuple[int, int] | None = None,
        absolute: bool = True,
        detach: bool = True,
    ) -> None:
        super().__init__()
        check_positive("channels", channels)
        check_choice("branch", branch, ["channel", "pixel", "both"])
        if (size is None) != (branch == "channel"):
            raise ValueError(
                f"branch={branch!r} came with size={size!r}; the pixel branch needs size=(height, width), "
                f"since it has one scale for each pixel, and the channel branch takes none"
            )
        self.channels, self.size, self.absolute, self.detach = channels, size, absolute, detach
        self.channel_norm = nn.BatchNorm2d(channels) if branch != "pixel" else None
        self.pixel_norm = None
        if size is not None:
            height, width = size
            check_positive("height", height)
            check_positive("width", width)
            self.pixel_norm = nn.BatchNorm1d(height * width)

    def channel_gate(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """M_c of equation (2)."""
        w = shares(self.channel_norm.weight, absolute=self.absolute, detach=self.detach)  # c
        return torch.sigmoid(w[:, None, None] * self.channel_norm(x))  # (2)

    def pixel_gate(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """M_s of equation (3)."""
        w = shares(self.pixel_norm.weight, absolute=self.absolute, detach=self.detach)  # hw
        pixels = x.flatten(2).transpose(1, 2)  # b hw c: statistics over batch and channels
        return torch.sigmoid(w[:, None] * self.pixel_norm(pixels)).transpose(1, 2).reshape(x.shape)  # (3)

    def weights(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """The gate: M_c(x), M_s(x), or for both branches M_c(x) * M_s(x * M_c(x))."""
        check_feature_map(x, self.channels)
        if self.size is not None and tuple(x.shape[2:]) != tuple(self.size):
            raise ValueError(
                f"this module has one scale for each pixel of a map of size={tuple(self.size)}, the input's "
                f"size is {tuple(x.shape[2:])}; resize the input, or use the channel branch for any size"
            )
        if self.channel_norm is None:
            return self.pixel_gate(x)
        gate = self.channel_gate(x)
        return gate if self.pixel_norm is None else gate * self.pixel_gate(x * gate)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return x * self.weights(x)


def scale_penalty(network: nn.Module) -> Float[Tensor, ""]:
    """Equation (4) without p: the sum of |gamma| and |lambda| over every NormalizationAttention in a network.

    Add ``p * scale_penalty(network)`` to the loss; the released code has p = 1e-4. Raises ValueError if the
    network has no such module, since a penalty that reaches nothing is easily taken for one that works.
    """
    modules = [m for m in network.modules() if isinstance(m, NormalizationAttention)]
    if not modules:
        raise ValueError(
            f"found no NormalizationAttention in this {type(network).__name__}, so there is nothing to "
            f"penalise; pass the network that holds them"
        )
    norms = [norm for m in modules for norm in (m.channel_norm, m.pixel_norm) if norm is not None]
    return sum(norm.weight.abs().sum() for norm in norms)
