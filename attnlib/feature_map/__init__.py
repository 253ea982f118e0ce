"""Attention on feature maps (b, c, h, w): one mechanism a file, and the registry that names them."""

from attnlib.feature_map.efficient_channel import EfficientChannelAttention, eca_kernel_size
from attnlib.feature_map.normalization import NormalizationAttention, scale_penalty
from attnlib.feature_map.registry import REGISTRY, build_attention
from attnlib.feature_map.squeeze_excitation import SqueezeExcitation

__all__ = [
    "REGISTRY",
    "EfficientChannelAttention",
    "NormalizationAttention",
    "SqueezeExcitation",
    "build_attention",
    "eca_kernel_size",
    "scale_penalty",
]
