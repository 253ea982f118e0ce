"""The exercises of 01_what_is_attention."""

import torch
from torch import Tensor

from attnlib.exercises.checker import Exercise, Wrong, choice, ramp

# 01.1 kernel regression as attention -----------------------------------------------------------------------


def regress(asked: Tensor, times: Tensor, values: Tensor, bandwidth: float) -> Tensor:
    scores = -(asked[:, None] - times).square() / (2 * bandwidth**2)
    return scores.softmax(1) @ values


def regress_by_loops(asked: Tensor, times: Tensor, values: Tensor, bandwidth: float) -> Tensor:
    answers = []
    for t in asked:
        kernel = torch.exp(-0.5 * ((t - times) / bandwidth) ** 2)
        answers.append((kernel * values).sum() / kernel.sum())
    return torch.stack(answers)


def regress_by_kernel(asked: Tensor, times: Tensor, values: Tensor, bandwidth: float) -> Tensor:
    kernel = torch.exp(-((asked.unsqueeze(1) - times.unsqueeze(0)) ** 2) / 2 / bandwidth**2)
    return (kernel @ values) / kernel.sum(1)


def regress_without_constant(asked: Tensor, times: Tensor, values: Tensor, bandwidth: float) -> Tensor:
    """What all scores of a query share may be left out: here t^2 / (2 b^2)."""
    scores = (asked[:, None] * times - times**2 / 2) / bandwidth**2
    return scores.softmax(-1) @ values


def squares(asked: Tensor, times: Tensor) -> Tensor:
    return (asked[:, None] - times).square()


def with_scores(scores):
    return lambda asked, times, values, bandwidth: scores(asked, times, bandwidth).softmax(1) @ values


