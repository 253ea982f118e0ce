"""Attention on feature maps (b, c, h, w): one mechanism a file, and the registry that names them."""

from attnlib.feature_map.registry import REGISTRY, build_attention
from attnlib.feature_map.squeeze_excitation import SqueezeExcitation

__all__ = ["REGISTRY", "SqueezeExcitation", "build_attention"]
