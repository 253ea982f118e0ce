"""Moving averages against loops, closed forms and each other: recursion, attention, convolution."""

import math
import re

import pytest
import torch
from by_hand import assert_same, drawn, randomised
from torch.nn import functional as F

from attnlib.lab.cost import count_parameters
from attnlib.sequence.moving_average import (
    DampedEMA,
    WindowedCosineAttention,
    exponential_moving_average,
    moving_average_weights,
)
from attnlib.sequence.scores import masked_softmax

B, HEADS, N, D, V, WINDOW, EXPANSION = 2, 3, 7, 4, 5, 3, 6
both = pytest.mark.parametrize("bias_correction", [True, False])


def assert_close(found, expected, atol=1e-12):
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)


# the exponential moving average


@both
def test_average_by_loops(bias_correction):
    decay, x = 0.7, drawn(B, HEADS, N, D)
    found = exponential_moving_average(x, decay, bias_correction=bias_correction)
    expected = torch.zeros_like(x)
    for t in range(N):
        shares = [decay**k for k in range(t + 1)]
        total = sum(shares) if bias_correction else 1 / (1 - decay)
        expected[..., t, :] = sum(shares[k] / total * x[..., t - k, :] for k in range(t + 1))
    assert_close(found, expected)


def test_average_by_hand():
    x = torch.tensor([[8.0], [4.0], [0.0]])
    plain = exponential_moving_average(x, 0.5, bias_correction=False)
    assert plain.tolist() == [[4.0], [4.0], [2.0]]
    torch.testing.assert_close(exponential_moving_average(x, 0.5), torch.tensor([[8.0], [16 / 3], [16 / 7]]))


@both
@pytest.mark.parametrize("decay", [0.0, 0.3, 0.99])
def test_average_is_a_product_with_its_weights(decay, bias_correction):
    """Forward, and backward: what arrives at time t goes back with the weight of each age."""
    x, upstream = drawn(B, N, D).requires_grad_(), drawn(B, N, D, seed=1)
    weights = moving_average_weights(N, decay, bias_correction=bias_correction, dtype=torch.float64)
    found = exponential_moving_average(x, decay, bias_correction=bias_correction)
    assert_close(found, weights @ x)
    (gradient,) = torch.autograd.grad(found, x, upstream)
    assert_close(gradient, weights.mT @ upstream)


@pytest.mark.parametrize("decay", [0.3, 0.99])
def test_corrected_weights_are_a_softmax_of_the_age(decay):
    places = torch.arange(N).double()
    age = places[:, None] - places
    assert_close(
        moving_average_weights(N, decay, dtype=torch.float64),
        masked_softmax(age * math.log(decay), age >= 0),
    )


def test_sums_of_the_weights():
    plain = moving_average_weights(N, 0.8, bias_correction=False, dtype=torch.float64)
    assert_close(plain.sum(1), 1 - 0.8 ** torch.arange(1, N + 1).double())
    assert_close(moving_average_weights(N, 0.8, dtype=torch.float64).sum(1), torch.ones(N).double())
    assert moving_average_weights(N, 0.8).dtype == torch.get_default_dtype()


def test_average_keeps_constants_and_does_not_see_the_future():
    constant = drawn(1, D).expand(N, D)
    assert_close(exponential_moving_average(constant, 0.9), constant)
    x = drawn(N, D)
    assert_close(exponential_moving_average(x[:4], 0.9), exponential_moving_average(x, 0.9)[:4])
    assert torch.equal(exponential_moving_average(x, 0.0), x)


def test_lag_of_a_ramp():
    """After the start has been forgotten the average of t is t - d/(1 - d)."""
    ramp = torch.arange(400.0).double()[:, None]
    for decay in (0.5, 0.9):
        lag = (ramp - exponential_moving_average(ramp, decay))[-1].item()
        assert lag == pytest.approx(decay / (1 - decay), abs=1e-9)


def test_average_remembers_nothing_between_calls():
    x = drawn(B, N, D)
    first = exponential_moving_average(x, 0.9)
    exponential_moving_average(drawn(5, D, seed=3), 0.9)
    assert torch.equal(exponential_moving_average(x, 0.9), first)


def test_average_in_bfloat16_is_summed_in_float32():
    x = torch.ones(2000, 1, dtype=torch.bfloat16)
    assert (exponential_moving_average(x, 0.999) == 1).all()


# windowed cosine attention


def cosine_inputs(*leading):
    return [drawn(*leading, N, size, seed=i).requires_grad_() for i, size in enumerate((D, D, V))]


