"""The recurrent translator against loops over sequences, steps and places, in all five kinds."""

import math
import re

import pytest
import torch
from by_hand import drawn, randomised

from attnlib.sequence.recurrent import ATTENTIONS, RecurrentTranslator, local_window
from attnlib.sequence.scores import AdditiveScore, BilinearScore

B, M, T, EMBEDDING, WIDTH, STATE, VOCABULARY, TARGETS = 3, 6, 4, 5, 2, 7, 11, 9
KINDS = (*ATTENTIONS, None)
LENGTHS = torch.tensor([6, 3, 1])
SOURCE = torch.tensor([[3, 4, 5, 6, 7, 8], [10, 9, 8, 0, 0, 0], [5, 0, 0, 0, 0, 0]])
TARGET = torch.tensor([[1, 3, 4, 5], [1, 8, 2, 0], [1, 5, 5, 7]])


def build(attention) -> RecurrentTranslator:
    state = 2 * WIDTH if attention == "dot" else STATE
    sizes = {"target_vocabulary": TARGETS, "embedding": EMBEDDING, "width": WIDTH, "decoder_width": state}
    return randomised(RecurrentTranslator(VOCABULARY, attention=attention, **sizes))


# ---- an oracle: one sequence, one step, one place at a time


def gru(cell, x, h, direction=""):
    """One step of nn.GRU from its documented equations."""
    w, u = getattr(cell, f"weight_ih_l0{direction}"), getattr(cell, f"weight_hh_l0{direction}")
    b, c = getattr(cell, f"bias_ih_l0{direction}"), getattr(cell, f"bias_hh_l0{direction}")
    wr, wz, wn = (w @ x + b).chunk(3)
    ur, uz, un = (u @ h + c).chunk(3)
    r, z = torch.sigmoid(wr + ur), torch.sigmoid(wz + uz)
    return (1 - z) * torch.tanh(wn + r * un) + z * h


def encoded(model, tokens):
    xs = [model.source.weight[token] for token in tokens]
    zero = xs[0].new_zeros(WIDTH)
    forward, backward = [zero], [zero]
    for x in xs:
        forward.append(gru(model.encoder, x, forward[-1]))
    for x in reversed(xs):
        backward.append(gru(model.encoder, x, backward[-1], "_reverse"))
    return forward[1:], backward[:0:-1]


def energy(model, s, h):
    if model.attention == "dot":
        return (s * h).sum()
    if model.attention == "general":
        return s @ model.score.W.weight @ h
    both = torch.cat([model.score.W.weight, model.score.U.weight], 1)  # Luong's W_a
    return model.score.v.weight[0] @ torch.tanh(both @ torch.cat([s, h]))


def look(model, s, annotations):
    e = [torch.exp(energy(model, s, h)) for h in annotations]
    a = [value / sum(e) for value in e]
    return a, sum(weight * h for weight, h in zip(a, annotations, strict=True))


def by_loops(model, source, lengths, target):
    """Logits (b, t, TARGETS) and weights (b, t, m)."""
    logits, weights = [], []
    for tokens, length, words in zip(source, lengths.tolist(), target, strict=True):
        forward, backward = encoded(model, tokens[:length])
        annotations = [torch.cat(pair) for pair in zip(forward, backward, strict=True)]
        s = torch.tanh(model.W_s.weight @ backward[0] + model.W_s.bias)
        for word in words:
            y, a = model.target.weight[word], [s.new_zeros(())] * length
            if model.attention in ("dot", "general", "concat"):
                s = gru(model.decoder, y, s)
                a, c = look(model, s, annotations)
            else:
                c = torch.cat([forward[-1], backward[0]])
                if model.attention == "additive":
                    a, c = look(model, s, annotations)
                s = gru(model.decoder, torch.cat([y, c]), s)
            logits.append(model.W_y.weight @ torch.tanh(model.W_c.weight @ torch.cat([c, s])))
            weights.append(torch.stack([*a, *[s.new_zeros(())] * (source.shape[1] - length)]))
    return torch.stack(logits).unflatten(0, target.shape), torch.stack(weights).unflatten(0, target.shape)