REGRESS = Exercise(
    reference=regress,
    right=(regress_by_loops, regress_by_kernel, regress_without_constant),
    inputs=lambda: [
        (ramp(3), ramp(5, step=0.8), ramp(5, step=1.1), 0.4),
        (ramp(4, step=0.6), ramp(4, step=0.9), ramp(4, step=1.3), 1.7),
    ],
    praise="Kernel regression (1.2), written as a softmax of scores (1.3).",
    wrong=(
        Wrong(
            with_scores(lambda t, s, b: squares(t, s) / (2 * b**2)),
            "the minus is missing: the farther a key, the larger its weight; see (1.3)",
        ),
        Wrong(
            with_scores(lambda t, s, b: -squares(t, s) / b**2),
            "the 2 of the Gaussian is missing: divide by 2 b^2, as in (1.3)",
        ),
        Wrong(
            with_scores(lambda t, s, b: -squares(t, s) / (2 * b)),
            "the bandwidth has to be squared, as the distance is; see (1.3)",
        ),
        Wrong(
            with_scores(lambda t, s, b: -squares(t, s) / b),
            "the score is the squared distance over 2 b^2; a 2 and a square are missing below",
        ),
        Wrong(
            with_scores(lambda t, s, b: -squares(t, s) / 2 * b**2),
            "you multiply by b^2 where (1.3) divides: mind the brackets around 2 * b**2",
        ),
        Wrong(
            with_scores(lambda t, s, b: -squares(t, s)),
            "the bandwidth is not used; divide the squared distances by 2 b^2",
        ),
        Wrong(
            with_scores(lambda t, s, b: -squares(t, s) / 2),
            "the bandwidth is not used; (1.3) divides by its square too",
        ),
        Wrong(
            with_scores(lambda t, s, b: -(t[:, None] - s).abs() / (2 * b**2)),
            "the distance has to be squared; an absolute value gives another kernel",
        ),
        Wrong(
            with_scores(lambda t, s, b: -(t[:, None] - s) / (2 * b**2)),
            "the difference is not squared: a key before the asked time would count less than one behind it",
        ),
        Wrong(
            with_scores(lambda t, s, b: torch.exp(-squares(t, s) / (2 * b**2))),
            "you take a softmax of the kernel; the softmax has its own exponential, so give it the exponent",
        ),
        Wrong(
            with_scores(lambda t, s, b: t[:, None] * s / (2 * b**2)),
            "that is a product of times, not a distance: subtract, then square",
        ),
        Wrong(
            lambda t, s, y, b: (-squares(t, s) / (2 * b**2)).softmax(0) @ y,
            "your softmax runs over the queries; the weights of one query sum to 1 over its keys, axis 1",
        ),
        Wrong(
            lambda t, s, y, b: torch.exp(-squares(t, s) / (2 * b**2)) @ y,
            "the kernels are not divided by their sum, so this is no average; see (1.2)",
        ),
        Wrong(
            lambda t, s, y, b: torch.exp(-squares(t, s) / (2 * b**2)) @ y / len(s),
            "divide by the sum of the kernels, not by the number of keys; see (1.2)",
        ),
        Wrong(
            lambda t, s, y, b: torch.exp(-squares(t, s) / (2 * b**2)) @ y / y.sum(),
            "you divide by the sum of the values; the denominator of (1.2) holds the kernels alone",
        ),
        Wrong(
            lambda t, s, y, b: torch.sigmoid(-squares(t, s) / (2 * b**2)) @ y,
            "a sigmoid looks at each score alone and its weights do not sum to 1; (1.3) has a softmax",
        ),
        Wrong(
            lambda t, s, y, b: (-squares(t, s) / (2 * b**2)).softmax(1),
            "those are the weights; multiply them with the values and add up",
        ),
        Wrong(
            lambda t, s, y, b: -squares(t, s) / (2 * b**2),
            "those are the scores; a softmax and the average of the values are still to come",
        ),
        Wrong(
            lambda t, s, y, b: ((-squares(t, s) / (2 * b**2)).softmax(1) * y).mean(1),
            "the weights sum to 1 already: add the products up, a mean divides once more",
        ),
        Wrong(
            lambda t, s, y, b: (-squares(t, s) / (2 * b**2)).softmax(1) * y,
            "the products are right; add them up over the keys",
        ),
        Wrong(
            lambda t, s, y, b: (-squares(t, s) / (2 * b**2)).softmax(1) @ y[:, None],
            "right numbers in a column; return one axis, (n,)",
        ),
        Wrong(
            lambda t, s, y, b: y[squares(t, s).argmin(1)],
            "that is the value of the nearest key alone; let the others count too, each with its weight",
        ),
        Wrong(
            lambda t, s, y, b: (-squares(t, s) / (2 * b**2)).softmax(1) @ s,
            "you average the times; the weights come from the times, what is averaged are the values",
        ),
        Wrong(
            with_scores(lambda t, s, b: -squares(t, s) / (2 * b) ** 2),
            "your brackets square the 2 as well; below stands 2 * b**2",
        ),
        Wrong(
            lambda t, s, y, b: torch.exp(-squares(t, s) / (2 * b**2)) @ y / (b * (2 * torch.pi) ** 0.5),
            "that constant makes a density sum to 1, not these few kernels: divide by their sum, see (1.2)",
        ),
        Wrong(
            lambda t, s, y, b: (lambda kernel: kernel @ y / kernel.sum())(
                torch.exp(-squares(t, s) / (2 * b**2))
            ),
            "you divide by the sum over all pairs; each query has its own sum, over its keys",
        ),
        Wrong(
            lambda t, s, y, b: ((-squares(t, s) / (2 * b**2)).softmax(1) * y).sum(),
            "add up over the keys alone, axis 1: every query keeps its own answer",
        ),
    ),
)


# 01.2 the additive score -----------------------------------------------------------------------------------


def additive(q: Tensor, k: Tensor, W: Tensor, U: Tensor, u: Tensor) -> Tensor:
    hidden = torch.tanh((q @ W.T)[:, None, :] + (k @ U.T)[None, :, :])
    return hidden @ u


def additive_by_loops(q: Tensor, k: Tensor, W: Tensor, U: Tensor, u: Tensor) -> Tensor:
    rows = [torch.stack([u.dot(torch.tanh(W @ query + U @ key)) for key in k]) for query in q]
    return torch.stack(rows)


def additive_by_einsum(q: Tensor, k: Tensor, W: Tensor, U: Tensor, u: Tensor) -> Tensor:
    of_q, of_k = torch.einsum("nd,hd->nh", q, W), torch.einsum("md,hd->mh", k, U)
    return torch.einsum("nmh,h->nm", torch.tanh(of_q.unsqueeze(1) + of_k), u)


def additive_by_concat(q: Tensor, k: Tensor, W: Tensor, U: Tensor, u: Tensor) -> Tensor:
    n, m = len(q), len(k)
    pairs = torch.cat([q[:, None].expand(-1, m, -1), k[None].expand(n, -1, -1)], dim=-1)
    return (torch.tanh(pairs @ torch.cat([W, U], dim=1).T) * u).sum(-1)


