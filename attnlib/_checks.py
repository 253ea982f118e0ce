"""Argument checks that all mechanisms share: say what was expected, what came, and what would do."""

from collections.abc import Iterable
from difflib import get_close_matches

import torch
from torch import Tensor


def check_positive(name: str, value: int) -> None:
    """Raise ValueError unless ``value`` is a whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name}={value!r} should be a whole number of at least 1")


def check_odd(name: str, value: int) -> None:
    """Raise ValueError unless ``value`` is an odd whole number, as a window with a middle needs."""
    check_positive(name, value)
    if value % 2 == 0:
        raise ValueError(
            f"{name}={value} is even, so its window would have no middle; use {value - 1} or {value + 1}"
        )


def check_divides(name: str, value: int, divisor_name: str, divisor: int) -> None:
    """Raise ValueError unless ``divisor`` divides ``value``; name the nearest divisors that do."""
    check_positive(name, value)
    check_positive(divisor_name, divisor)
    if value % divisor:
        divisors = [d for d in range(1, value + 1) if value % d == 0]
        use = " or ".join(str(d) for d in sorted(divisors, key=lambda d: abs(d - divisor))[:2])
        raise ValueError(f"{name}={value} is not divisible by {divisor_name}={divisor}; use {use}")


def check_choice(name: str, value: object, choices: Iterable[str]) -> None:
    """Raise ValueError unless ``value`` is one of ``choices``; name the nearest one."""
    choices = list(choices)
    if value not in choices:
        listed = ", ".join(repr(c) for c in choices)
        raise ValueError(f"{name}={value!r} is not one of {listed}{nearest(value, choices)}")


def nearest(value: object, choices: Iterable[str]) -> str:
    """'; did you mean ...?' for the choice nearest to a misspelt ``value``, or '' if none is near."""
    close = get_close_matches(str(value), list(choices), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def check_feature_map(x: Tensor, channels: int) -> None:
    """Raise ValueError unless ``x`` is a float tensor (b, channels, h, w) with at least one element."""
    if x.ndim != 4:
        raise ValueError(
            f"expected a feature map of shape (batch, {channels}, height, width), got a tensor of shape "
            f"{tuple(x.shape)}; add or remove axes so that there are four"
        )
    if x.shape[1] != channels:
        raise ValueError(
            f"this module was built for channels={channels}, the input of shape {tuple(x.shape)} has "
            f"{x.shape[1]}; build it with channels={x.shape[1]} or check the axis order (b, c, h, w)"
        )
    if not x.is_floating_point():
        raise ValueError(f"expected floating-point features, got {x.dtype}; convert with x.float()")
    if 0 in x.shape:
        raise ValueError(f"expected a feature map with at least one element, got shape {tuple(x.shape)}")


def check_queries_keys(
    q: Tensor, k: Tensor, query_width: int | None = None, key_width: int | None = None
) -> None:
    """Raise ValueError unless q is (..., n, query_width) and k (..., m, key_width), both floating-point.

    Without the widths, q and k should have the same one.
    """
    for name, x, axes in (("q", q, "queries"), ("k", k, "keys")):
        if x.ndim < 2:
            raise ValueError(
                f"expected {name} of shape (..., {axes}, features), got {tuple(x.shape)}; add the axis that "
                f"counts the {axes}"
            )
        if not x.is_floating_point():
            raise ValueError(f"expected floating-point {name}, got {x.dtype}; convert with {name}.float()")
    if query_width is None and q.shape[-1] != k.shape[-1]:
        raise ValueError(
            f"queries have {q.shape[-1]} features and keys {k.shape[-1]}; this score compares them one by "
            f"one, so project one of the two, or use BilinearScore or AdditiveScore"
        )
    for name, x, width in (("q", q, query_width), ("k", k, key_width)):
        if width is not None and x.shape[-1] != width:
            raise ValueError(f"this score was built for {name} of width {width}, got {tuple(x.shape)}")
    if not _broadcast(q.shape[:-2], k.shape[:-2]):
        raise ValueError(
            f"the leading axes of q {tuple(q.shape)} and k {tuple(k.shape)} do not fit each other; they "
            f"should be equal, or of size 1"
        )


def _broadcast(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    return all(x == y or 1 in (x, y) for x, y in zip(reversed(a), reversed(b), strict=False))


def check_values(q: Tensor, k: Tensor, v: Tensor) -> None:
    """Raise ValueError unless v is (..., m, d_v) and floating-point, with as many values as keys."""
    if v.ndim < 2 or v.shape[-2] != k.shape[-2]:
        raise ValueError(
            f"expected one value for each key, so v of shape (..., {k.shape[-2]}, features); got "
            f"{tuple(v.shape)}"
        )
    if not v.is_floating_point():
        raise ValueError(f"expected floating-point v, got {v.dtype}; convert with v.float()")
    for name, x in (("q", q), ("k", k)):
        if not _broadcast(x.shape[:-2], v.shape[:-2]):
            raise ValueError(
                f"the leading axes of {name} {tuple(x.shape)} and v {tuple(v.shape)} do not fit each other; "
                f"they should be equal, or of size 1"
            )


def check_tokens(name: str, tokens: Tensor, vocabulary: int) -> None:
    """Raise ValueError unless tokens are (batch, at least one) whole numbers from 0 to vocabulary - 1."""
    if tokens.ndim != 2 or tokens.shape[1] == 0:
        raise ValueError(
            f"expected {name} of shape (batch, tokens) with at least one token, got {tuple(tokens.shape)}"
        )
    if tokens.is_floating_point() or tokens.dtype == torch.bool:
        raise ValueError(f"expected whole numbers as {name}, got {tokens.dtype}")
    if torch.compiler.is_compiling():  # a check of values would break the graph
        return
    unknown = (tokens < 0) | (tokens >= vocabulary)
    if unknown.any():
        b, place = unknown.nonzero()[0].tolist()
        raise ValueError(
            f"{name}[{b}, {place}] is {tokens[b, place].item()}; with {vocabulary} tokens in the vocabulary "
            f"expected 0 to {vocabulary - 1}"
        )
