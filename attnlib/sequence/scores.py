"""Scores between queries and keys, and the two ways to turn scores into weights.

    dot         q . k                                    Luong et al., arXiv 1508.04025, section 3.1
    scaled dot  q . k / sqrt(d)                          Vaswani et al., arXiv 1706.03762, section 3.2.1
    bilinear    q^T W k ("general")                      Luong et al., section 3.1
    additive    v^T tanh(W q + U k)                      Bahdanau et al., arXiv 1409.0473, appendix A.1.2
    cosine      q . k / (|q| |k|)                        Graves et al., arXiv 1410.5401, section 3.3.1
    Gaussian    -|q - k|^2 / (2 bandwidth^2)             kernel regression (Nadaraya 1964, Watson 1964)

Each takes queries (..., n, d) and keys (..., m, d), whose leading axes broadcast, and returns scores
(..., n, m), one for each pair. The bilinear and the additive one have weights, and let the two widths differ.

Where sources differ:
    biases      Bahdanau's layers have none; tutorials often leave them in: `AdditiveScore(bias=True)`. A bias
                behind v would change nothing, since a softmax does not see what all its scores share.
    additive    Some libraries call sum_i v_i tanh(q_i + k_i) additive and leave W and U to the user.
    Gaussian    The score is the logarithm of the kernel, so that a softmax over it is kernel regression.

Masks are boolean, broadcast to the scores, and True means: may attend.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from attnlib._checks import check_positive, check_queries_keys


def dot(q: Float[Tensor, "*#b n d"], k: Float[Tensor, "*#b m d"]) -> Float[Tensor, "*#b n m"]:
    """The dot product of each query with each key: (..., n, d), (..., m, d) -> (..., n, m)."""
    check_queries_keys(q, k)
    return q @ k.mT


def scaled_dot(q: Float[Tensor, "*#b n d"], k: Float[Tensor, "*#b m d"]) -> Float[Tensor, "*#b n m"]:
    """The dot product divided by sqrt(d), which keeps its variance at 1 for entries of variance 1."""
    return dot(q, k) / q.shape[-1] ** 0.5


def cosine(q: Float[Tensor, "*#b n d"], k: Float[Tensor, "*#b m d"]) -> Float[Tensor, "*#b n m"]:
    """The cosine of the angle between query and key, between -1 and 1; 0 where one of them is 0."""
    check_queries_keys(q, k)
    return _unit(q) @ _unit(k).mT


def _unit(x: Float[Tensor, "*b n d"]) -> Float[Tensor, "*b n d"]:
    length = x.norm(dim=-1, keepdim=True)
    return x / length.masked_fill(length == 0, 1)  # F.normalize has a gradient of 1e12 at 0


def gaussian(
    q: Float[Tensor, "*#b n d"], k: Float[Tensor, "*#b m d"], *, bandwidth: float = 1.0
) -> Float[Tensor, "*#b n m"]:
    """-|q - k|^2 / (2 bandwidth^2): the logarithm of a Gaussian kernel, at most 0.

    ``bandwidth`` is in the unit of q and k. Raises ValueError unless it is positive.
    """
    check_queries_keys(q, k)
    if not bandwidth > 0:
        raise ValueError(f"bandwidth={bandwidth!r} should be above 0")
    return -(q[..., :, None, :] - k[..., None, :, :]).square().sum(-1) / (2 * bandwidth**2)


class BilinearScore(nn.Module):
    """Luong's "general" score q^T W k, with W (query_width, key_width) and no bias.

    Shapes: q (..., n, query_width), k (..., m, key_width) -> (..., n, m). Wrong widths raise ValueError.

    Source: arXiv 1508.04025, section 3.1.
    """

    def __init__(self, query_width: int, key_width: int) -> None:
        super().__init__()
        check_positive("query_width", query_width)
        check_positive("key_width", key_width)
        self.W = nn.Linear(key_width, query_width, bias=False)

    def forward(
        self, q: Float[Tensor, "*#b n query_width"], k: Float[Tensor, "*#b m key_width"]
    ) -> Float[Tensor, "*#b n m"]:
        check_queries_keys(q, k, self.W.out_features, self.W.in_features)
        return q @ self.W(k).mT


class AdditiveScore(nn.Module):
    """Bahdanau's score v^T tanh(W q + U k): one hidden layer that looks at query and key.

    Args:
        query_width: width of q; W is (hidden, query_width).
        key_width: width of k; U is (hidden, key_width).
        hidden: units of the hidden layer; v is (hidden,).
        bias: whether the hidden layer has a bias (the paper has none); it stands in ``W``.

    Shapes: q (..., n, query_width), k (..., m, key_width) -> (..., n, m); in between it holds
    (..., n, m, hidden) numbers. Wrong widths raise ValueError.

    Source: arXiv 1409.0473, appendix A.1.2, where q is the decoder's state and k an annotation.
    """

    def __init__(self, query_width: int, key_width: int, hidden: int, *, bias: bool = False) -> None:
        super().__init__()
        check_positive("query_width", query_width)
        check_positive("key_width", key_width)
        check_positive("hidden", hidden)
        self.W = nn.Linear(query_width, hidden, bias=bias)
        self.U = nn.Linear(key_width, hidden, bias=False)
        self.v = nn.Linear(hidden, 1, bias=False)

    def forward(
        self, q: Float[Tensor, "*#b n query_width"], k: Float[Tensor, "*#b m key_width"]
    ) -> Float[Tensor, "*#b n m"]:
        check_queries_keys(q, k, self.W.in_features, self.U.in_features)
        hidden = torch.tanh(self.W(q)[..., :, None, :] + self.U(k)[..., None, :, :])  # ... n m hidden
        return self.v(hidden).squeeze(-1)


def masked_softmax(
    scores: Float[Tensor, "*#b n m"], mask: Bool[Tensor, "..."] | None = None
) -> Float[Tensor, "*#b n m"]:
    """Positive weights that sum to 1 over the keys a query may attend to, and 0 for all other keys.

    ``mask`` broadcasts to the scores, True = may attend. A query that may attend to nothing gets zeros, with
    zero gradients, where a plain softmax over -inf gives NaN.
    """
    if mask is None:
        return scores.softmax(-1)
    check_mask(mask, scores.shape)
    nothing = ~mask.any(-1, keepdim=True)
    # A row without any key keeps its finite scores here, so that no NaN arises that zeros could not undo.
    weights = scores.masked_fill(~(mask | nothing), -torch.inf).softmax(-1)
    return weights.masked_fill(nothing, 0)


def masked_sigmoid(
    scores: Float[Tensor, "*#b n m"], mask: Bool[Tensor, "..."] | None = None
) -> Float[Tensor, "*#b n m"]:
    """Weights between 0 and 1, each on its own: they need not sum to 1. 0 where ``mask`` is False."""
    if mask is None:
        return scores.sigmoid()
    check_mask(mask, scores.shape)
    return scores.sigmoid().masked_fill(~mask, 0)


def check_mask(mask: Tensor, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless ``mask`` is boolean and broadcasts to the scores' ``shape``."""
    if mask.dtype != torch.bool:
        raise ValueError(
            f"expected a boolean mask (True = may attend), got {mask.dtype}; compare or cast first"
        )
    sizes = zip(reversed(mask.shape), reversed(shape), strict=False)
    if mask.ndim > len(shape) or any(size not in (1, wanted) for size, wanted in sizes):
        raise ValueError(
            f"a mask of shape {tuple(mask.shape)} does not broadcast to scores of shape {tuple(shape)} "
            f"(..., queries, keys); give it axes of the same size or of size 1"
        )
