"""The exercises of 03_multi_head_and_positions."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnlib.exercises.checker import Exercise, Wrong, choice, ramp

# 03.1 multi-head attention -------------------------------------------------------------------------------


def split(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def join(o: Tensor) -> Tensor:
    return o.transpose(1, 2).flatten(2)


def attend(q: Tensor, k: Tensor, v: Tensor, scale: float | None = None) -> Tensor:
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    return (q @ k.mT * scale).softmax(-1) @ v


def multi_head(x: Tensor, W_Q: Tensor, W_K: Tensor, W_V: Tensor, W_O: Tensor, heads: int) -> Tensor:
    q, k, v = (split(x @ W, heads) for W in (W_Q, W_K, W_V))
    return join(attend(q, k, v)) @ W_O


def multi_head_by_slices(x: Tensor, W_Q: Tensor, W_K: Tensor, W_V: Tensor, W_O: Tensor, heads: int) -> Tensor:
    width, outputs = x.shape[-1] // heads, []
    for t in range(heads):
        own = slice(t * width, (t + 1) * width)
        outputs.append(attend(x @ W_Q[:, own], x @ W_K[:, own], x @ W_V[:, own]))
    return torch.cat(outputs, dim=-1) @ W_O


def multi_head_as_a_sum(x: Tensor, W_Q: Tensor, W_K: Tensor, W_V: Tensor, W_O: Tensor, heads: int) -> Tensor:
    y = torch.zeros_like(x)
    parts = (W_Q.chunk(heads, 1), W_K.chunk(heads, 1), W_V.chunk(heads, 1), W_O.chunk(heads, 0))
    for q, k, v, o in zip(*parts, strict=True):
        y = y + attend(x @ q, x @ k, x @ v) @ o
    return y


def multi_head_by_einsum(x: Tensor, W_Q: Tensor, W_K: Tensor, W_V: Tensor, W_O: Tensor, heads: int) -> Tensor:
    b, n, d = x.shape
    q, k, v = ((x @ W).reshape(b, n, heads, d // heads) for W in (W_Q, W_K, W_V))
    scores = torch.einsum("bnhf,bmhf->bhnm", q, k) / math.sqrt(d // heads)
    o = torch.einsum("bhnm,bmhf->bnhf", scores.softmax(-1), v)
    return o.reshape(b, n, d) @ W_O


def multi_head_in_torch(x: Tensor, W_Q: Tensor, W_K: Tensor, W_V: Tensor, W_O: Tensor, heads: int) -> Tensor:
    layer = nn.MultiheadAttention(x.shape[-1], heads, bias=False, batch_first=True).double()
    layer.in_proj_weight.data = torch.cat([W_Q, W_K, W_V], 1).T
    layer.out_proj.weight.data = W_O.T
    return layer(x, x, x, need_weights=False)[0].detach()


def multi_head_inputs() -> list[tuple]:
    """Two heads and three; more tokens than heads; b unlike heads."""
    return [
        (ramp(3, 5, 4), *(ramp(4, 4, step=s) for s in (0.8, 1.3, 0.7, 1.7)), 2),
        (ramp(2, 4, 6, step=0.9), *(ramp(6, 6, step=s) for s in (1.2, 0.6, 1.1, 1.5)), 3),
    ]


def variant(**change):
    """Multi-head attention with one of its steps replaced."""
    cut, glue = change.get("split", split), change.get("join", join)
    scale = change.get("scale", lambda d, heads, n: (d / heads) ** -0.5)
    order = change.get("order", lambda q, k, v: (q, k, v))

    def answer(x: Tensor, W_Q: Tensor, W_K: Tensor, W_V: Tensor, W_O: Tensor, heads: int) -> Tensor:
        q, k, v = order(*(cut(x @ W, heads) for W in (W_Q, W_K, W_V)))
        return glue(attend(q, k, v, scale(x.shape[-1], heads, x.shape[1]))) @ W_O

    return answer


def viewed(x: Tensor, heads: int) -> Tensor:
    return x.reshape(len(x), heads, x.shape[1], -1)


def interleaved(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(-1, (-1, heads)).movedim(-1, 1)


def glued_without_transpose(o: Tensor) -> Tensor:
    return o.reshape(len(o), o.shape[2], -1)


def softmax_over(axis: int):
    def answer(x: Tensor, W_Q: Tensor, W_K: Tensor, W_V: Tensor, W_O: Tensor, heads: int) -> Tensor:
        q, k, v = (split(x @ W, heads) for W in (W_Q, W_K, W_V))
        return join((q @ k.mT / q.shape[-1] ** 0.5).softmax(axis) @ v) @ W_O

    return answer


def heads_attend_to_heads(x, W_Q, W_K, W_V, W_O, heads):
    q, k, v = ((x @ W).unflatten(-1, (heads, -1)) for W in (W_Q, W_K, W_V))
    return attend(q, k, v).flatten(2) @ W_O


def heads_on_sliced_tokens(x, W_Q, W_K, W_V, W_O, heads):
    width, outputs = x.shape[-1] // heads, []
    for t in range(heads):
        own = slice(t * width, (t + 1) * width)
        part = x[..., own]
        outputs.append(attend(part @ W_Q[own, own], part @ W_K[own, own], part @ W_V[own, own]))
    return torch.cat(outputs, -1) @ W_O


def mean_of_weights(x, W_Q, W_K, W_V, W_O, heads):
    q, k, v = (split(x @ W, heads) for W in (W_Q, W_K, W_V))
    weights = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1).mean(1, keepdim=True)
    return join(weights @ v) @ W_O


def changed(step):
    """Multi-head attention with another step from q, k, v of every head to the result."""

    def answer(x: Tensor, W_Q: Tensor, W_K: Tensor, W_V: Tensor, W_O: Tensor, heads: int):
        q, k, v = (split(x @ W, heads) for W in (W_Q, W_K, W_V))
        return step(q, k, v, W_O)

    return answer


def scores(q: Tensor, k: Tensor) -> Tensor:
    return q @ k.mT / q.shape[-1] ** 0.5


MULTI_HEAD = Exercise(
    reference=multi_head,
    right=(multi_head_by_slices, multi_head_as_a_sum, multi_head_by_einsum, multi_head_in_torch),
    inputs=multi_head_inputs,
    praise="Every head has its own weights, and the joined output equals (3.3) for two heads and for three.",
    wrong=(
        Wrong(
            variant(split=viewed),
            "your split takes heads before tokens in one view, which mixes places and features: cut the last axis first, then transpose(1, 2)",
        ),
        Wrong(
            variant(join=glued_without_transpose),
            "you join without bringing the heads back behind the tokens: transpose(1, 2) before you flatten",
        ),
        Wrong(
            variant(split=viewed, join=glued_without_transpose),
            "both split and join mix places and features: cut the last axis into (heads, d_h) and transpose; on the way back transpose first",
        ),
        Wrong(
            changed(lambda q, k, v, W_O: attend(q, k, v).flatten(2) @ W_O),
            "flatten(2) joins tokens and features there, since heads still stand before tokens: transpose(1, 2) first, then flatten(2)",
        ),
        Wrong(
            changed(lambda q, k, v, W_O: attend(q, k, v).flatten(1, 2) @ W_O),
            "flatten(1, 2) joins heads and tokens; heads and features belong together: transpose(1, 2), then flatten(2)",
        ),
        Wrong(
            lambda x, W_Q, W_K, W_V, W_O, heads: (
                join(attend(*((x @ W).unflatten(-1, (-1, heads)).transpose(1, 2) for W in (W_Q, W_K, W_V))))
                @ W_O
            ),
            "unflatten(-1, (-1, heads)) makes heads the last axis and d_h the one before; the other way round: (heads, -1)",
        ),
        Wrong(
            changed(lambda q, k, v, W_O: join(scores(q, k) @ v) @ W_O),
            "the softmax of (3.2) is missing: the scores are used as weights as they are",
        ),
        Wrong(
            changed(lambda q, k, v, W_O: join((q @ k.mT).softmax(-1) / q.shape[-1] ** 0.5 @ v) @ W_O),
            "you divide by the root of d_h behind the softmax, so that the weights no longer sum to 1; divide the scores",
        ),
        Wrong(
            changed(lambda q, k, v, W_O: attend(q, k, v).sum(1)),
            "you add the heads up as they are, (b, n, d_h); put them side by side and multiply by W_O, as in (3.3)",
        ),
        Wrong(
            changed(lambda q, k, v, W_O: attend(q, k, v).mean(1)),
            "you take the mean of the heads, (b, n, d_h); put them side by side and multiply by W_O, as in (3.3)",
        ),
        Wrong(
            changed(lambda q, k, v, W_O: (join(attend(q, k, v)) @ W_O, scores(q, k).softmax(-1))),
            "you return the output and the weights; the exercise asks for the output alone",
        ),
        Wrong(
            lambda x, W_Q, W_K, W_V, W_O, heads: join(attend(*[split(x, heads)] * 3)) @ W_O,
            "the tokens themselves are cut and compared; W_Q, W_K and W_V of (3.2) are not used",
        ),
        Wrong(
            lambda x, W_Q, W_K, W_V, W_O, heads: multi_head(x, W_Q.T, W_K.T, W_V.T, W_O, heads),
            "W_Q, W_K and W_V are transposed: here x @ W, as in (3.2); F.linear multiplies by the transpose",
        ),
        Wrong(
            variant(split=interleaved),
            "you give head t every h-th column; (3.2) gives it d_h columns that stand side by side: unflatten(-1, (heads, -1))",
        ),
        Wrong(
            variant(scale=lambda d, heads, n: d**-0.5),
            "the scale has the full width d in it; each head divides by the root of its own width d_h",
        ),
        Wrong(
            variant(scale=lambda d, heads, n: 1.0),
            "the scores are not scaled: (3.2) divides them by the root of d_h",
        ),
        Wrong(
            variant(scale=lambda d, heads, n: heads / d),
            "you divide by d_h; (3.2) divides by its square root",
        ),
        Wrong(
            variant(scale=lambda d, heads, n: heads**-0.5),
            "you divide by the root of the number of heads; it is the root of the width of a head",
        ),
        Wrong(
            variant(scale=lambda d, heads, n: n**-0.5),
            "you divide by the root of the number of tokens; it is the root of the width of a head",
        ),
        Wrong(
            variant(scale=lambda d, heads, n: (d / heads) ** 0.5),
            "you multiply by the root of d_h; (3.2) divides by it",
        ),
        Wrong(
            variant(order=lambda q, k, v: (k, q, v)),
            "queries and keys have changed places",
        ),
        Wrong(
            variant(order=lambda q, k, v: (q, v, k)),
            "keys and values have changed places",
        ),
        Wrong(
            softmax_over(-2),
            "your softmax runs over the queries; the keys are the last axis of the scores",
        ),
        Wrong(
            softmax_over(1),
            "your softmax runs over the heads: with their axis inserted, axis 1 is theirs; count from the end",
        ),
        Wrong(
            heads_attend_to_heads,
            "without transpose(1, 2) the heads of one token attend to each other; the tokens must stand on the last axis but one",
        ),
        Wrong(
            heads_on_sliced_tokens,
            "you cut the tokens before you project them; every head sees all features of a token, only the columns of the matrices are shared out",
        ),
        Wrong(
            mean_of_weights,
            "you average the weights over the heads; each head uses its own",
        ),
        Wrong(
            lambda x, W_Q, W_K, W_V, W_O, heads: multi_head(x, W_Q, W_K, W_V, W_O, 1),
            "that is one head of the full width: nothing is cut by the number of heads",
        ),
        Wrong(
            lambda x, W_Q, W_K, W_V, W_O, heads: multi_head(
                x, W_Q, W_K, W_V, torch.eye(len(W_O)).double(), heads
            ),
            "the heads are joined, but the output matrix W_O of (3.3) is missing",
        ),
        Wrong(
            lambda x, W_Q, W_K, W_V, W_O, heads: multi_head(x, W_Q, W_K, W_V, W_O.T, heads),
            "W_O is transposed: here matrices stand to the right of the rows, as in (3.3); nn.Linear keeps the transpose",
        ),
        Wrong(
            lambda x, W_Q, W_K, W_V, W_O, heads: multi_head(x, W_Q.T, W_K.T, W_V.T, W_O.T, heads),
            "your matrices are transposed: here x @ W, as in (3.2); nn.Linear keeps the transpose",
        ),
        Wrong(
            lambda x, W_Q, W_K, W_V, W_O, heads: attend(*(split(x @ W, heads) for W in (W_Q, W_K, W_V))),
            "you return the heads apart, (b, heads, n, d_h); join them and multiply by W_O, (3.3)",
        ),
        Wrong(
            lambda x, W_Q, W_K, W_V, W_O, heads: x + multi_head(x, W_Q, W_K, W_V, W_O, heads),
            "x was added to the output; the exercise asks for the attention alone",
        ),
    ),
)


# 03.2 sinusoids ------------------------------------------------------------------------------------------


def angles(n: int, d: int) -> Tensor:
    return torch.arange(n).double()[:, None] * 10000.0 ** (-2 * torch.arange(d // 2).double() / d)


def sinusoids(n: int, d: int) -> Tensor:
    a = angles(n, d)
    return torch.stack([a.sin(), a.cos()], -1).flatten(1)


def sinusoids_assigned(n: int, d: int) -> Tensor:
    table = torch.zeros(n, d, dtype=torch.float64)
    table[:, 0::2], table[:, 1::2] = angles(n, d).sin(), angles(n, d).cos()
    return table


def sinusoids_by_loops(n: int, d: int) -> Tensor:
    rows = []
    for p in range(n):
        row = []
        for f in range(d // 2):
            a = p / 10000 ** (2 * f / d)
            row += [math.sin(a), math.cos(a)]
        rows.append(row)
    return torch.tensor(rows, dtype=torch.float64)


def sinusoids_by_exp(n: int, d: int) -> Tensor:
    div = torch.exp(torch.arange(0, d, 2).double() * (-math.log(10000.0) / d))
    a = torch.outer(torch.arange(n).double(), div)
    return torch.cat([a.sin()[..., None], a.cos()[..., None]], 2).reshape(n, d)


def sinusoids_by_phase(n: int, d: int) -> Tensor:
    return torch.sin(
        angles(n, d).repeat_interleave(2, 1)
        + torch.tensor([0, math.pi / 2], dtype=torch.float64).repeat(d // 2)
    )


def paired(a: Tensor) -> Tensor:
    return torch.stack([a.sin(), a.cos()], -1).flatten(1)


def with_frequencies(of):
    def answer(n: int, d: int) -> Tensor:
        return paired(torch.arange(n).double()[:, None] * of(torch.arange(d // 2).double(), d))

    return answer


def every_feature_its_own_frequency(n: int, d: int) -> Tensor:
    a = torch.arange(n).double()[:, None] * 10000.0 ** (-torch.arange(d).double() / d)
    table = torch.empty_like(a)
    table[:, 0::2], table[:, 1::2] = a[:, 0::2].sin(), a[:, 1::2].cos()
    return table


def doubled_for_every_feature(n: int, d: int) -> Tensor:
    a = torch.arange(n).double()[:, None] * 10000.0 ** (-2 * torch.arange(d).double() / d)
    table = torch.empty_like(a)
    table[:, 0::2], table[:, 1::2] = a[:, 0::2].sin(), a[:, 1::2].cos()
    return table


def stretched(n: int, d: int) -> Tensor:
    f = torch.arange(d // 2).double()
    return torch.arange(n).double()[:, None] * 10000.0 ** (-f / max(d // 2 - 1, 1))


SINUSOIDS = Exercise(
    reference=sinusoids,
    right=(sinusoids_assigned, sinusoids_by_loops, sinusoids_by_exp, sinusoids_by_phase),
    inputs=lambda: [(5, 8), (12, 6), (1, 2)],
    praise="Sine and cosine of each clock side by side, at every position.",
    wrong=(
        Wrong(
            lambda n, d: torch.cat([angles(n, d).sin(), angles(n, d).cos()], 1),
            "all sines, then all cosines: that is tensor2tensor's order; (3.6) puts each sine beside its cosine",
        ),
        Wrong(
            lambda n, d: torch.stack([angles(n, d).cos(), angles(n, d).sin()], -1).flatten(1),
            "sine and cosine have changed places: the even features are sines",
        ),
        Wrong(
            lambda n, d: torch.stack([angles(n, d).sin(), angles(n, d).sin()], -1).flatten(1),
            "both features of a pair are sines; the odd one is the cosine",
        ),
        Wrong(
            with_frequencies(lambda f, d: 10000.0 ** (-f / d)),
            "the exponent lacks its 2: the frequencies go down to nearly 1/10000, by 10000^(-2f/d) for pair f",
        ),
        Wrong(
            every_feature_its_own_frequency,
            "the two features of a pair need the same frequency, or a step is no rotation: cosine 2f + 1 uses the exponent of sine 2f",
        ),
        Wrong(
            lambda n, d: paired(angles(n, d).deg2rad()),
            "your angles are turned from degrees into radians, but (3.6) has them in radians already",
        ),
        Wrong(
            with_frequencies(lambda f, d: 10000.0 ** -(2 * f // d)),
            "2 * f // d rounds down, so that all clocks run alike: divide with /",
        ),
        Wrong(
            doubled_for_every_feature,
            "your exponent doubles the number of the feature; in (3.6) it doubles f, the number of the pair: both features 2f and 2f + 1 use -2f/d",
        ),
        Wrong(
            lambda n, d: torch.cat([stretched(n, d).sin(), stretched(n, d).cos()], 1),
            "that is tensor2tensor's form, with all sines first and f/(d/2 - 1) in the exponent; (3.6) is the paper's",
        ),
        Wrong(
            lambda n, d: paired(stretched(n, d)),
            "the exponent is tensor2tensor's, f/(d/2 - 1); in (3.6) it is 2f/d",
        ),
        Wrong(
            lambda n, d: paired(angles(n, d)).unflatten(1, (-1, 2)),
            "the pairs have an axis of their own, (n, d/2, 2): flatten(1) brings them side by side",
        ),
        Wrong(
            lambda n, d: (angles(n, d).sin(), angles(n, d).cos()),
            "you return sines and cosines as two tables; put them into one, each cosine beside its sine",
        ),
        Wrong(
            with_frequencies(lambda f, d: 10000.0 ** (-4 * f / d)),
            "the exponent is doubled twice: f counts the pairs, so the exponent is -2f/d",
        ),
        Wrong(
            with_frequencies(lambda f, d: 10000.0 ** (2 * f / d)),
            "your clocks run ever faster: the exponent in (3.6) is negative",
        ),
        Wrong(
            with_frequencies(lambda f, d: 10000.0 ** (-2 * (f + 1) / d)),
            "f counts from 0: the first clock turns by 1 radian a position",
        ),
        Wrong(
            with_frequencies(lambda f, d: 1000.0 ** (-2 * f / d)),
            "the base is 10000, not 1000",
        ),
        Wrong(
            with_frequencies(lambda f, d: 2 * math.pi * 10000.0 ** (-2 * f / d)),
            "there is no 2 pi in (3.6): the first clock turns by 1 radian a position, not once round",
        ),
        Wrong(
            with_frequencies(lambda f, d: -2 * f / d * 10000.0),
            "10000 is raised to the power -2f/d, not multiplied by it",
        ),
        Wrong(
            lambda n, d: paired(angles(n + 1, d)[1:]),
            "positions count from 0, so the first row is 0, 1, 0, 1, ...",
        ),
        Wrong(
            lambda n, d: sinusoids(n, d).T,
            "your table is transposed: a row for each position",
        ),
        Wrong(
            lambda n, d: sinusoids(n, d)[None],
            "you have added a batch axis; the exercise asks for (n, d)",
        ),
        Wrong(
            lambda n, d: angles(n, d).sin(),
            "these are the sines alone, d/2 of them; put the cosine beside each",
        ),
        Wrong(
            angles,
            "these are the angles; take their sine and cosine",
        ),
        Wrong(
            lambda n, d: sinusoids(n, d).float(),
            "the numbers are right but for their precision: start from float64, such as torch.arange(n).double()",
        ),
    ),
)


# 03.3 the gradient of a relative bias --------------------------------------------------------------------


def distances(n: int, reach: int) -> Tensor:
    places = torch.arange(n)
    return (places - places[:, None]).clamp(-reach, reach)


def bias_gradient(grad_S: Tensor, reach: int) -> Tensor:
    distance = distances(len(grad_S), reach)
    return torch.stack([grad_S[distance == delta].sum() for delta in range(-reach, reach + 1)])


def bias_gradient_by_loops(grad_S: Tensor, reach: int) -> Tensor:
    result = torch.zeros(2 * reach + 1, dtype=grad_S.dtype)
    for i in range(len(grad_S)):
        for j in range(len(grad_S)):
            result[min(max(j - i, -reach), reach) + reach] += grad_S[i, j]
    return result


def bias_gradient_by_index(grad_S: Tensor, reach: int) -> Tensor:
    index = (distances(len(grad_S), reach) + reach).flatten()
    return torch.zeros(2 * reach + 1, dtype=grad_S.dtype).index_add(0, index, grad_S.flatten())


def bias_gradient_by_autograd(grad_S: Tensor, reach: int) -> Tensor:
    r = torch.zeros(2 * reach + 1, dtype=grad_S.dtype, requires_grad=True)
    return torch.autograd.grad(r[distances(len(grad_S), reach) + reach], r, grad_S)[0]


def bias_gradient_by_diagonals(grad_S: Tensor, reach: int) -> Tensor:
    sums = [grad_S.diagonal(k).sum() for k in range(-reach, reach + 1)]
    sums[0] = sum(grad_S.diagonal(k).sum() for k in range(-len(grad_S) + 1, -reach + 1))
    sums[-1] = sum(grad_S.diagonal(k).sum() for k in range(reach, len(grad_S)))
    return torch.stack(sums)


def diagonals_only(grad_S: Tensor, reach: int) -> Tensor:
    return torch.stack([grad_S.diagonal(k).sum() for k in range(-reach, reach + 1)])


def wrapped(grad_S: Tensor, reach: int) -> Tensor:
    places = torch.arange(len(grad_S))
    distance = (places - places[:, None]) % (2 * reach + 1)
    return torch.stack([grad_S[distance == k].sum() for k in range(2 * reach + 1)])


def repeats_lost(grad_S: Tensor, reach: int) -> Tensor:
    result = torch.zeros(2 * reach + 1, dtype=grad_S.dtype)
    result[distances(len(grad_S), reach) + reach] += grad_S
    return result


BIAS_GRADIENT = Exercise(
    reference=bias_gradient,
    right=(
        bias_gradient_by_loops,
        bias_gradient_by_index,
        bias_gradient_by_autograd,
        bias_gradient_by_diagonals,
    ),
    inputs=lambda: [(ramp(6, 6), 2), (ramp(5, 5, step=0.9), 3)],
    praise="Every score gives to the number of its distance, and the edges collect all that lies beyond.",
    wrong=(
        Wrong(
            diagonals_only,
            "the two numbers at the edges were used by all pairs beyond the reach too: clamp the distances",
        ),
        Wrong(
            lambda g, reach: bias_gradient(g, reach).flip(0),
            "your distances have the wrong sign: (3.10) counts j - i, key minus query",
        ),
        Wrong(
            lambda g, reach: diagonals_only(g, reach).flip(0),
            "the distance is j - i, key minus query, and the numbers at the edges collect all pairs beyond the reach too",
        ),
        Wrong(
            lambda g, reach: torch.stack(
                [g[distances(len(g), reach) == k].mean() for k in range(-reach, reach + 1)]
            ),
            "a number that was used several times collects all its parts: a sum, not a mean",
        ),
        Wrong(
            lambda g, reach: torch.stack([g.diagonal(k).mean() for k in range(-reach, reach + 1)]),
            "a sum, not a mean; and the edges collect all pairs beyond the reach",
        ),
        Wrong(
            lambda g, reach: torch.stack([g[distances(len(g), reach) == k].sum() for k in range(reach + 1)]),
            "negative distances have numbers of their own: count from -reach to reach",
        ),
        Wrong(
            lambda g, reach: torch.stack(
                [g[distances(len(g), reach) == k].sum() for k in range(-reach, reach)]
            ),
            "the last distance is missing: range stops before its end, so give it reach + 1",
        ),
        Wrong(
            lambda g, reach: torch.stack(
                [g[distances(len(g), reach).abs() == abs(k)].sum() for k in range(-reach, reach + 1)]
            ),
            "you do not tell left from right: a key before and a key behind have different numbers",
        ),
        Wrong(
            repeats_lost,
            "result[index] += adds only one of the entries that share an index: use index_add, or a sum for each distance",
        ),
        Wrong(
            lambda g, reach: bias_gradient(g, reach).roll(-reach),
            "the first number belongs to -reach, not to 0: add reach to the distance before you use it as an index",
        ),
        Wrong(
            lambda g, reach: F.pad(bias_gradient(g, reach)[1:-1], (1, 1)),
            "the two numbers at the edges stay empty: pairs at the reach and beyond belong to them",
        ),
        Wrong(
            lambda g, reach: torch.stack(
                [g[distances(len(g), reach).clamp(min=0) == k].sum() for k in range(-reach, reach + 1)]
            ),
            "you clamp at 0, so that all keys before the query are taken for the query's own place: clamp(-reach, reach)",
        ),
        Wrong(
            lambda g, reach: -bias_gradient(g, reach),
            "the sign is wrong: the bias is added to the score, so its gradient is the sum as it is",
        ),
        Wrong(
            wrapped,
            "your distances wrap round at the edges; (3.10) clips them",
        ),
        Wrong(
            lambda g, reach: bias_gradient(g, len(g) - 1),
            "that is one number for every distance; those beyond the reach share the one at the edge",
        ),
        Wrong(
            lambda g, reach: bias_gradient(g, reach) / len(g) ** 0.5,
            "the bias is added after the scaling, so no root belongs here",
        ),
        Wrong(
            lambda g, reach: torch.stack(
                [(distances(len(g), reach) == k).double().sum() for k in range(-reach, reach + 1)]
            ),
            "you count the pairs; each of them brings its own entry of grad_S",
        ),
        Wrong(
            lambda g, reach: g.sum(0)[: 2 * reach + 1] if len(g) > 2 * reach else g.sum(0),
            "you sum over columns; a distance runs along a diagonal",
        ),
        Wrong(
            lambda g, reach: bias_gradient(g, reach).sum(),
            "there is one number for each distance; do not add them up",
        ),
        Wrong(
            lambda g, reach: bias_gradient(g, reach)[distances(len(g), reach) + reach],
            "you have put the sums back into a matrix; return them as 2 reach + 1 numbers",
        ),
        Wrong(
            lambda g, reach: torch.stack(
                [torch.where(distances(len(g), reach) == k, g, 0.0).mean() for k in range(-reach, reach + 1)]
            ),
            "you divide by the number of all pairs: each number collects a sum",
        ),
    ),
)


# 03.4 mend three mistakes --------------------------------------------------------------------------------


def masked(cut, scale, lift):
    """Multi-head attention with a mask, in which each of three steps may be the wrong one."""

    def answer(x, W_Q, W_K, W_V, W_O, heads, mask):
        q, k, v = (cut(x @ W, heads) for W in (W_Q, W_K, W_V))
        scores = q @ k.mT * scale(x.shape[-1], heads)
        return join(scores.masked_fill(~lift(mask), -torch.inf).softmax(-1) @ v) @ W_O

    return answer


def filled(fill: float = -torch.inf, axis: int = -1, join: Callable = join):
    """The mended attention with another fill behind the mask, another axis of the softmax, or another join."""

    def answer(x, W_Q, W_K, W_V, W_O, heads, mask):
        q, k, v = (split(x @ W, heads) for W in (W_Q, W_K, W_V))
        weights = scores(q, k).masked_fill(~mask[:, None], fill).softmax(axis)
        return join(weights @ v) @ W_O

    return answer


def masked_behind(x, W_Q, W_K, W_V, W_O, heads, mask):
    q, k, v = (split(x @ W, heads) for W in (W_Q, W_K, W_V))
    return join(scores(q, k).softmax(-1) * mask[:, None] @ v) @ W_O


def of_head(d: int, heads: int) -> float:
    return (d / heads) ** -0.5


def of_all(d: int, heads: int) -> float:
    return d**-0.5


def lifted(mask: Tensor) -> Tensor:
    return mask[:, None]


def as_it_is(mask: Tensor) -> Tensor:
    return mask


def mended(x: Tensor, W_Q: Tensor, W_K: Tensor, W_V: Tensor, W_O: Tensor, heads: int, mask: Tensor) -> Tensor:
    return masked(split, of_head, lifted)(x, W_Q, W_K, W_V, W_O, heads, mask)


def mended_fused(x, W_Q, W_K, W_V, W_O, heads, mask):
    q, k, v = (split(x @ W, heads) for W in (W_Q, W_K, W_V))
    return join(F.scaled_dot_product_attention(q, k, v, attn_mask=mask.unsqueeze(1))) @ W_O


def mended_by_slices(x, W_Q, W_K, W_V, W_O, heads, mask):
    y, width = torch.zeros_like(x), x.shape[-1] // heads
    for t in range(heads):
        own = slice(t * width, (t + 1) * width)
        scores = (x @ W_Q[:, own]) @ (x @ W_K[:, own]).mT / width**0.5
        y = y + scores.masked_fill(~mask, -torch.inf).softmax(-1) @ (x @ W_V[:, own]) @ W_O[own]
    return y


def mended_in_torch(x, W_Q, W_K, W_V, W_O, heads, mask):
    layer = nn.MultiheadAttention(x.shape[-1], heads, bias=False, batch_first=True).double()
    layer.in_proj_weight.data = torch.cat([W_Q, W_K, W_V], 1).T
    layer.out_proj.weight.data = W_O.T
    return layer(x, x, x, attn_mask=~mask.repeat_interleave(heads, 0))[0].detach()


def mended_inputs() -> list[tuple]:
    """b equals heads, so that the wrong mask runs; then b = 1, where it is harmless."""
    causal = torch.ones(4, 4, dtype=torch.bool).tril()
    first_two = torch.tensor([True, True, False, False]).expand(4, 4)
    band = causal & ~torch.ones(6, 6, dtype=torch.bool).tril(-3)[:4, :4]
    return [
        (
            ramp(2, 4, 6),
            *(ramp(6, 6, step=s) for s in (0.8, 1.3, 0.7, 1.7)),
            2,
            torch.stack([causal, first_two]),
        ),
        (ramp(1, 4, 6, step=0.9), *(ramp(6, 6, step=s) for s in (1.2, 0.6, 1.1, 1.5)), 3, band[None]),
    ]


def everything_else(change):
    return lambda *a: change(mended(*a), *a)


MEND = Exercise(
    reference=mended,
    right=(mended_fused, mended_by_slices, mended_in_torch),
    inputs=mended_inputs,
    praise="Features are cut, not places; the scale is that of a head; and every head gets the mask of its own sequence.",
    wrong=(
        Wrong(
            masked(viewed, of_all, as_it_is),
            "that is the code as it was: look at the view, at the scale and at the axes of the mask",
        ),
        Wrong(
            masked(split, of_all, as_it_is),
            "the split is right now; the scale still has the full width in it, and the mask's batch still meets the heads",
        ),
        Wrong(
            masked(viewed, of_head, as_it_is),
            "the scale is right now; the view still mixes places and features, and the mask's batch still meets the heads",
        ),
        Wrong(
            masked(viewed, of_all, lifted),
            "the mask is right now; the view still mixes places and features, and the scale still has the full width in it",
        ),
        Wrong(
            masked(split, of_head, as_it_is),
            "two of three: where b equals heads, your mask gives sequence 0's mask to head 0 of every sequence; it needs an axis for the heads",
        ),
        Wrong(
            masked(split, of_all, lifted),
            "two of three: the scale still takes the full width d; a head has d // heads features",
        ),
        Wrong(
            masked(viewed, of_head, lifted),
            "two of three: view(b, heads, n, ...) cuts the sequence into pieces; cut the features, then transpose",
        ),
        Wrong(
            masked(split, lambda d, heads: 1.0, lifted),
            "the scale is gone: divide by the root of d // heads",
        ),
        Wrong(
            masked(split, lambda d, heads: heads / d, lifted),
            "you divide by the width of a head; it is its square root",
        ),
        Wrong(
            masked(split, lambda d, heads: 1 / (d // heads**0.5), lifted),
            "** binds more tightly than //: you divide by d // (heads ** 0.5); write (d // heads) ** 0.5",
        ),
        Wrong(
            masked(split, lambda d, heads: heads**-0.5, lifted),
            "you divide by the root of the number of heads; it is the root of d // heads, the width of one",
        ),
        Wrong(
            masked(split, lambda d, heads: (d / heads) ** 0.5, lifted),
            "you multiply by the root of d // heads; the scores are divided by it",
        ),
        Wrong(
            filled(fill=0.0),
            "a score of 0 still gets a weight; where a query may not attend, the score has to be -inf, as in the code as it stood",
        ),
        Wrong(
            masked_behind,
            "you mask behind the softmax, so that the weights left over no longer sum to 1: mask the scores",
        ),
        Wrong(
            filled(axis=-2),
            "your softmax runs over the queries; the last axis, that of the keys, was right in the code as it stood",
        ),
        Wrong(
            filled(join=glued_without_transpose),
            "the join was right in the code as it stood: transpose(1, 2) before you flatten, since heads stand before tokens",
        ),
        Wrong(
            lambda x, W_Q, W_K, W_V, W_O, heads, mask: mended(
                x, W_Q, W_K, W_V, torch.eye(len(W_O)).double(), heads, mask
            ),
            "W_O has gone: the joined heads are multiplied by it at the end",
        ),
        Wrong(
            masked(split, of_head, lambda mask: mask.any(0)),
            "you make one mask of all sequences; each keeps its own: insert an axis behind the batch",
        ),
        Wrong(
            masked(interleaved, of_head, lifted),
            "head t gets d_h columns that stand side by side; yours are spread over the matrix",
        ),
        Wrong(
            masked(split, of_head, lambda mask: ~mask[:, None]),
            "the mask has been turned round: True means that the query may attend; that was right in the code as it stood",
        ),
        Wrong(
            masked(split, of_head, lambda mask: mask[:, None].mT),
            "your mask is transposed: row i says what query i may see",
        ),
        Wrong(
            masked(split, of_head, lambda mask: torch.ones_like(mask[:, None])),
            "the mask is not used any more: every query sees every key",
        ),
        Wrong(
            masked(split, of_head, lambda mask: mask[:1, None]),
            "every sequence gets the mask of the first one: keep the batch and insert the axis behind it",
        ),
        Wrong(
            everything_else(lambda y, x, *a: x + y),
            "something was added to the output; the exercise asks for the attention alone",
        ),
    ),
)


# 03.5 silence a head -------------------------------------------------------------------------------------


def silence(W_O: Tensor, heads: int, t: int) -> Tensor:
    width, result = len(W_O) // heads, W_O.clone()
    result[t * width : (t + 1) * width] = 0
    return result


def silence_by_mask(W_O: Tensor, heads: int, t: int) -> Tensor:
    keep = torch.arange(len(W_O)) // (len(W_O) // heads) != t
    return W_O * keep[:, None]


def silence_by_parts(W_O: Tensor, heads: int, t: int) -> Tensor:
    parts = list(W_O.chunk(heads))
    parts[t] = torch.zeros_like(parts[t])
    return torch.cat(parts)


def silence_by_product(W_O: Tensor, heads: int, t: int) -> Tensor:
    keep = torch.ones(heads, dtype=W_O.dtype)
    keep[t] = 0
    return keep.repeat_interleave(len(W_O) // heads).diag() @ W_O


def emptied(rows: Callable, columns: Callable = lambda t, width: slice(None)):
    """W_O with 0 in the rows (and columns) that a slice made of t and d_h names."""

    def answer(W_O: Tensor, heads: int, t: int) -> Tensor:
        width, result = len(W_O) // heads, W_O.clone()
        result[rows(t, width), columns(t, width)] = 0
        return result

    return answer


SILENCE = Exercise(
    reference=silence,
    right=(silence_by_mask, silence_by_parts, silence_by_product),
    inputs=lambda: [(ramp(6, 6), 3, 1), (ramp(8, 8, step=0.9), 2, 0), (ramp(8, 8, step=0.7), 4, 3)],
    praise="Only the rows that head t meets are gone, so the other heads add what they did.",
    wrong=(
        Wrong(
            lambda W_O, heads, t: silence(W_O.T, heads, t).T,
            "you empty columns, which are the output's features; head t meets rows of W_O",
        ),
        Wrong(
            lambda W_O, heads, t: W_O - silence(W_O, heads, t),
            "the other way round: you keep head t alone and silence all others",
        ),
        Wrong(
            lambda W_O, heads, t: silence(W_O, heads, t - 1) if t else W_O.clone(),
            "heads are counted from 0 here: head t has the rows from t d_h on",
        ),
        Wrong(
            lambda W_O, heads, t: silence(W_O, heads, t + 1),
            "you silence the head behind it: head t has the rows from t d_h on",
        ),
        Wrong(
            lambda W_O, heads, t: W_O * (torch.arange(len(W_O)) % heads != t)[:, None],
            "you empty every h-th row; the rows of one head stand side by side",
        ),
        Wrong(
            lambda W_O, heads, t: W_O * (torch.arange(len(W_O)) != t)[:, None],
            "you empty one row; a head has d_h of them",
        ),
        Wrong(
            lambda W_O, heads, t: W_O * (torch.arange(len(W_O)) // heads != t)[:, None],
            "a head has d_h = d / heads rows; you took blocks of as many rows as there are heads",
        ),
        Wrong(
            emptied(lambda t, width: slice(t * width, (t + 1) * width - 1)),
            "one row is left: a slice stops before its end, so it ends at (t + 1) d_h",
        ),
        Wrong(
            emptied(lambda t, width: slice(t, t + width)),
            "you start at row t; the heads before it have t d_h rows, so head t starts at t d_h",
        ),
        Wrong(
            emptied(lambda t, width: slice(t * width, None)),
            "you silence all later heads as well: stop at row (t + 1) d_h",
        ),
        Wrong(
            emptied(lambda t, width: slice(None, (t + 1) * width)),
            "you silence all earlier heads as well: start at row t d_h",
        ),
        Wrong(
            emptied(*[lambda t, width: slice(t * width, (t + 1) * width)] * 2),
            "you empty a square block only; head t writes into all d features, so its rows go as a whole",
        ),
        Wrong(
            lambda W_O, heads, t: W_O.chunk(heads)[t],
            "these are the rows of head t alone; return the whole matrix, with these rows at 0",
        ),
        Wrong(
            lambda W_O, heads, t: silence(W_O, heads, t).unflatten(0, (heads, -1)),
            "the heads still have an axis of their own, (heads, d_h, d): flatten(0, 1) makes it (d, d) again",
        ),
        Wrong(
            lambda W_O, heads, t: silence(W_O, heads, t)[
                t * (len(W_O) / heads) : (t + 1) * (len(W_O) / heads)
            ],
            "d / heads is a float, and a slice needs whole numbers: d_h = len(W_O) // heads",
        ),
        Wrong(
            lambda W_O, heads, t: torch.cat([part for i, part in enumerate(W_O.chunk(heads)) if i != t]),
            "you cut the rows out, and the matrix no longer fits C; set them to 0 instead",
        ),
        Wrong(
            lambda W_O, heads, t: silence(W_O, heads, t) * heads / (heads - 1),
            "the other heads are to add what they did; you made them louder",
        ),
        Wrong(
            lambda W_O, heads, t: torch.zeros_like(W_O),
            "you silence all heads; only the rows of head t go",
        ),
        Wrong(
            lambda W_O, heads, t: silence(silence(W_O, heads, t).T, heads, t).T,
            "rows are enough: with the columns you also take features away from what the other heads write",
        ),
        Wrong(
            lambda W_O, heads, t: W_O.clone(),
            "nothing was silenced: set the rows of head t to 0",
        ),
    ),
)


EXERCISES = {
    "03.a": choice(
        "b",
        {
            "a": "the outputs follow their tokens: output i belongs to token i, wherever that stands now",
            "c": "no score and no value has changed, only their places; think of what notebook 02 says of permutations",
            "d": "the shapes are the same as before, so nothing can go wrong there",
            "e": "an average of all outputs would do that; each token still has an output of its own",
        },
        "Reordered tokens, reordered outputs: attention knows no order.",
    ),
    "03.b": choice(
        "a",
        {
            "b": "the inner width is 2: every column of the product is a mix of the two columns of A",
            "c": "the product is an 8 x 8 matrix, but all its columns are mixes of only two",
            "e": "unless both matrices are zero, the rank is at least 1, and here it can be more",
            "d": "a rank cannot exceed the size of the matrix, and here the inner width 2 limits it further",
        },
        "Everything has to pass through the two columns of A.",
    ),
    "03.c": choice(
        "c",
        {
            "a": "a sine is not linear: try u = v = 90 degrees",
            "b": "that is cos(u - v)",
            "d": "that is cos(u + v)",
            "e": "a product of sines is 0 wherever one angle is 0, and sin(0 + v) is sin v",
        },
        "The addition theorem; with it a step in position becomes a rotation.",
    ),
    "03.1": MULTI_HEAD,
    "03.2": SINUSOIDS,
    "03.3": BIAS_GRADIENT,
    "03.4": MEND,
    "03.5": SILENCE,
}
