"""Costs: closed forms against counts, counts against numbers worked out by hand."""

import copy
import re

import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from attnlib.feature_map import SqueezeExcitation
from attnlib.lab import cost
from attnlib.lab.cost import (
    against_formula,
    closed_form,
    cost_table,
    count_macs,
    count_parameters,
    floor,
    saved_bytes,
    time_against_floor,
)


class Calls(nn.Module):
    """A module around a function."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *inputs):
        return self.function(*inputs)


@pytest.mark.no_shape_hook
@pytest.mark.parametrize(
    ("arguments", "options", "text"),
    [
        (("see", 12, 3, 5), {}, "name='see' is not one of"),
        (("se", 12, 3, 5), {"reductoin": 3}, "'se' has no option 'reductoin', only reduction, bias"),
        (("se", 30, 3, 5), {}, "channels=30 is not divisible by reduction=16; use 15 or 10"),
        (("se", 16, 0, 5), {}, "height=0 should be a whole number of at least 1"),
        (("se", 16, 3, -5), {}, "width=-5 should be a whole number of at least 1"),
    ],
)
def test_closed_form_errors(arguments, options, text):
    with pytest.raises(ValueError, match=f"^{re.escape(text)}"):
        closed_form(*arguments, **options)


def test_count_parameters_counts_shared_ones_once_and_buffers_never():
    shared = nn.Linear(3, 5)
    assert count_parameters(nn.Sequential(shared, nn.BatchNorm1d(5), nn.Linear(5, 3), shared)) == 20 + 10 + 18


def test_count_macs_scales_with_the_batch():
    module = nn.Conv2d(4, 6, 3, groups=2, padding=1)
    assert count_macs(module, torch.rand(1, 4, 5, 7)) == 5 * 7 * 6 * 2 * 9
    assert count_macs(module, torch.rand(3, 4, 5, 7)) == 3 * 5 * 7 * 6 * 2 * 9


@pytest.mark.parametrize(
    ("function", "shapes", "macs"),
    [
        (torch.matmul, [(2, 3, 4), (2, 4, 5)], 2 * 3 * 4 * 5),
        (torch.matmul, [(3, 4), (4,)], 12),
        (torch.matmul, [(4,), (4,)], 4),
        (lambda y, W, x: torch.addmv(y, W, x), [(3,), (3, 4), (4,)], 12),
        (lambda x, w: torch.einsum("bchw,c->bhw", x, w), [(2, 3, 4, 5), (3,)], 120),
        (F.scaled_dot_product_attention, [(2, 3, 5, 4), (2, 3, 7, 4), (2, 3, 7, 4)], 2 * 2 * 3 * 5 * 7 * 4),
        (lambda x: x * torch.sigmoid(x.mean((2, 3), keepdim=True)), [(2, 3, 4, 5)], 0),
    ],
)
def test_count_macs_of_operators(function, shapes, macs):
    assert count_macs(Calls(function), *(torch.rand(shape) for shape in shapes)) == macs


@pytest.mark.parametrize("frozen", [False, True])
def test_count_macs_sees_through_fused_attention(frozen):
    n, d = 5, 8
    module = nn.MultiheadAttention(d, 2, batch_first=True).requires_grad_(not frozen)
    x = torch.rand(3, n, d)
    with torch.no_grad():
        assert count_macs(module, x, x, x) == 3 * (4 * n * d * d + 2 * n * n * d)


@pytest.mark.parametrize(("layer", "gates"), [(nn.RNN, 1), (nn.GRU, 3), (nn.LSTM, 4)])
def test_count_macs_of_recurrent_layers(layer, gates):
    module = layer(8, 3, batch_first=True)
    assert count_macs(module, torch.rand(2, 5, 8)) == 2 * 5 * gates * (8 * 3 + 3 * 3)


def test_counting_leaves_the_module_as_it_is():
    module = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4).eval(), nn.Dropout(), SqueezeExcitation(4, reduction=2)
    )
    module.requires_grad_(False)
    before = copy.deepcopy(module.state_dict())
    count_macs(module, torch.rand(2, 3, 5, 4))
    assert module.training
    assert not module[1].training
    assert not any(p.requires_grad or p.grad is not None for p in module.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())
    for name, tensor in module.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)


class Nested(nn.Module):
    """Owns a parameter, multiplies by itself, and calls one sub-module twice and one not at all."""

    def __init__(self):
        super().__init__()
        self.W = nn.Parameter(torch.ones(5, 4))
        self.twice = nn.Linear(4, 4)
        self.block = nn.Sequential(nn.Linear(5, 3, bias=False), nn.ReLU())
        self.unused = nn.Linear(2, 2)

    def forward(self, x):
        return self.block(self.twice(self.twice(x)) @ self.W.T)


def test_cost_table():
    expected = pd.DataFrame(
        {"parameters": [20, 20, 15, 6, 61], "macs": [7 * 20, 7 * 2 * 16, 7 * 15, 0, 7 * 67]},
        index=["(itself)", "twice", "block.0", "unused", "total"],
    )
    pd.testing.assert_frame_equal(cost_table(Nested(), torch.rand(7, 4)), expected)


def test_cost_table_of_a_module_that_costs_nothing():
    expected = pd.DataFrame({"parameters": [0], "macs": [0]}, index=["total"])
    pd.testing.assert_frame_equal(cost_table(nn.ReLU(), torch.rand(7, 4)), expected)


def test_saved_bytes_of_elementary_functions():
    x, y = torch.rand(2, 3, 5), torch.rand(2, 3, 5)
    assert saved_bytes(torch.mul, x, y) == 0  # only the inputs
    assert saved_bytes(torch.exp, x) == 30 * 4  # its output
    assert saved_bytes(torch.exp, x.double()) == 30 * 8
    assert saved_bytes(lambda x: x.exp().exp(), x) == 2 * 30 * 4
    assert saved_bytes(lambda x: (e := x.exp()) * e, x) == 30 * 4  # used twice, kept once
    assert saved_bytes(lambda x: x + 1, x) == 0
    with torch.no_grad():
        assert saved_bytes(torch.exp, x) == 30 * 4


def test_saved_bytes_leaves_a_module_s_own_tensors_out():
    x = torch.rand(7, 4)
    assert saved_bytes(nn.Linear(4, 5), x) == 0
    assert saved_bytes(nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3)), x) == 7 * 5 * 4


def test_saved_bytes_of_squeeze_excitation_do_not_grow_with_the_map():
    module = SqueezeExcitation(6, reduction=2)
    small, large = (saved_bytes(module, torch.rand(2, 6, *size)) for size in [(3, 5), (30, 50)])
    assert small == large == 4 * 2 * (6 + 3 + 6)  # z, relu(W_1 z), s


def test_saved_bytes_leaves_module_and_input_as_they_are():
    module, x = nn.BatchNorm2d(3), torch.rand(2, 3, 5, 4)
    saved_bytes(module, x)
    assert module.num_batches_tracked == 0
    assert not x.requires_grad


def test_floor():
    x = torch.arange(12.0).view(1, 2, 2, 3)
    torch.testing.assert_close(floor(x), torch.cat([x[:, :1] * 2.5, x[:, 1:] * 8.5], 1))


class Clock:
    """A clock on which a call of ``tick`` takes so long, and the machine slows down all the time."""

    def __init__(self):
        self.now, self.slowness = 0.0, 1.0

    def __call__(self):
        return self.now

    def tick(self, seconds):
        self.slowness *= 1.02
        self.now += seconds * self.slowness


def test_time_against_floor_is_a_median_of_pairs(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(cost.time, "perf_counter", clock)
    monkeypatch.setattr(cost, "floor", lambda x: clock.tick(2.0))
    calls = []

    def three_times_the_floor(x):
        calls.append(x)
        clock.tick(600.0 if len(calls) == 7 else 6.0)  # one of them is held up

    module = Calls(three_times_the_floor).train()
    # what is left is the 2 % by which the machine slows down between the halves of a pair
    ratio = time_against_floor(module, torch.rand(2, 3, 5, 4), repeats=9)
    assert ratio == pytest.approx(3 / 1.02)
    assert module.training


def test_time_against_floor_sees_more_work():
    heavy = nn.Conv2d(8, 8, 7, padding=3)
    assert time_against_floor(heavy, torch.rand(2, 8, 24, 20), repeats=5) > 2


@pytest.mark.no_shape_hook
def test_time_against_floor_needs_a_repeat():
    with pytest.raises(ValueError, match=r"^repeats=0 should be a whole number of at least 1$"):
        time_against_floor(nn.ReLU(), torch.rand(2, 3, 5, 4), repeats=0)


TWO_LAYERS = nn.Sequential(nn.Conv2d(4, 5, 1, bias=False), nn.Sigmoid(), nn.Conv2d(5, 4, 1))


@pytest.mark.parametrize(
    ("parameters", "macs", "text"),
    [
        (44, 600, "parameters: 44 by your formula, 44 counted\nMACs: 600 by your formula, 600 counted"),
        (
            20,
            300,
            "parameters: 20 by your formula, 44 counted, 24 more; exactly as many as 2 has\n"
            "MACs: 300 by your formula, 600 counted, 300 more; exactly as many as 0 or 2 has",
        ),
        (
            20,
            600,
            "parameters: 20 by your formula, 44 counted, 24 more; exactly as many as 2 has\n"
            "MACs: 600 by your formula, 600 counted",
        ),
        (
            64,
            900.0,
            "parameters: 64 by your formula, 44 counted, 20 fewer; counted: 0 20, 2 24\n"
            "MACs: 900 by your formula, 600 counted, 300 fewer; counted: 0 300, 2 300",
        ),
    ],
)
def test_against_formula(parameters, macs, text):
    found = against_formula(TWO_LAYERS, torch.zeros(2, 4, 5, 3), parameters=parameters, macs=macs)
    assert str(found) == repr(found) == text
    assert found.holds == ("more" not in text and "fewer" not in text)


def test_against_formula_of_what_is_not_counted():
    scaled = nn.PReLU(4)
    assert str(against_formula(scaled, torch.zeros(1, 4, 5, 3), parameters=0, macs=0)).startswith(
        "parameters: 0 by your formula, 4 counted, 4 more; exactly as many as the module itself has"
    )
    found = against_formula(Calls(lambda x: x / 2), torch.zeros(1, 4, 5, 3), parameters=1, macs=1200)
    assert str(found) == (
        "parameters: 1 by your formula, 0 counted, 1 fewer; counted: none at all\n"
        "MACs: 1,200 by your formula, 0 counted, 1,200 fewer; products written with * and sum are not "
        "counted, layers and @ are"
    )


@pytest.mark.parametrize("wrong", [{"macs": 2.5}, {"parameters": -1}, {"parameters": True}])
def test_against_formula_errors(wrong):
    (name, value) = next(iter(wrong.items()))
    with pytest.raises(ValueError, match=f"^{name}={value!r} should be a whole number of at least 0"):
        against_formula(TWO_LAYERS, torch.zeros(1, 4, 5, 3), **{"parameters": 44, "macs": 600} | wrong)
