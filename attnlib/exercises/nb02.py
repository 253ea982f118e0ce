"""The exercises of 02_self_attention."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from attnlib.exercises.checker import Exercise, Wrong, choice, ramp

# 02.1 attention ------------------------------------------------------------------------------------------


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    scores = q @ k.mT / q.shape[-1] ** 0.5
    return scores.masked_fill(~mask, -torch.inf).softmax(-1) @ v


def attention_by_row(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    rows = []
    for i in range(len(q)):
        keys = mask[i].nonzero()[:, 0]
        p = (k[keys] @ q[i] / math.sqrt(q.shape[1])).softmax(0)
        rows.append(p @ v[keys])
    return torch.stack(rows)


def attention_by_exponentials(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    e = torch.exp(torch.einsum("nd,md->nm", q, k) / math.sqrt(k.shape[1])) * mask
    return torch.einsum("nm,mf->nf", e / e.sum(1, keepdim=True), v)


def attention_fused(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q[None], k[None], v[None], attn_mask=mask)[0]


def attention_by_where(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    scores = q @ k.T * q.size(1) ** -0.5
    return F.softmax(torch.where(mask, scores, torch.full_like(scores, -1e9)), dim=1) @ v


def attention_inputs() -> list[tuple]:
    """Square and oblong; every query may attend to something, and no mask is symmetric."""
    return [
        (
            ramp(4, 3),
            ramp(4, 3, step=0.8),
            ramp(4, 2, step=1.1),
            torch.ones(4, 4, dtype=torch.bool).tril(),
        ),
        (
            ramp(3, 5, step=0.9),
            ramp(6, 5, step=0.6),
            ramp(6, 4, step=1.3),
            torch.tensor([[1, 1, 0, 1, 0, 1], [0, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 0]], dtype=torch.bool),
        ),
    ]


def weights_of(q: Tensor, k: Tensor, mask: Tensor) -> Tensor:
    return (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(~mask, -torch.inf).softmax(-1)


def scores_of(q: Tensor, k: Tensor) -> Tensor:
    return q @ k.mT / q.shape[-1] ** 0.5


def by_sum_without_axis(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    e = torch.exp(scores_of(q, k)) * mask
    return e / e.sum(1) @ v


ATTENTION = Exercise(
    reference=attention,
    right=(attention_by_row, attention_by_exponentials, attention_fused, attention_by_where),
    inputs=attention_inputs,
    praise="Your output equals (2.5) with the mask of (2.6), for square and for oblong weights.",
    wrong=(
        Wrong(
            lambda q, k, v, mask: (q @ k.mT).masked_fill(~mask, -torch.inf).softmax(-1) @ v,
            "the scores are not scaled: (2.3) divides them by the square root of d",
        ),
        Wrong(
            lambda q, k, v, mask: (q @ k.mT / q.shape[-1]).masked_fill(~mask, -torch.inf).softmax(-1) @ v,
            "you divide by d; (2.3) divides by its square root",
        ),
        Wrong(
            lambda q, k, v, mask: (
                (q @ k.mT * q.shape[-1] ** 0.5).masked_fill(~mask, -torch.inf).softmax(-1) @ v
            ),
            "you multiply by the square root of d; (2.3) divides by it",
        ),
        Wrong(
            lambda q, k, v, mask: (
                (q @ k.mT / v.shape[-1] ** 0.5).masked_fill(~mask, -torch.inf).softmax(-1) @ v
            ),
            "you scale by the width of the values; d in (2.3) is the width of queries and keys",
        ),
        Wrong(
            lambda q, k, v, mask: (
                (q @ k.mT / k.shape[0] ** 0.5).masked_fill(~mask, -torch.inf).softmax(-1) @ v
            ),
            "you scale by the number of keys; d in (2.3) is the width of a key",
        ),
        Wrong(
            lambda q, k, v, mask: scores_of(q, k).softmax(-1) @ v,
            "the mask has no effect: every query looks at every key (masked_fill returns a new tensor; keep what it returns)",
        ),
        Wrong(
            lambda q, k, v, mask: scores_of(q, k).masked_fill(mask, -torch.inf).softmax(-1) @ v,
            "your mask is the wrong way round: here True means that the query may attend",
        ),
        Wrong(
            lambda q, k, v, mask: (
                scores_of(q, k).masked_fill(mask, -torch.inf).softmax(-1).nan_to_num(0.0) @ v
            ),
            "your mask is the wrong way round, and nan_to_num hides what came of it: here True means that the query may attend",
        ),
        Wrong(
            lambda q, k, v, mask: scores_of(q, k).softmax(-1).masked_fill(~mask, 0) @ v,
            "you mask after the softmax: the rows of weights no longer sum to 1; mask the scores with -inf",
        ),
        Wrong(
            lambda q, k, v, mask: scores_of(q, k).masked_fill(~mask, -torch.inf).softmax(-2) @ v,
            "your softmax runs over the queries; each query shares its weight out among the keys, the last axis",
        ),
        Wrong(
            lambda q, k, v, mask: weights_of(q, k, mask),
            "you return the weights; the output is their product with the values, (2.5)",
        ),
        Wrong(
            lambda q, k, v, mask: (weights_of(q, k, mask) @ v, weights_of(q, k, mask)),
            "you return a pair; this exercise asks for the output alone",
        ),
        Wrong(
            lambda q, k, v, mask: scores_of(q, k).masked_fill(~mask, 0) @ v,
            "the softmax is missing: scores are not yet weights",
        ),
        Wrong(
            lambda q, k, v, mask: (scores_of(q, k).sigmoid() * mask) @ v,
            "you use a sigmoid for each score; (2.4) is a softmax, whose rows sum to 1",
        ),
        Wrong(
            lambda q, k, v, mask: weights_of(k, q, mask) @ v,
            "queries and keys have changed places: score i, j is q_i . k_j",
        ),
        Wrong(
            lambda q, k, v, mask: weights_of(q, k, mask).mT @ v,
            "your weights are right, but you use them transposed: row i of the weights belongs to output i",
        ),
        Wrong(
            lambda q, k, v, mask: (scores_of(q, k) + mask).softmax(-1) @ v,
            "adding the mask raises the allowed scores by 1; the forbidden ones must go to -inf",
        ),
        Wrong(
            lambda q, k, v, mask: scores_of(q, k).masked_fill(~mask, torch.inf).softmax(-1) @ v,
            "you fill with plus infinity; it is minus infinity whose exponential is 0",
        ),
        Wrong(
            lambda q, k, v, mask: scores_of(q, k).masked_fill(~mask, 0).softmax(-1) @ v,
            "a score of 0 still has the weight exp(0) = 1; fill with -inf",
        ),
        Wrong(
            lambda q, k, v, mask: scores_of(q, k).masked_fill(~mask, -torch.inf).softmax(-1) @ k,
            "you average the keys; (2.5) averages the values",
        ),
        Wrong(
            by_sum_without_axis,
            "the sum of each row has lost its axis: sum(-1, keepdim=True) divides each row by its own sum",
        ),
        Wrong(
            lambda q, k, v, mask: scores_of(q, k).masked_fill(~mask, -torch.inf).exp() @ v,
            "the exponentials are not divided by the sum of their row, (2.6)",
        ),
    ),
)


# 02.2 the gradient of the scores -------------------------------------------------------------------------


def scores_backward(grad_P: Tensor, P: Tensor) -> Tensor:
    return P * (grad_P - (grad_P * P).sum(-1, keepdim=True))


def scores_backward_by_row(grad_P: Tensor, P: Tensor) -> Tensor:
    return torch.stack([(p.diag() - torch.outer(p, p)) @ g for g, p in zip(grad_P, P, strict=True)])


def scores_backward_einsum(grad_P: Tensor, P: Tensor) -> Tensor:
    mean = torch.einsum("nm,nm->n", grad_P, P)
    return P * grad_P - P * mean[:, None]


def scores_backward_autograd(grad_P: Tensor, P: Tensor) -> Tensor:
    scores = P.log().requires_grad_()
    return torch.autograd.grad(scores.softmax(-1), scores, grad_P)[0]


def some_weights(n: int, m: int) -> Tensor:
    return ramp(n, m, step=0.9).softmax(-1)


SCORES_BACKWARD = Exercise(
    reference=scores_backward,
    right=(scores_backward_by_row, scores_backward_einsum, scores_backward_autograd),
    inputs=lambda: [(ramp(3, 4), some_weights(3, 4)), (ramp(2, 5, step=1.4), some_weights(2, 5))],
    praise="Row by row the softmax's Jacobian, without ever building it.",
    wrong=(
        Wrong(
            lambda g, P: P * g,
            "the mean is missing: (2.11) takes from each entry of the row its mean under the weights",
        ),
        Wrong(
            lambda g, P: P * (g - (g * P).sum(-2, keepdim=True)),
            "your sum runs over the queries; the softmax ran over the keys, so the sum does too: the last axis",
        ),
        Wrong(
            lambda g, P: P * (g - (g * P).sum()),
            "you sum over the whole matrix; each row is a softmax of its own: sum(-1, keepdim=True)",
        ),
        Wrong(
            lambda g, P: P * (g - g.mean(-1, keepdim=True)),
            "that is the plain mean of the row; (2.11) has the mean under the weights, the sum of g times P",
        ),
        Wrong(
            lambda g, P: P * (g - g.sum(-1, keepdim=True)),
            "P is missing in the sum: it is the sum of g times P over the row",
        ),
        Wrong(
            lambda g, P: P * (g - (g * P).mean(-1, keepdim=True)),
            "a sum, not a mean: the weights already add up to 1",
        ),
        Wrong(
            lambda g, P: g - (g * P).sum(-1, keepdim=True),
            "the factor P in front is missing: a key with no weight feels nothing",
        ),
        Wrong(
            lambda g, P: P * (1 - P) * g,
            "that is the slope of a sigmoid, the diagonal only: in a softmax each score moves all weights of its row",
        ),
        Wrong(
            lambda g, P: P * ((g * P).sum(-1, keepdim=True) - g),
            "your sign is reversed: the entry minus the mean",
        ),
        Wrong(
            lambda g, P: P * (g + (g * P).sum(-1, keepdim=True)),
            "minus, not plus: what counts is how far an entry lies above or below the mean of its row under the weights",
        ),
        Wrong(
            lambda g, P: (P * g - P) * (g * P).sum(-1, keepdim=True),
            "mind the brackets: P times (g minus the mean)",
        ),
        Wrong(
            lambda g, P: P * (P * g).sum(-1, keepdim=True),
            "that is the part to be taken away; P times g is missing",
        ),
        Wrong(
            lambda g, P: (g * P).sum(-1, keepdim=True),
            "that is the mean of each row, one number; there is a gradient for every score: P times (g minus it)",
        ),
        Wrong(
            lambda g, P: P * g - (g * P).sum(-1, keepdim=True),
            "the mean is weighted with P too: P times (g minus the mean), with brackets",
        ),
        Wrong(
            lambda g, P: g * (P - (g * P).sum(-1, keepdim=True)),
            "the two arguments have changed places: grad_P comes first, P second",
        ),
        Wrong(
            lambda g, P: P * (g - (g * P).sum(-1)),
            "your sum has lost its axis: keepdim=True keeps it, so that each row gets its own mean",
        ),
        Wrong(
            lambda g, P: P * (g - (g * P).sum(-1, keepdim=True)) / P.shape[-1] ** 0.5,
            "the scale does not belong here: it enters in the next step, (2.13)",
        ),
        Wrong(
            lambda g, P: (P.softmax(-1)) * (g - (g * P.softmax(-1)).sum(-1, keepdim=True)),
            "P has already gone through the softmax; use it as it is",
        ),
    ),
)


# 02.3 one step of the online softmax ---------------------------------------------------------------------


def online_step(state: tuple, scores: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    m, total, a = state
    new_m = torch.maximum(m, scores.max())
    e, shrink = torch.exp(scores - new_m), torch.exp(m - new_m)
    return new_m, total * shrink + e.sum(), a * shrink + e @ values


def online_step_by_loop(state: tuple, scores: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    m, total, a = state
    for s, v in zip(scores, values, strict=True):
        new = s if s > m else m
        total = total * torch.exp(m - new) + torch.exp(s - new)
        a = a * torch.exp(m - new) + torch.exp(s - new) * v
        m = new
    return m, total, a


def online_step_by_cat(state: tuple, scores: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    m, total, a = state
    new = torch.cat([m.reshape(1), scores]).amax()
    factors = torch.exp(scores - new)
    old = math.exp(m - new)
    return new, old * total + factors.sum(), old * a + (factors[:, None] * values).sum(0)


def online_inputs() -> list[tuple]:
    """A later chunk with a larger maximum, one with a smaller one, and the first chunk of all."""
    number = lambda x: torch.tensor(x).double()  # noqa: E731
    scores, values = ramp(4, step=1.1), ramp(4, 3, step=0.8)
    return [
        ((number(-0.5), number(1.7), ramp(3)), scores, values),
        ((number(2.5), number(2.2), ramp(3, step=0.9)), scores, values),
        ((number(-math.inf), number(0.0), torch.zeros(3).double()), scores, values),
    ]


def without_shrinking(*what: str):
    def step(state: tuple, scores: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        m, total, a = state
        new_m = torch.maximum(m, scores.max())
        e, shrink = torch.exp(scores - new_m), torch.exp(m - new_m)
        return (
            new_m,
            total * (1 if "total" in what else shrink) + e.sum(),
            a * (1 if "a" in what else shrink) + e @ values,
        )

    return step


def with_shrink(shrink_of):
    def step(state: tuple, scores: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        m, total, a = state
        new_m = torch.maximum(m, scores.max())
        e, shrink = torch.exp(scores - new_m), shrink_of(m, new_m)
        return new_m, total * shrink + e.sum(), a * shrink + e @ values

    return step


def chunk_shifted_by_its_own_maximum(state: tuple, scores: Tensor, values: Tensor) -> tuple:
    m, total, a = state
    new_m = torch.maximum(m, scores.max())
    e, shrink = torch.exp(scores - scores.max()), torch.exp(m - new_m)
    return new_m, total * shrink + e.sum(), a * shrink + e @ values


def chunk_maximum_only(state: tuple, scores: Tensor, values: Tensor) -> tuple:
    m, total, a = state
    new_m = scores.max()
    e, shrink = torch.exp(scores - new_m), torch.exp(m - new_m)
    return new_m, total * shrink + e.sum(), a * shrink + e @ values


def shrinks_the_new_sums(state: tuple, scores: Tensor, values: Tensor) -> tuple:
    m, total, a = state
    new_m = torch.maximum(m, scores.max())
    e, shrink = torch.exp(scores - new_m), torch.exp(m - new_m)
    return new_m, total + shrink * e.sum(), a + shrink * (e @ values)


def measured_from(place):
    """All right but for the place from which the new scores are measured."""

    def step(state: tuple, scores: Tensor, values: Tensor) -> tuple:
        m, total, a = state
        new_m = torch.maximum(m, scores.max())
        e, shrink = torch.exp(scores - place(m)), torch.exp(m - new_m)
        return new_m, total * shrink + e.sum(), a * shrink + e @ values

    return step


def never_rescaled(place):
    """The new scores measured from somewhere else, and nothing corrected."""

    def step(state: tuple, scores: Tensor, values: Tensor) -> tuple:
        m, total, a = state
        e = torch.exp(scores - place(m))
        return torch.maximum(m, scores.max()), total + e.sum(), a + e @ values

    return step


def maximum_by_entry(state: tuple, scores: Tensor, values: Tensor) -> tuple:
    m, total, a = state
    new_m = torch.maximum(m, scores)
    e, shrink = torch.exp(scores - new_m), torch.exp(m - new_m)
    return new_m, total * shrink + e.sum(), a * shrink + e @ values


def largest_last(state: tuple, scores: Tensor, values: Tensor) -> tuple:
    largest, total, a = online_step(state, scores, values)
    return total, largest, a


def divided_already(state: tuple, scores: Tensor, values: Tensor) -> tuple:
    m, total, a = online_step(state, scores, values)
    return m, total, a / total


def forgets_the_past(state: tuple, scores: Tensor, values: Tensor) -> tuple:
    e = torch.exp(scores - scores.max())
    return scores.max(), e.sum(), e @ values


def softmax_inside(state: tuple, scores: Tensor, values: Tensor) -> tuple:
    m, total, a = state
    new_m = torch.maximum(m, scores.max())
    shrink = torch.exp(m - new_m)
    p = scores.softmax(0)
    return new_m, total * shrink + p.sum(), a * shrink + p @ values


ONLINE = Exercise(
    reference=online_step,
    right=(online_step_by_loop, online_step_by_cat),
    inputs=online_inputs,
    praise="Whether the new chunk holds the largest score or not, and for the first chunk too.",
    wrong=(
        Wrong(
            without_shrinking("total", "a"),
            "what was summed before was measured from the old maximum: multiply total and a by exp(largest - new)",
        ),
        Wrong(
            without_shrinking("total"),
            "a is brought to the new maximum, the total is not: multiply it by exp(largest - new) too",
        ),
        Wrong(
            without_shrinking("a"),
            "the total is brought to the new maximum, a is not: multiply it by exp(largest - new) too",
        ),
        Wrong(
            with_shrink(lambda m, new: torch.exp(new - m)),
            "the factor is the wrong way round: exp(largest - new), at most 1, brings the old sums down",
        ),
        Wrong(
            with_shrink(lambda m, new: m - new),
            "the factor is exp(largest - new), not the difference itself",
        ),
        Wrong(
            chunk_shifted_by_its_own_maximum,
            "the new scores are measured from the chunk's own maximum; use the larger of it and the old one",
        ),
        Wrong(
            chunk_maximum_only,
            "your new maximum is that of the chunk alone; an earlier score may have been larger: take the larger of both",
        ),
        Wrong(
            shrinks_the_new_sums,
            "it is the old sums that the factor brings down; the new ones are measured from the new maximum already",
        ),
        Wrong(
            measured_from(lambda m: m),
            "the new scores are measured from the old maximum; subtract the new one, exp(scores - new)",
        ),
        Wrong(
            measured_from(lambda m: 0),
            "exp(scores) alone may overflow, and the old sums are measured from a maximum: use exp(scores - new)",
        ),
        Wrong(
            never_rescaled(lambda m: m),
            "all is measured from the old maximum, and at the start that is -inf: measure the chunk from new, and bring the old sums there too",
        ),
        Wrong(
            never_rescaled(lambda m: 0),
            "exp(scores) may overflow, and the old sums are measured from largest, not from 0: exp(scores - new), old sums times exp(largest - new)",
        ),
        Wrong(
            maximum_by_entry,
            "the new maximum is one number: torch.maximum(largest, scores.max()), with .max() behind scores",
        ),
        Wrong(
            largest_last,
            "the tuple is in another order: largest first, then total, then a",
        ),
        Wrong(
            divided_already,
            "do not divide a by total yet: later chunks must still be added; that is done once, at the end",
        ),
        Wrong(
            forgets_the_past,
            "you return the sums of this chunk alone; what was summed before has to be added",
        ),
        Wrong(
            softmax_inside,
            "a softmax of the chunk has already been divided by the chunk's sum; use exp(scores - new)",
        ),
        Wrong(
            lambda state, scores, values: tuple(reversed(online_step(state, scores, values))),
            "the three results are right, but in another order: largest, total, a",
        ),
        Wrong(
            lambda state, scores, values: online_step(state, scores, values)[2],
            "you return a alone; the next chunk needs all three: largest, total and a",
        ),
        Wrong(
            lambda state, scores, values: (
                online_step(state, scores, values)[2] / online_step(state, scores, values)[1]
            ),
            "you return the finished average; the next chunk needs largest, total and a",
        ),
    ),
)


# 02.4 mend two mistakes ---------------------------------------------------------------------------------


def mended(x: Tensor, W_q: Tensor, W_k: Tensor, W_v: Tensor) -> Tensor:
    q, k, v = x @ W_q, x @ W_k, x @ W_v
    return (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v


def mended_in_one_call(x: Tensor, W_q: Tensor, W_k: Tensor, W_v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(x @ W_q, x @ W_k, x @ W_v)


def mended_by_einsum(x: Tensor, W_q: Tensor, W_k: Tensor, W_v: Tensor) -> Tensor:
    q, k, v = (torch.einsum("bnx,xd->bnd", x, W) for W in (W_q, W_k, W_v))
    P = torch.softmax(torch.einsum("bnd,bmd->bnm", q, k) / math.sqrt(W_q.shape[1]), dim=2)
    return torch.einsum("bnm,bmf->bnf", P, v)


def as_it_was(x: Tensor, W_q: Tensor, W_k: Tensor, W_v: Tensor) -> Tensor:
    q, k, v = x @ W_q, x @ W_k, x @ W_v
    return (q @ k.mT / x.shape[-1] ** 0.5).softmax(1) @ v


MEND = Exercise(
    reference=mended,
    right=(mended_in_one_call, mended_by_einsum),
    inputs=lambda: [
        (ramp(2, 4, 7), ramp(7, 6, step=0.8), ramp(7, 6, step=1.3), ramp(7, 5, step=0.7)),
        (ramp(3, 5, 4, step=0.9), ramp(4, 2, step=1.2), ramp(4, 2, step=0.7), ramp(4, 3, step=1.1)),
    ],
    praise="The softmax runs over the keys again, and the scale is that of the keys' width.",
    wrong=(
        Wrong(
            as_it_was,
            "that is the code as it was: look at what each row of weights sums to, and at the scale",
        ),
        Wrong(
            lambda x, W_q, W_k, W_v: ((x @ W_q) @ (x @ W_k).mT / x.shape[-1] ** 0.5).softmax(-1) @ (x @ W_v),
            "the axis is right now; the scale still has the width of the tokens in it, and q and k are narrower",
        ),
        Wrong(
            lambda x, W_q, W_k, W_v: ((x @ W_q) @ (x @ W_k).mT / W_q.shape[-1] ** 0.5).softmax(1) @ (x @ W_v),
            "the scale is right now; the softmax still runs over the queries: with a batch in front, axis 1 is theirs",
        ),
        Wrong(
            lambda x, W_q, W_k, W_v: ((x @ W_q) @ (x @ W_k).mT / W_q.shape[-1] ** 0.5).softmax(0) @ (x @ W_v),
            "axis 0 is the batch: one sequence would change the weights of another; the keys are the last axis",
        ),
        Wrong(
            lambda x, W_q, W_k, W_v: ((x @ W_q) @ (x @ W_k).mT).softmax(-1) @ (x @ W_v),
            "the axis is right, but the scale is gone; divide by the square root of the keys' width",
        ),
        Wrong(
            lambda x, W_q, W_k, W_v: (
                ((x @ W_q) @ (x @ W_k).mT / int(W_q.shape[-1] ** 0.5)).softmax(-1) @ (x @ W_v)
            ),
            "int() cuts the root down to a whole number, and the root of 6 is 2.449; leave it as it is",
        ),
        Wrong(
            lambda x, W_q, W_k, W_v: ((x @ W_q) @ (x @ W_k).mT / x.shape[-2] ** 0.5).softmax(-1) @ (x @ W_v),
            "you divide by the root of the number of tokens; it is the root of the keys' width",
        ),
        Wrong(
            lambda x, W_q, W_k, W_v: (
                ((x @ W_q) @ (x @ W_k).mT * W_q.shape[-1] ** 0.5).softmax(-1) @ (x @ W_v)
            ),
            "the width is right, but you multiply by its root; divide by it",
        ),
        Wrong(
            lambda x, W_q, W_k, W_v: ((x @ W_q) @ (x @ W_k).mT / W_q.shape[-1]).softmax(-1) @ (x @ W_v),
            "divide by the square root of the keys' width, not by the width itself",
        ),
        Wrong(
            lambda x, W_q, W_k, W_v: (
                ((x @ W_q) @ (x @ W_k).mT / W_v.shape[-1] ** 0.5).softmax(-1) @ (x @ W_v)
            ),
            "the scale belongs to queries and keys; you took the width of the values",
        ),
        Wrong(
            lambda x, W_q, W_k, W_v: (
                ((x @ W_k) @ (x @ W_q).mT / W_q.shape[-1] ** 0.5).softmax(-1) @ (x @ W_v)
            ),
            "queries and keys have changed places; that was right in the code as it stood",
        ),
        Wrong(
            lambda x, W_q, W_k, W_v: (
                ((x @ W_q) @ (x @ W_k).mT / W_q.shape[-1] ** 0.5).softmax(-1).mT @ (x @ W_v)
            ),
            "the weights are right, but you use them transposed: row i of the weights belongs to output i",
        ),
        Wrong(
            lambda x, W_q, W_k, W_v: x + mended(x, W_q, W_k, W_v),
            "you add the tokens to the output; the exercise asks for the attention alone",
        ),
    ),
)


# 02.5 the gradient of the scale --------------------------------------------------------------------------


def scale_gradient(grad_S: Tensor, q: Tensor, k: Tensor) -> Tensor:
    return (grad_S * (q @ k.mT)).sum()


def scale_gradient_einsum(grad_S: Tensor, q: Tensor, k: Tensor) -> Tensor:
    return torch.einsum("nm,nd,md->", grad_S, q, k)


def scale_gradient_autograd(grad_S: Tensor, q: Tensor, k: Tensor) -> Tensor:
    tau = torch.ones((), dtype=q.dtype, requires_grad=True)
    return torch.autograd.grad(tau * (q @ k.mT), tau, grad_S)[0]


def scale_gradient_trace(grad_S: Tensor, q: Tensor, k: Tensor) -> Tensor:
    return (q.T @ grad_S @ k).trace()


SCALE = Exercise(
    reference=scale_gradient,
    right=(scale_gradient_einsum, scale_gradient_autograd, scale_gradient_trace),
    inputs=lambda: [
        (ramp(3, 4), ramp(3, 2), ramp(4, 2, step=0.7)),
        (ramp(2, 5), ramp(2, 3, step=0.9), ramp(5, 3)),
    ],
    praise="One number that every score used: it collects from all of them.",
    wrong=(
        Wrong(
            lambda g, q, k: g * (q @ k.mT),
            "the scale is one number, so its gradient is one too: add up over all scores",
        ),
        Wrong(
            lambda g, q, k: (g * (q @ k.mT)).mean(),
            "every score used the scale, so their parts add up: a sum, not a mean",
        ),
        Wrong(
            lambda g, q, k: (g * (q @ k.mT)).sum(-1),
            "you sum over the keys only; the scale is shared by all queries too",
        ),
        Wrong(
            lambda g, q, k: (g * (q @ k.mT)).sum(0),
            "you sum over the queries only; the scale is shared by all keys too",
        ),
        Wrong(
            lambda g, q, k: (g * (q @ k.mT)).sum() / q.shape[-1] ** 0.5,
            "the scale has become a variable: its own slope is q . k, without a further 1/sqrt(d)",
        ),
        Wrong(
            lambda g, q, k: -(g * (q @ k.mT)).sum(),
            "the sign is reversed: S grows with tau where q . k is positive",
        ),
        Wrong(
            lambda g, q, k: (g @ (q @ k.mT)).sum(),
            "that is a matrix product; each score's gradient meets its own q . k, so multiply entry by entry with *",
        ),
        Wrong(
            lambda g, q, k: (g @ (q @ k.mT).mT).sum(),
            "a matrix product adds up products of different queries too; multiply entry by entry with *, or take the trace",
        ),
        Wrong(
            lambda g, q, k: g.sum(),
            "the slope of tau (q . k) with respect to tau is q . k; you took 1",
        ),
        Wrong(
            lambda g, q, k: (q @ k.mT).sum(),
            "what arrives from above is missing: multiply by grad_S before you add up",
        ),
        Wrong(
            lambda g, q, k: g.sum() * (q @ k.mT).sum(),
            "multiply entry by entry first, and add up afterwards",
        ),
        Wrong(
            lambda g, q, k: q.T @ g @ k,
            "the right products, but of different features too: only the diagonal counts, add it up (its trace)",
        ),
        Wrong(
            lambda g, q, k: (g * (q @ k.mT).softmax(-1)).sum(),
            "dL/dS is given, so the softmax lies behind you: S = tau q . k needs the plain products",
        ),
        Wrong(
            lambda g, q, k: g @ k,
            "that is how grad_S goes back to the queries; for the scale, every score counts with its own q . k",
        ),
        Wrong(
            lambda g, q, k: (g @ k).sum(),
            "that adds up what goes back to the queries, and the queries themselves are missing: multiply with q first",
        ),
    ),
)


EXERCISES = {
    "02.a": choice(
        "c",
        {
            "a": "those are the scores themselves, and they do not sum to 1",
            "b": "that would be right for equal scores; ln 3 is larger than 0",
            "d": "the larger score gets the larger weight",
            "e": "exp(ln 3) is 3, so the exponentials are 1 and 3; divide both by their sum",
        },
        "The exponentials are 1 and 3; divided by their sum, 1/4 and 3/4.",
    ),
    "02.b": choice(
        "d",
        {
            "a": "the variance of one term is 1; there are 64 of them",
            "b": "8 is the standard deviation, the root of the variance",
            "c": "the root of the root has no meaning here; variances of independent terms add up",
            "e": "variances add, they do not multiply or square: 64 terms of variance 1 each",
        },
        "Variances of independent terms add up: 64 times 1.",
    ),
    "02.c": choice(
        "a",
        {
            "b": "that would be so for equal weights of 1/2; at 1 and 0 the softmax has nowhere to go",
            "c": "p(1 - p) is 1 times 0",
            "d": "the derivative of the exponential itself grows, but it is divided by the sum",
            "e": "the entries of diag(p) - p p^T can be computed for any p, also for this one",
        },
        "diag(p) - p p^T is zero there: a softmax that is certain passes no gradient on.",
    ),
    "02.1": ATTENTION,
    "02.2": SCORES_BACKWARD,
    "02.3": ONLINE,
    "02.4": MEND,
    "02.5": SCALE,
}