def layers(q: Tensor, k: Tensor, W: Tensor, U: Tensor) -> tuple[Tensor, Tensor]:
    return (q @ W.T)[:, None], (k @ U.T)[None]


def with_hidden(hidden):
    return lambda q, k, W, U, u: hidden(*layers(q, k, W, U)) @ u


ADDITIVE = Exercise(
    reference=additive,
    right=(additive_by_loops, additive_by_einsum, additive_by_concat),
    inputs=lambda: [
        (ramp(3, 2), ramp(4, 5, step=0.8), ramp(6, 2, step=1.1), ramp(6, 5, step=0.7), ramp(6, step=1.3)),
        (ramp(2, 3), ramp(2, 3, step=0.9), ramp(4, 3, step=0.6), ramp(4, 3, step=1.2), ramp(4, step=0.5)),
    ],
    praise="One score for each pair, as in (1.6), also where queries and keys have different widths.",
    wrong=(
        Wrong(
            with_hidden(lambda a, b: a + b),
            "the tanh is missing; without it the query would add the same number to all scores of its row",
        ),
        Wrong(
            with_hidden(lambda a, b: torch.tanh(a) + torch.tanh(b)),
            "add first, then take one tanh: apart, query and key never meet; see (1.6)",
        ),
        Wrong(
            with_hidden(lambda a, b: torch.tanh(a * b)),
            "inside the tanh stands a sum, not a product; see (1.6)",
        ),
        Wrong(with_hidden(lambda a, b: torch.tanh(a - b)), "inside the tanh stands a sum, not a difference"),
        Wrong(
            with_hidden(lambda a, b: torch.relu(a + b)), "the hidden layer of (1.6) has a tanh, not a ReLU"
        ),
        Wrong(
            with_hidden(lambda a, b: torch.sigmoid(a + b)),
            "the hidden layer of (1.6) has a tanh; a sigmoid has no place before the normaliser",
        ),
        Wrong(
            with_hidden(lambda a, b: torch.tanh(a + 0 * b)),
            "the keys do not appear in your scores: add k @ U.T",
        ),
        Wrong(
            with_hidden(lambda a, b: torch.tanh(0 * a + b)),
            "the queries do not appear in your scores: add q @ W.T",
        ),
        Wrong(
            lambda q, k, W, U, u: torch.tanh(sum(layers(q, k, W, U)) @ u),
            "the tanh comes before u, not behind it; see (1.6)",
        ),
        Wrong(
            lambda q, k, W, U, u: torch.tanh(sum(layers(q, k, W, U))).sum(-1),
            "u is missing: the hidden units are weighted by it, not just added up",
        ),
        Wrong(
            lambda q, k, W, U, u: torch.tanh(sum(layers(q, k, W, U))),
            "those are the hidden units of every pair; multiply by u to get one score for each",
        ),
        Wrong(
            lambda q, k, W, U, u: torch.tanh(sum(layers(q, k, W, U))) * u,
            "weighted by u, but not added up over the hidden units",
        ),
        Wrong(
            lambda q, k, W, U, u: (torch.tanh(sum(layers(q, k, W, U))) * u).mean(-1),
            "add the hidden units up; a mean divides by their number",
        ),
        Wrong(
            lambda q, k, W, U, u: additive(q, k, W, U, u) / len(u) ** 0.5,
            "no scale here: dividing by a square root belongs to the dot product",
        ),
        Wrong(
            lambda q, k, W, U, u: additive(q, k, W, U, u).T,
            "your table is transposed: rows are queries, columns are keys",
        ),
        Wrong(
            lambda q, k, W, U, u: additive(q, k, W, U, u).softmax(-1),
            "those are weights already; the exercise asks for the scores",
        ),
        Wrong(
            lambda q, k, W, U, u: additive(q, k, W, U, u).sigmoid(),
            "a sigmoid makes weights of scores; the exercise asks for the scores",
        ),
        Wrong(
            lambda q, k, W, U, u: additive(q, k, W, U, u)[..., None],
            "right numbers with one axis too many; `@ u` leaves (n, m)",
        ),
        Wrong(
            lambda q, k, W, U, u: q @ W.T @ (k @ U.T).T,
            "that is a dot product of two projections; the additive score adds them inside a tanh",
        ),
        Wrong(
            lambda q, k, W, U, u: additive(q, k, W, U, u).softmax(0),
            "the exercise asks for the scores, before any softmax (and one over axis 0 runs over the queries)",
        ),
        Wrong(
            lambda q, k, W, U, u: torch.tanh(additive(q, k, W, U, u)),
            "one tanh too many: behind u stands nothing more",
        ),
        Wrong(
            with_hidden(lambda a, b: torch.tanh(torch.tanh(a) + torch.tanh(b))),
            "one tanh, around the sum; W q and U k go into it as they are",
        ),
    ),
)


