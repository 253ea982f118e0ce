"""Scaled dot-product attention: each query takes a weighted average of the values.

Vaswani et al.: "Attention Is All You Need", NeurIPS 2017, arXiv 1706.03762, section 3.2.1.

    S = q k^T / sqrt(d)        scores    q (..., n, d), k (..., m, d) -> (..., n, m)
    P = softmax(S)             weights   over the m keys              -> (..., n, m)
    o = P v                    output    v (..., m, d_v)              -> (..., n, d_v)    (1)

`chunked_attention` returns the same output without ever holding S or P: it walks over the keys and keeps
for each query a running maximum, sum and average (Milakov and Gimelshein, arXiv 1805.02867; Rabe and Staats,
arXiv 2112.05682; Dao et al., arXiv 2205.14135, also for its backward pass).

Masks are boolean, broadcast to (..., n, m), and True means: may attend. A query that may attend to nothing
gets zeros.

Where sources differ:
    scale       1/sqrt(d) with d the width of one query. `scale=` takes any other number; Luong's dot has 1.
    masks       True is "may attend" here and in F.scaled_dot_product_attention, and "may not" in
                nn.MultiheadAttention.
    empty rows  Zeros here; NaN from a plain softmax over -inf.

A mask gives a value the weight 0, and 0 times NaN or infinity is NaN: values that are masked out must still
be finite numbers, as in torch's own operator.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from attnlib._checks import check_positive, check_queries_keys, check_values
from attnlib.sequence.scores import check_mask, dot, masked_softmax


def dot_product_attention(
    q: Float[Tensor, "*#b n d"],
    k: Float[Tensor, "*#b m d"],
    v: Float[Tensor, "*#b m d_v"],
    *,
    mask: Bool[Tensor, "..."] | None = None,
    scale: float | None = None,
) -> tuple[Float[Tensor, "*#b n d_v"], Float[Tensor, "*#b n m"]]:
    """Equation (1): the output and the weights.

    Args:
        q: queries (..., n, d).
        k: keys (..., m, d).
        v: values (..., m, d_v).
        mask: broadcasts to (..., n, m), True = may attend; None for all.
        scale: the factor of the dot products; None for 1/sqrt(d).

    Returns:
        output (..., n, d_v) and weights (..., n, m), whose rows sum to 1 (to 0 where a query may attend to
        nothing). Wrong shapes raise ValueError.
    """
    scores = dot(q, k) * (q.shape[-1] ** -0.5 if scale is None else scale)  # S: ... n m
    check_values(q, k, v)
    weights = masked_softmax(scores, mask)  # P: ... n m
    return weights @ v, weights  # (1)


def causal_mask(n: int, m: int | None = None) -> Bool[Tensor, "n m"]:
    """True where query i may attend to key j: j <= i, its own place and what came before. m is n if None."""
    return torch.ones(n, n if m is None else m, dtype=torch.bool).tril()


def padding_mask(lengths: Int[Tensor, " b"], m: int) -> Bool[Tensor, "b 1 m"]:
    """True for the first ``lengths[i]`` of the m keys of sequence i; the axis of size 1 is the queries'."""
    if lengths.ndim != 1:
        raise ValueError(
            f"expected one length for each sequence, so lengths of shape (b,), got {tuple(lengths.shape)}"
        )
    if ((lengths < 0) | (lengths > m)).any():
        raise ValueError(
            f"lengths should lie between 0 and m={m}, got {lengths.min().item()} to {lengths.max().item()}"
        )
    return (torch.arange(m, device=lengths.device) < lengths[:, None])[:, None]


