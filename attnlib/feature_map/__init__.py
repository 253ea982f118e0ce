"""Attention on feature maps (b, c, h, w): one mechanism a file, and the registry that names them."""

from attnlib.feature_map.cbam import BAM, CBAM, ChannelAttention
from attnlib.feature_map.coordinate import CoordinateAttention
from attnlib.feature_map.efficient_channel import EfficientChannelAttention, eca_kernel_size
from attnlib.feature_map.expectation_maximization import ExpectationMaximizationAttention
from attnlib.feature_map.global_attention import GlobalAttention
from attnlib.feature_map.global_context import GlobalContext
from attnlib.feature_map.multi_scale import EfficientMultiScaleAttention
from attnlib.feature_map.non_local import NonLocal
from attnlib.feature_map.normalization import NormalizationAttention, scale_penalty
from attnlib.feature_map.reference_weights import load_reference_weights
from attnlib.feature_map.registry import REGISTRY, build_attention
from attnlib.feature_map.selective_kernel import SelectiveKernel
from attnlib.feature_map.simam import SimAM
from attnlib.feature_map.spatial import PointwiseSpatialAttention, SpatialAttention, sam_layer, scale_channels
from attnlib.feature_map.squeeze_excitation import SqueezeExcitation
from attnlib.feature_map.triplet import TripletAttention

__all__ = [
    "BAM",
    "CBAM",
    "REGISTRY",
    "ChannelAttention",
    "CoordinateAttention",
    "EfficientChannelAttention",
    "EfficientMultiScaleAttention",
    "ExpectationMaximizationAttention",
    "GlobalAttention",
    "GlobalContext",
    "NonLocal",
    "NormalizationAttention",
    "PointwiseSpatialAttention",
    "SelectiveKernel",
    "SimAM",
    "SpatialAttention",
    "SqueezeExcitation",
    "TripletAttention",
    "build_attention",
    "eca_kernel_size",
    "load_reference_weights",
    "sam_layer",
    "scale_channels",
    "scale_penalty",
]
