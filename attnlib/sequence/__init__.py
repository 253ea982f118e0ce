"""Attention on sequences: queries (..., n, d), keys (..., m, d) and values (..., m, d_v)."""

from attnlib.sequence.decoding import beam_search, greedy
from attnlib.sequence.dot_product import causal_mask, chunked_attention, dot_product_attention, padding_mask
from attnlib.sequence.moving_average import (
    DampedEMA,
    WindowedCosineAttention,
    exponential_moving_average,
    moving_average_weights,
)
from attnlib.sequence.multi_head import MultiHeadAttention
from attnlib.sequence.pooling import AttentionPooling
from attnlib.sequence.positions import LearnedPositions, RelativeBias, SinusoidalPositions, sinusoids
from attnlib.sequence.recurrent import RecurrentTranslator, local_window
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
from attnlib.sequence.transformer import (
    Decoder,
    DecoderLayer,
    Encoder,
    EncoderLayer,
    Transformer,
)

__all__ = [
    "AdditiveScore",
    "AttentionPooling",
    "BilinearScore",
    "DampedEMA",
    "Decoder",
    "DecoderLayer",
    "Encoder",
    "EncoderLayer",
    "LearnedPositions",
    "MultiHeadAttention",
    "RecurrentTranslator",
    "RelativeBias",
    "SinusoidalPositions",
    "Transformer",
    "WindowedCosineAttention",
    "beam_search",
    "causal_mask",
    "chunked_attention",
    "cosine",
    "dot",
    "dot_product_attention",
    "exponential_moving_average",
    "gaussian",
    "greedy",
    "local_window",
    "masked_sigmoid",
    "masked_softmax",
    "moving_average_weights",
    "padding_mask",
    "scaled_dot",
    "sinusoids",
]
