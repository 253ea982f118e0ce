"""The exercises of 04_recurrent_attention."""

import torch
from torch import Tensor

from attnlib.exercises.checker import Exercise, Wrong, choice, ramp

# 04.1 additive attention ---------------------------------------------------------------------------------


def additive_weights(s: Tensor, h: Tensor, W: Tensor, U: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    e = torch.tanh((s @ W.T)[:, None] + h @ U.T) @ v
    return e.masked_fill(~mask, -torch.inf).softmax(-1)


def weights_by_loops(s: Tensor, h: Tensor, W: Tensor, U: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    e = torch.stack([torch.stack([v @ torch.tanh(W @ state + U @ place) for place in h]) for state in s])
    exponentials = torch.exp(e) * mask
    return exponentials / exponentials.sum(1, keepdim=True)


def weights_by_joining(s: Tensor, h: Tensor, W: Tensor, U: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    t, m = len(s), len(h)
    both = torch.cat([s[:, None].expand(t, m, -1), h[None].expand(t, m, -1)], -1)
    e = torch.tanh(both @ torch.cat([W, U], 1).T) @ v
    return torch.where(mask, e, torch.full_like(e, -1e9)).softmax(1)


def weights_by_einsum(s: Tensor, h: Tensor, W: Tensor, U: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    z = torch.einsum("tk,ck->tc", s, W).unsqueeze(1) + torch.einsum("mk,ck->mc", h, U).unsqueeze(0)
    e = torch.einsum("tmc,c->tm", z.tanh(), v)
    return torch.softmax(e.masked_fill(mask.logical_not(), float("-inf")), dim=-1)


def additive_inputs() -> list[tuple]:
    """All sizes different, and one case in which t = m = n' = 2n, where a wrong axis still runs.

    v has entries of both signs: one sign alone would forgive -inf on the hidden units.
    """
    return [
        (
            ramp(3, 4),
            ramp(5, 6, step=0.8),
            ramp(4, 4, step=1.1),
            ramp(4, 6, step=0.6),
            2 * ramp(4, step=1.7),
            torch.tensor([1, 1, 0, 1, 0]).bool(),
        ),
        (
            ramp(4, 4, step=0.9),
            ramp(4, 4, step=1.3),
            ramp(4, 4, step=0.7),
            ramp(4, 4, step=1.9),
            2 * ramp(4, step=0.5),
            torch.tensor([0, 1, 1, 1]).bool(),
        ),
    ]


def hidden(s: Tensor, h: Tensor, W: Tensor, U: Tensor) -> Tensor:
    return (s @ W.T)[:, None] + h @ U.T


def shared_out(e: Tensor, mask: Tensor) -> Tensor:
    return e.masked_fill(~mask, -torch.inf).softmax(-1)


ADDITIVE = Exercise(
    reference=additive_weights,
    right=(weights_by_loops, weights_by_joining, weights_by_einsum),
    inputs=additive_inputs,
    praise="Your weights are those of (4.3) and (4.4), with and without padding.",
    wrong=(
        Wrong(
            lambda s, h, W, U, v, mask: shared_out(hidden(s, h, W, U) @ v, mask),
            "the tanh is missing: without it the state has no say, see (4.5)",
        ),
        Wrong(
            lambda s, h, W, U, v, mask: shared_out(((s @ W.T).tanh()[:, None] + (h @ U.T).tanh()) @ v, mask),
            "your weights do not depend on the state: it must be added inside the tanh, and not bent for itself, see (4.3)",
        ),
        Wrong(
            lambda s, h, W, U, v, mask: shared_out(torch.tanh(hidden(s, h, W, U) @ v), mask),
            "you take the tanh of the score; in (4.3) it stands inside, and v multiplies it",
        ),
        Wrong(
            lambda s, h, W, U, v, mask: shared_out(torch.sigmoid(hidden(s, h, W, U)) @ v, mask),
            "you use a sigmoid; the hidden layer of (4.3) has a tanh",
        ),
        Wrong(
            lambda s, h, W, U, v, mask: shared_out(torch.relu(hidden(s, h, W, U)) @ v, mask),
            "you use a ReLU; the hidden layer of (4.3) has a tanh",
        ),
        Wrong(
            lambda s, h, W, U, v, mask: (torch.tanh(hidden(s, h, W, U)) @ v).softmax(-1),
            "the mask has no effect: padding gets weight (masked_fill returns a new tensor; keep what it returns)",
        ),
        Wrong(
            lambda s, h, W, U, v, mask: shared_out(torch.tanh(hidden(s, h, W, U)) @ v, ~mask),
            "your mask is the wrong way round: True means a real place",
        ),
        Wrong(
            lambda s, h, W, U, v, mask: (torch.tanh(hidden(s, h, W, U)) @ v).softmax(-1) * mask,
            "you mask after the softmax: the rows no longer sum to 1; mask the scores with -inf",
        ),
        Wrong(
            lambda s, h, W, U, v, mask: (torch.tanh(hidden(s, h, W, U)) @ v * mask).softmax(-1),
            "your padding has the score 0, and a score of 0 still gets weight; it takes -inf",
        ),
        Wrong(
            lambda s, h, W, U, v, mask: (
                (torch.tanh(hidden(s, h, W, U)) @ v).masked_fill(~mask, -torch.inf).softmax(0)
            ),
            "your softmax runs over the steps; each step shares its weight out among the places, the last axis",
        ),
        Wrong(
            lambda s, h, W, U, v, mask: (torch.tanh(hidden(s, h, W, U)) @ v).masked_fill(~mask, -torch.inf),
            "you return the scores; the softmax of (4.4) is missing",
        ),
        Wrong(
            lambda s, h, W, U, v, mask: torch.exp(torch.tanh(hidden(s, h, W, U)) @ v) * mask,
            "you return exponentials; (4.4) divides each by the sum of its row",
        ),
        Wrong(
            lambda s, h, W, U, v, mask: (torch.tanh(hidden(s, h, W, U)) @ v).sigmoid() * mask,
            "you use a sigmoid where (4.4) has a softmax: the rows do not sum to 1",
        ),
        Wrong(
            lambda s, h, W, U, v, mask: shared_out(torch.tanh(hidden(s, h, W, U)) @ v, mask) @ h,
            "you return the contexts; this exercise asks for the weights",
        ),
        Wrong(
            lambda s, h, W, U, v, mask: shared_out(torch.tanh(hidden(s, h, W, U)) @ v, mask).T,
            "you return the weights transposed: one row a step, (t, m)",
        ),
        Wrong(
            lambda s, h, W, U, v, mask: shared_out(torch.tanh(hidden(s, h, W, U)).sum(-1), mask),
            "you add the hidden units up; (4.3) weighs them with v",
        ),
        Wrong(
            lambda s, h, W, U, v, mask: shared_out(
                torch.tanh(hidden(s, h, W, U)) @ v / v.shape[0] ** 0.5, mask
            ),
            "you divide by a square root; that belongs to the dot product, (4.3) has none",
        ),
        Wrong(
            lambda s, h, W, U, v, mask: shared_out(torch.tanh((s @ W)[:, None] + h @ U.T) @ v, mask),
            "W stands the wrong way round: W_a s_i is W @ s for one state, s @ W.T for all",
        ),
        Wrong(
            lambda s, h, W, U, v, mask: shared_out(torch.tanh((s @ W.T)[:, None] * (h @ U.T)) @ v, mask),
            "you multiply the two; the additive score adds them",
        ),
        Wrong(
            lambda s, h, W, U, v, mask: shared_out(torch.tanh((s @ W.T)[:, None] - h @ U.T) @ v, mask),
            "you subtract the annotation; (4.3) adds it",
        ),
        Wrong(
            lambda s, h, W, U, v, mask: shared_out(torch.tanh(s @ W.T + h @ U.T) @ v, mask),
            "steps and places need an axis each: (s @ W.T)[:, None] is (t, 1, n'), and with h @ U.T it becomes (t, m, n')",
        ),
        Wrong(
            lambda s, h, W, U, v, mask: shared_out(torch.tanh(s @ W.T + (h @ U.T)[:, None]) @ v, mask),
            "the new axis stands at the wrong one of the two: steps are rows, so it is (s @ W.T)[:, None] + h @ U.T",
        ),
        Wrong(
            lambda s, h, W, U, v, mask: shared_out(torch.tanh((s @ W.T)[:, None] + h @ U) @ v, mask),
            "U stands the wrong way round: U_a h_j is U @ h for one place, h @ U.T for all",
        ),
        Wrong(
            lambda s, h, W, U, v, mask: shared_out(torch.tanh(s[:, None] + h @ U.T) @ v, mask),
            "W is missing: the state goes through W_a before it is added",
        ),
        Wrong(
            lambda s, h, W, U, v, mask: shared_out(torch.tanh((s @ W.T)[:, None] + h) @ v, mask),
            "U is missing: the annotation goes through U_a before it is added",
        ),
        Wrong(
            lambda s, h, W, U, v, mask: (torch.tanh(hidden(s, h * mask[:, None], W, U)) @ v).softmax(-1),
            "you set the annotations of the padding to zero; such a place still gets a score, and weight",
        ),
        Wrong(
            lambda s, h, W, U, v, mask: (
                torch.tanh(hidden(s, h, W, U)).masked_fill(~mask[:, None], -torch.inf) @ v
            ).softmax(-1),
            "you mask the hidden units: times v, their -inf becomes +inf or no number; mask the scores, behind v",
        ),
        Wrong(
            lambda s, h, W, U, v, mask: (
                torch.tanh(hidden(s, h, W, U).masked_fill(~mask[:, None], -torch.inf)) @ v
            ).softmax(-1),
            "you mask before the tanh, which makes -1 of -inf; mask the scores, behind v",
        ),
        Wrong(
            lambda s, h, W, U, v, mask: (torch.tanh(hidden(s, h, W, U)) @ v)[:, mask].softmax(-1),
            "you have taken the padding out; the result has m columns, with zeros at the padding",
        ),
        Wrong(
            lambda s, h, W, U, v, mask: (
                (torch.tanh(hidden(s, h, W, U)) @ v).masked_fill(~mask, -torch.inf).log_softmax(-1)
            ),
            "these are the logarithms of the weights: softmax, not log_softmax",
        ),
        Wrong(
            lambda s, h, W, U, v, mask: torch.tanh(hidden(s, h, W, U)) * v,
            "you multiply by v and do not add up: v_a^T is a sum over the hidden units, @ v",
        ),
        Wrong(
            lambda s, h, W, U, v, mask: (
                shared_out(torch.tanh(hidden(s, h, W, U)) @ v, mask),
                shared_out(torch.tanh(hidden(s, h, W, U)) @ v, mask) @ h,
            ),
            "you return weights and contexts; this exercise asks for the weights alone",
        ),
        Wrong(
            lambda s, h, W, U, v, mask: (torch.tanh(hidden(s, h, W, U)) * v).softmax(-1),
            "your softmax runs over the hidden units; they are added up first (@ v), and it runs over the places",
        ),
    ),
)

# 04.2 back through the hidden layer ------------------------------------------------------------------------


def hidden_backward(G: Tensor, T: Tensor, v: Tensor) -> Tensor:
    return G[..., None] * v * (1 - T**2)


def hidden_backward_by_loops(G: Tensor, T: Tensor, v: Tensor) -> Tensor:
    return torch.stack(
        [
            torch.stack([G[i, j] * v * (1 - T[i, j] * T[i, j]) for j in range(T.shape[1])])
            for i in range(len(T))
        ]
    )


def hidden_backward_by_einsum(G: Tensor, T: Tensor, v: Tensor) -> Tensor:
    return torch.einsum("tm,c,tmc->tmc", G, v, (1 - T) * (1 + T))


def hidden_backward_inputs() -> list[tuple]:
    return [
        (ramp(3, 5), ramp(3, 5, 4, step=0.9), ramp(4, step=1.7)),
        (ramp(4, 4, step=1.2), ramp(4, 4, 4, step=0.6), ramp(4, step=0.8)),
    ]


HIDDEN = Exercise(
    reference=hidden_backward,
    right=(hidden_backward_by_loops, hidden_backward_by_einsum),
    inputs=hidden_backward_inputs,
    praise="Your gradient is the second half of (4.9), one vector for each pair of step and place.",
    wrong=(
        Wrong(
            lambda G, T, v: G[..., None] * v * (1 - T.tanh() ** 2),
            "T is the output of the tanh already; the slope is 1 - T * T, without another tanh",
        ),
        Wrong(lambda G, T, v: G[..., None] * v * (1 - T), "the slope of tanh is 1 minus its square"),
        Wrong(
            lambda G, T, v: G[..., None] * v * T * (1 - T),
            "T(1 - T) is the slope of a sigmoid; that of tanh is 1 minus its square",
        ),
        Wrong(
            lambda G, T, v: G[..., None] * v * T,
            "you multiply by T itself; (4.9) multiplies by the slope of the tanh, 1 - T * T",
        ),
        Wrong(lambda G, T, v: G[..., None] * v, "the slope of the tanh is missing, see (4.9)"),
        Wrong(lambda G, T, v: G[..., None] * (1 - T**2), "v is missing: T reaches the score through it"),
        Wrong(lambda G, T, v: v * (1 - T**2), "G is missing: what arrives from above multiplies all of it"),
        Wrong(
            lambda G, T, v: (G[..., None] * v * (1 - T**2)).sum(1),
            "you have added up over the places; (4.9) keeps one vector for each pair, the sums come in (4.10)",
        ),
        Wrong(
            lambda G, T, v: (G[..., None] * v * (1 - T**2)).sum(0),
            "you have added up over the steps; (4.9) keeps one vector for each pair, the sums come in (4.10)",
        ),
        Wrong(
            lambda G, T, v: (G[..., None] * T).sum((0, 1)),
            "this is the gradient of v, the first half of (4.9); the exercise asks for the second",
        ),
        Wrong(
            lambda G, T, v: G[..., None] * v * (1 + T**2),
            "a sign is wrong: the slope of tanh is 1 minus its square",
        ),
        Wrong(
            lambda G, T, v: G[..., None] * v * (T**2 - 1),
            "the sign is turned round: the slope of tanh is 1 minus its square, never negative",
        ),
        Wrong(
            lambda G, T, v: (G[..., None] * v * (1 - T**2)).sum(-1),
            "you have added up over the hidden units; each of them has a gradient of its own",
        ),
        Wrong(
            lambda G, T, v: G[..., None] / v * (1 - T**2),
            "you divide by v; the chain rule multiplies by it",
        ),
        Wrong(
            lambda G, T, v: G * v * (1 - T**2),
            "G lacks the last axis, that of the hidden units: G[..., None]",
        ),
        Wrong(
            lambda G, T, v: G[:, None] * v * (1 - T**2),
            "the new axis of G stands in the middle; G is (t, m), and the hidden units come last: G[..., None]",
        ),
        Wrong(
            lambda G, T, v: G[None] * v * (1 - T**2),
            "the new axis of G stands in front; G is (t, m), and the hidden units come last: G[..., None]",
        ),
        Wrong(
            lambda G, T, v: G[..., None] * (1 - (v * T) ** 2),
            "v multiplies the slope of the tanh from outside; you have put it below the square",
        ),
        Wrong(
            lambda G, T, v: G[..., None] * v * (1 - T**2) ** 0.5,
            "you take a square root; the slope of tanh is 1 - T * T itself",
        ),
        Wrong(
            lambda G, T, v: G[..., None] * v * (1 - T) ** 2,
            "(1 - T) squared is not 1 - T squared",
        ),
        Wrong(
            lambda G, T, v: G[..., None] * v * (-2 * T),
            "you have differentiated 1 - T * T once more; it is already the slope of the tanh",
        ),
        Wrong(
            lambda G, T, v: G[..., None] * ((1 - T**2) @ v)[..., None],
            "@ v adds up over the hidden units; here v multiplies each of them: * v",
        ),
        Wrong(
            lambda G, T, v: (G[..., None] * v * (1 - T**2)).sum((0, 1)),
            "you have added up over steps and places; (4.9) keeps one vector for each pair",
        ),
        Wrong(
            lambda G, T, v: ((G[..., None] * T).sum((0, 1)), G[..., None] * v * (1 - T**2)),
            "you return both halves of (4.9); the exercise asks for the second alone",
        ),
    ),
)

# 04.3 the local window -------------------------------------------------------------------------------------


def local_weights(scores: Tensor, p: float | int | Tensor, D: float | int) -> Tensor:
    places = torch.arange(len(scores))
    near = (places - p).abs() <= D
    a = scores.masked_fill(~near, -torch.inf).softmax(0)
    return a * torch.exp(-((places - p) ** 2) / (2 * (D / 2) ** 2))


def local_weights_by_loop(scores: Tensor, p: float | int | Tensor, D: float | int) -> Tensor:
    near = [s for s in range(len(scores)) if abs(s - p) <= D]
    total = sum(torch.exp(scores[s]) for s in near)
    result = torch.zeros_like(scores)
    for s in near:
        result[s] = torch.exp(scores[s]) / total * torch.exp(torch.tensor(-2.0 * (s - p) ** 2 / D**2))
    return result


def local_weights_by_slice(scores: Tensor, p: float | int | Tensor, D: float | int) -> Tensor:
    first, last = max(0, -int(-(p - D) // 1)), min(len(scores) - 1, int((p + D) // 1))
    s = torch.arange(first, last + 1, dtype=scores.dtype)
    inner = scores[first : last + 1].softmax(0) * torch.exp(-(s - p).square() / (D**2 / 2))
    return torch.cat([scores.new_zeros(first), inner, scores.new_zeros(len(scores) - 1 - last)])


def local_inputs() -> list[tuple]:
    """A whole p, so that the border counts; one between two places; one near an end."""
    return [(2 * ramp(9), 4.0, 3), (2 * ramp(10, step=0.8), 5.4, 2), (2 * ramp(8, step=1.1), 0.7, 3)]


def inside(scores: Tensor, p: float | int | Tensor, D: float | int) -> Tensor:
    near = (torch.arange(len(scores)) - p).abs() <= D
    return scores.masked_fill(~near, -torch.inf).softmax(0)


def bell(scores: Tensor, p: float | int | Tensor, sigma: float | int) -> Tensor:
    return torch.exp(-((torch.arange(len(scores), dtype=scores.dtype) - p) ** 2) / (2 * sigma**2))


def over_its_sum(a: Tensor) -> Tensor:
    return a / a.sum()


def with_open_border(scores: Tensor, p: float | int | Tensor, D: float | int) -> Tensor:
    near = (torch.arange(len(scores)) - p).abs() < D
    return scores.masked_fill(~near, -torch.inf).softmax(0) * bell(scores, p, D / 2)


def from_one(scores: Tensor, p: float | int | Tensor, D: float | int) -> Tensor:
    return inside(scores, p - 1, D) * bell(scores, p - 1, D / 2)


LOCAL = Exercise(
    reference=local_weights,
    right=(local_weights_by_loop, local_weights_by_slice),
    inputs=local_inputs,
    praise="Your weights are those of (4.12), for a whole p, a p between two places, and one at the end.",
    wrong=(
        Wrong(
            lambda scores, p, D: over_its_sum(inside(scores, p, D) * bell(scores, p, D / 2)),
            "your weights sum to 1: the Gaussian of (4.12) comes after the softmax, and nothing is divided again",
        ),
        Wrong(
            lambda scores, p, D: inside(scores, p, D) * bell(scores, p, D),
            "your Gaussian has the spread D; Luong's has D/2",
        ),
        Wrong(
            lambda scores, p, D: inside(scores, p, D) * bell(scores, p, D / 2) ** 2,
            "the factor 2 below the fraction of (4.12) is missing: it is 2 sigma squared",
        ),
        Wrong(
            lambda scores, p, D: (
                inside(scores, p, D)
                * torch.exp(-(torch.arange(len(scores), dtype=scores.dtype) - p).abs() / (D**2 / 2))
            ),
            "you take the distance itself; (4.12) has its square",
        ),
        Wrong(
            lambda scores, p, D: inside(scores, p, D) / bell(scores, p, D / 2),
            "a sign is wrong in the exponent: your weights grow with the distance",
        ),
        Wrong(
            lambda scores, p, D: inside(scores, p, D),
            "the Gaussian is missing: p has only chosen the window",
        ),
        Wrong(
            lambda scores, p, D: scores.softmax(0) * bell(scores, p, D / 2),
            "there is no window: places further from p than D get no weight at all",
        ),
        Wrong(
            lambda scores, p, D: (
                scores.softmax(0) * bell(scores, p, D / 2) * ((torch.arange(len(scores)) - p).abs() <= D)
            ),
            "your softmax runs over all places, and the window comes after it; in (4.12) it runs over the window",
        ),
        Wrong(
            lambda scores, p, D: inside(scores, round(p), D) * bell(scores, round(p), D / 2),
            "you round p; it is a real number, or it could not learn",
        ),
        Wrong(
            lambda scores, p, D: inside(scores, int(p), D) * bell(scores, int(p), D / 2),
            "you cut p down to a whole number; it is a real number, or it could not learn",
        ),
        Wrong(
            with_open_border,
            "your window leaves out its border: a place at the distance D belongs to it",
        ),
        Wrong(
            from_one,
            "you count places from 1; here the first place is 0",
        ),
        Wrong(
            lambda scores, p, D: inside(scores, p, D / 2) * bell(scores, p, D / 2),
            "your window reaches D/2 to each side; it reaches D, and sigma is D/2",
        ),
        Wrong(
            lambda scores, p, D: (
                inside(scores, p, D) * bell(scores, p, D / 2) / (D / 2 * (2 * torch.pi) ** 0.5)
            ),
            "you use the density of a normal distribution; the factor of (4.12) is 1 at p",
        ),
        Wrong(
            lambda scores, p, D: bell(scores, p, D / 2) * ((torch.arange(len(scores)) - p).abs() <= D),
            "the scores have no part in your weights: the softmax of (4.12) is missing",
        ),
        Wrong(
            lambda scores, p, D: inside(scores, p, D) * bell(scores, p, D // 2),
            "D // 2 cuts a half off; sigma is D / 2, also for an odd D",
        ),
        Wrong(
            lambda scores, p, D: (
                inside(scores, p, D)
                * torch.exp(-((torch.arange(len(scores), dtype=scores.dtype) - p) ** 2) / 2 * (D / 2) ** 2)
            ),
            "a / 2 * b is a times b / 2 in Python: put brackets around 2 * (D / 2) ** 2",
        ),
        Wrong(
            lambda scores, p, D: (
                inside(scores, p, D)
                * torch.exp(-((torch.arange(len(scores), dtype=scores.dtype) - p) ** 2) / (2 * (D / 2)))
            ),
            "sigma is not squared: below the fraction of (4.12) stands 2 sigma squared",
        ),
        Wrong(
            lambda scores, p, D: inside(scores * bell(scores, p, D / 2), p, D),
            "your Gaussian multiplies the scores; in (4.12) it comes behind the softmax",
        ),
        Wrong(
            lambda scores, p, D: (
                scores.masked_fill(((torch.arange(len(scores)) - p).abs() > D), 0).softmax(0)
                * bell(scores, p, D / 2)
            ),
            "outside the window your scores are 0, which still takes a part of the softmax; they must be -inf",
        ),
        Wrong(
            lambda scores, p, D: (
                scores.masked_fill(torch.arange(len(scores)) - p > D, -torch.inf).softmax(0)
                * bell(scores, p, D / 2)
            ),
            "your window has no left border: the distance counts without its sign, .abs()",
        ),
        Wrong(
            lambda scores, p, D: (
                scores.masked_fill((torch.arange(len(scores)) - p).abs() <= D, -torch.inf).softmax(0)
                * bell(scores, p, D / 2)
            ),
            "your window is turned inside out: the places further away than D are the ones to mask",
        ),
        Wrong(
            lambda scores, p, D: (inside(scores, p, D) * bell(scores, p, D / 2))[inside(scores, p, D) > 0],
            "you return the window alone; the result has all m places, with zeros outside",
        ),
    ),
)

# 04.4 bug gallery: weights that never see the source ---------------------------------------------------------


def mended(y: Tensor, s: Tensor, H: Tensor, W: Tensor, U: Tensor, v: Tensor) -> Tensor:
    e = torch.tanh(W @ torch.cat([y, s]) + H @ U.T) @ v
    return e.softmax(0) @ H


def mended_by_loop(y: Tensor, s: Tensor, H: Tensor, W: Tensor, U: Tensor, v: Tensor) -> Tensor:
    asks = W @ torch.cat([y, s])
    e = torch.exp(torch.stack([v @ torch.tanh(asks + U @ h) for h in H]))
    return sum(e[j] * H[j] for j in range(len(H))) / e.sum()


def mended_by_parts(y: Tensor, s: Tensor, H: Tensor, W: Tensor, U: Tensor, v: Tensor) -> Tensor:
    asks = W[:, : len(y)] @ y + W[:, len(y) :] @ s
    return torch.softmax((asks + torch.einsum("mk,ck->mc", H, U)).tanh() @ v, -1) @ H


def gallery_inputs() -> list[tuple]:
    return [
        (ramp(3), ramp(4, step=0.8), ramp(5, 6, step=1.1), ramp(4, 7, step=0.6), ramp(4, 6), 3 * ramp(4)),
        (
            ramp(4, step=1.3),
            ramp(4, step=0.7),
            ramp(4, 4, step=0.9),
            ramp(4, 8, step=1.7),
            ramp(4, 4, step=0.5),
            3 * ramp(4, step=0.6),
        ),
    ]


def asked(y: Tensor, s: Tensor, W: Tensor) -> Tensor:
    return W @ torch.cat([y, s])


MENDED = Exercise(
    reference=mended,
    right=(mended_by_loop, mended_by_parts),
    inputs=gallery_inputs,
    praise="Each annotation now has a say in its own weight, and the weights sum to 1 for every length.",
    wrong=(
        Wrong(
            lambda y, s, H, W, U, v: (torch.tanh(asked(y, s, W)) * v).softmax(0)[: len(H)] @ H[: len(W)],
            "your weights still do not look at H: they would be the same for any other source",
        ),
        Wrong(
            lambda y, s, H, W, U, v: H.mean(0),
            "this is the plain mean of the annotations: all of your scores are equal",
        ),
        Wrong(
            lambda y, s, H, W, U, v: (torch.tanh(H @ U.T) @ v).softmax(0) @ H,
            "now the annotations have a say, but token and state have none: W times [y; s] belongs inside the tanh",
        ),
        Wrong(
            lambda y, s, H, W, U, v: (torch.tanh(W[:, len(y) :] @ s + H @ U.T) @ v).softmax(0) @ H,
            "you have left the token y out; W takes y and s on top of each other",
        ),
        Wrong(
            lambda y, s, H, W, U, v: (torch.tanh(W[:, : len(y)] @ y + H @ U.T) @ v).softmax(0) @ H,
            "you have left the state s out; W takes y and s on top of each other",
        ),
        Wrong(
            lambda y, s, H, W, U, v: (torch.tanh(W @ torch.cat([s, y]) + H @ U.T) @ v).softmax(0) @ H,
            "you have joined s before y; the columns of W belong to y first",
        ),
        Wrong(
            lambda y, s, H, W, U, v: ((asked(y, s, W) + H @ U.T) @ v).softmax(0) @ H,
            "the tanh is missing: without it token and state drop out of the softmax, see (4.5)",
        ),
        Wrong(
            lambda y, s, H, W, U, v: (torch.tanh(asked(y, s, W) + H @ U.T) @ v).softmax(0),
            "you return the weights; the function returns the context, their sum with the annotations",
        ),
        Wrong(
            lambda y, s, H, W, U, v: (torch.tanh(asked(y, s, W) + H @ U.T) @ v) @ H,
            "the softmax is missing: scores are not yet weights",
        ),
        Wrong(
            lambda y, s, H, W, U, v: (torch.tanh(asked(y, s, W) + H @ U.T) @ v).sigmoid() @ H,
            "you use a sigmoid: the weights of (4.4) share out one whole",
        ),
        Wrong(
            lambda y, s, H, W, U, v: (torch.tanh(asked(y, s, W) + H @ U.T)).sum(1).softmax(0) @ H,
            "you add the hidden units up; (4.3) weighs them with v",
        ),
        Wrong(
            lambda y, s, H, W, U, v: (torch.tanh(asked(y, s, W) + H @ U.T) @ v).softmax(0) @ (H @ U.T),
            "you average U h; the context of (4.4) is made of the annotations themselves",
        ),
        Wrong(
            lambda y, s, H, W, U, v: (torch.tanh(asked(y, s, W) + H @ U.T) @ v).softmax(0)[:, None] * H,
            "you have weighed the annotations and not added them up: the context is one vector",
        ),
        Wrong(
            lambda y, s, H, W, U, v: asked(y, s, W).softmax(0)[: len(H)] @ H,
            "this is the old function with W for A: what asks must now be added to H @ U.T, inside the tanh",
        ),
        Wrong(
            lambda y, s, H, W, U, v: torch.tanh((asked(y, s, W) + H @ U.T) @ v).softmax(0) @ H,
            "you take the tanh of the score; in (4.3) it stands inside, and v multiplies it",
        ),
        Wrong(
            lambda y, s, H, W, U, v: (torch.tanh(asked(y, s, W) * (H @ U.T)) @ v).softmax(0) @ H,
            "you multiply the two; the additive score adds them",
        ),
        Wrong(
            lambda y, s, H, W, U, v: (H @ U.T @ asked(y, s, W)).softmax(0) @ H,
            "this is a dot product; the additive score adds the two, bends the sum and weighs it with v",
        ),
        Wrong(
            lambda y, s, H, W, U, v: (H @ U.T @ torch.tanh(asked(y, s, W))).softmax(0) @ H,
            "you bend what asks and take a dot product; the additive score bends the sum and weighs it with v",
        ),
        Wrong(
            lambda y, s, H, W, U, v: (torch.tanh(asked(y, s, W) + H @ U) @ v).softmax(0) @ H,
            "U stands the wrong way round: U_a h_j is U @ h for one place, H @ U.T for all",
        ),
        Wrong(
            lambda y, s, H, W, U, v: (torch.tanh(asked(y, s, W) + U @ H) @ v).softmax(0) @ H,
            "the annotations are the rows of H, so U_a h_j for all of them is H @ U.T",
        ),
        Wrong(
            lambda y, s, H, W, U, v: H[(torch.tanh(asked(y, s, W) + H @ U.T) @ v).argmax()],
            "you take the best annotation alone; the context is the weighted sum of all",
        ),
        Wrong(
            lambda y, s, H, W, U, v: (torch.tanh(asked(y, s, W) + H @ U.T) @ v).softmax(0) @ H / len(H),
            "you divide by the number of places; the weights sum to 1 already",
        ),
        Wrong(
            lambda y, s, H, W, U, v: (
                (torch.tanh(asked(y, s, W) + H @ U.T) @ v / len(v) ** 0.5).softmax(0) @ H
            ),
            "you divide by a square root; that belongs to the dot product, (4.3) has none",
        ),
        Wrong(
            lambda y, s, H, W, U, v: mended(y, s, H, W, U, v)[None],
            "your context has an axis too many; it is one vector, (2n)",
        ),
    ),
)

# 04.5 input feeding ------------------------------------------------------------------------------------------


def fed_step(
    y: Tensor, r: Tensor, s: Tensor, H: Tensor, W_x: Tensor, W_h: Tensor, W_c: Tensor
) -> tuple[Tensor, Tensor]:
    s = torch.tanh(W_x @ torch.cat([y, r]) + W_h @ s)
    c = (H @ s).softmax(0) @ H
    return s, torch.tanh(W_c @ torch.cat([c, s]))


def fed_step_by_parts(
    y: Tensor, r: Tensor, s: Tensor, H: Tensor, W_x: Tensor, W_h: Tensor, W_c: Tensor
) -> tuple[Tensor, Tensor]:
    new = (W_x[:, : len(y)] @ y + W_x[:, len(y) :] @ r + W_h @ s).tanh()
    e = torch.exp(torch.einsum("mk,k->m", H, new))
    c = torch.einsum("m,mk->k", e / e.sum(), H)
    return new, (W_c[:, : len(c)] @ c + W_c[:, len(c) :] @ new).tanh()


def fed_step_by_rows(
    y: Tensor, r: Tensor, s: Tensor, H: Tensor, W_x: Tensor, W_h: Tensor, W_c: Tensor
) -> tuple[Tensor, Tensor]:
    state = torch.tanh(torch.cat([y, r, s])[None] @ torch.cat([W_x, W_h], 1).T)  # 1 n'
    context = (state @ H.T).softmax(-1) @ H
    return state[0], torch.tanh(torch.cat([context, state], -1) @ W_c.T)[0]


def fed_inputs() -> list[tuple]:
    return [
        (
            ramp(3),
            ramp(4, step=0.8),
            ramp(4, step=1.3),
            2 * ramp(5, 4, step=1.1),
            ramp(4, 7, step=0.6),
            ramp(4, 4, step=0.9),
            ramp(4, 8, step=1.7),
        ),
        (
            ramp(4, step=1.2),
            ramp(4, step=0.5),
            ramp(4, step=0.7),
            2 * ramp(4, 4, step=0.6),
            ramp(4, 8, step=1.4),
            ramp(4, 4, step=1.6),
            ramp(4, 8, step=0.4),
        ),
    ]


def stepped(y: Tensor, r: Tensor, s: Tensor, W_x: Tensor, W_h: Tensor) -> Tensor:
    return torch.tanh(W_x @ torch.cat([y, r]) + W_h @ s)


def looked(s: Tensor, H: Tensor) -> Tensor:
    return (H @ s).softmax(0) @ H


def read(c: Tensor, s: Tensor, W_c: Tensor) -> Tensor:
    return torch.tanh(W_c @ torch.cat([c, s]))


def fed(step=stepped, look=looked, readout=read, order=lambda new, r: (new, r), who="new"):
    """``fed_step`` with one of its parts replaced."""

    def answer(y, r, s, H, W_x, W_h, W_c):
        new = step(y, r, s, W_x, W_h)
        c = look(s if who == "old" else new, H)
        return order(new, readout(c, new, W_c))

    return answer


def with_old_readout_state(
    y: Tensor, r: Tensor, s: Tensor, H: Tensor, W_x: Tensor, W_h: Tensor, W_c: Tensor
) -> tuple[Tensor, Tensor]:
    new = stepped(y, r, s, W_x, W_h)
    return new, read(looked(new, H), s, W_c)


def fed_with_context(
    y: Tensor, r: Tensor, s: Tensor, H: Tensor, W_x: Tensor, W_h: Tensor, W_c: Tensor
) -> tuple[Tensor, Tensor]:
    c = looked(s, H)
    new = stepped(y, c, s, W_x, W_h)
    return new, read(c, new, W_c)


FED = Exercise(
    reference=fed_step,
    right=(fed_step_by_parts, fed_step_by_rows),
    inputs=fed_inputs,
    praise="Your step hears what the last one has read, and looks with its own new state.",
    wrong=(
        Wrong(
            fed(who="old"),
            "you look with the state that came in; in Luong's order, (4.7), the new state looks",
        ),
        Wrong(
            fed(step=lambda y, r, s, W_x, W_h: torch.tanh(W_x[:, : len(y)] @ y + W_h @ s)),
            "the readout of the step before has no part in your state: W_x takes y and r on top of each other",
        ),
        Wrong(
            fed(step=lambda y, r, s, W_x, W_h: torch.tanh(W_x @ torch.cat([r, y]) + W_h @ s)),
            "you have joined r before y; the columns of W_x belong to y first",
        ),
        Wrong(
            fed(step=lambda y, r, s, W_x, W_h: W_x @ torch.cat([y, r]) + W_h @ s),
            "the tanh of the new state is missing",
        ),
        Wrong(
            fed(step=lambda y, r, s, W_x, W_h: torch.tanh(W_x @ torch.cat([y, r]))),
            "your new state forgets the old one: W_h times s is missing",
        ),
        Wrong(
            fed(step=lambda y, r, s, W_x, W_h: torch.tanh(W_x @ torch.cat([y, s]) + W_h @ r)),
            "you have exchanged r and s: W_x takes y and r, W_h takes s",
        ),
        Wrong(
            fed(readout=lambda c, s, W_c: W_c @ torch.cat([c, s])),
            "the tanh of the readout is missing",
        ),
        Wrong(
            fed(readout=lambda c, s, W_c: torch.tanh(W_c @ torch.cat([s, c]))),
            "you have joined the state before the context; the columns of W_c belong to c first, as in (4.6)",
        ),
        Wrong(
            fed(readout=lambda c, s, W_c: c),
            "you return the context in the place of the readout",
        ),
        Wrong(
            fed(look=lambda s, H: H.mean(0)),
            "your weights are all equal: the scores are the dot products of the new state with the annotations",
        ),
        Wrong(
            fed(look=lambda s, H: (H @ s) @ H),
            "the softmax is missing: scores are not yet weights",
        ),
        Wrong(
            fed(look=lambda s, H: (H @ s / len(s) ** 0.5).softmax(0) @ H),
            "you divide the scores by a square root; Luong's dot has none",
        ),
        Wrong(
            fed(look=lambda s, H: H[(H @ s).argmax()]),
            "you take the best annotation alone; the context is the weighted sum of all",
        ),
        Wrong(
            fed(order=lambda new, r: (r, new)),
            "you return the readout first; the exercise asks for the state, then the readout",
        ),
        Wrong(
            fed(order=lambda new, r: r),
            "you return the readout alone; the next step needs the state too",
        ),
        Wrong(
            fed(order=lambda new, r: new),
            "you return the state alone; the next step needs the readout too",
        ),
        Wrong(
            with_old_readout_state,
            "your readout joins the context to the state that came in; it takes the new one",
        ),
        Wrong(
            lambda y, r, s, H, W_x, W_h, W_c: (s, fed_step(y, r, s, H, W_x, W_h, W_c)[1]),
            "you return the state that came in; the next step needs the new one",
        ),
        Wrong(
            lambda y, r, s, H, W_x, W_h, W_c: (
                stepped(y, r, s, W_x, W_h),
                read(looked(r, H), stepped(y, r, s, W_x, W_h), W_c),
            ),
            "you look with the readout of the step before; the new state looks",
        ),
        Wrong(
            fed_with_context,
            "you feed a context into the step, as Bahdanau does; here the readout r of the step before goes in",
        ),
        Wrong(
            fed(step=lambda y, r, s, W_x, W_h: torch.tanh(W_x @ torch.cat([y, r])) + torch.tanh(W_h @ s)),
            "you take two tanhs; the two products are added first, and one tanh bends their sum",
        ),
        Wrong(
            fed(step=lambda y, r, s, W_x, W_h: torch.tanh(W_x @ torch.cat([y, r]) + s @ W_h)),
            "W_h stands the wrong way round: it is W_h @ s",
        ),
        Wrong(
            fed(look=lambda s, H: (H @ s).sigmoid() @ H),
            "you use a sigmoid: the weights of (4.4) share out one whole",
        ),
        Wrong(
            lambda y, r, s, H, W_x, W_h, W_c: (
                stepped(y, r, s, W_x, W_h),
                looked(stepped(y, r, s, W_x, W_h), H),
                fed_step(y, r, s, H, W_x, W_h, W_c)[1],
            ),
            "you return the context as well; the exercise asks for two, the state, then the readout",
        ),
        Wrong(
            fed(order=lambda new, r: torch.stack([new, r])),
            "you have put the two into one tensor; return them as a pair, s, r",
        ),
        Wrong(
            fed(order=lambda new, r: torch.cat([new, r])),
            "you have joined the two to one vector; return them as a pair, s, r",
        ),
        Wrong(
            fed(step=lambda y, r, s, W_x, W_h: torch.tanh(torch.cat([y, r]) @ W_x + W_h @ s)),
            "W_x stands the wrong way round: it is W_x @ torch.cat([y, r])",
        ),
    ),
)

EXERCISES = {
    "04.a": choice(
        "b",
        {
            "a": "(e^(2u) - 1) / (e^(2u) + 1) with 2u = ln 3 is (3 - 1) / (3 + 1)",
            "c": "ln 3 is above 1, and a tanh never is",
            "d": "a tanh comes near 1 only for large numbers; here 2u = ln 3",
            "e": "3/4 is the sigmoid of ln 3; put e^(2u) = 3 into the formula of tanh",
        },
        "(3 - 1) / (3 + 1) = 1/2.",
    ),
    "04.b": choice(
        "c",
        {
            "a": "nothing sets the state to zero; in PyTorch z is the share of the old state",
            "b": "that is z = 0: in PyTorch z is the share of the old state",
            "d": "the new state is a mixture, (1 - z) times the candidate plus z times the old state",
            "e": "the mean of old state and candidate is z = 1/2",
        },
        "In PyTorch z is the share of the old state (some papers count the other way round).",
    ),
    "04.c": choice(
        "a",
        {
            "b": "all weights cannot grow, since they sum to 1",
            "c": "every exponential grows by the same factor, and so does their sum",
            "d": "every exponential is multiplied by e^5, and so is their sum",
            "e": "a softmax sees differences of scores, and these are as they were",
        },
        "Every exponential and their sum grow by the same factor.",
    ),
    "04.1": ADDITIVE,
    "04.2": HIDDEN,
    "04.3": LOCAL,
    "04.4": MENDED,
    "04.5": FED,
}