# 01.3 the gradient of the bandwidth ------------------------------------------------------------------------


def bandwidth_gradient(
    grad_c: Tensor, asked: Tensor, times: Tensor, values: Tensor, bandwidth: float
) -> Tensor:
    distances = squares(asked, times)
    p = (-distances / (2 * bandwidth**2)).softmax(1)
    c = p @ values
    grad_s = grad_c[:, None] * p * (values - c[:, None])
    return (grad_s * distances).sum() / bandwidth**3


def bandwidth_by_autograd(
    grad_c: Tensor, asked: Tensor, times: Tensor, values: Tensor, bandwidth: float
) -> Tensor:
    b = torch.tensor(bandwidth, dtype=times.dtype, requires_grad=True)
    c = (-squares(asked, times) / (2 * b**2)).softmax(1) @ values
    return torch.autograd.grad(c, b, grad_c)[0]


def bandwidth_by_covariance(
    grad_c: Tensor, asked: Tensor, times: Tensor, values: Tensor, bandwidth: float
) -> Tensor:
    distances = squares(asked, times)
    p = (-distances / (2 * bandwidth**2)).softmax(1)
    covariance = (p * values * distances).sum(1) - (p @ values) * (p * distances).sum(1)
    return (grad_c * covariance).sum() / bandwidth**3


def bandwidth_by_loops(
    grad_c: Tensor, asked: Tensor, times: Tensor, values: Tensor, bandwidth: float
) -> Tensor:
    total = torch.zeros((), dtype=times.dtype)
    for g, t in zip(grad_c, asked, strict=True):
        distance = (t - times) ** 2
        p = torch.softmax(-distance / (2 * bandwidth**2), 0)
        total = total + g * torch.sum(p * (values - torch.dot(p, values)) * distance)
    return total / bandwidth**3


def parts(asked: Tensor, times: Tensor, values: Tensor, b: float) -> tuple[Tensor, Tensor, Tensor]:
    """Squared distances, weights, and the values measured from the context."""
    distances = squares(asked, times)
    p = (-distances / (2 * b**2)).softmax(1)
    return distances, p, values - (p @ values)[:, None]


def rule(of):
    """A rule made of the upstream gradient (n, 1), distances, weights, centred values, values and b."""
    return lambda g, t, s, y, b: of(g[:, None], *parts(t, s, y, b), y, b)


def from_weights(g: Tensor, distances: Tensor, p: Tensor, values: Tensor, b: float) -> Tensor:
    """The right rule behind weights of one's own."""
    return (g[:, None] * p * (values - (p @ values)[:, None]) * distances).sum() / b**3


