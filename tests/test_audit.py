"""The audit: SE passes all of it, and each module made wrong on purpose fails the check meant for it."""

import copy
import re

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from attnlib.feature_map import SqueezeExcitation
from attnlib.lab.audit import Audit, audit
from attnlib.lab.checks import CHECKS, Finding, probes, redrawn, without_gradient

PER_CHANNEL = "one number for each channel, constant over space"
PER_POSITION = "one number for each position, constant over channels"
PER_BOTH = "one number for each channel and position"
C = 6  # channels of all modules below; audits use maps of 9 x 8


def mean_gate(x):
    return torch.sigmoid(x.mean((2, 3), keepdim=True))


def module_of(forward, **parts):
    """A module with the given forward(self, x) and parts; classes built so can be copied."""
    made = type("Made", (nn.Module,), {"forward": forward})()
    for name, part in parts.items():
        setattr(made, name, part)
    return made


def finding(result, check):
    (found,) = [f for f in result.findings if f.check == check]
    return found


def narrow():
    return nn.Conv2d(C, C, (3, 2), padding=(1, 0))  # the even width loses a column


def pair():
    return module_of(lambda self, x: (x, mean_gate(x)))


def gate_without_space():
    return module_of(lambda self, x: mean_gate(x))


def float32_factor():
    return module_of(lambda self, x: x * self.factor, factor=torch.full((1, C, 1, 1), 0.5))


def float32_matrix():
    return module_of(
        lambda self, x: x * torch.sigmoid(x.mean((2, 3)) @ self.mix)[:, :, None, None], mix=torch.eye(C)
    )


def in_place():
    return module_of(lambda self, x: x.mul_(mean_gate(x)))


def divides_by_the_sum():
    return module_of(lambda self, x: x * (x.abs() / x.abs().sum((2, 3), keepdim=True)))


def returns_gate():
    return module_of(lambda self, x: torch.sigmoid(self.conv(x)), conv=nn.Conv2d(C, C, 3, padding=1))


def plain_list():
    def forward(self, x):
        return x * torch.sigmoid(self.layers[0](x))

    return module_of(forward, layers=[nn.Conv2d(C, C, 1)])


def plain_dict_inside():
    inner = plain_list()
    inner.layers = {0: inner.layers[0]}
    return nn.Sequential(inner)


def softmax_of_sigmoid():
    def forward(self, x):
        return x * torch.sigmoid(self.fc(x.mean((2, 3)))).softmax(1)[:, :, None, None]

    return module_of(forward, fc=nn.Linear(C, C))


def softmax_over_space():
    return module_of(lambda self, x: x * x.flatten(2).softmax(2).view_as(x))


def constant_gate():
    return module_of(
        lambda self, x: x * torch.sigmoid(self.scale), scale=nn.Parameter(torch.zeros(1, C, 1, 1))
    )


def dropout_in_eval():
    return module_of(lambda self, x: x * F.dropout(mean_gate(x), 0.5, training=True))


def softmax_over_the_batch():
    return module_of(lambda self, x: x * x.mean((2, 3), keepdim=True).softmax(0))


def fixed_batch():
    return module_of(lambda self, x: x * mean_gate(x.view(2, -1, *x.shape[2:])))


class MovingAverage(nn.Module):
    """The gate's moving average, kept with its graph and its batch axis."""

    alpha = 0.0

    def forward(self, x):
        self.alpha = 0.9 * self.alpha + 0.1 * self.scale * x.mean((2, 3), keepdim=True)
        return x * torch.sigmoid(self.alpha)

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1, C, 1, 1))


def stored_weights():
    def forward(self, x):
        self.attn = mean_gate(x)
        return x * self.attn

    return module_of(forward)


def memory_bank():
    def forward(self, x):
        self.bank["means"].append(x.mean((2, 3)).detach())
        return x * mean_gate(x)

    return nn.Sequential(module_of(forward, bank={"means": []}))


def counter():
    def forward(self, x):
        self.calls += 1
        return x * mean_gate(x)

    return module_of(forward, calls=0)


