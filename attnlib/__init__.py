"""attnlib: the attention mechanisms that the course derives, one readable file each.

What stands here is the library proper. The laboratory of the notebooks is ``attnlib.lab``, the checkers of
their exercises are ``attnlib.exercises``; neither is imported unless asked for.
"""

from attnlib.feature_map import (
    BAM,
    CBAM,
    EfficientChannelAttention,
    EfficientMultiScaleAttention,
    ExpectationMaximizationAttention,
    GlobalAttention,
    NonLocal,
    NormalizationAttention,
    PointwiseSpatialAttention,
    SpatialAttention,
    SqueezeExcitation,
    build_attention,
    eca_kernel_size,
    load_reference_weights,
    scale_penalty,
)
from attnlib.sequence import (
    AdditiveScore,
    AttentionPooling,
    BilinearScore,
    MultiHeadAttention,
    RecurrentTranslator,
    Transformer,
    causal_mask,
    chunked_attention,
    dot_product_attention,
    padding_mask,
)

__all__ = [
    "BAM",
    "CBAM",
    "AdditiveScore",
    "AttentionPooling",
    "BilinearScore",
    "EfficientChannelAttention",
    "EfficientMultiScaleAttention",
    "ExpectationMaximizationAttention",
    "GlobalAttention",
    "MultiHeadAttention",
    "NonLocal",
    "NormalizationAttention",
    "PointwiseSpatialAttention",
    "RecurrentTranslator",
    "SpatialAttention",
    "SqueezeExcitation",
    "Transformer",
    "build_attention",
    "causal_mask",
    "chunked_attention",
    "dot_product_attention",
    "eca_kernel_size",
    "load_reference_weights",
    "padding_mask",
    "scale_penalty",
]
__version__ = "0.1.0"