BANDWIDTH = Exercise(
    reference=bandwidth_gradient,
    right=(bandwidth_by_autograd, bandwidth_by_covariance, bandwidth_by_loops),
    inputs=lambda: [
        (ramp(3, step=0.5), ramp(3), ramp(5, step=0.8), ramp(5, step=1.1), 0.6),
        (ramp(4, step=0.7), ramp(4, step=0.6), ramp(4, step=0.9), ramp(4, step=1.3), 1.7),
    ],
    praise="A covariance, as (1.14) says, added up over the queries.",
    wrong=(
        Wrong(
            rule(lambda g, D, p, z, y, b: (g * p * y * D).sum() / b**3),
            "the values have to be measured from the context, v - c: see (1.11)",
        ),
        Wrong(
            rule(lambda g, D, p, z, y, b: (g * p * z * D).sum() / b**2),
            "the slope of -D/(2 b^2) is D/b^3; you have b^2 below",
        ),
        Wrong(
            rule(lambda g, D, p, z, y, b: (g * p * z * D).sum() / (2 * b**3)),
            "the 2 cancels: the slope of 1/(2 b^2) is -1/b^3",
        ),
        Wrong(
            rule(lambda g, D, p, z, y, b: (g * p * z * D).sum() / (2 * b**2)),
            "you have put in the score itself; the chain rule wants its slope in b, D/b^3",
        ),
        Wrong(
            rule(lambda g, D, p, z, y, b: -(g * p * z * D).sum() / b**3),
            "the sign is reversed: the score -D/(2 b^2) grows with b",
        ),
        Wrong(
            rule(lambda g, D, p, z, y, b: -(g * p * z * D).sum() / (2 * b**2)),
            "you have put in the score itself; the chain rule wants its slope in b, which is D/b^3, above 0",
        ),
        Wrong(
            rule(lambda g, D, p, z, y, b: (g * p * z * D).sum()),
            "the slope of the score in b is D/b^3; the b^3 is missing",
        ),
        Wrong(
            rule(lambda g, D, p, z, y, b: (g * p * z).sum() / b**3),
            "the squared distances are missing: ds/db = D/b^3 differs from key to key",
        ),
        Wrong(
            rule(lambda g, D, p, z, y, b: (g * p * z * D.sqrt()).sum() / b**3),
            "the distances have to be squared",
        ),
        Wrong(
            rule(lambda g, D, p, z, y, b: (g * z * D).sum() / b**3),
            "the weights are missing: ds reaches the context through p (v - c), see (1.11)",
        ),
        Wrong(
            rule(lambda g, D, p, z, y, b: (p * z * D).sum() / b**3),
            "what arrives from above is missing: each query's part is multiplied by its grad_c",
        ),
        Wrong(
            rule(lambda g, D, p, z, y, b: (g * p * z * D).mean() / b**3),
            "one bandwidth serves all pairs, so their parts add up: a sum, not a mean",
        ),
        Wrong(
            rule(lambda g, D, p, z, y, b: (g * p * z * D).sum(1) / b**3),
            "that is one number for each query; they share the bandwidth, so add up over the queries too",
        ),
        Wrong(
            rule(lambda g, D, p, z, y, b: (g * p * z * D).sum(1).mean() / b**3),
            "the queries share the bandwidth: add their parts up, no mean",
        ),
        Wrong(
            rule(lambda g, D, p, z, y, b: g * p * z * D / b**3),
            "those are the parts of all pairs; the gradient of one number is one number: add up",
        ),
        Wrong(
            rule(lambda g, D, p, z, y, b: g * p * z),
            "that is dL/ds, as in (1.12); multiply by ds/db = D/b^3 and add up",
        ),
        Wrong(
            rule(lambda g, D, p, z, y, b: (g * p * (1 - p) * y * D).sum() / b**3),
            "p (1 - p) v is only what a score does to its own weight; the others pay, which gives p (v - c)",
        ),
        Wrong(
            rule(lambda g, D, p, z, y, b: (g * p * (y - y.mean()) * D).sum() / b**3),
            "subtract the context, the average under the weights, not the plain mean of the values",
        ),
        Wrong(
            lambda g, t, s, y, b: from_weights(g, squares(t, s), (-squares(t, s) / b**2).softmax(1), y, b),
            "the rule is right; in your weights the 2 of 2 b^2 is missing",
        ),
        Wrong(
            lambda g, t, s, y, b: from_weights(g, squares(t, s), (-squares(t, s)).softmax(1), y, b),
            "the rule is right; your weights do not use the bandwidth",
        ),
        Wrong(
            lambda g, t, s, y, b: from_weights(
                g, squares(t, s), (-squares(t, s) / (2 * b**2)).softmax(0), y, b
            ),
            "the rule is right; your softmax runs over the queries, it has to run over the keys",
        ),
        Wrong(
            rule(lambda g, D, p, z, y, b: 2 * (g * p * z * D).sum() / b**3),
            "the 2 of the slope -2/b^3 cancels with the 2 below: D/b^3",
        ),
        Wrong(
            rule(lambda g, D, p, z, y, b: (g * p * z * D).sum() / b),
            "the slope of 1/b^2 has b^3 below: the power goes down to -3, not up to -1",
        ),
        Wrong(
            rule(lambda g, D, p, z, y, b: (g * p * z * D).sum()[None] / b**3),
            "right number with an axis round it; return a tensor without axes",
        ),
    ),
)


# 01.4 mend the mask ----------------------------------------------------------------------------------------


def pool_scores(x: Tensor, W: Tensor, u: Tensor) -> Tensor:
    return torch.tanh(x @ W.T) @ u


def pooled(x: Tensor, mask: Tensor, W: Tensor, u: Tensor) -> Tensor:
    scores = torch.tanh(x @ W.T) @ u
    weights = scores.masked_fill(~mask, -torch.inf).softmax(1)
    return (weights[:, :, None] * x).sum(1)