def buffer_in_eval():
    module = nn.BatchNorm2d(C, track_running_stats=True)
    return module_of(
        lambda self, x: F.batch_norm(x, self.norm.running_mean, self.norm.running_var, training=True),
        norm=module,
    )


def unused_layer():
    return module_of(
        lambda self, x: x * torch.sigmoid(self.conv(x)), conv=nn.Conv2d(C, C, 1), rest=nn.Linear(3, 2)
    )


def stopped_gradient():
    return module_of(
        lambda self, x: x * torch.sigmoid(self.conv(x)).detach() + x, conv=nn.Conv2d(C, C, 1, bias=False)
    )


def bias_before_norm():
    net = nn.Sequential(nn.Conv2d(C, C, 1), nn.BatchNorm2d(C))
    return module_of(lambda self, x: x * torch.sigmoid(self.net(x)), net=net)


def root_of_gate():
    return module_of(
        lambda self, x: x * (self.scale * 0.0).sqrt() * mean_gate(x), scale=nn.Parameter(torch.ones(1))
    )


def fixed_map():
    return module_of(
        lambda self, x: x * torch.sigmoid(x + self.position), position=nn.Parameter(torch.zeros(9, 8))
    )


def standard_deviation():
    return module_of(lambda self, x: x * torch.sigmoid(x.std((2, 3), keepdim=True)))


class Lazy(nn.Module):
    """Creates its parameter when it first sees an input."""

    def forward(self, x):
        if not hasattr(self, "scale"):
            self.scale = nn.Parameter(torch.ones(x.shape[1], 1, 1, dtype=x.dtype))
        return x * torch.sigmoid(self.scale * x.mean((2, 3), keepdim=True))


