"""The exercise of 00_start_here."""

import torch
from torch import Tensor

from attnlib.exercises.checker import Exercise, Wrong, ramp


def weighted_average(weights: Tensor, values: Tensor) -> Tensor:
    return weights @ values


def weighted_average_by_loops(weights: Tensor, values: Tensor) -> Tensor:
    return torch.stack([sum(w * v for w, v in zip(row, values, strict=True)) for row in weights])


def weighted_average_einsum(weights: Tensor, values: Tensor) -> Tensor:
    return torch.einsum("nm,md->nd", weights, values)


AVERAGE = Exercise(
    reference=weighted_average,
    right=(weighted_average_by_loops, weighted_average_einsum),
    inputs=lambda: [
        ((2 * ramp(3, 3)).softmax(1), ramp(3, 3, step=0.8)),
        ((2 * ramp(4, 4)).softmax(1), ramp(4, 3, step=0.9)),
        ((2 * ramp(2, 5)).softmax(1), ramp(5, 3, step=1.1)),
    ],
    praise="That is all attention does with its weights.",
    wrong=(
        Wrong(
            lambda weights, values: weights.T @ values,
            "you use the columns of the weights; row i holds the weights of output i, and it is the rows that sum to 1",
        ),
        Wrong(
            lambda weights, values: weights * values,
            "* multiplies entry by entry; use @, which multiplies each value by its weight and adds them up",
        ),
        Wrong(
            lambda weights, values: values @ weights,
            "the order matters: weights on the left, so that row i of the weights meets the column of values",
        ),
        Wrong(
            lambda weights, values: values.T @ weights.T,
            "your result is the transpose of the right one: row i should belong to output i",
        ),
        Wrong(
            lambda weights, values: weights[:, -1:] * values[-1],
            "you keep only the last term: in a loop, add up with += instead of overwriting with =",
        ),
        Wrong(
            lambda weights, values: values.mean(0).expand(len(weights), -1),
            "you give every value the same weight; use row i of the weights for output i",
        ),
        Wrong(
            lambda weights, values: weights @ values / values.shape[0],
            "you divide by the number of values; the weights sum to 1 already, so that their sum is an average",
        ),
        Wrong(
            lambda weights, values: weights.softmax(1) @ values,
            "you apply a softmax to weights that are normalised already; that makes them nearly equal",
        ),
        Wrong(
            lambda weights, values: values[weights.argmax(1)],
            "you pick the value with the largest weight; attention mixes all of them",
        ),
        Wrong(
            lambda weights, values: weights.sum(1, keepdim=True) * values.sum(0),
            "you sum weights and values apart; multiply each value by its weight first, then add up",
        ),
    ),
)

EXERCISES = {"00.1": AVERAGE}