def pooled_by_where(x: Tensor, mask: Tensor, W: Tensor, u: Tensor) -> Tensor:
    scores = torch.where(mask, pool_scores(x, W, u), torch.tensor(-1e9, dtype=x.dtype))
    return torch.einsum("bn,bnd->bd", torch.softmax(scores, -1), x)


def pooled_renormalised(x: Tensor, mask: Tensor, W: Tensor, u: Tensor) -> Tensor:
    weights = pool_scores(x, W, u).softmax(1) * mask
    return ((weights / weights.sum(1, keepdim=True))[:, None] @ x)[:, 0]


def pooled_by_loops(x: Tensor, mask: Tensor, W: Tensor, u: Tensor) -> Tensor:
    return torch.stack(
        [pool_scores(row[keep], W, u).softmax(0) @ row[keep] for row, keep in zip(x, mask, strict=True)]
    )


def with_weights(weights):
    return lambda x, mask, W, u: torch.einsum("bn,bnd->bd", weights(pool_scores(x, W, u), mask), x)


POOL = Exercise(
    reference=pooled,
    right=(pooled_by_where, pooled_renormalised, pooled_by_loops),
    inputs=lambda: [
        (
            ramp(2, 4, 3),
            torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0]], dtype=torch.bool),
            ramp(5, 3, step=0.8),
            2 * ramp(5, step=1.1),
        ),
        (
            ramp(3, 3, 2, step=0.9),
            torch.tensor([[1, 0, 0], [1, 1, 1], [1, 1, 0]], dtype=torch.bool),
            ramp(4, 2, step=0.6),
            2 * ramp(4, step=1.2),
        ),
    ],
    praise="A score of minus infinity has the weight 0; a score of 0 has not.",
    wrong=(
        Wrong(
            with_weights(lambda s, mask: (s * mask).softmax(1)),
            "that is the code as it was: print the weights of the padded places",
        ),
        Wrong(
            with_weights(lambda s, mask: s.softmax(1) * mask),
            "the padded places now have the weight 0, but they have taken their share before: the rest sums to less than 1",
        ),
        Wrong(
            with_weights(lambda s, mask: (s * mask).softmax(1) * mask),
            "padding is 0 now, but it has taken part in the softmax: the rest sums to less than 1",
        ),
        Wrong(
            with_weights(lambda s, mask: s.softmax(1)),
            "without any mask the padding gets the weights that its scores say",
        ),
        Wrong(
            with_weights(lambda s, mask: s.masked_fill(~mask, -1).softmax(1)),
            "-1 is only a little below the other scores; it takes minus infinity to get the weight 0",
        ),
        Wrong(
            with_weights(lambda s, mask: s.masked_fill(mask, -torch.inf).softmax(1)),
            "the mask is turned round: True means may attend, so fill where it is False, ~mask",
        ),
        Wrong(
            with_weights(lambda s, mask: s.masked_fill(~mask, torch.inf).softmax(1)),
            "that gives NaN, infinity over infinity: only the finished scores of padding change, to minus infinity",
        ),
        Wrong(
            with_weights(lambda s, mask: s.masked_fill(~mask, -torch.inf).softmax(0)),
            "axis 0 is the batch: the weights of one sequence sum to 1 over its places, axis 1",
        ),
        Wrong(
            with_weights(lambda s, mask: (s + mask).softmax(1)),
            "adding 1 to the good scores only lifts them a little; the padding has to be at minus infinity",
        ),
        Wrong(
            with_weights(lambda s, mask: (s - mask.to(s) * 1e9).softmax(1)),
            "that pushes down what should stay: subtract where the mask is False",
        ),
        Wrong(
            with_weights(lambda s, mask: s.masked_fill(~mask, -torch.inf).sigmoid()),
            "the mask is right; a sigmoid's weights do not sum to 1, and the code had a softmax",
        ),
        Wrong(
            with_weights(lambda s, mask: torch.exp(s) * mask),
            "these weights are not divided by their sum",
        ),
        Wrong(
            with_weights(lambda s, mask: mask.to(s) / mask.sum(1, keepdim=True)),
            "that is the plain mean of the places that count; the scores have got lost",
        ),
        Wrong(
            lambda x, mask, W, u: pool_scores(x, W, u).masked_fill(~mask, -torch.inf).softmax(1),
            "the weights are right; return the average of x under them",
        ),
        Wrong(
            lambda x, mask, W, u: pooled(x, mask, W, u) / x.shape[1],
            "the weights are right and sum to 1: add up, a mean divides once more",
        ),
        Wrong(
            with_weights(lambda s, mask: s.masked_fill(~mask, -torch.inf).softmax(1).softmax(1)),
            "one softmax is enough; the second gives the zeros a weight again",
        ),
        Wrong(
            lambda x, mask, W, u: (
                ((x @ W.T) @ u).masked_fill(~mask, -torch.inf).softmax(1)[:, :, None] * x
            ).sum(1),
            "the mask is right; the tanh has got lost",
        ),
        Wrong(
            lambda x, mask, W, u: pooled(x, mask, W, u) / mask.sum(1, keepdim=True),
            "the weights are right and sum to 1: do not divide by the number of places too",
        ),
        Wrong(
            with_weights(lambda s, mask: s.softmax(1) * mask / mask.sum(1, keepdim=True)),
            "divide by the sum of the weights that are left, not by the number of places that count",
        ),
        Wrong(
            lambda x, mask, W, u: pooled(x, mask, W, u)[:, None],
            "right numbers with one axis too many; return (b, d)",
        ),
        Wrong(
            lambda x, mask, W, u: (
                torch.tanh((x @ W.T @ u).masked_fill(~mask, -torch.inf)).softmax(1)[:, :, None] * x
            ).sum(1),
            "behind your mask comes a tanh, which makes -1 of minus infinity; and in the code it stood before u",
        ),
    ),
)