@pytest.mark.parametrize("attention", KINDS)
def test_forward_and_gradients_by_loops(attention):
    model = build(attention)
    found, (expected, weights) = model(SOURCE, LENGTHS, TARGET), by_loops(model, SOURCE, LENGTHS, TARGET)
    torch.testing.assert_close(found, expected)
    if attention is not None:
        torch.testing.assert_close(model.weights(SOURCE, LENGTHS, TARGET), weights)
    upstream = drawn(*found.shape, seed=5)
    parameters = dict(model.named_parameters())
    a = torch.autograd.grad(found, parameters.values(), upstream)
    b = torch.autograd.grad(expected, parameters.values(), upstream)
    for name, one, other in zip(parameters, a, b, strict=True):
        torch.testing.assert_close(one, other, msg=lambda text, name=name: f"{name}: {text}")
        assert one.abs().sum() > 0, name


def test_a_step_by_hand():
    """A first score that is ln 3 above the second gives the weights 3/4 and 1/4."""
    model = RecurrentTranslator(4, target_vocabulary=3, embedding=1, width=1, decoder_width=1).double()
    for p in model.parameters():
        p.data.zero_()
    # every update gate is 1/2: the forward states are n / 2 with n = tanh(1), and then half of that
    model.source.weight.data[3], model.encoder.weight_ih_l0.data[2] = 1, 1
    n = math.tanh(1)
    model.score.U.weight.data[0, 0] = 1
    model.score.v.weight.data.fill_(math.log(3) / (math.tanh(n / 2) - math.tanh(n / 4)))
    weights = model.weights(torch.tensor([[3, 0]]), torch.tensor([2]), torch.tensor([[0]]))
    torch.testing.assert_close(weights, torch.tensor([[[0.75, 0.25]]]).double())


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_weights_sum_to_one_over_the_source_alone(attention):
    weights = build(attention).weights(SOURCE, LENGTHS, TARGET)
    torch.testing.assert_close(weights.sum(-1), torch.ones(B, T).double())
    inside = (torch.arange(M) < LENGTHS[:, None])[:, None].expand_as(weights)
    assert (weights[inside] > 0).all() and (weights[~inside] == 0).all()


def test_without_v_all_places_are_alike():
    model = build("additive")
    model.score.v.weight.data.zero_()
    weights = model.weights(SOURCE, LENGTHS, TARGET)
    for row, length in zip(weights, LENGTHS.tolist(), strict=True):
        torch.testing.assert_close(row[:, :length], torch.full((T, length), 1 / length).double())


@pytest.mark.parametrize("attention", KINDS)
def test_padding_does_not_leak(attention):
    model, other = build(attention), SOURCE.clone()
    other[1, 3:], other[2, 1:] = 7, 4
    wider = torch.cat([other, torch.full((B, 2), 6)], 1)
    expected = model(SOURCE, LENGTHS, TARGET)
    for source in (other, wider):
        torch.testing.assert_close(model(source, LENGTHS, TARGET), expected, rtol=0, atol=1e-14)
    model(other, LENGTHS, TARGET).sum().backward()
    only_padding = [token for token in range(VOCABULARY) if token not in (3, 4, 5, 6, 7, 8, 9, 10)]
    assert (model.source.weight.grad[only_padding] == 0).all()
    model.zero_grad()
    model(SOURCE, LENGTHS, TARGET).sum().backward()
    assert (model.source.weight.grad[0] == 0).all()


