"""Gradients three ways: by hand, by autograd, by central differences. All in float64."""

from collections.abc import Callable, Mapping

import pandas as pd
import torch
from torch import Tensor

Function = Callable[..., Tensor]
Backward = Callable[..., Mapping[str, Tensor]]


def central_differences(
    f: Function, inputs: Mapping[str, Tensor], upstream: Tensor, eps: float = 1e-6
) -> dict[str, Tensor]:
    """The gradient of sum(upstream * f(**inputs)), one entry of one input after the other.

    Args:
        f: takes the inputs by name and returns one tensor.
        inputs: float64 tensors; they stay as they are.
        upstream: the gradient that arrives at the output, of the output's shape.
        eps: the step; the error is of order eps^2 from the curvature and 1e-16/eps from rounding.

    Returns:
        For each name, (L(entry + eps) - L(entry - eps)) / (2 eps) in the input's shape.

    Raises:
        ValueError: for inputs that are not float64, or an upstream gradient of the wrong shape.
    """
    inputs = _checked(inputs)
    _check_upstream(upstream, f(**inputs))
    gradients = {}
    for name, tensor in inputs.items():
        gradient = torch.zeros_like(tensor)
        for i in range(tensor.numel()):
            step = torch.zeros_like(tensor)
            step.view(-1)[i] = eps
            above = (upstream * f(**{**inputs, name: tensor + step})).sum()
            below = (upstream * f(**{**inputs, name: tensor - step})).sum()
            gradient.view(-1)[i] = (above - below).item() / (2 * eps)
        gradients[name] = gradient
    return gradients


def gradient_gaps(
    f: Function,
    backward: Backward,
    inputs: Mapping[str, Tensor],
    *,
    upstream: Tensor | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """How far the gradients by hand are from autograd's and from central differences.

    Arguments and errors are those of ``compare_gradients``.

    Returns:
        A row for each input: its shape, and the largest difference as a fraction of the largest entry that
        autograd (or the differences) give for it. Entries below 0.01 count as 0.01, so that a gradient that
        is zero can be compared at all.
    """
    inputs = _checked(inputs)
    output = f(**inputs)
    if upstream is None:
        generator = torch.Generator().manual_seed(seed)
        upstream = torch.randn(output.shape, generator=generator, dtype=torch.float64)
    _check_upstream(upstream, output)

    by_hand = backward(upstream, **inputs)
    _check_by_hand(by_hand, inputs)
    leaves = {name: x.clone().requires_grad_() for name, x in inputs.items()}
    found = torch.autograd.grad(
        f(**leaves), list(leaves.values()), upstream, allow_unused=True, materialize_grads=True
    )
    by_autograd = dict(zip(leaves, found, strict=True))
    by_differences = central_differences(f, inputs, upstream)
    return pd.DataFrame(
        {
            "shape": [tuple(x.shape) for x in inputs.values()],
            "hand - autograd": [_gap(by_hand[name], by_autograd[name]) for name in inputs],
            "hand - differences": [_gap(by_hand[name], by_differences[name]) for name in inputs],
        },
        index=list(inputs),
    )


def compare_gradients(
    f: Function,
    backward: Backward,
    inputs: Mapping[str, Tensor],
    *,
    upstream: Tensor | None = None,
    seed: int = 0,
    tolerance: float = 1e-6,
) -> pd.DataFrame:
    """Whether the gradients by hand equal autograd's and central differences.

    Args:
        f: the forward pass; takes the inputs by name and returns one tensor.
        backward: the backward pass by hand: ``backward(upstream, **inputs)`` returns a dict with a gradient
            for each name.
        inputs: float64 tensors by name.
        upstream: the gradient that arrives at the output; drawn at random from ``seed`` if None.
        tolerance: what ``gradient_gaps`` may at most be.

    Returns:
        A row for each input, with the columns "shape", "hand = autograd" and "hand = differences" (bool).

    Raises:
        ValueError: for inputs that are not float64; an upstream gradient of the wrong shape; a gradient by
            hand that is missing, has the wrong shape, or belongs to no input.
    """
    gaps = gradient_gaps(f, backward, inputs, upstream=upstream, seed=seed)
    return pd.DataFrame(
        {
            "shape": gaps["shape"],
            "hand = autograd": gaps["hand - autograd"] <= tolerance,
            "hand = differences": gaps["hand - differences"] <= tolerance,
        }
    )


def jacobian(f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """d f(x) / d x: entry [i..., j...] is how fast output i... moves with input j...

    Returns:
        A tensor of shape f(x).shape + x.shape, detached. It takes one backward pass for each output.
    """
    return torch.autograd.functional.jacobian(f, x)


def _gap(a: Tensor, b: Tensor) -> float:
    return ((a - b).abs().max() / b.abs().max().clamp(min=0.01)).item()


def _checked(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    for name, x in inputs.items():
        if x.dtype != torch.float64:
            raise ValueError(
                f"{name} is {x.dtype}; comparing gradients needs float64: convert it with {name}.double()"
            )
    return {name: x.detach().contiguous() for name, x in inputs.items()}


def _check_upstream(upstream: Tensor, output: Tensor) -> None:
    if upstream.shape != output.shape:
        raise ValueError(
            f"the upstream gradient should have the output's shape {tuple(output.shape)}, got "
            f"{tuple(upstream.shape)}; there is one number for each output"
        )


def _check_by_hand(gradients: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> None:
    listed = ", ".join(inputs)
    for name, x in inputs.items():
        if name not in gradients:
            raise ValueError(f"backward returned no gradient for {name!r}; expected a dict with {listed}")
        if gradients[name].shape != x.shape:
            raise ValueError(
                f"the gradient for {name!r} should have its shape {tuple(x.shape)}, got "
                f"{tuple(gradients[name].shape)}; look for a missing sum, mean or transpose"
            )
    for name in gradients:
        if name not in inputs:
            raise ValueError(f"backward returned a gradient for {name!r}, not an input; expected {listed}")