class Rescaled(nn.Module):
    """Saves something else than it loads."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.full((C, 1, 1), 0.5))

    def forward(self, x):
        return x * torch.sigmoid(self.scale * x.mean((2, 3), keepdim=True))

    def _save_to_state_dict(self, destination, prefix, keep_vars):
        destination[prefix + "scale"] = 2 * self.scale.detach()


WRONG = [
    (narrow, "shape", "an input (2, 6, 9, 8) gives an output (2, 6, 9, 7)"),
    (gate_without_space, "shape", "an input (2, 6, 9, 8) gives an output (2, 6, 1, 1)"),
    (pair, "shape", "forward returns a tuple, not a tensor"),
    (float32_factor, "dtype", "bfloat16 becomes float32"),
    (float32_matrix, "dtype", "float64 raises RuntimeError: expected m1 and m2 to have the same dtype"),
    (in_place, "input", "forward changes its input in place"),
    (divides_by_the_sum, "finite", "the output is not finite on a map of zeros"),
    (returns_gate, "features", "the output stays in [0, 1], the input does not"),
    (plain_list, "registered", "layers: what a plain container holds is neither trained nor saved"),
    (plain_dict_inside, "registered", "0.layers: what a plain container holds is neither trained nor saved"),
    (softmax_of_sigmoid, "gate sum", "the gate sums to 1 over the 6 channels: a softmax"),
    (softmax_over_space, "gate sum", "the gate sums to 1 over the 72 positions: a softmax"),
    (constant_gate, "gate channels", "a gate depends on no channel: it is a constant"),
    (constant_gate, "gate positions", "a gate depends on no position: it is a constant"),
    (dropout_in_eval, "repeatable", "in eval a second call gives another output"),
    (MovingAverage, "repeatable", "in eval a second call gives another output"),
    (softmax_over_the_batch, "independent", "in eval an image's output depends on the others of its batch"),
    (fixed_batch, "batch size", "a batch of 3, in a series of 2, 3 and 1, raises RuntimeError: "),
    (MovingAverage, "batch size", "a batch of 3, in a series of 2, 3 and 1, raises RuntimeError: "),
    (MovingAverage, "state", "forward leaves something behind in alpha"),
    (stored_weights, "state", "forward leaves something behind in attn"),
    (memory_bank, "state", "forward leaves something behind in 0.bank"),
    (counter, "state", "forward leaves something behind in calls"),
    (
        buffer_in_eval,
        "state",
        "forward leaves something behind in norm.running_mean, norm.running_var",
    ),
    (MovingAverage, "second backward", "raises RuntimeError: Trying to backward through the graph"),
    (
        unused_layer,
        "gradients",
        "parameters without a usable gradient: rest.weight (none), rest.bias (none)",
    ),
    (stopped_gradient, "gradients", "parameters without a usable gradient: conv.weight (none)"),
    (bias_before_norm, "gradients", "parameters without a usable gradient: net.0.bias (zero)"),
    (root_of_gate, "gradients", "parameters without a usable gradient: scale (not finite)"),
    (fixed_map, "sizes", "a batch of 2 with 7 x 7 maps raises RuntimeError: The size of tensor a"),
    (standard_deviation, "sizes", "a batch of 1 with 1 x 1 maps is not finite"),
    (Lazy, "state dict", "raises RuntimeError: Error(s) in loading state_dict for Lazy"),
    (Rescaled, "state dict", "loads into a copy with other weights but gives another output"),
]


@pytest.mark.parametrize(("build", "check", "start"), WRONG, ids=[f"{w[0].__name__}: {w[1]}" for w in WRONG])
def test_each_wrong_module_fails_the_check_meant_for_it(build, check, start):
    result = audit(build(), channels=C)
    found = finding(result, check)
    assert found.holds is False
    assert found.sentence.startswith(start)
    assert not result.holds


def test_every_check_that_can_fail_is_seen_to_fail():
    informs = {"weights", "gate range", "gate shape", "cost"}
    checks = {check.__name__.removeprefix("check_").replace("_", " ") for check in CHECKS}
    assert {check for _, check, _ in WRONG} == checks - informs


@pytest.mark.parametrize("options", [{}, {"pool": "max"}, {"gate": "hard_sigmoid"}, {"bias": False}])
def test_squeeze_excitation_holds(options):
    result = audit(SqueezeExcitation(C, reduction=2, **options))
    assert result.holds, result
    assert finding(result, "weights").holds
    assert finding(result, "gate range").holds
    assert finding(result, "gate shape").sentence == PER_CHANNEL
    assert finding(result, "gate channels").sentence == "a gate depends on all channels"
    assert finding(result, "gate positions").sentence == "a gate depends on all positions"


def test_what_is_printed():
    printed = str(audit(SqueezeExcitation(C, reduction=2))).splitlines()
    assert len(printed) == len(CHECKS)
    assert printed[0] == "✓ shape: the output has the input's shape (2, 6, 9, 8)"
    assert printed[-1] == "· cost: 45 parameters; 36 multiply-accumulates for one image of 9 x 8"
    assert str(Finding("a", False, "b")) == "✗ a: b"
    assert repr(Audit([Finding("a", False, "b"), Finding("c", None, "d")])) == "✗ a: b\n· c: d"
    assert Audit([Finding("a", True, "b"), Finding("c", None, "d")]).holds


def window(kernel):
    conv = nn.Conv2d(2, 1, kernel, padding=tuple(k // 2 for k in kernel))

    def forward(self, x):
        return x * torch.sigmoid(self.conv(torch.cat([x.amax(1, True), x.mean(1, True)], 1)))

    return module_of(forward, conv=conv)


def near_channels(size):
    def forward(self, x):
        return x * torch.sigmoid(self.conv(x.mean((2, 3))[:, None]))[:, 0, :, None, None]

    return module_of(forward, conv=nn.Conv1d(1, 1, size, padding=size // 2, bias=False))


def row_and_column():
    return module_of(lambda self, x: x * torch.sigmoid(x.mean(2, True)) * torch.sigmoid(x.mean(3, True)))


def column():
    return module_of(lambda self, x: x * torch.sigmoid(x.mean((1, 2), True)))


def row():
    return module_of(lambda self, x: x * torch.sigmoid(x.mean((1, 3), True)))


def point_wise():
    return module_of(lambda self, x: x * torch.sigmoid(self.conv(x)), conv=nn.Conv2d(C, C, 1))


@pytest.mark.parametrize(
    ("module", "shape", "channels", "positions"),
    [
        (
            window((3, 5)),
            PER_POSITION,
            "all channels",
            "3 x 5 positions",
        ),
        (
            near_channels(3),
            PER_CHANNEL,
            "at most 1 away",
            "all positions",
        ),
        (
            near_channels(5),
            PER_CHANNEL,
            "at most 2 away",
            "all positions",
        ),
        (
            row_and_column(),
            PER_BOTH,
            "own channel only",
            "row and its column",
        ),
        (column(), PER_POSITION, "all channels", "a window of 17 x 1 positions"),
        (row(), PER_POSITION, "all channels", "a window of 1 x 15 positions"),
        (point_wise(), PER_BOTH, "all channels", "its own position only"),
        (
            module_of(lambda self, x: x * torch.sigmoid(x.detach().mean((1, 2, 3), keepdim=True))),
            "one number for each image, constant over channels and space",
            "all channels",
            "all positions",
        ),
        (
            module_of(lambda self, x: x * torch.sigmoid(x.amax((2, 3), keepdim=True))),
            PER_CHANNEL,
            "own channel only",
            "all positions",
        ),
    ],
)
def test_what_the_gate_depends_on(module, shape, channels, positions):
    result = audit(module, channels=C)
    assert finding(result, "gate shape").sentence == shape
    assert finding(result, "gate channels").sentence.endswith(channels)
    assert finding(result, "gate positions").sentence.endswith(positions)
    assert finding(result, "weights").holds is None


@pytest.mark.parametrize(
    ("gate", "sentence"),
    [
        (lambda x: 1 + mean_gate(x), "the gate goes above 1"),
        (lambda x: mean_gate(x) - 1, "the gate goes below 0"),
        (lambda x: 9 * x.mean((2, 3), keepdim=True), "the gate goes below 0 and above 1"),
    ],
)
def test_a_gate_beyond_0_and_1_is_information(gate, sentence):
    found = finding(audit(module_of(lambda self, x: x * gate(x)), channels=C), "gate range")
    assert (found.holds, found.sentence) == (None, sentence)


class Residual(nn.Module):
    """Has weights(x), but they are no factor: an attention map (b, n, n), or a gate that is added to 1."""

    def __init__(self, weights):
        super().__init__()
        self.weights = weights

    def forward(self, x):
        return x * (1 + mean_gate(x))


def attention_map(x):
    return (x.flatten(2).transpose(1, 2) @ x.flatten(2)).softmax(-1)


def map_of_two_heads(x):
    return attention_map(x)[:, None].expand(-1, 2, -1, -1)


def one_number_per_image(x):
    return mean_gate(x).mean((1, 2))[:, None]


@pytest.mark.parametrize("weights", [attention_map, map_of_two_heads, one_number_per_image, mean_gate, None])
def test_weights_that_are_no_factor_are_not_the_gate(weights):
    result = audit(Residual(weights), channels=C)
    assert finding(result, "weights").holds is None
    assert finding(result, "gate range").sentence == "the gate goes above 1"
    assert finding(result, "gate channels").sentence == "a gate depends on its own channel only"


def test_another_shape_makes_the_gate_checks_not_applicable():
    result = audit(narrow(), channels=C)
    for check in ("gate range", "gate sum", "gate shape", "gate channels", "gate positions"):
        assert finding(result, check).holds is None
        assert "forward changes the shape" in finding(result, check).sentence


def test_a_module_without_parameters_has_nothing_to_train():
    found = finding(audit(module_of(lambda self, x: x * mean_gate(x)), channels=C), "gradients")
    assert (found.holds, found.sentence) == (None, "there is no parameter to train")


def test_a_forward_that_raises_is_the_one_finding():
    result = audit(nn.Conv2d(4, 4, 1), channels=C)
    (found,) = result.findings
    assert (found.check, found.holds) == ("forward", False)
    assert found.sentence.startswith("raises RuntimeError: Given groups=1, weight of size [4, 4, 1, 1]")
    assert len(found.sentence) < 130
    assert not result.holds


def test_a_module_that_cannot_be_copied_is_a_finding():
    (found,) = audit(module_of(lambda self, x: x, stream=(n for n in range(3))), channels=C).findings
    assert found.check == "forward"
    assert re.match("raises TypeError: cannot pickle 'generator' object", found.sentence)


def test_a_module_that_has_been_used_is_audited_too():
    module = MovingAverage()
    module(torch.rand(2, C, 9, 8))
    assert finding(audit(module, channels=C), "state").holds is False


def test_the_precision_that_works_is_used():
    result = audit(float32_matrix(), channels=C)
    assert [f.check for f in result.findings if f.holds is False] == ["dtype"]


def test_nothing_is_changed():
    module = nn.Sequential(nn.BatchNorm2d(C), nn.Dropout(), in_place(), SqueezeExcitation(C, reduction=2))
    before, x = copy.deepcopy(module.state_dict()), torch.rand(3, C, 7, 5)
    kept, state = x.clone(), torch.random.get_rng_state()
    audit(module, x)
    assert torch.equal(x, kept)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(m.training for m in module.modules())
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name]), name
        assert tensor.dtype == before[name].dtype


def random_name():
    def forward(self, x):
        setattr(self, f"draw_{torch.randint(10**6, ())}", None)
        return x * mean_gate(x)

    return module_of(forward)


def test_the_seed_decides_what_random_layers_do():
    first, second, third = (str(audit(random_name(), channels=C, seed=seed)) for seed in (0, 0, 1))
    assert first == second != third


def test_a_faint_dependence_is_seen_since_the_audit_works_in_float64():
    module = module_of(lambda self, x: x * torch.sigmoid(1e-7 * x.mean((2, 3), keepdim=True)))
    assert finding(audit(module.float(), channels=C), "gate channels").sentence.endswith("own channel only")


def test_a_unit_that_is_dead_in_one_trial_is_not_dead():
    scale = nn.Parameter(torch.zeros(1))
    assert next(redrawn(nn.ParameterList([scale]), 0).parameters()) > 1  # so it is dead in the first
    module = module_of(
        lambda self, x: x * torch.sigmoid(F.relu(1 - self.scale) * x.mean((2, 3), keepdim=True)), scale=scale
    )
    result = audit(module, channels=C)
    assert finding(result, "gate channels").sentence == "a gate depends on its own channel only"
    assert finding(result, "gradients").holds


def test_batch_statistics_leave_a_gradient():
    net = nn.Sequential(nn.Linear(C, 2, bias=False), nn.BatchNorm1d(2), nn.Linear(2, C))
    module = module_of(
        lambda self, x: x * torch.sigmoid(self.net(30 * x.mean((2, 3))))[..., None, None], net=net
    )
    assert without_gradient(module, torch.rand(2, C, 1, 1)) == {}  # with two images it would be zero


def test_probes_are_all_or_evenly_spread():
    assert probes(5) == [0, 1, 2, 3, 4]
    assert len(set(probes(2500))) == 100
    assert (probes(2500)[0], probes(2500)[-1]) == (0, 2499)


def test_x_sets_the_sizes():
    result = audit(SqueezeExcitation(C, reduction=2), torch.rand(3, C, 12, 11))
    assert finding(result, "shape").sentence.endswith("(2, 6, 12, 11)")
    assert finding(result, "gate positions").sentence == "a gate depends on all positions"  # 132, 100 probed


@pytest.mark.no_shape_hook
@pytest.mark.parametrize(
    ("x", "text"),
    [
        (None, "the number of channels is unknown; pass an example input x, or channels=..."),
        (
            torch.rand(C, 9, 8),
            "expected floating-point features (b, c, h, w) of two or more images, got torch.float32 of shape "
            "(6, 9, 8); pass another x, or none and channels=...",
        ),
        (torch.rand(1, C, 9, 8), "expected floating-point features (b, c, h, w) of two or more images"),
        (torch.ones(2, C, 9, 8).int(), "expected floating-point features (b, c, h, w) of two or more images"),
    ],
)
def test_errors(x, text):
    with pytest.raises(ValueError, match=f"^{re.escape(text)}"):
        audit(nn.ReLU(), x)