@pytest.mark.parametrize("beta", [1.0, 6.5])
def test_window_by_loops(beta):
    q, k, v = cosine_inputs()
    module = WindowedCosineAttention(WINDOW, beta=beta).double()
    torch.testing.assert_close(module.log_beta.exp().item(), beta, rtol=1e-6, atol=0)
    module.log_beta.fill_(math.log(beta))  # what the constructor stored is rounded to float32
    expected = torch.zeros(N, V, dtype=torch.float64)
    for t in range(1, N):
        e = {
            i: torch.exp(beta * (q[t] @ k[i]) / (q[t].norm() * k[i].norm()))
            for i in range(max(0, t - WINDOW), t)
        }
        expected[t] = sum(e[i] * v[i] for i in e) / sum(e.values())
    found, upstream = module(q, k, v), drawn(N, V, seed=9)
    assert_close(found, expected)
    pairs = (torch.autograd.grad(y, [q, k, v], upstream, retain_graph=True) for y in (found, expected))
    for one, other in zip(*pairs, strict=True):
        assert_close(one, other)


def test_window_by_hand():
    """Cosines 1, 0 and -1 times beta = ln 2: the weights are 4, 2 and 1 sevenths."""
    k = torch.tensor([[3.0, 0.0], [0.0, 5.0], [-2.0, 0.0], [1.0, 1.0]])
    q = torch.tensor([[1.0, 1.0], [1.0, 1.0], [1.0, 1.0], [0.5, 0.0]])
    module = WindowedCosineAttention(3, beta=math.log(2))
    torch.testing.assert_close(module.weights(q, k)[3], torch.tensor([4.0, 2.0, 1.0, 0.0]) / 7)
    torch.testing.assert_close(module(q, k, torch.tensor([[7.0], [0], [7], [0]]))[3], torch.tensor([5.0]))


def test_window_and_nothing_else():
    q, k, _ = cosine_inputs(B)
    weights = WindowedCosineAttention(WINDOW).double().weights(q, k)
    sums = torch.ones(B, N, dtype=torch.float64)
    sums[:, 0] = 0
    assert_close(weights.sum(-1), sums)
    for t in range(N):
        inside = [max(0, t - WINDOW) <= i < t for i in range(N)]
        assert ((weights[:, t] > 0) == torch.tensor(inside)).all()


def test_the_first_place_has_no_past():
    q, k, v = cosine_inputs(B)
    output = WindowedCosineAttention(WINDOW).double()(q, k, v)
    assert (output[:, 0] == 0).all()
    gradients = torch.autograd.grad(output.sum(), [q, k, v])
    assert all(g.isfinite().all() for g in gradients)
    assert (gradients[0][:, 0] == 0).all()
    assert (gradients[1][:, -1] == 0).all()  # no query comes after it


def test_window_ignores_lengths_of_vectors():
    q, k, v = (t.detach() for t in cosine_inputs())
    module = WindowedCosineAttention(WINDOW, beta=3.0).double()
    scale = 1 + torch.arange(N).double()[:, None]
    assert_close(module(scale * q, 0.1 * scale * k, v), module(q, k, v))
    assert not torch.allclose(module(q + 1, k, v), module(q, k, v))


def test_a_vector_of_zeros_has_the_cosine_0():
    q, k, v = (t.detach() for t in cosine_inputs())
    k[2] = 0
    leaves = [q.requires_grad_(), k.requires_grad_(), v.requires_grad_()]
    output = WindowedCosineAttention(WINDOW).double()(*leaves)
    assert output.isfinite().all()
    assert all(g.isfinite().all() and g.abs().max() < 100 for g in torch.autograd.grad(output.sum(), leaves))


@pytest.mark.parametrize("window", [1, 4, 30])
def test_ceiling_of_a_weight(window):
    """One key along the query, all others against it: e^(2 beta) / (e^(2 beta) + L - 1)."""
    q = torch.ones(window + 1, 2)
    k = -q.clone()
    k[0] = 1
    for beta in (1.0, 4.0):
        largest = WindowedCosineAttention(window, beta=beta).weights(q, k)[-1].max().item()
        assert largest == pytest.approx(math.exp(2 * beta) / (math.exp(2 * beta) + window - 1), rel=1e-5)


def test_beta_is_a_parameter_only_if_learnable():
    fixed = WindowedCosineAttention(WINDOW, beta=2.5)
    learnt = WindowedCosineAttention(WINDOW, beta=2.5, learnable=True)
    assert (count_parameters(fixed), count_parameters(learnt)) == (0, 1)
    other = WindowedCosineAttention(WINDOW, learnable=True)
    other.load_state_dict(fixed.state_dict())
    q, k, v = (t.detach().float() for t in cosine_inputs())
    assert torch.equal(other(q, k, v), fixed(q, k, v))
    learnt(q, k, v).square().sum().backward()
    assert learnt.log_beta.grad != 0


# the damped moving average