@pytest.mark.parametrize("attention", KINDS)
def test_sequences_do_not_see_each_other_and_the_past_does_not_see_the_future(attention):
    model = build(attention)
    expected = model(SOURCE, LENGTHS, TARGET)
    for i, length in enumerate(LENGTHS.tolist()):
        one = model(SOURCE[i : i + 1, :length], LENGTHS[i : i + 1], TARGET[i : i + 1])
        torch.testing.assert_close(one[0], expected[i])
    changed = TARGET.clone()
    changed[:, 2] = 6
    found = model(SOURCE, LENGTHS, changed)
    torch.testing.assert_close(found[:, :2], expected[:, :2])
    assert (found[:, 2:] - expected[:, 2:]).abs().amax((1, 2)).min() > 1e-6


def test_bahdanaus_weights_come_before_the_token_and_luongs_behind_it():
    """The token read at a step turns Luong's present state at once, and Bahdanau's previous one never."""
    changed = TARGET.clone()
    changed[:, 1] = 6
    for attention, first in (("additive", 2), ("concat", 1)):
        model = build(attention)
        move = (model.weights(SOURCE, LENGTHS, TARGET) - model.weights(SOURCE, LENGTHS, changed))[0].abs()
        assert move[:first].max() == 0 and move[first:].amax(-1).min() > 1e-9, attention


@pytest.mark.parametrize("attention", KINDS)
def test_translate_writes_what_the_logits_say(attention):
    model = build(attention)
    written = model.translate(SOURCE, LENGTHS, begin=1, end=2, limit=8)
    for i in range(B):
        prefix = [1]
        while len(prefix) < 9 and (len(prefix) == 1 or prefix[-1] != 2):
            logits, _ = by_loops(model, SOURCE[i : i + 1], LENGTHS[i : i + 1], torch.tensor([prefix]))
            prefix.append(int(logits[0, -1].argmax()))
        row = written[i].tolist()
        assert row[: len(prefix) - 1] == prefix[1:] and set(row[len(prefix) - 1 :]) <= {2}
    assert not written.requires_grad and written.shape[1] <= 8


def test_translate_stops_at_the_end_and_at_the_limit():
    model = build("general")
    for p in (model.W_y.weight, model.W_c.weight):
        p.data.zero_()
    assert model.translate(SOURCE, LENGTHS, begin=1, end=0, limit=5).tolist() == [[0]] * B  # all logits are 0
    assert model.translate(SOURCE, LENGTHS, begin=1, end=2, limit=5).tolist() == [[0] * 5] * B


def test_parameters_are_bahdanaus():
    """Appendix A: n = n' = 1000, so v_a, W_a and U_a have 1,000 + 1,000,000 + 2,000,000 numbers."""
    sizes = {"target_vocabulary": 2, "embedding": 1, "width": 1000, "decoder_width": 1000}

    def numbers(attention):
        with torch.device("meta"):
            model = RecurrentTranslator(2, attention=attention, **sizes)
        return model, 0 if model.score is None else sum(p.numel() for p in model.score.parameters())

    assert numbers("additive")[1] == numbers("concat")[1] == 3_001_000
    assert numbers("general")[1] == 2_000_000 and numbers(None)[1] == 0
    assert type(numbers("concat")[0].score) is AdditiveScore
    assert type(numbers("general")[0].score) is BilinearScore


@pytest.mark.parametrize("attention", KINDS)
def test_parameters_in_closed_form(attention):
    model = build(attention)
    e, n, s, a = EMBEDDING, WIDTH, model.W_s.out_features, 2 * WIDTH
    score = {"additive": s * s + s * a + s, "concat": s * s + s * a + s, "general": s * a, "dot": 0, None: 0}
    entering = e if attention in ("dot", "general", "concat") else e + a
    expected = (
        (VOCABULARY + TARGETS) * e
        + 2 * (3 * n * (e + n) + 6 * n)
        + (n + 1) * s
        + 3 * s * (entering + s)
        + 6 * s
        + score[attention]
        + (a + s) * s
        + s * TARGETS
    )
    assert sum(p.numel() for p in model.parameters()) == expected