# 01.5 leave one out ----------------------------------------------------------------------------------------


def leave_one_out(times: Tensor, values: Tensor, bandwidth: float) -> Tensor:
    scores = -squares(times, times) / (2 * bandwidth**2)
    own = torch.eye(len(times), dtype=torch.bool)
    return scores.masked_fill(own, -torch.inf).softmax(1) @ values


def leave_one_out_by_loops(times: Tensor, values: Tensor, bandwidth: float) -> Tensor:
    answers = []
    for i in range(len(times)):
        others = torch.arange(len(times)) != i
        answers.append(regress(times[i : i + 1], times[others], values[others], bandwidth)[0])
    return torch.stack(answers)


def leave_one_out_by_subtraction(times: Tensor, values: Tensor, bandwidth: float) -> Tensor:
    kernel = torch.exp(-squares(times, times) / (2 * bandwidth**2))
    return (kernel @ values - values) / (kernel.sum(1) - 1)


def leave_one_out_renormalised(times: Tensor, values: Tensor, bandwidth: float) -> Tensor:
    p = (-squares(times, times) / (2 * bandwidth**2)).softmax(1)
    p = p - torch.diag(p.diagonal())
    return p @ values / p.sum(1)


def with_mask(scores_to_weights):
    def answer(times: Tensor, values: Tensor, b: float) -> Tensor:
        own = torch.eye(len(times), dtype=torch.bool)
        return scores_to_weights(-squares(times, times) / (2 * b**2), own) @ values

    return answer


