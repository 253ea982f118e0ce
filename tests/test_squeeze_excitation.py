"""Squeeze-and-Excitation against loops over plain Python numbers, written from equations (2) to (4)."""

import math
import re
from itertools import product

import pytest
import torch

from attnlib.feature_map import SqueezeExcitation

B, C, H, W, R = 2, 6, 3, 5, 2
HIDDEN = C // R
PIXELS = list(product(range(H), range(W)))
GATES = {
    "sigmoid": (lambda v: 1 / (1 + math.exp(-v)), lambda v: math.exp(-v) / (1 + math.exp(-v)) ** 2),
    "hard_sigmoid": (lambda v: min(max(v + 3, 0), 6) / 6, lambda v: 1 / 6 if -3 < v < 3 else 0.0),
}


def oracle(x, W_1, b_1, W_2, b_2, upstream, pool, gate):
    """Gates, output, and the gradients of sum(upstream * output), for one image of nested lists."""
    phi, dphi = GATES[gate]
    channels, hidden = range(C), range(HIDDEN)

    largest = [max(PIXELS, key=lambda p, c=c: x[c][p[0]][p[1]]) for c in channels]
    if pool == "mean":
        z = [sum(x[c][i][j] for i, j in PIXELS) / (H * W) for c in channels]
    else:
        z = [x[c][largest[c][0]][largest[c][1]] for c in channels]
    a = [sum(W_1[k][c] * z[c] for c in channels) + b_1[k] for k in hidden]
    u = [max(value, 0.0) for value in a]
    v = [sum(W_2[c][k] * u[k] for k in hidden) + b_2[c] for c in channels]
    s = [phi(value) for value in v]
    y = [[[s[c] * x[c][i][j] for j in range(W)] for i in range(H)] for c in channels]

    dv = [dphi(v[c]) * sum(upstream[c][i][j] * x[c][i][j] for i, j in PIXELS) for c in channels]
    da = [sum(dv[c] * W_2[c][k] for c in channels) if a[k] > 0 else 0.0 for k in hidden]
    dz = [sum(da[k] * W_1[k][c] for k in hidden) for c in channels]

    def share(c, p):  # of the descriptor's gradient that reaches the pixel p
        return dz[c] / (H * W) if pool == "mean" else dz[c] * (p == largest[c])

    gradients = {
        "x": [
            [[upstream[c][i][j] * s[c] + share(c, (i, j)) for j in range(W)] for i in range(H)]
            for c in channels
        ],
        "W_1.weight": [[da[k] * z[c] for c in channels] for k in hidden],
        "W_1.bias": da,
        "W_2.weight": [[dv[c] * u[k] for k in hidden] for c in channels],
        "W_2.bias": dv,
    }
    return s, y, gradients