@pytest.mark.parametrize("attention", KINDS)
def test_dtypes_state_dict_and_inputs_left_alone(attention):
    model = build(attention)
    before = [t.clone() for t in (SOURCE, LENGTHS, TARGET)]
    expected = model(SOURCE, LENGTHS, TARGET)
    for dtype, room in ((torch.float32, 1e-5), (torch.bfloat16, 0.1)):
        found = build(attention).to(dtype)(SOURCE, LENGTHS, TARGET)
        assert found.dtype == dtype
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=room)
    fresh = build(attention)
    for p in fresh.parameters():
        p.data.zero_()
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh(SOURCE, LENGTHS, TARGET), expected)
    assert all(torch.equal(*pair) for pair in zip(before, (SOURCE, LENGTHS, TARGET), strict=True))
    assert torch.equal(model(SOURCE.int(), LENGTHS.int(), TARGET.int()), expected)


@pytest.mark.no_shape_hook
@pytest.mark.filterwarnings("ignore")
def test_compiled_it_returns_the_same():
    model = build("additive")
    found = torch.compile(model, backend="aot_eager")(SOURCE, LENGTHS, TARGET)
    torch.testing.assert_close(found, model(SOURCE, LENGTHS, TARGET))


# ---- the local window


def test_local_window_by_loops():
    scores, p, D = drawn(2, 3, 8), torch.tensor([[0.0, 3.5, 7.2], [-2.5, 6.0, 30.0]]).double(), 2
    scores.requires_grad_(), p.requires_grad_()
    found = local_window(scores, p, D)
    rows = []
    for b in range(2):
        for i in range(3):
            near = [s for s in range(8) if abs(s - p[b, i].item()) <= D]
            total = sum(torch.exp(scores[b, i, s]) for s in near)
            row = [scores.new_zeros(())] * 8
            for s in near:
                row[s] = torch.exp(scores[b, i, s]) / total * torch.exp(-((s - p[b, i]) ** 2) / (2 * 1.0**2))
            rows.append(torch.stack(row))
    expected = torch.stack(rows).view(2, 3, 8)
    torch.testing.assert_close(found, expected)
    upstream = drawn(2, 3, 8, seed=1)
    for a, b in zip(
        torch.autograd.grad(found, [scores, p], upstream),
        torch.autograd.grad(expected, [scores, p], upstream),
        strict=True,
    ):
        torch.testing.assert_close(a, b)
    assert (found[1, 2] == 0).all()  # a window beyond the keys


def test_local_window_by_hand():
    """Equal scores, p = 3, D = 2: a fifth each, times 1, exp(-1/2), exp(-2)."""
    found = local_window(torch.zeros(1, 8), torch.tensor([3.0]), 2)
    a, b = math.exp(-0.5) / 5, math.exp(-2) / 5
    torch.testing.assert_close(found, torch.tensor([[0, b, a, 0.2, a, b, 0, 0]]))


def test_local_windows_sum_to_less_than_one_and_shift_with_p():
    scores, p = drawn(4, 9), torch.tensor([4.0, 3.3, 3.9, 3.0]).double()
    found = local_window(scores, p, 3)
    assert (found.sum(-1) < 1).all() and (found.sum(-1) > 0).all()
    torch.testing.assert_close(local_window(scores.roll(1, -1), p + 1, 3), found.roll(1, -1))


def test_local_window_and_mask():
    scores, p = drawn(2, 5), torch.tensor([1.0, 3.0]).double().requires_grad_()
    mask = torch.tensor([True, True, False, False, False])
    found = local_window(scores, p, 1, mask=mask)
    assert (found[:, 2:] == 0).all() and (found[1] == 0).all()
    torch.testing.assert_close(
        found[0, :2], scores[0, :2].softmax(-1) * torch.tensor([math.exp(-2), 1]).double()
    )
    found.sum().backward()
    assert p.grad.isfinite().all() and p.grad[1] == 0


@pytest.mark.no_shape_hook
def test_local_window_compiles_as_one_graph():
    inputs = drawn(2, 5), torch.tensor([1.0, 3.0]).double(), 1
    found = torch.compile(local_window, fullgraph=True, backend="aot_eager")(*inputs)
    torch.testing.assert_close(found, local_window(*inputs))


