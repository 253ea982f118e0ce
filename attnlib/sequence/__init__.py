"""Attention on sequences: queries (..., n, d), keys (..., m, d) and values (..., m, d_v)."""

from attnlib.sequence.dot_product import causal_mask, chunked_attention, dot_product_attention, padding_mask
from attnlib.sequence.scores import (
    AdditiveScore,
    BilinearScore,
    cosine,
    dot,
    gaussian,
    masked_sigmoid,
    masked_softmax,
    scaled_dot,
)

__all__ = [
    "AdditiveScore",
    "BilinearScore",
    "causal_mask",
    "chunked_attention",
    "cosine",
    "dot",
    "dot_product_attention",
    "gaussian",
    "masked_sigmoid",
    "masked_softmax",
    "padding_mask",
    "scaled_dot",
]