def damped(**options) -> DampedEMA:
    return randomised(DampedEMA(D, expansion=EXPANSION, **options))


OPTIONS = [{}, {"as_released": False}, {"bidirectional": True}, {"bidirectional": True, "as_released": False}]
each_form = pytest.mark.parametrize("options", OPTIONS)


def damped_by_loops(module, x):
    """(4) for each feature and hidden number on its own; from the other end without the present."""
    sequences = x.reshape(-1, N, D)
    outputs = []
    for sequence in sequences:
        columns = []
        for d in range(D):
            y = [0.0] * N
            for row, order in [(d, range(N)), (D + d, range(N - 1, -1, -1))][: 1 + module.bidirectional]:
                for j in range(EXPANSION):
                    alpha = torch.sigmoid(module.alpha_logit[row, j])
                    delta = torch.sigmoid(module.delta_logit[row, j])
                    h = 0.0
                    for t in order:
                        before = (1 - alpha * delta) * h
                        h = alpha * module.beta[row, j] * sequence[t, d] + before
                        y[t] = y[t] + module.eta[row, j] * (h if row < D else before)
            if module.as_released:
                y = [F.silu(y[t] / EXPANSION**0.5 + module.omega[d] * sequence[t, d]) for t in range(N)]
            columns.append(torch.stack(y))
        outputs.append(torch.stack(columns, 1))
    return torch.stack(outputs).reshape(x.shape)


@each_form
def test_damped_by_loops(options):
    module = damped(**options)
    assert_same(module, lambda x: damped_by_loops(module, x), drawn(B, 1, N, D))


@each_form
def test_both_forms_agree(options):
    module, x = damped(**options), drawn(B, HEADS, 50, D).requires_grad_()
    leaves = [x, *module.parameters()]
    one, other = module(x), module.recurrent(x)
    assert_close(one, other, 1e-10)
    upstream = drawn(*one.shape, seed=5)
    for a, b in zip(*(torch.autograd.grad(y, leaves, upstream) for y in (one, other)), strict=True):
        assert_close(a, b, 1e-10)


def test_damped_by_hand():
    """alpha = delta = 1/2 keep 3/4; beta = 2 and eta = 1 make k = 1, 3/4, 9/16."""
    module = DampedEMA(1, expansion=1, as_released=False).double()
    for parameter, value in zip(module.parameters(), (0, 0, 2, 1), strict=True):
        parameter.data.fill_(value)
    assert_close(module.kernel(3), torch.tensor([[1, 0.75, 0.5625]]).double())
    x = torch.tensor([[16.0], [0], [32]]).double()
    assert_close(module(x), torch.tensor([[16.0], [12], [41]]).double())


def test_one_hidden_number_without_damping_is_the_plain_average():
    module, decay = DampedEMA(D, expansion=1, as_released=False).double(), 0.8
    module.alpha_logit.data.fill_(math.log((1 - decay) / decay))
    module.delta_logit.data.fill_(50.0)  # delta = 1
    module.beta.data.fill_(1)
    module.eta.data.fill_(1)
    x = drawn(B, N, D)
    assert_close(module(x), exponential_moving_average(x, decay, bias_correction=False))


@pytest.mark.parametrize("bidirectional", [False, True])
def test_what_each_direction_sees(bidirectional):
    module, x = damped(bidirectional=bidirectional), drawn(N, D)
    for forward, rounding in ((module.recurrent, 0.0), (module, 1e-14)):
        sizes = torch.autograd.functional.jacobian(forward, x).abs()  # n d n d
        depends = sizes.amax((1, 3)) > rounding
        expected = torch.ones(N, N, dtype=torch.bool)
        assert torch.equal(depends, expected if bidirectional else expected.tril())
        features = torch.eye(D, dtype=torch.bool)[None, :, None].expand_as(sizes)
        assert sizes[~features].max() <= rounding


@pytest.mark.parametrize(("bidirectional", "count"), [(False, 33_280), (True, 66_048)])
def test_parameters(bidirectional, count):
    assert count_parameters(DampedEMA(512, expansion=16, bidirectional=bidirectional)) == count
    plain = DampedEMA(512, expansion=16, bidirectional=bidirectional, as_released=False)
    assert count_parameters(plain) == count - 512


def test_start_of_the_released_code():
    torch.manual_seed(0)
    module = DampedEMA(256, expansion=8)
    for logit in (module.alpha_logit, module.delta_logit):
        assert abs(logit.std().item() - 0.2) < 0.02
    signs = torch.tensor([1.0, -1] * 4)
    assert (module.beta.mean(0) - signs).abs().max() < 0.01
    assert abs((module.beta - signs).std().item() - 0.02) < 0.002
    for drawn_from_unit in (module.eta, module.omega):
        assert abs(drawn_from_unit.std().item() - 1) < 0.1