# ---- errors


@pytest.mark.no_shape_hook
@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"vocabulary": 0}, "vocabulary=0 should be a whole number of at least 1"),
        ({"target_vocabulary": 0}, "target_vocabulary=0 should be a whole number of at least 1"),
        ({"embedding": 1.5}, "embedding=1.5 should be a whole number of at least 1"),
        ({"width": -2}, "width=-2 should be a whole number of at least 1"),
        ({"decoder_width": 0}, "decoder_width=0 should be a whole number of at least 1"),
        (
            {"attention": "aditive"},
            "attention='aditive' is not one of 'additive', 'dot', 'general', 'concat'; did",
        ),
        (
            {"attention": "dot", "decoder_width": 5},
            "so decoder_width=5 should be 2 * width = 4; or use 'general'",
        ),
    ],
)
def test_building_errors(change, text):
    sizes = {"vocabulary": 5, "target_vocabulary": 4, "embedding": 3, "width": 2} | change
    with pytest.raises(ValueError, match=re.escape(text)):
        RecurrentTranslator(sizes.pop("vocabulary"), **sizes)


@pytest.mark.no_shape_hook
@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"source": SOURCE[0]}, "expected source of shape (batch, tokens) with at least one token, got (6,)"),
        (
            {"source": SOURCE[:, :0]},
            "expected source of shape (batch, tokens) with at least one token, got (3, 0)",
        ),
        ({"source": SOURCE + 1}, "source[1, 0] is 11; with 11 tokens in the vocabulary expected 0 to 10"),
        ({"source": SOURCE.float()}, "expected whole numbers as source, got torch.float32"),
        (
            {"target": TARGET[:, :0]},
            "expected target of shape (batch, tokens) with at least one token, got (3, 0)",
        ),
        ({"target": TARGET - 1}, "target[1, 3] is -1; with 9 tokens in the vocabulary expected 0 to 8"),
        ({"lengths": LENGTHS[:2]}, "expected one length for each of 3 sources, got shape (2,)"),
        ({"lengths": LENGTHS - 1}, "lengths should lie between 1 and 6, got 0 to 5"),
        ({"lengths": LENGTHS + 1}, "lengths should lie between 1 and 6, got 2 to 7"),
    ],
)
def test_call_errors(change, text):
    inputs = {"source": SOURCE, "lengths": LENGTHS, "target": TARGET} | change
    with pytest.raises(ValueError, match=re.escape(text)):
        build("additive")(**inputs)


@pytest.mark.no_shape_hook
@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: build(None).weights(SOURCE, LENGTHS, TARGET), "attention=None has no weights; build the"),
        (
            lambda: build("dot").translate(SOURCE, LENGTHS, begin=1, end=2, limit=0),
            "limit=0 should be a whole",
        ),
        (
            lambda: build("dot").translate(SOURCE, LENGTHS, begin=9, end=2, limit=1),
            "begin=9 is not in the target's",
        ),
        (
            lambda: build("dot").translate(SOURCE, LENGTHS, begin=1, end=-1, limit=1),
            "end=-1 is not in the target's",
        ),
        (
            lambda: local_window(torch.zeros(2, 5), torch.zeros(3), 1),
            "so floating-point p of shape (..., 2), got",
        ),
        (lambda: local_window(torch.zeros(2, 5), torch.zeros(2).long(), 1), "got torch.int64 of shape (2,)"),
        (
            lambda: local_window(torch.zeros(2, 5), torch.zeros(2), 0),
            "D=0 should be a whole number of at least 1",
        ),
        (
            lambda: local_window(torch.zeros(2, 5), torch.zeros(2), 1, mask=torch.ones(3) > 0),
            "a mask of shape (3,) does not broadcast to scores of shape (2, 5)",
        ),
    ],
)
def test_other_errors(call, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        call()