LEAVE_ONE_OUT = Exercise(
    reference=leave_one_out,
    right=(leave_one_out_by_loops, leave_one_out_by_subtraction, leave_one_out_renormalised),
    inputs=lambda: [
        (ramp(5, step=0.8), ramp(5, step=1.1), 0.6),
        (2 * ramp(4, step=0.9), ramp(4, step=1.3), 1.7),
    ],
    praise="Every time is answered by all the others, with a mask on the diagonal.",
    wrong=(
        Wrong(
            with_mask(lambda s, own: s.softmax(1)),
            "each time still sees its own value, with a score of 0, the best of all; put -inf on the diagonal",
        ),
        Wrong(
            with_mask(lambda s, own: s.masked_fill(own, -1).softmax(1)),
            "-1 still has a weight; the own key needs minus infinity",
        ),
        Wrong(
            with_mask(lambda s, own: s.softmax(1) * ~own),
            "the own weight is 0 now, but the others sum to less than 1: mask before the softmax",
        ),
        Wrong(
            with_mask(lambda s, own: s.masked_fill(~own, -torch.inf).softmax(1)),
            "the mask is turned round: each time sees only itself",
        ),
        Wrong(
            with_mask(lambda s, own: s.masked_fill(torch.ones_like(own).triu(), -torch.inf).softmax(1)),
            "you mask all later times too, so the first has nothing left; mask the diagonal only",
        ),
        Wrong(
            with_mask(lambda s, own: s.masked_fill(own.roll(1, 1), -torch.inf).softmax(1)),
            "your mask hides the next time in place of the own one",
        ),
        Wrong(
            with_mask(lambda s, own: s.masked_fill(own, -torch.inf).sigmoid()),
            "the mask is right; for an average the weights come from a softmax",
        ),
        Wrong(
            with_mask(lambda s, own: (-s).masked_fill(own, -torch.inf).softmax(1)),
            "the minus of the Gaussian has got lost: the farthest time gets the largest weight",
        ),
        Wrong(
            with_mask(lambda s, own: (2 * s).masked_fill(own, -torch.inf).softmax(1)),
            "the 2 of the Gaussian is missing: divide by 2 b^2",
        ),
        Wrong(
            with_mask(lambda s, own: torch.exp(s) * ~own),
            "the kernels are not divided by their sum",
        ),
        Wrong(
            with_mask(lambda s, own: (~own).to(s) / (len(s) - 1)),
            "that is the plain mean of the others; the distances have got lost",
        ),
        Wrong(
            lambda t, y, b: (-squares(t, t) / (2 * b)).fill_diagonal_(-torch.inf).softmax(1) @ y,
            "the bandwidth has to be squared",
        ),
        Wrong(
            lambda t, y, b: leave_one_out(t, y, b) - y,
            "those are the errors; return the predictions, the comparison comes later",
        ),
        Wrong(
            lambda t, y, b: y - leave_one_out(t, y, b),
            "those are the errors with the other sign; return the predictions",
        ),
        Wrong(
            lambda t, y, b: (leave_one_out(t, y, b) - y).square().mean(),
            "that is the mean squared error; return the predictions, one for each time",
        ),
        Wrong(
            lambda t, y, b: (leave_one_out(t, y, b) - y).square().mean().sqrt(),
            "that is the error of all together; return the predictions, one for each time",
        ),
        Wrong(
            lambda t, y, b: (
                (-squares(t, t) / (2 * b**2)).masked_fill(torch.eye(len(t)).bool(), -torch.inf).softmax(1)
            ),
            "those are the weights; multiply them with the values",
        ),
        Wrong(
            lambda t, y, b: leave_one_out(t, y, b)[:, None],
            "right numbers in a column; return one axis, (m,)",
        ),
        Wrong(
            with_mask(lambda s, own: s.masked_fill(own, -torch.inf).softmax(0)),
            "rows are queries: the weights of one time sum to 1 over its keys, axis 1",
        ),
        Wrong(
            with_mask(lambda s, own: torch.exp(s) * ~own / (len(s) - 1)),
            "divide by the sum of the kernels that are left, not by their number",
        ),
        Wrong(
            lambda t, y, b: regress(t, t, y, b) - y,
            "taking the own value off the answer takes off all of it; its weight has to go, before the softmax",
        ),
        Wrong(
            with_mask(lambda s, own: s.masked_fill(own, torch.inf).softmax(1)),
            "plus infinity gives the own key everything (and NaN); it is minus infinity",
        ),
        Wrong(
            with_mask(lambda s, own: torch.exp(s).masked_fill(own, -torch.inf).softmax(1)),
            "the mask is right; the softmax has its own exponential, so give it the scores, not the kernel",
        ),
    ),
)


EXERCISES = {
    "01.a": choice(
        "b",
        {
            "a": "weights sum to 1; four times 1 is 4",
            "c": "the size of the scores does not matter, only their differences, and here there are none",
            "d": "equal scores get equal weights, and four of 1/2 sum to 2",
            "e": "some weight is always left; a softmax is never 0",
        },
        "Only differences of scores count, and here there are none.",
    ),
    "01.b": choice(
        "d",
        {
            "a": "that is a sigmoid far below 0; at 0 it is half way",
            "b": "that is a sigmoid far above 0; at 0 it is half way",
            "c": "that is its slope at 0",
            "e": "a sigmoid looks at one score alone, so the number of keys does not matter",
        },
        "1/(1 + exp(0)) = 1/2, however many other scores there are.",
    ),
    "01.c": choice(
        "a",
        {
            "b": "the dot product is 3 times 6 plus 4 times 8",
            "c": "50 is the dot product; the cosine divides it by both lengths",
            "d": "the lengths are 5 and 10, and their product is 50",
            "e": "they point in the same direction, so the cosine is as large as it can be",
        },
        "18 + 32 = 50, and 5 times 10 is 50 too: the same direction.",
    ),
    "01.1": REGRESS,
    "01.2": ADDITIVE,
    "01.3": BANDWIDTH,
    "01.4": POOL,
    "01.5": LEAVE_ONE_OUT,
}
