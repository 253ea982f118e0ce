"""Argument checks that all mechanisms share: say what was expected, what came, and what would do."""

from collections.abc import Iterable
from difflib import get_close_matches

from torch import Tensor


def check_positive(name: str, value: int) -> None:
    """Raise ValueError unless ``value`` is a whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name}={value!r} should be a whole number of at least 1")


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
