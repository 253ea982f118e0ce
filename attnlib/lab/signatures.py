"""The signature of a mechanism: which channels and which places a gate (or an output) listens to.

It is the Jacobian at one input, drawn as two matrices. A mechanism of the same kind has the same pattern,
whatever its weights: that is what notebook 07 predicts and the later ones add to.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from attnlib.lab.gradients import jacobian
from attnlib.lab.plots import heatmap


@dataclass(frozen=True)
class Signature:
    """The strength of the dependence, as a share of the strongest one in each matrix.

    channels[c, k] says how far channel c listens to channel k, places[p, q] how far place p listens to
    place q; places are counted row by row.
    """

    channels: Float[Tensor, "c c"]
    places: Float[Tensor, "n n"]


def signature(f: Callable[[Tensor], Tensor], x: Float[Tensor, "1 c h w"]) -> Signature:
    """Root mean square of df(x)/dx over what each matrix leaves out.

    Args:
        f: from features (1, c, h, w) to a gate or output that broadcasts to that shape, such as
            ``module.weights`` of a gate or the ``forward`` of a module; should be in eval mode.
        x: one image, best in float64 and small: it takes one backward pass for each of its numbers.

    Raises ValueError for a batch of several images.
    """
    if x.ndim != 4 or len(x) != 1:
        raise ValueError(f"expected one image (1, c, h, w), got shape {tuple(x.shape)}; pass x[:1]")
    c, n = x.shape[1], x[0, 0].numel()
    J = jacobian(lambda x: f(x).expand_as(x), x).view(c, n, c, n)
    channels, places = J.square().mean((1, 3)).sqrt(), J.square().mean((0, 2)).sqrt()
    smallest = torch.finfo(x.dtype).tiny  # a gate that listens to nothing has a signature of zeros
    return Signature(channels / channels.max().clamp(min=smallest), places / places.max().clamp(min=smallest))


def draw_signature(signature: Signature, *, axes: np.ndarray, title: str = "") -> np.ndarray:
    """Draw the two matrices on two axes, channels first: bright is strong, dark is nothing. Returns the axes.

    Square roots are drawn, so that weak dependence can be told from none.
    """
    for ax, matrix, name in zip(
        axes, (signature.channels, signature.places), ("channel", "place"), strict=True
    ):
        heatmap(matrix.sqrt(), ax=ax, colorbar=False)
        ax.set(xticks=[], yticks=[], xlabel=f"{name} changed", ylabel=f"{name} that follows", aspect="equal")
    axes[0].set_title(title)
    return axes