def chunked_attention(
    q: Float[Tensor, "*#b n d"],
    k: Float[Tensor, "*#b m d"],
    v: Float[Tensor, "*#b m d_v"],
    *,
    mask: Bool[Tensor, "..."] | None = None,
    causal: bool = False,
    scale: float | None = None,
    chunk: int = 128,
) -> Float[Tensor, "*#b n d_v"]:
    """The output of ``dot_product_attention`` in memory that grows with n, not with n times m.

    Args:
        q, k, v, scale: as there.
        mask: as there. A whole (n, m) mask is itself what this function avoids: for padding give
            (..., 1, m), and for the past use ``causal``.
        causal: let query i attend to keys j <= i only, besides what ``mask`` says.
        chunk: how many keys are looked at together; results do not depend on it, but for rounding.

    Returns:
        output (..., n, d_v). It can be differentiated once.
    """
    check_positive("chunk", chunk)
    check_queries_keys(q, k)
    check_values(q, k, v)
    if mask is not None:
        check_mask(mask, (*torch.broadcast_shapes(q.shape[:-2], k.shape[:-2]), q.shape[-2], k.shape[-2]))
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    leading = torch.broadcast_shapes(q.shape[:-2], k.shape[:-2], v.shape[:-2])
    q, k, v = (x.expand(*leading, *x.shape[-2:]) for x in (q, k, v))
    return _ChunkedAttention.apply(q, k, v, mask, causal, scale, chunk)


class _ChunkedAttention(torch.autograd.Function):
    """Forward by the online softmax; backward from the output and the log of each query's softmax sum."""

    @staticmethod
    def forward(ctx, q, k, v, mask, causal, scale, chunk):
        largest = q.new_full((*q.shape[:-1], 1), -torch.inf)  # of the scores so far: ... n 1
        total = torch.zeros_like(largest)  # sum of exp(score - largest): ... n 1
        output = q.new_zeros(
            *q.shape[:-1], v.shape[-1]
        )  # average of the values so far, times total: ... n d_v
        for keys, allowed in _chunks(q, k, mask, causal, chunk):
            scores = _scores(q, k[..., keys, :], allowed, scale)  # ... n chunk
            new_largest = torch.maximum(largest, scores.amax(-1, keepdim=True))
            shift = new_largest.masked_fill(new_largest == -torch.inf, 0)  # still nothing to attend to
            p, shrink = torch.exp(scores - shift), torch.exp(largest - shift)
            total = total * shrink + p.sum(-1, keepdim=True)
            output = output * shrink + p @ v[..., keys, :]
            largest = new_largest
        nothing = total == 0
        output = output / total.masked_fill(nothing, 1)
        # exp(score - log_sum) is the weight; +inf makes it 0 where there is nothing to attend to
        log_sum = (largest + total.log()).masked_fill(nothing, torch.inf)
        ctx.save_for_backward(q, k, v, mask, output, log_sum)
        ctx.causal, ctx.scale, ctx.chunk = causal, scale, chunk
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        q, k, v, mask, output, log_sum = ctx.saved_tensors
        grad_q, grad_k, grad_v = torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
        mean = (grad * output).sum(-1, keepdim=True)  # sum_j P_ij dP_ij: ... n 1
        for keys, allowed in _chunks(q, k, mask, ctx.causal, ctx.chunk):
            p = torch.exp(_scores(q, k[..., keys, :], allowed, ctx.scale) - log_sum)  # ... n chunk
            grad_v[..., keys, :] = p.mT @ grad
            grad_scores = p * (grad @ v[..., keys, :].mT - mean) * ctx.scale
            grad_q += grad_scores @ k[..., keys, :]
            grad_k[..., keys, :] = grad_scores.mT @ q
        return grad_q, grad_k, grad_v, None, None, None, None


def _chunks(
    q: Tensor, k: Tensor, mask: Tensor | None, causal: bool, chunk: int
) -> Iterator[tuple[slice, Tensor | None]]:
    """The keys, a slice at a time, and which of them each query may attend to (None for all)."""
    n, m = q.shape[-2], k.shape[-2]
    for start in range(0, m, chunk):
        keys = slice(start, min(start + chunk, m))
        allowed = None
        if mask is not None:
            allowed = mask if mask.ndim == 0 or mask.shape[-1] == 1 else mask[..., keys]
        if causal:
            places = torch.arange(start, keys.stop, device=q.device)
            past = places <= torch.arange(n, device=q.device)[:, None]
            allowed = past if allowed is None else allowed & past
        yield keys, allowed


def _scores(q: Tensor, k: Tensor, allowed: Tensor | None, scale: float) -> Tensor:
    scores = q @ k.mT * scale
    return scores if allowed is None else scores.masked_fill(~allowed, -torch.inf)
