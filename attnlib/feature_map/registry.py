"""Mechanisms by acronym: ``build_attention("se", 64, reduction=8)``.

Every entry is a module class whose first argument is ``channels`` and which maps features (b, c, h, w) to
features of the same shape. A backbone plugs in any of them by name.
"""

import inspect

from torch import nn

from attnlib._checks import check_choice, nearest
from attnlib.feature_map.cbam import BAM, CBAM
from attnlib.feature_map.coordinate import CoordinateAttention
from attnlib.feature_map.efficient_channel import EfficientChannelAttention
from attnlib.feature_map.expectation_maximization import ExpectationMaximizationAttention
from attnlib.feature_map.global_attention import GlobalAttention
from attnlib.feature_map.global_context import GlobalContext
from attnlib.feature_map.multi_scale import EfficientMultiScaleAttention
from attnlib.feature_map.non_local import NonLocal
from attnlib.feature_map.normalization import NormalizationAttention
from attnlib.feature_map.selective_kernel import SelectiveKernel
from attnlib.feature_map.simam import SimAM
from attnlib.feature_map.spatial import PointwiseSpatialAttention, SpatialAttention
from attnlib.feature_map.squeeze_excitation import SqueezeExcitation
from attnlib.feature_map.triplet import TripletAttention

REGISTRY: dict[str, type[nn.Module]] = {
    "se": SqueezeExcitation,
    "eca": EfficientChannelAttention,
    "cbam": CBAM,
    "bam": BAM,
    "sam": SpatialAttention,
    "point_sam": PointwiseSpatialAttention,
    "nam": NormalizationAttention,
    "gam": GlobalAttention,
    "nonlocal": NonLocal,
    "emau": ExpectationMaximizationAttention,
    "ema": EfficientMultiScaleAttention,
    "coordinate": CoordinateAttention,
    "simam": SimAM,
    "gc": GlobalContext,
    "sk": SelectiveKernel,
    "triplet": TripletAttention,
}


def build_attention(name: str, channels: int, **options: object) -> nn.Module:
    """Build the feature-map mechanism ``name`` for ``channels`` channels.

    Args:
        name: an acronym, one of ``REGISTRY``.
        channels: the number of channels of the features.
        options: keyword arguments of that mechanism's class, by their names there.

    Raises:
        ValueError: for a name or an option that does not exist (with the nearest one that does), and for
            what the mechanism itself refuses.
    """
    check_choice("name", name, REGISTRY)
    mechanism = REGISTRY[name]
    known = [p for p in inspect.signature(mechanism).parameters if p != "channels"]
    for option in options:
        if option not in known:
            raise ValueError(
                f"{name!r} has no option {option!r}, only {', '.join(known)}{nearest(option, known)}"
            )
    return mechanism(channels, **options)
