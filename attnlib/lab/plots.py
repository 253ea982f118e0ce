"""The figures of the course: each function draws on ``ax`` (or on new axes) and returns it; none shows it."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from torch import Tensor

SEQUENTIAL, DIVERGING = "viridis", "vlag"
Number = float | int


def heatmap(
    values: Float[Tensor, "rows columns"],
    *,
    ax: Axes | None = None,
    limits: tuple[Number, Number] = (0.0, 1.0),
    signed: bool = False,
    label: str = "",
    numbers: bool = False,
    colorbar: bool = True,
) -> Axes:
    """A matrix as colours, first row on top.

    Args:
        limits: the values of the two ends of the colour map; give compared panels the same.
        signed: centre a diverging map on 0; the limits must then be symmetric.
        label: what a colour stands for, with its unit, for the colour bar.
        numbers: write each value into its cell.

    Raises:
        ValueError: for a signed map whose limits are not symmetric.
    """
    low, high = limits
    if signed and low != -high:
        raise ValueError(f"limits={limits} of a signed map should be symmetric, such as ({-high}, {high})")
    ax = ax or plt.subplots()[1]
    table = values.detach().double().numpy()
    image = ax.imshow(table, cmap=DIVERGING if signed else SEQUENTIAL, vmin=low, vmax=high, aspect="auto")
    if numbers:
        for (row, column), value in np.ndenumerate(table):
            dark = (value - low) / (high - low) < 0.5 and not signed
            ax.text(column, row, f"{value:.2f}", ha="center", va="center", color="white" if dark else "black")
    if colorbar:
        ax.figure.colorbar(image, ax=ax, label=label)
    return ax


def pictures(
    images: Float[Tensor, "n h w"],
    titles: Sequence[str] = (),
    *,
    axes: Sequence[Axes] | np.ndarray | None = None,
    limits: tuple[Number, Number] = (0.0, 1.0),
) -> np.ndarray:
    """Grey images side by side, all on the same scale, without ticks.

    Raises ValueError if there are not as many axes as images.
    """
    if axes is None:
        axes = plt.subplots(1, len(images), figsize=(1.6 * len(images), 1.9), squeeze=False)[1][0]
    if len(axes) != len(images):
        raise ValueError(f"expected one of the axes for each of {len(images)} images, got {len(axes)}")
    for ax, image in zip(axes, images, strict=True):
        ax.imshow(image.detach().numpy(), cmap="gray", vmin=limits[0], vmax=limits[1])
        ax.set(xticks=[], yticks=[])
    for ax, title in zip(axes, titles, strict=False):
        ax.set_title(title, fontsize="small")
    return np.asarray(axes)


def by_seed(
    results: Mapping[str, Sequence[Number]],
    *,
    ax: Axes | None = None,
    label: str = "accuracy on the test set",
    highlight: str = "",
    means: bool = True,
    limit: Number | None = None,
) -> Axes:
    """One column a condition, with a dot for each seed.

    Args:
        results: for each condition its value for every seed; one called "plain" is drawn in grey.
        highlight: the condition that the figure is about; it has the same colour in every figure.
        means: whether to draw a bar at each mean; not where a mean would lie between two clusters.
        limit: a value to mark with a dashed line across all columns.

    Raises:
        ValueError: if there is no condition, or one without a value.
    """
    if not results or not all(len(values) for values in results.values()):
        counts = {name: len(values) for name, values in results.items()}
        raise ValueError(f"expected at least one value for each condition, got {counts}")
    ax = ax or plt.subplots()[1]
    for column, (name, values) in enumerate(results.items()):
        color = "grey" if name == "plain" else "C0" if name == highlight else "C1"
        spread = np.linspace(-0.12, 0.12, len(values)) if len(values) > 1 else [0.0]
        ax.plot(column + np.asarray(spread), values, "o", color=color, alpha=0.8)
        if means:
            ax.hlines(np.mean(values), column - 0.25, column + 0.25, color="black")
    if limit is not None:
        ax.axhline(limit, color="black", ls="--", lw=1)
    ax.set_xticks(range(len(results)), list(results))
    ax.set(xlim=(-0.6, len(results) - 0.4), ylabel=label)
    return ax


def curves(
    runs: Mapping[str, Float[Tensor, "seeds steps"]],
    *,
    x: Sequence[Number] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """One line a condition: the mean over the seeds, in a band from the lowest seed to the highest."""
    ax = ax or plt.subplots()[1]
    for name, values in runs.items():
        steps = range(values.shape[1]) if x is None else x
        (line,) = ax.plot(steps, values.mean(0), label=name)
        ax.fill_between(steps, values.amin(0), values.amax(0), color=line.get_color(), alpha=0.2, lw=0)
    ax.legend()
    return ax
