"""Sinusoids against their formulas and published values; learned tables and relative biases by loops."""

import math
import re

import pytest
import torch
from by_hand import drawn

from attnlib.sequence.multi_head import MultiHeadAttention
from attnlib.sequence.positions import (
    LearnedPositions,
    RelativeBias,
    SinusoidalPositions,
    frequencies,
    sinusoids,
)

B, N, WIDTH, HEADS, REACH = 2, 5, 8, 3, 2


@pytest.mark.parametrize("concatenated", [False, True])
@pytest.mark.parametrize("base", [10_000.0, 50.0])
def test_by_loops(concatenated, base):
    positions = torch.tensor([0.0, 1, 2.5, 40], dtype=torch.float64)
    found = sinusoids(positions, WIDTH, base=base, concatenated=concatenated)
    for row, p in zip(found.tolist(), positions.tolist(), strict=True):
        for i in range(WIDTH // 2):
            exponent = i / (WIDTH // 2 - 1) if concatenated else 2 * i / WIDTH
            sine, cosine = (i, WIDTH // 2 + i) if concatenated else (2 * i, 2 * i + 1)
            assert row[sine] == pytest.approx(math.sin(p / base**exponent), abs=1e-14)
            assert row[cosine] == pytest.approx(math.cos(p / base**exponent), abs=1e-14)


@pytest.mark.parametrize(
    ("concatenated", "first", "longest"),
    [
        (False, [-0.262375, 0.964966, -0.895339, -0.445386], 60_611),
        (True, [-0.262375, -0.892287, 0.571568, 0.772688], 62_832),
    ],
)
def test_values_of_the_base_model(concatenated, first, longest):
    """Position 50 of 512 features, and the longest wavelength."""
    found = sinusoids(torch.tensor([50]), 512, concatenated=concatenated)[0, :4]
    torch.testing.assert_close(found, torch.tensor(first), rtol=0, atol=1e-6)
    wavelengths = 2 * math.pi / frequencies(512, concatenated=concatenated)
    assert wavelengths[0].item() == pytest.approx(2 * math.pi)
    assert round(wavelengths[-1].item()) == longest


def test_a_step_is_a_rotation():
    """PE(p + k) = R_k PE(p), the same R_k for every p; so PE(p) . PE(p + k) depends on k alone."""
    k, positions = 3.0, torch.arange(6.0).double()
    angles = k * frequencies(WIDTH)
    turn = torch.block_diag(*[torch.stack([a.cos(), a.sin(), -a.sin(), a.cos()]).view(2, 2) for a in angles])
    here, there = sinusoids(positions, WIDTH), sinusoids(positions + k, WIDTH)
    torch.testing.assert_close(here @ turn.T, there, rtol=0, atol=1e-12)
    torch.testing.assert_close((here * there).sum(-1), angles.cos().sum().expand(6), rtol=0, atol=1e-12)


def test_kinds_of_numbers():
    whole = sinusoids(torch.arange(4), WIDTH)
    assert whole.dtype == torch.get_default_dtype()
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        found = sinusoids(torch.arange(4).to(dtype), WIDTH)
        assert found.dtype == dtype
        torch.testing.assert_close(
            found.float(), whole, rtol=0, atol=0.004 if dtype == torch.bfloat16 else 1e-7
        )
    far = torch.tensor([60_000.0])
    assert torch.equal(sinusoids(far, WIDTH), sinusoids(far.double(), WIDTH).float())


@pytest.mark.parametrize("concatenated", [False, True])
def test_sinusoidal_positions_are_added(concatenated):
    x, module = drawn(B, N, WIDTH), SinusoidalPositions(WIDTH, base=70.0, concatenated=concatenated)
    expected = sinusoids(torch.arange(N).double(), WIDTH, base=70.0, concatenated=concatenated)
    torch.testing.assert_close(module(x), x + expected, rtol=0, atol=1e-14)
    torch.testing.assert_close(module(x[:, 2:], start=2), module(x)[:, 2:])
    assert list(module.parameters()) == []
    assert module.state_dict() == {}


def test_learned_positions_are_added():
    x, module = drawn(B, N, WIDTH).requires_grad_(), LearnedPositions(N + 2, WIDTH).double()
    table = module.table.data = drawn(N + 2, WIDTH, seed=3)
    output = module(x, start=1)
    for i in range(N):
        torch.testing.assert_close(output[:, i], x[:, i] + table[1 + i])
    upstream = drawn(B, N, WIDTH, seed=4)
    of_x, of_table = torch.autograd.grad(output, [x, module.table], upstream)
    assert torch.equal(of_x, upstream)
    torch.testing.assert_close(of_table[1:-1], upstream.sum(0))
    assert (of_table[0] == 0).all()
    assert (of_table[-1] == 0).all()
    assert torch.equal(module(x), x + table[:N])


def test_the_start_of_the_learned_tables():
    torch.manual_seed(0)
    assert LearnedPositions(200, 50).table.std().item() == pytest.approx(0.02, rel=0.03)
    assert (RelativeBias(HEADS, reach=4).table == 0).all()


@pytest.mark.parametrize(("n", "m", "start"), [(5, 7, 0), (7, 5, 0), (1, 4, 3), (6, None, 0), (2, 9, 6)])
def test_relative_bias_by_loops(n, m, start):
    module = RelativeBias(HEADS, reach=REACH).double()
    table = module.table.data = drawn(HEADS, 2 * REACH + 1)
    found = module(n, m, start=start)
    m = n if m is None else m
    assert found.shape == (HEADS, n, m)
    counts = torch.zeros(HEADS, 2 * REACH + 1, dtype=torch.float64)
    upstream = drawn(HEADS, n, m, seed=1)
    for head in range(HEADS):
        for i in range(n):
            for j in range(m):
                place = min(max(j - (start + i), -REACH), REACH) + REACH
                assert found[head, i, j] == table[head, place]
                counts[head, place] += upstream[head, i, j]
    (gradient,) = torch.autograd.grad(found, module.table, upstream)
    torch.testing.assert_close(gradient, counts)


def test_a_relative_bias_does_not_see_where_the_sequence_starts():
    """Weights of equal tokens depend on the distance alone; a step later, the same distances."""
    module, bias = MultiHeadAttention(WIDTH, heads=2).double(), RelativeBias(2, reach=9).double()
    bias.table.data = drawn(2, 19)
    x = drawn(1, 1, WIDTH).expand(1, N, WIDTH)
    logs = module.weights(x, score_bias=bias(N)).log()
    scores = logs - logs[..., :1]  # a softmax does not see what a row shares
    for i in range(N):
        for j in range(N):
            expected = bias.table[:, j - i + 9] - bias.table[:, -i + 9]
            torch.testing.assert_close(scores[0, :, i, j], expected.data)
    assert torch.equal(bias(N)[:, 1:, 1:], bias(N)[:, :-1, :-1])


def test_with_positions_a_shuffle_is_seen():
    attention, order = MultiHeadAttention(WIDTH, heads=2).double(), torch.tensor([3, 0, 4, 1, 2])
    x = drawn(B, N, WIDTH)
    torch.testing.assert_close(attention(x[:, order]), attention(x)[:, order])
    for positions in (SinusoidalPositions(WIDTH), LearnedPositions(N, WIDTH).double()):
        found, other = attention(positions(x[:, order])), attention(positions(x))[:, order]
        assert (found - other).abs().max() > 1e-4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_precisions_stay_near(dtype):
    x = drawn(B, N, WIDTH)
    learned, bias = LearnedPositions(N, WIDTH), RelativeBias(HEADS, reach=REACH)
    for module in (SinusoidalPositions(WIDTH), learned):
        expected = module.double()(x)
        found = module.to(dtype)(x.to(dtype))
        assert found.dtype == dtype
        assert (found.double() - expected).abs().max() < (1e-6 if dtype == torch.float32 else 0.05)
    assert bias.to(dtype)(2).dtype == dtype


def test_inputs_stay_as_they_are():
    x = drawn(B, WIDTH, N).mT
    assert not x.is_contiguous()
    before = x.clone()
    for module in (SinusoidalPositions(WIDTH), LearnedPositions(N, WIDTH)):
        assert torch.equal(module(x), module(before))
        assert torch.equal(x, before)


@pytest.mark.no_shape_hook
def test_compiles_without_a_graph_break():
    torch.compiler.reset()
    x = drawn(B, N, WIDTH).float()
    for module in (SinusoidalPositions(WIDTH), LearnedPositions(N, WIDTH)):
        compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(x), module(x))
    bias = RelativeBias(HEADS, reach=REACH)
    torch.testing.assert_close(torch.compile(bias, fullgraph=True, backend="aot_eager")(3, 4), bias(3, 4))


@pytest.mark.no_shape_hook
@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda: sinusoids(torch.arange(3), 7),
            "width=7 should be even, and at least 4 if concatenated: a sine and a cosine each",
        ),
        (
            lambda: sinusoids(torch.arange(3), 2, concatenated=True),
            "width=2 should be even, and at least 4 if concatenated: a sine and a cosine each",
        ),
        (lambda: SinusoidalPositions(0), "width=0 should be a whole number of at least 1"),
        (lambda: sinusoids(torch.tensor(3), 8), "expected positions of shape (n,), got ()"),
        (
            lambda: SinusoidalPositions(8)(torch.zeros(5, 8)),
            "expected tokens of shape (batch, n, 8), got (5, 8)",
        ),
        (
            lambda: LearnedPositions(4, 8)(torch.zeros(1, 4, 7)),
            "expected tokens of shape (batch, n, 8), got (1, 4, 7)",
        ),
        (
            lambda: LearnedPositions(4, 8)(torch.zeros(1, 3, 8), start=2),
            "positions 2 to 4 were asked for, and those learned are 0 to 3; build it with a larger length",
        ),
        (
            lambda: LearnedPositions(4, 8)(torch.zeros(1, 3, 8), start=-1),
            "positions -1 to 1 were asked for, and those learned are 0 to 3; build it with a larger length",
        ),
        (lambda: LearnedPositions(0, 8), "length=0 should be a whole number of at least 1"),
        (lambda: LearnedPositions(4, 0), "width=0 should be a whole number of at least 1"),
        (lambda: RelativeBias(0, reach=2), "heads=0 should be a whole number of at least 1"),
        (lambda: RelativeBias(2, reach=0), "reach=0 should be a whole number of at least 1"),
    ],
)
def test_wrong_arguments(call, text):
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        call()