# what all of them share

MODULES = {
    "average": lambda x: exponential_moving_average(x, 0.9),
    "window": lambda x: WindowedCosineAttention(WINDOW).to(x.dtype)(x, x, x),
    "damped": lambda x: _seeded().to(x.dtype)(x),
    "damped, recurrent": lambda x: _seeded().to(x.dtype).recurrent(x),
}
each = pytest.mark.parametrize("name", MODULES)


def _seeded():
    torch.manual_seed(1)
    return DampedEMA(D, expansion=EXPANSION, bidirectional=True)


@each
def test_gradcheck(name):
    assert torch.autograd.gradcheck(MODULES[name], drawn(N, D).requires_grad_())


@each
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_precisions_stay_near(name, dtype):
    x = drawn(B, N, D).to(torch.bfloat16)
    found, expected = MODULES[name](x.to(dtype)), MODULES[name](x.double())
    assert found.dtype == dtype
    assert (found.double() - expected).abs().max() < (1e-5 if dtype == torch.float32 else 0.1)


@each
def test_input_may_be_non_contiguous_and_stays_as_it_is(name):
    x = drawn(B, D, N).mT
    before = x.clone()
    assert not x.is_contiguous()
    assert_close(MODULES[name](x), MODULES[name](before))
    assert torch.equal(x, before)


@each
def test_one_step(name):
    assert MODULES[name](drawn(B, 1, D)).shape == (B, 1, D)


@pytest.mark.no_shape_hook
@pytest.mark.parametrize(
    "function",
    [
        lambda: lambda x: exponential_moving_average(x, 0.9),
        lambda: WindowedCosineAttention(WINDOW, learnable=True).double().forward,
        lambda: damped(bidirectional=True).forward,
        lambda: damped().recurrent,
    ],
)
def test_compiles_without_a_graph_break(function):
    torch.compiler.reset()
    plain, x = function(), drawn(B, N, D)
    arguments = (x, x, x) if isinstance(getattr(plain, "__self__", None), WindowedCosineAttention) else (x,)
    compiled = torch.compile(plain, fullgraph=True, backend="aot_eager")
    assert_close(compiled(*arguments), plain(*arguments))


@pytest.mark.no_shape_hook
@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda: exponential_moving_average(drawn(N, D), 1.0),
            "decay=1.0 should be at least 0 and below 1; it is the factor of the past",
        ),
        (lambda: moving_average_weights(N, -0.1), "decay=-0.1 should be at least 0 and below 1"),
        (lambda: moving_average_weights(N, math.nan), "decay=nan should be at least 0 and below 1"),
        (lambda: moving_average_weights(0, 0.5), "n=0 should be a whole number of at least 1"),
        (
            lambda: exponential_moving_average(drawn(N), 0.5),
            "expected a series of shape (..., n, features), n at least 1, got (7,); for a single series",
        ),
        (
            lambda: exponential_moving_average(drawn(0, D), 0.5),
            "expected a series of shape (..., n, features), n at least 1, got (0, 4)",
        ),
        (
            lambda: exponential_moving_average(torch.ones(N, D, dtype=torch.int64), 0.5),
            "expected a floating-point series, got torch.int64; convert it with x.float()",
        ),
        (lambda: WindowedCosineAttention(0), "window=0 should be a whole number of at least 1"),
        (lambda: WindowedCosineAttention(3, beta=0.0), "beta=0.0 should be a number above 0"),
        (lambda: WindowedCosineAttention(3, beta=math.inf), "beta=inf should be a number above 0"),
        (
            lambda: WindowedCosineAttention(3)(drawn(N, D), drawn(V, D), drawn(V, D)),
            "queries and keys should be of the same times, got 7 queries and 5 keys",
        ),
        (
            lambda: WindowedCosineAttention(3)(drawn(N, D), drawn(N, V), drawn(N, D)),
            "queries have 4 features and keys 5",
        ),
        (
            lambda: WindowedCosineAttention(3)(drawn(N, D), drawn(N, D), drawn(V, D)),
            "expected one value for each key, so v of shape (..., 7, features); got (5, 4)",
        ),
        (lambda: DampedEMA(0), "width=0 should be a whole number of at least 1"),
        (lambda: DampedEMA(D, expansion=0), "expansion=0 should be a whole number of at least 1"),
        (
            lambda: damped()(drawn(N, V)),
            "expected a series of shape (..., n, 4), n at least 1, got (7, 5)",
        ),
        (
            lambda: damped().recurrent(drawn(B, 0, D)),
            "expected a series of shape (..., n, 4), n at least 1, got (2, 0, 4)",
        ),
    ],
)
def test_wrong_arguments(call, text):
    with pytest.raises(ValueError, match=f"^{re.escape(text)}"):
        call()