@pytest.mark.parametrize("gate", ["sigmoid", "hard_sigmoid"])
@pytest.mark.parametrize("pool", ["mean", "max"])
@pytest.mark.parametrize("bias", [True, False])
def test_forward_and_gradients_equal_the_loop(bias, pool, gate):
    generator = torch.Generator().manual_seed(0)
    module = SqueezeExcitation(C, reduction=R, bias=bias, pool=pool, gate=gate).double()
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=torch.float64))
    x = torch.randn(B, C, H, W, generator=generator, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(B, C, H, W, generator=generator, dtype=torch.float64)

    parameters = dict(module.named_parameters())
    numbers = {name: p.tolist() for name, p in parameters.items()}
    found = torch.autograd.grad(module(x), [x, *parameters.values()], upstream)
    found = dict(zip(["x", *parameters], found, strict=True))
    expected = [
        oracle(
            x[n].tolist(),
            numbers["W_1.weight"],
            numbers.get("W_1.bias", [0.0] * HIDDEN),
            numbers["W_2.weight"],
            numbers.get("W_2.bias", [0.0] * C),
            upstream[n].tolist(),
            pool,
            gate,
        )
        for n in range(B)
    ]

    def as_tensor(values):
        return torch.tensor(values, dtype=torch.float64)

    torch.testing.assert_close(module.weights(x)[:, :, 0, 0], as_tensor([s for s, _, _ in expected]))
    torch.testing.assert_close(module(x), as_tensor([y for _, y, _ in expected]))
    torch.testing.assert_close(found["x"], as_tensor([g["x"] for _, _, g in expected]))
    for name in parameters:
        torch.testing.assert_close(found[name], sum(as_tensor(g[name]) for _, _, g in expected))


def test_by_hand():
    """Means (2, 1, -1, 1); W_1 z = (2, -2); relu (2, 0); W_2 (2, 0) = (2, 0, -2, 1)."""
    x = torch.tensor(
        [
            [[1.0, 3.0], [0.0, 4.0]],
            [[2.0, 0.0], [1.0, 1.0]],
            [[-1.0, -3.0], [1.0, -1.0]],
            [[0.0, 0.0], [0.0, 4.0]],
        ]
    )[None]
    module = SqueezeExcitation(4, reduction=2, bias=False)
    with torch.no_grad():
        module.W_1.weight.copy_(torch.tensor([[1.0, -1, 0, 1], [0, -1, 1, 0]]))
        module.W_2.weight.copy_(torch.tensor([[1.0, 0], [0, 1], [-1, 1], [0.5, -1]]))
    s = torch.tensor([0.880797, 0.5, 0.119203, 0.731059])
    torch.testing.assert_close(module.weights(x)[0, :, 0, 0], s, atol=1e-6, rtol=0)
    torch.testing.assert_close(module(x)[0, 0], torch.tensor([[0.880797, 2.642391], [0.0, 3.523188]]))
    torch.testing.assert_close(module(x)[0, 3, 1, 1], torch.tensor(2.924234))


@pytest.mark.parametrize("pool", ["mean", "max"])
def test_shuffling_the_pixels_leaves_the_gate_alone(pool):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(B, C, H, W, generator=generator, dtype=torch.float64)
    order = torch.randperm(H * W, generator=generator)
    shuffled = x.flatten(2)[:, :, order].view_as(x)
    module = SqueezeExcitation(C, reduction=R, pool=pool).double()
    torch.testing.assert_close(module.weights(shuffled), module.weights(x))
    assert not torch.allclose(module(shuffled), module(x))


def test_defaults_are_the_paper_s_reduction_and_the_released_biases():
    module = SqueezeExcitation(64)
    assert {name: tuple(p.shape) for name, p in module.named_parameters()} == {
        "W_1.weight": (4, 64),
        "W_1.bias": (4,),
        "W_2.weight": (64, 4),
        "W_2.bias": (64,),
    }
    assert (module.pool, module.gate) == ("mean", "sigmoid")


def test_bias_false_leaves_the_weights_only():
    module = SqueezeExcitation(C, reduction=R, bias=False)
    assert [name for name, _ in module.named_parameters()] == ["W_1.weight", "W_2.weight"]


@pytest.mark.no_shape_hook
@pytest.mark.parametrize(
    ("channels", "options", "text"),
    [
        (0, {}, "channels=0 should be a whole number of at least 1"),
        (30, {}, "channels=30 is not divisible by reduction=16; use 15 or 10"),
        (6, {"reduction": 0}, "reduction=0 should be a whole number of at least 1"),
        (16, {"pool": "avg"}, "pool='avg' is not one of 'mean', 'max'"),
        (
            16,
            {"gate": "sigmod"},
            "gate='sigmod' is not one of 'sigmoid', 'hard_sigmoid'; did you mean 'sigmoid'?",
        ),
    ],
)
def test_wrong_arguments(channels, options, text):
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        SqueezeExcitation(channels, **options)


@pytest.mark.no_shape_hook
@pytest.mark.parametrize("method", ["weights", "forward"])
@pytest.mark.parametrize(
    ("x", "start"),
    [
        (torch.zeros(C, H, W), "expected a feature map of shape (batch, 6, height, width), got"),
        (
            torch.zeros(B, H, W, C),
            "this module was built for channels=6, the input of shape (2, 3, 5, 6) has 3",
        ),
        (torch.zeros(B, C, H, W, dtype=torch.int32), "expected floating-point features, got torch.int32"),
        (torch.zeros(0, C, H, W), "expected a feature map with at least one element, got shape (0, 6, 3, 5)"),
    ],
)
def test_wrong_inputs(method, x, start):
    module = SqueezeExcitation(C, reduction=R)
    with pytest.raises(ValueError, match=f"^{re.escape(start)}"):
        getattr(module, method)(x)
