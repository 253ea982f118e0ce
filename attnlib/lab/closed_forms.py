"""What each mechanism costs by formula: parameters, and multiply-accumulates for one image.

c is the number of channels, h and w the map's height and width, o the options of the mechanism's class with
its defaults filled in. Multiply-accumulates are counted as in ``attnlib.lab.cost.count_macs``.
"""

from collections.abc import Callable
from types import SimpleNamespace

from attnlib.feature_map import eca_kernel_size

Formula = Callable[[int, int, int, SimpleNamespace], int]


def eca_kernel(c: int, o: SimpleNamespace) -> int:
    return eca_kernel_size(c, gamma=o.gamma, b=o.b) if o.kernel_size is None else o.kernel_size


def two_layers(c: int, o: SimpleNamespace) -> int:
    """Weights of a layer from c to c/r and one back."""
    return 2 * c * (c // o.reduction)


def coordinate_width(c: int, o: SimpleNamespace) -> int:
    return max(8, c // o.reduction)


def sk_width(c: int, o: SimpleNamespace) -> int:
    return max(c // o.reduction, o.minimum)


def bam_parameters(c: int, h: int, w: int, o: SimpleNamespace) -> int:
    hidden = c // o.reduction
    channel = (c * hidden + hidden) + 2 * hidden + (hidden * c + c)
    first, dilated, last = c * hidden + hidden, 9 * hidden**2 + hidden, hidden + 1
    return channel + (first + 2 * hidden) + 2 * (dilated + 2 * hidden) + last


def bam_macs(c: int, h: int, w: int, o: SimpleNamespace) -> int:
    hidden = c // o.reduction
    return two_layers(c, o) + (c * hidden + 18 * hidden**2 + hidden) * h * w


def gam_weights(c: int, o: SimpleNamespace) -> int:
    """Of the two layers and of the two 7x7 convolutions: each is used at every place."""
    return two_layers(c, o) + 49 * two_layers(c, o) // o.groups


def inner_channels(c: int, o: SimpleNamespace) -> int:
    return max(1, c // 2) if o.inner is None else o.inner


def non_local_parameters(c: int, h: int, w: int, o: SimpleNamespace) -> int:
    inner = inner_channels(c, o)
    convolutions = 2 if o.similarity == "gaussian" else 4
    biases = (convolutions - 1) * inner + c
    w_f = 2 * inner if o.similarity == "concatenation" else 0
    return convolutions * c * inner + o.bias * biases + w_f + o.norm * 2 * c


def non_local_macs(c: int, h: int, w: int, o: SimpleNamespace) -> int:
    inner, n = inner_channels(c, o), h * w
    m = (h // 2) * (w // 2) if o.pool else n
    convolutions = (n + m if o.similarity == "gaussian" else 2 * (n + m)) * c * inner
    if o.similarity == "concatenation":
        return convolutions + (n + m) * inner + n * m * inner
    # keys and values are brought to one width; the Euclidean form has one feature more, -|phi|^2/2
    widths = {"gaussian": max(c, inner), "euclidean": inner + 1}
    return convolutions + 2 * n * m * widths.get(o.similarity, inner)


def ema_width(c: int, o: SimpleNamespace) -> int:
    return c // o.groups


PARAMETERS: dict[str, Formula] = {
    "se": lambda c, h, w, o: two_layers(c, o) + o.bias * (c // o.reduction + c),
    "eca": lambda c, h, w, o: eca_kernel(c, o) + o.bias,
    "cbam": lambda c, h, w, o: (
        two_layers(c, o) + o.bias * (c // o.reduction + c) + 2 * o.kernel_size**2 + 2 * o.norm
    ),
    "bam": bam_parameters,
    "sam": lambda c, h, w, o: 2 * o.kernel_size**2 + 2 * o.norm + o.bias,
    "point_sam": lambda c, h, w, o: c**2 + (2 * c if o.norm else c),
    "nam": lambda c, h, w, o: 2 * c * (o.branch != "pixel") + 2 * h * w * (o.branch != "channel"),
    "gam": lambda c, h, w, o: gam_weights(c, o) + 4 * (c // o.reduction + c),
    "nonlocal": non_local_parameters,
    "emau": lambda c, h, w, o: 2 * c**2 + 3 * c,
    "ema": lambda c, h, w, o: 10 * ema_width(c, o) ** 2 + 4 * ema_width(c, o),
    "coordinate": lambda c, h, w, o: 3 * c * coordinate_width(c, o) + 3 * coordinate_width(c, o) + 2 * c,
    "simam": lambda c, h, w, o: 0,
    "gc": lambda c, h, w, o: two_layers(c, o) + 3 * (c // o.reduction) + 2 * c + 1,
    "sk": lambda c, h, w, o: (
        o.branches * (9 * c**2 // o.groups + 3 * c) + sk_width(c, o) * ((1 + o.branches) * c + 2)
    ),
    "triplet": lambda c, h, w, o: 3 * (2 * o.kernel_size**2 + 2),
}

MACS: dict[str, Formula] = {
    "se": lambda c, h, w, o: two_layers(c, o),
    "eca": lambda c, h, w, o: eca_kernel(c, o) * c,
    "cbam": lambda c, h, w, o: 2 * two_layers(c, o) + 2 * o.kernel_size**2 * h * w,
    "bam": bam_macs,
    "sam": lambda c, h, w, o: 2 * o.kernel_size**2 * h * w,
    "point_sam": lambda c, h, w, o: c**2 * h * w,
    "nam": lambda c, h, w, o: 0,
    "gam": lambda c, h, w, o: gam_weights(c, o) * h * w,
    "nonlocal": non_local_macs,
    "emau": lambda c, h, w, o: (2 * c + (2 * o.iterations + 1) * o.bases) * c * h * w,
    "ema": lambda c, h, w, o: o.groups * ema_width(c, o) ** 2 * (h + w + 9 * h * w),
    "coordinate": lambda c, h, w, o: 2 * c * coordinate_width(c, o) * (h + w),
    "simam": lambda c, h, w, o: 0,
    "gc": lambda c, h, w, o: c * h * w + two_layers(c, o),
    "sk": lambda c, h, w, o: (
        o.branches * 9 * c**2 // o.groups * h * w + (1 + o.branches) * c * sk_width(c, o)
    ),
    "triplet": lambda c, h, w, o: 2 * o.kernel_size**2 * (h * w + c * w + h * c),
}
