"""Positions: what tells attention where a token stands, since a weighted average does not see its order.

    sinusoids   Vaswani et al., arXiv 1706.03762, section 3.5: added to the tokens, nothing to learn
                PE(p, 2i)     = sin(p / base^(2i / width))
                PE(p, 2i + 1) = cos(p / base^(2i / width))        i = 0 ... width/2 - 1, base 10,000
    learned     Gehring et al., arXiv 1705.03122; Vaswani et al., table 3 row (E): a table of vectors, added
    relative    after Shaw et al., arXiv 1803.02155, and Raffel et al., arXiv 1910.10683 (T5): one number for
                each head and each clipped distance, added to the scores
                bias[head, i, j] = table[head, clip(j - i, -reach, reach) + reach]

    tokens (b, n, width); position p counts from 0; query i stands at start + i, key j at j

Where sources differ:
    layout      The formulas put each sine beside its cosine. tensor2tensor and its ports put all sines first
                and stretch the exponent to i / (width/2 - 1), so that the longest wavelength is 2 pi base
                itself: `concatenated=True`.
    start       Learned tables start at N(0, 0.02^2) here; nn.Embedding's start is N(0, 1). The relative table
                starts at 0, as if there were no positions.
    relative    Shaw et al. add vectors to the keys (and values), shared by all heads, and clip the distance.
                T5 adds one number per head to the scores, and puts far distances into common buckets instead.
"""

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn

from attnlib._checks import check_positive


def sinusoids(
    positions: Num[Tensor, " n"], width: int, *, base: float = 10_000.0, concatenated: bool = False
) -> Float[Tensor, "n width"]:
    """Sines and cosines of each position, at width/2 wavelengths from 2 pi to almost 2 pi base.

    Args:
        positions: numbers of any kind; whole ones give torch's default dtype, others their own.
        width: features of each position; even (at least 4 if concatenated).
        base: what the wavelengths grow to, divided by 2 pi.
        concatenated: tensor2tensor's form instead of the paper's.

    Raises:
        ValueError: if width is odd, or positions have other than one axis.
    """
    if positions.ndim != 1:
        raise ValueError(f"expected positions of shape (n,), got {tuple(positions.shape)}")
    turns = frequencies(width, base=base, concatenated=concatenated).to(positions.device)
    angles = positions.double()[:, None] * turns  # n width/2
    if concatenated:
        values = torch.cat([angles.sin(), angles.cos()], -1)
    else:
        values = torch.stack([angles.sin(), angles.cos()], -1).flatten(-2)
    return values.to(positions.dtype if positions.is_floating_point() else torch.get_default_dtype())


def frequencies(
    width: int, *, base: float = 10_000.0, concatenated: bool = False
) -> Float[Tensor, " half_width"]:
    """The angle by which each pair turns from one position to the next, in radians: 1 first, then smaller."""
    check_positive("width", width)
    if width % 2 or (concatenated and width < 4):
        raise ValueError(
            f"width={width} should be even, and at least 4 if concatenated: a sine and a cosine each"
        )
    i = torch.arange(width // 2, dtype=torch.float64)
    return base ** -(i / (width // 2 - 1) if concatenated else 2 * i / width)


class SinusoidalPositions(nn.Module):
    """Add ``sinusoids`` to the tokens.

    Shapes: x (b, n, width) -> (b, n, width), with positions start ... start + n - 1. No parameters.
    """

    def __init__(self, width: int, *, base: float = 10_000.0, concatenated: bool = False) -> None:
        super().__init__()
        frequencies(width, base=base, concatenated=concatenated)  # raises what is wrong
        self.width, self.base, self.concatenated = width, base, concatenated

    def forward(self, x: Float[Tensor, "b n width"], *, start: int = 0) -> Float[Tensor, "b n width"]:
        _check_tokens(x, self.width)
        positions = torch.arange(start, start + x.shape[1], device=x.device, dtype=torch.float64)
        added = sinusoids(positions, self.width, base=self.base, concatenated=self.concatenated)
        return x + added.to(x.dtype)


class LearnedPositions(nn.Module):
    """Add a learned vector for each position.

    Args:
        length: how many positions there are; no sequence may be longer.
        width: features of each.

    Shapes: x (b, n, width) -> (b, n, width), with positions start ... start + n - 1.
    """

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        check_positive("length", length)
        check_positive("width", width)
        self.table = nn.Parameter(0.02 * torch.randn(length, width))

    def forward(self, x: Float[Tensor, "b n width"], *, start: int = 0) -> Float[Tensor, "b n width"]:
        length, width = self.table.shape
        _check_tokens(x, width)
        if start < 0 or start + x.shape[1] > length:
            raise ValueError(
                f"positions {start} to {start + x.shape[1] - 1} were asked for, and those learned are 0 to "
                f"{length - 1}; build it with a larger length"
            )
        return x + self.table[start : start + x.shape[1]]


class RelativeBias(nn.Module):
    """A learned number for each head and each distance from query to key, to be added to the scores.

    Args:
        heads: how many heads; each learns its own numbers.
        reach: the largest distance that is told apart from those beyond it.

    Shapes: forward(n, m) (heads, n, m) for the ``score_bias`` of MultiHeadAttention.
    """

    def __init__(self, heads: int, *, reach: int) -> None:
        super().__init__()
        check_positive("heads", heads)
        check_positive("reach", reach)
        self.reach = reach
        self.table = nn.Parameter(torch.zeros(heads, 2 * reach + 1))

    def forward(self, n: int, m: int | None = None, *, start: int = 0) -> Float[Tensor, "heads n m"]:
        """The bias for queries at start ... start + n - 1 and keys at 0 ... m - 1; m is n if None."""
        queries = torch.arange(start, start + n, device=self.table.device)
        keys = torch.arange(n if m is None else m, device=self.table.device)
        distance = (keys - queries[:, None]).clamp(-self.reach, self.reach)  # j - i: n m
        return self.table[:, distance + self.reach]


def _check_tokens(x: Tensor, width: int) -> None:
    if x.ndim != 3 or x.shape[2] != width:
        raise ValueError(f"expected tokens of shape (batch, n, {width}), got {tuple(x.shape)}")
