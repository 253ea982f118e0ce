"""Scores and normalisers against loops in plain Python, forward and gradient."""

import math
import re

import pytest
import torch
from torch.func import functional_call

from attnlib.sequence import (
    AdditiveScore,
    BilinearScore,
    cosine,
    dot,
    gaussian,
    masked_sigmoid,
    masked_softmax,
    scaled_dot,
)

N, M, D, E, HIDDEN = 3, 4, 5, 2, 6


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def random_module(module: torch.nn.Module) -> torch.nn.Module:
    for i, p in enumerate(module.parameters()):
        p.data = drawn(*p.shape, seed=10 + i)
    return module


def product(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def additive_pair(q, k, W, *more):
    *bias, U, v = more
    offsets = bias[0] if bias else [0.0] * HIDDEN
    rows = zip(W, U, offsets, strict=True)
    return product(v[0], [math.tanh(product(w, q) + product(u, k) + offset) for w, u, offset in rows])


# name: the score, a pair's value from plain lists and the module's own matrices, the width of a key
SCORES = {
    "dot": (dot, lambda q, k: product(q, k), D),
    "scaled dot": (scaled_dot, lambda q, k: product(q, k) / math.sqrt(D), D),
    "cosine": (cosine, lambda q, k: product(q, k) / math.sqrt(product(q, q) * product(k, k)), D),
    "gaussian": (
        lambda q, k: gaussian(q, k, bandwidth=0.7),
        lambda q, k: -sum((a - b) ** 2 for a, b in zip(q, k, strict=True)) / (2 * 0.7**2),
        D,
    ),
    "bilinear": (
        random_module(BilinearScore(D, E)),
        lambda q, k, W: product(q, [product(row, k) for row in W]),
        E,
    ),
    "additive": (random_module(AdditiveScore(D, E, HIDDEN)), additive_pair, E),
    "additive with bias": (random_module(AdditiveScore(D, E, HIDDEN, bias=True)), additive_pair, E),
}
each = pytest.mark.parametrize("name", SCORES)


@each
def test_a_pair_s_score_by_loops(name):
    score, pair, width = SCORES[name]
    q, k = drawn(N, D, seed=1), drawn(M, width, seed=2)
    weights = [p.tolist() for p in score.parameters()] if isinstance(score, torch.nn.Module) else []
    expected = [[pair(a, b, *weights) for b in k.tolist()] for a in q.tolist()]
    torch.testing.assert_close(score(q, k), torch.tensor(expected, dtype=torch.float64))


@each
def test_gradients(name):
    score, _, width = SCORES[name]
    inputs = [drawn(N, D, seed=1), drawn(M, width, seed=2)]
    names = []
    if isinstance(score, torch.nn.Module):
        names = [name for name, _ in score.named_parameters()]
        inputs += [p.detach().clone() for p in score.parameters()]

    def forward(q, k, *weights):
        return (
            functional_call(score, dict(zip(names, weights, strict=True)), (q, k)) if names else score(q, k)
        )

    assert torch.autograd.gradcheck(forward, [x.requires_grad_() for x in inputs])


@each
def test_leading_axes_broadcast(name):
    score, _, width = SCORES[name]
    q, k = drawn(2, 1, N, D, seed=1), drawn(3, M, width, seed=2)
    found = score(q, k)
    assert found.shape == (2, 3, N, M)
    torch.testing.assert_close(found[1, 2], score(q[1, 0], k[2]))


def test_by_hand():
    q, k = torch.tensor([[3.0, 4.0]]), torch.tensor([[3.0, 4.0], [4.0, -3.0], [0.0, 0.0]])
    assert dot(q, k).tolist() == [[25, 0, 0]]
    torch.testing.assert_close(scaled_dot(q, k), torch.tensor([[25 / math.sqrt(2), 0, 0]]))
    torch.testing.assert_close(cosine(q, k), torch.tensor([[1.0, 0.0, 0.0]]))
    torch.testing.assert_close(gaussian(q, k, bandwidth=5.0), torch.tensor([[0.0, -1.0, -0.5]]))


def test_cosine_of_nothing_is_zero_and_lengths_do_not_count():
    q, k = drawn(N, D, seed=1), drawn(M, D, seed=2)
    torch.testing.assert_close(cosine(7 * q, 0.2 * k), cosine(q, k))
    assert cosine(q, k).abs().max() < 1
    q[1] = 0
    q.requires_grad_()
    scores = cosine(q, k)
    assert (scores[1] == 0).all()
    assert (scores[[0, 2]] != 0).all()
    gradient = torch.autograd.grad(scores.sum(), q)[0]
    assert gradient.isfinite().all()
    assert gradient[1].abs().max() < 10


def test_softmax_of_gaussian_scores_is_kernel_regression():
    places, at, heights = drawn(6, 1, seed=1), drawn(2, 1, seed=2), drawn(6, 1, seed=3)
    kernel = torch.exp(-((at - places.T) ** 2) / (2 * 0.3**2))
    expected = kernel @ heights / kernel.sum(1, keepdim=True)
    torch.testing.assert_close(masked_softmax(gaussian(at, places, bandwidth=0.3)) @ heights, expected)


def test_parameters_of_the_additive_score_as_in_the_paper():
    with torch.device("meta"):
        score = AdditiveScore(1000, 2000, 1000)
    assert sum(p.numel() for p in score.parameters()) == 3_001_000
    assert "W.bias" not in score.state_dict()
    assert "W.bias" in AdditiveScore(3, 4, 5, bias=True).state_dict()


def test_the_bilinear_matrix_joins_the_two_widths():
    assert BilinearScore(3, 7).W.weight.shape == (3, 7)


MASKS = {
    "none": None,
    "all": torch.ones(N, M, dtype=torch.bool),
    "one for all queries": torch.tensor([[True, False, True, True]]),
    "by query": torch.tensor([[1, 1, 0, 0], [0, 1, 1, 1], [1, 0, 0, 0]], dtype=torch.bool),
    "by batch": torch.tensor([[[1, 1, 0, 1]], [[0, 0, 1, 1]]], dtype=torch.bool),
}


@pytest.mark.parametrize("name", MASKS)
def test_masked_softmax_is_a_softmax_over_what_may_be_seen(name):
    scores, mask = drawn(2, N, M), MASKS[name]
    allowed = torch.ones(2, N, M, dtype=torch.bool) if mask is None else mask.expand(2, N, M)
    found = masked_softmax(scores, mask)
    for b in range(2):
        for i in range(N):
            keys = [j for j in range(M) if allowed[b, i, j]]
            e = {j: math.exp(scores[b, i, j]) for j in keys}
            expected = [e.get(j, 0.0) / sum(e.values()) for j in range(M)]
            torch.testing.assert_close(found[b, i], torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("name", [name for name in MASKS if MASKS[name] is not None])
def test_gradients_of_the_normalisers(name):
    """P (g - sum P g) for the softmax, s (1 - s) g for the sigmoid, and 0 where the mask is."""
    scores, upstream, mask = drawn(2, N, M).requires_grad_(), drawn(2, N, M, seed=5), MASKS[name]
    weights = torch.softmax(scores.masked_fill(~mask, -math.inf), -1).detach()
    expected = weights * (upstream - (weights * upstream).sum(-1, keepdim=True))
    (found,) = torch.autograd.grad(masked_softmax(scores, mask), scores, upstream)
    torch.testing.assert_close(found, expected)
    s = 1 / (1 + torch.exp(-scores.detach()))
    (found,) = torch.autograd.grad(masked_sigmoid(scores, mask), scores, upstream)
    torch.testing.assert_close(found, mask * s * (1 - s) * upstream)


@pytest.mark.parametrize("normalise", [masked_softmax, masked_sigmoid])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_normalisers_leave_scores_and_mask_as_they_are(normalise, dtype):
    scores, mask = drawn(M, N).to(dtype).mT, MASKS["by query"].clone()
    before = scores.clone()
    found = normalise(scores, mask)
    assert found.dtype == dtype
    assert torch.equal(scores, before)
    assert torch.equal(mask, MASKS["by query"])
    torch.testing.assert_close(found, normalise(before, mask))


@pytest.mark.parametrize("normalise", [masked_softmax, masked_sigmoid])
def test_huge_scores_do_not_overflow(normalise):
    scores = torch.tensor([[1e4, -1e4, 9e3, 0.0]], requires_grad=True)
    weights = normalise(scores, torch.tensor([[True, True, False, True]]))
    assert weights.tolist() == [[1, 0, 0, 0 if normalise is masked_softmax else 0.5]]
    assert torch.autograd.grad(weights[0, 0], scores)[0].isfinite().all()


@pytest.mark.parametrize("normalise", [masked_softmax, masked_sigmoid])
def test_a_row_that_may_see_nothing(normalise):
    scores = drawn(N, M).requires_grad_()
    mask = torch.ones(N, M, dtype=torch.bool)
    mask[1] = False
    weights = normalise(scores, mask)
    assert (weights[1] == 0).all()
    assert (weights[[0, 2]] > 0).all()
    with torch.autograd.set_detect_anomaly(True):  # no NaN on the way either
        (gradient,) = torch.autograd.grad(normalise(scores, mask), scores, drawn(N, M, seed=5))
    assert (gradient[1] == 0).all()
    assert gradient.isfinite().all()
    assert (gradient[[0, 2]] != 0).all()


def test_masked_softmax_of_scores_that_are_infinite_where_masked():
    scores = torch.tensor([[0.0, -math.inf, math.log(3)]])
    found = masked_softmax(scores, torch.tensor([[True, False, True]]))
    torch.testing.assert_close(found, torch.tensor([[0.25, 0.0, 0.75]]))


@pytest.mark.parametrize("masked_score", [1e4, -1e4])
def test_masked_softmax_does_not_see_how_large_a_masked_score_is(masked_score):
    scores = torch.tensor([[-5e3, masked_score, -5e3 + math.log(3)]], dtype=torch.float64)
    found = masked_softmax(scores, torch.tensor([[True, False, True]]))
    torch.testing.assert_close(found, torch.tensor([[0.25, 0.0, 0.75]], dtype=torch.float64))


def test_masked_sigmoid_weighs_each_key_on_its_own():
    scores, mask = drawn(N, M), MASKS["by query"]
    torch.testing.assert_close(masked_sigmoid(scores), 1 / (1 + torch.exp(-scores)))
    torch.testing.assert_close(masked_sigmoid(scores, mask), mask / (1 + torch.exp(-scores)))


@each
@pytest.mark.no_shape_hook
def test_compiles_without_a_graph_break(name):
    score, _, width = SCORES[name]
    mask = torch.arange(N * M).view(N, M) % 3 > 0

    def weights(q, k):
        scores = score(q, k)
        return masked_softmax(scores, mask), masked_sigmoid(scores, mask)

    torch.compiler.reset()
    q, k = drawn(N, D, seed=1), drawn(M, width, seed=2)
    compiled = torch.compile(weights, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(q, k), weights(q, k))


@pytest.mark.no_shape_hook
@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda: dot(drawn(4), drawn(3, 4)),
            "expected q of shape (..., queries, features), got (4,); add the axis that counts the queries",
        ),
        (
            lambda: scaled_dot(drawn(3, 4), drawn(4)),
            "expected k of shape (..., keys, features), got (4,); add the axis that counts the keys",
        ),
        (
            lambda: dot(torch.zeros(2, 3, dtype=torch.int64), drawn(2, 3)),
            "expected floating-point q, got torch.int64; convert with q.float()",
        ),
        (
            lambda: gaussian(drawn(2, 3), torch.zeros(2, 3, dtype=torch.int64)),
            "expected floating-point k, got torch.int64; convert with k.float()",
        ),
        (
            lambda: cosine(drawn(2, 3), drawn(2, 4)),
            "queries have 3 features and keys 4; this score compares them one by one, so project one of the "
            "two, or use BilinearScore or AdditiveScore",
        ),
        (
            lambda: gaussian(drawn(2, 2, 3), drawn(5, 2, 3)),
            "the leading axes of q (2, 2, 3) and k (5, 2, 3) do not fit each other; they should be equal, or "
            "of size 1",
        ),
        (lambda: gaussian(drawn(2, 3), drawn(2, 3), bandwidth=0.0), "bandwidth=0.0 should be above 0"),
        (lambda: gaussian(drawn(2, 3), drawn(2, 3), bandwidth=-2.0), "bandwidth=-2.0 should be above 0"),
        (
            lambda: BilinearScore(3, 4)(drawn(2, 4), drawn(2, 4)),
            "this score was built for q of width 3, got (2, 4)",
        ),
        (
            lambda: BilinearScore(3, 4)(drawn(2, 3), drawn(2, 3)),
            "this score was built for k of width 4, got (2, 3)",
        ),
        (
            lambda: AdditiveScore(3, 4, 5)(drawn(2, 4), drawn(2, 4)),
            "this score was built for q of width 3, got (2, 4)",
        ),
        (
            lambda: AdditiveScore(3, 4, 5)(drawn(2, 3), drawn(2, 3)),
            "this score was built for k of width 4, got (2, 3)",
        ),
        (lambda: BilinearScore(0, 4), "query_width=0 should be a whole number of at least 1"),
        (lambda: BilinearScore(4, 0), "key_width=0 should be a whole number of at least 1"),
        (lambda: AdditiveScore(0, 4, 5), "query_width=0 should be a whole number of at least 1"),
        (lambda: AdditiveScore(3, 0, 5), "key_width=0 should be a whole number of at least 1"),
        (lambda: AdditiveScore(3, 4, 0), "hidden=0 should be a whole number of at least 1"),
        (
            lambda: masked_softmax(drawn(2, 3), torch.ones(2, 3)),
            "expected a boolean mask (True = may attend), got torch.float32; compare or cast first",
        ),
        (
            lambda: masked_sigmoid(drawn(2, 3), torch.ones(3, 2, dtype=torch.bool)),
            "a mask of shape (3, 2) does not broadcast to scores of shape (2, 3) (..., queries, keys); give "
            "it axes of the same size or of size 1",
        ),
        (
            lambda: masked_softmax(drawn(2, 3), torch.ones(1, 2, 3, dtype=torch.bool)),
            "a mask of shape (1, 2, 3) does not broadcast to scores of shape (2, 3) (..., queries, keys); "
            "give it axes of the same size or of size 1",
        ),
    ],
)
def test_wrong_arguments(call, text):
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        call()
