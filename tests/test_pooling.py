"""Attention pooling against loops, and against the additive score with a query of zeros."""

import math
import re

import pytest
import torch
from by_hand import assert_same, drawn, randomised

from attnlib.sequence import padding_mask
from attnlib.sequence.pooling import AttentionPooling
from attnlib.sequence.scores import AdditiveScore

B, N, WIDTH, HIDDEN = 2, 5, 6, 4
LENGTHS = torch.tensor([3, 5])


def build(**options) -> AttentionPooling:
    return randomised(AttentionPooling(WIDTH, **options))


@pytest.mark.parametrize("options", [{}, {"hidden": HIDDEN}])
def test_by_loops(options):
    module = build(**options)

    def oracle(h):
        rows = []
        for sequence in h:
            e = [
                torch.exp(module.u_w.weight[0] @ torch.tanh(module.W.weight @ t + module.W.bias))
                for t in sequence
            ]
            rows.append(sum(a * t for a, t in zip(e, sequence, strict=True)) / sum(e))
        return torch.stack(rows)

    assert_same(module, oracle, drawn(B, N, WIDTH))
    assert module.W.out_features == options.get("hidden", WIDTH)


def test_by_hand():
    """One unit without bias: tanh(artanh(1/2)) = 1/2 times u_w = 2 ln 3 gives e^score = 3 against 1."""
    module = AttentionPooling(1, hidden=1)
    module.W.weight.data.fill_(1)
    module.W.bias.data.zero_()
    module.u_w.weight.data.fill_(2 * math.log(3))
    h = torch.tensor([[[math.atanh(0.5)], [0.0]]])
    torch.testing.assert_close(module.weights(h), torch.tensor([[0.75, 0.25]]))
    torch.testing.assert_close(module(h), torch.tensor([[0.75 * math.atanh(0.5)]]))


def test_it_is_the_additive_score_without_its_query():
    module, h = build(hidden=HIDDEN), drawn(B, N, WIDTH)
    score = AdditiveScore(1, WIDTH, HIDDEN, bias=True).double()
    score.W.bias.data, score.U.weight.data = module.W.bias.data, module.W.weight.data
    score.v.weight.data = module.u_w.weight.data
    expected = score(torch.zeros(B, 1, 1).double(), h)[:, 0].softmax(-1)
    torch.testing.assert_close(module.weights(h), expected)


def test_weights_sum_to_one_over_what_may_be_seen():
    module, h = build(), drawn(B, N, WIDTH)
    mask = padding_mask(LENGTHS, N)
    weights = module.weights(h, mask=mask)
    torch.testing.assert_close(weights.sum(-1), torch.ones(B).double())
    assert (weights[~mask[:, 0]] == 0).all()
    assert (weights[mask[:, 0]] > 0).all()
    torch.testing.assert_close(module(h, mask=mask)[0], module(h[:1, :3])[0])
    torch.testing.assert_close(module(h, mask=mask)[1], module(h)[1])


def test_nothing_leaks_from_masked_places():
    module, mask = build(), padding_mask(LENGTHS, N)
    h = drawn(B, N, WIDTH)
    other = h.clone()
    other[~mask[:, 0]] = 50.0
    results = []
    for sequence in (h, other):
        sequence.requires_grad_()
        output = module(sequence, mask=mask)
        results.append(
            [output, *torch.autograd.grad(output, [sequence, *module.parameters()], drawn(B, WIDTH))]
        )
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
    assert (results[0][1][~mask[:, 0]] == 0).all()
    assert (results[0][1][mask[:, 0]] != 0).all()


def test_order_does_not_matter():
    module, h = build(), drawn(B, N, WIDTH)
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(module(h[:, order]), module(h))
    torch.testing.assert_close(module.weights(h[:, order]), module.weights(h)[:, order])


def test_a_sequence_without_any_place():
    module, h = build(), drawn(B, N, WIDTH).requires_grad_()
    output = module(h, mask=padding_mask(torch.tensor([0, 4]), N))
    assert (output[0] == 0).all()
    found = torch.autograd.grad(output, [h, *module.parameters()], drawn(B, WIDTH))
    assert all(gradient.isfinite().all() for gradient in found)
    assert (found[0][0] == 0).all()
    assert (found[0][1, :4] != 0).all()
    assert torch.equal(module(h[:, :0]), torch.zeros(B, WIDTH).double())


def test_parameters():
    count = sum(p.numel() for p in AttentionPooling(WIDTH, hidden=HIDDEN).parameters())
    assert count == HIDDEN * WIDTH + HIDDEN + HIDDEN


def test_gradcheck():
    mask = padding_mask(LENGTHS, N)
    assert torch.autograd.gradcheck(lambda h: build()(h, mask=mask), drawn(B, N, WIDTH).requires_grad_())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_precisions_stay_near(dtype):
    module, h = build(), drawn(B, N, WIDTH)
    expected = module(h)
    found = module.to(dtype)(h.to(dtype))
    assert found.dtype == dtype
    assert (found.double() - expected).abs().max() < (1e-6 if dtype == torch.float32 else 0.05)


def test_inputs_may_be_non_contiguous_and_stay_as_they_are():
    module, h = build(), drawn(B, WIDTH, N).mT
    assert not h.is_contiguous()
    before = h.clone()
    torch.testing.assert_close(module(h), module(before))
    assert torch.equal(h, before)


@pytest.mark.no_shape_hook
def test_compiles_without_a_graph_break():
    torch.compiler.reset()
    module, h, mask = build(), drawn(B, N, WIDTH), padding_mask(LENGTHS, N)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(h, mask=mask), module(h, mask=mask))


@pytest.mark.no_shape_hook
@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: AttentionPooling(0), "width=0 should be a whole number of at least 1"),
        (lambda: AttentionPooling(6, hidden=0), "hidden=0 should be a whole number of at least 1"),
        (lambda: build()(drawn(5, 6)), "expected h of shape (batch, n, 6), got (5, 6)"),
        (lambda: build()(drawn(2, 5, 4)), "expected h of shape (batch, n, 6), got (2, 5, 4)"),
        (
            lambda: build()(drawn(2, 5, 6), mask=torch.ones(2, 5, dtype=torch.bool)),
            "a mask of shape (2, 5) does not broadcast to scores of shape (2, 1, 5) (..., queries, keys); "
            "give it axes of the same size or of size 1",
        ),
    ],
)
def test_wrong_arguments(call, text):
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        call()
