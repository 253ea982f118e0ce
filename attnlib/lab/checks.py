"""What the audit looks at: one small function a check, shared with the contract tests.

Several checks look at the *gate*: ``module.weights(x)`` where forward(x) = x * weights(x), otherwise
forward(x) / x. What the gate depends on is found by changing the input, not by a derivative, so that neither
a maximum nor a stopped gradient hides anything; several draws of the parameters are tried, since a unit that
is dead in one of them is alive in another.
"""

import copy
import functools
import textwrap
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from attnlib.lab.cost import count_macs, count_parameters

TRIALS = 4  # draws of the parameters
PROBES = 100  # at most so many channels and positions are changed, evenly spread
MARKS = {True: "✓", False: "✗", None: "·"}
ORDINARY = set(vars(nn.Module()))  # the attributes that every module has


@dataclass(frozen=True)
class Finding:
    """What one check found; ``holds`` is None where it does not apply or only informs."""

    check: str
    holds: bool | None
    sentence: str

    def __str__(self) -> str:
        return f"{MARKS[self.holds]} {self.check}: {self.sentence}"


# Tools of the checks


class NotApplicable(Exception):
    """A check cannot be made; the message says why."""


def described(error: Exception) -> str:
    """The error's type and the first line of its message."""
    first = (str(error).splitlines() or [""])[0]
    return f"raises {type(error).__name__}: {textwrap.shorten(first, 100, placeholder=' ...')}"


def copied(module: nn.Module) -> nn.Module:
    """A deep copy, also of a module that holds results of a calculation, which deepcopy alone refuses."""
    memo: dict[int, object] = {}
    for m in module.modules():
        for value in [*vars(m).values(), *m.buffers(recurse=False)]:
            if isinstance(value, Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    return copy.deepcopy(module, memo)


def evaluating(module: nn.Module) -> nn.Module:
    """A copy in eval mode."""
    return copied(module).eval()


def redrawn(module: nn.Module, seed: int = 0) -> nn.Module:
    """A copy in eval mode with every parameter drawn anew, so that no zero from the start is left.

    Vectors are standard normal; matrices and kernels have the variance 1 / (inputs of one output).
    """
    module = evaluating(module)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            scale = (p.shape[0] / p.numel()) ** 0.5 if p.ndim > 1 else 1.0
            p.copy_(scale * torch.randn(p.shape, generator=generator))
    return module


def draw(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    """Random features of both signs, at least 0.5 from zero, so that forward(x) / x is well conditioned."""
    normal = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return torch.where(normal < 0, normal - 0.5, normal + 0.5)


def tolerance(x: Tensor) -> float:
    return 1e-9 if x.dtype == torch.float64 else 1e-5


def close(a: Tensor, b: Tensor) -> Tensor:
    """Entry by entry: whether a and b agree but for rounding."""
    return torch.isclose(a, b, rtol=tolerance(a), atol=tolerance(a), equal_nan=True)


def has_weights(module: nn.Module, x: Tensor) -> bool:
    """Whether the module has a method ``weights`` with forward(x) = x * weights(x)."""
    weights = getattr(module, "weights", None)
    g = weights(x) if callable(weights) else None
    if not isinstance(g, Tensor) or g.ndim != 4:
        return False
    fits = all(size in (1, wanted) for size, wanted in zip(g.shape, x.shape, strict=True))
    return fits and bool(close(x * g, module(x)).all())


def gate_of(module: nn.Module, x: Tensor) -> Callable[[Tensor], Tensor]:
    """The function from features without zeros to the gate, expanded to their shape; x is an example."""
    if has_weights(module, x):
        return lambda z: module.weights(z).expand_as(z)
    if module(x).shape != x.shape:
        raise NotApplicable("there is no gate to look at, since forward changes the shape")
    return lambda z: module(z) / z


def influence(module: nn.Module, x: Tensor, axis: str) -> Tensor:
    """Which gates of an image follow when one of its channels, or one of its positions, is changed.

    Args:
        axis: "channel" or "position"; positions are counted row by row.

    Returns:
        bool, (changed, seen): a row for each of ``probes``, a column for each channel or position.
    """
    c, h, w = x.shape[1:]
    count = c if axis == "channel" else h * w
    followed = torch.zeros(len(probes(count)), count, dtype=torch.bool)
    for trial in range(TRIALS):
        net, base = redrawn(module, trial), draw(x.shape, trial).to(x)
        gate = gate_of(net, base)
        before = gate(base)
        new = 10 * draw((c, h * w), trial + 1).to(x)  # large enough to become the new maximum or minimum
        for row, k in enumerate(probes(count)):
            z = base.clone()
            if axis == "channel":
                z[0, k] = new[k].view(h, w)
            else:
                z[0].view(c, h * w)[:, k] = (-1) ** trial * new[:, k].abs()
            moved = ~close(gate(z), before)[0].view(c, h * w)
            followed[row] |= moved.any(1 if axis == "channel" else 0)
    return followed


def probes(count: int) -> list[int]:
    return torch.linspace(0, count - 1, min(count, PROBES)).round().long().tolist()


def without_gradient(module: nn.Module, x: Tensor) -> dict[str, str]:
    """The trainable parameters whose gradient in train mode is missing, zero or not finite in every trial.

    Five images are used, since batch statistics of two leave hardly any gradient.
    """
    trials = []
    for trial in range(TRIALS):
        net = redrawn(module, trial).train()
        y = net(draw((5, *x.shape[1:]), trial).to(x).requires_grad_())
        y.backward(draw(y.shape, trial + 1).to(y))
        gradients = {name: p.grad for name, p in net.named_parameters() if p.requires_grad}
        largest = max((g.abs().max().item() for g in gradients.values() if g is not None), default=0.0)
        faults = {}
        for name, g in gradients.items():
            if g is None:
                faults[name] = "none"
            elif not g.isfinite().all():
                faults[name] = "not finite"
            elif g.abs().max() <= tolerance(x) * largest:
                faults[name] = "zero"
        trials.append(faults)
    return {name: fault for name, fault in trials[0].items() if all(name in faults for faults in trials)}


def kept(module: nn.Module, *, buffers: bool) -> dict[str, object]:
    """What a module keeps beside its parameters: plain attributes, and buffers if asked for."""
    values = {
        f"{path}.{name}".lstrip("."): content(value)
        for path, m in module.named_modules()
        for name, value in vars(m).items()
        if name not in ORDINARY
    }
    return values | ({name: content(b) for name, b in module.named_buffers()} if buffers else {})


def content(value: object) -> object:
    """Something to compare with == later, when the value itself may have changed."""
    if isinstance(value, Tensor):
        return str(value.dtype), value.detach().tolist()
    if isinstance(value, dict):
        return {key: content(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [content(v) for v in value]
    return value if isinstance(value, int | float | str) else id(value)


# The checks, in the order in which they are printed

CHECKS: list[Callable[[nn.Module, Tensor], Finding]] = []


def listed(function: Callable[[nn.Module, Tensor], tuple[bool | None, str]]):
    """Make a function from (module, x) to (holds, sentence) a check: one that returns a Finding, adds
    itself to CHECKS and takes an exception for a finding. A check leaves module and x as they are."""

    @functools.wraps(function)
    def check(module, x):
        name = function.__name__.removeprefix("check_").replace("_", " ")
        try:
            return Finding(name, *function(module, x))
        except NotApplicable as reason:
            return Finding(name, None, str(reason))
        except Exception as error:
            return Finding(name, False, described(error))

    CHECKS.append(check)
    return check


@listed
def check_shape(module, x):
    y = evaluating(module)(x.clone())
    if not isinstance(y, Tensor):
        return False, f"forward returns a {type(y).__name__}, not a tensor"
    if y.shape != x.shape:
        return False, f"an input {tuple(x.shape)} gives an output {tuple(y.shape)}"
    return True, f"the output has the input's shape {tuple(x.shape)}"


@listed
def check_dtype(module, x):
    faults = []
    for wanted in (torch.float64, torch.float32, torch.bfloat16):
        name = str(wanted).removeprefix("torch.")
        try:
            got = evaluating(module).to(wanted)(x.to(wanted)).dtype
            if got != wanted:
                faults.append(f"{name} becomes {str(got).removeprefix('torch.')}")
        except Exception as error:
            faults.append(f"{name} {described(error)}")
    return not faults, "; ".join(faults) or "float64, float32 and bfloat16 are kept"


@listed
def check_input(module, x):
    given = x.clone()
    evaluating(module)(given)
    if torch.equal(given, x):
        return True, "forward leaves its input as it is"
    return False, "forward changes its input in place"


@listed
def check_finite(module, x):
    inputs = {"the example": x.clone(), "a map of zeros": torch.zeros_like(x)}
    faults = [name for name, z in inputs.items() if not evaluating(module)(z).isfinite().all()]
    if faults:
        return False, f"the output is not finite on {' and '.join(faults)}"
    return True, "the output is finite on the example and on a map of zeros"


@listed
def check_features(module, x):
    y = evaluating(module)(4 * draw(x.shape).to(x))
    if ((y >= 0) & (y <= 1)).all():
        return False, "the output stays in [0, 1], the input does not: forward seems to return the gate"
    return True, "forward returns features, not a gate"


@listed
def check_registered(module, x):
    hidden = []
    for path, m in module.named_modules():
        for name, value in vars(m).items():
            if name not in ORDINARY and isinstance(value, list | tuple | dict):
                held = value.values() if isinstance(value, dict) else value
                if any(isinstance(v, nn.Module | nn.Parameter) for v in held):
                    hidden.append(f"{path}.{name}".lstrip("."))
    if hidden:
        return False, f"{', '.join(hidden)}: what a plain container holds is neither trained nor saved"
    return True, "no layer or parameter hides in a plain list"


@listed
def check_weights(module, x):
    if has_weights(evaluating(module), x.clone()):
        return True, "forward(x) = x * weights(x)"
    return None, "there is no weights(x) with forward(x) = x * weights(x); the gate is forward(x) / x"


@listed
def check_gate_range(module, x):
    gates = []
    for trial in range(TRIALS):
        z = draw(x.shape, trial).to(x)
        gates.append(gate_of(redrawn(module, trial), z)(z))
    lowest, highest = torch.stack(gates).min(), torch.stack(gates).max()
    beyond = ["below 0"] * bool(lowest < -tolerance(x)) + ["above 1"] * bool(highest > 1 + tolerance(x))
    if beyond:
        return None, f"the gate goes {' and '.join(beyond)}"
    return True, "the gate stays between 0 and 1"


@listed
def check_gate_sum(module, x):
    z = draw(x.shape).to(x)
    gate = gate_of(evaluating(module), z)(z)
    for axes, name in ((1, "channels"), ((2, 3), "positions")):
        total = gate.sum(axes)
        count = gate.numel() // total.numel()
        if count > 1 and close(total, torch.ones_like(total)).all():
            return False, f"the gate sums to 1 over the {count} {name}: a softmax, which shrinks the features"
    return True, "nothing forces the gate to sum to 1, over channels or over positions"


@listed
def check_gate_shape(module, x):
    z = draw(x.shape).to(x)
    gate = gate_of(redrawn(module), z)(z)
    channels = not close(gate, gate[:, :1].expand_as(gate)).all()
    space = not close(gate, gate[:, :, :1, :1].expand_as(gate)).all()
    sentences = {
        (True, True): "one number for each channel and position",
        (True, False): "one number for each channel, constant over space",
        (False, True): "one number for each position, constant over channels",
        (False, False): "one number for each image, constant over channels and space",
    }
    return None, sentences[channels, space]


@listed
def check_gate_channels(module, x):
    followed = influence(module, x, "channel")
    if not followed.any():
        return False, "a gate depends on no channel: it is a constant"
    away = (torch.tensor(probes(x.shape[1]))[:, None] - torch.arange(x.shape[1])).abs()
    if torch.equal(followed, away == 0):
        return None, "a gate depends on its own channel only"
    if followed.all():
        return None, "a gate depends on all channels"
    return None, f"a gate depends on channels at most {away[followed].max()} away"


@listed
def check_gate_positions(module, x):
    followed = influence(module, x, "position")
    if not followed.any():
        return False, "a gate depends on no position: it is a constant"
    h, w = x.shape[2:]
    changed, seen = torch.tensor(probes(h * w))[:, None], torch.arange(h * w)
    down, across = (changed // w - seen // w).abs(), (changed % w - seen % w).abs()
    if torch.equal(followed, (down == 0) & (across == 0)):
        return None, "a gate depends on its own position only"
    if followed.all():
        return None, "a gate depends on all positions"
    if torch.equal(followed, (down == 0) | (across == 0)):
        return None, "a gate depends on its row and its column"
    window = f"{2 * down[followed].max() + 1} x {2 * across[followed].max() + 1}"
    return None, f"a gate depends on a window of {window} positions"


@listed
def check_repeatable(module, x):
    net = evaluating(module)
    if close(net(x.clone()), net(x.clone())).all():
        return True, "in eval a second call gives the same output"
    return False, "in eval a second call gives another output"


@listed
def check_independent(module, x):
    other = x.clone()
    other[1] = 10 * draw(x.shape[1:], 1).to(x)
    if close(evaluating(module)(x.clone())[0], evaluating(module)(other)[0]).all():
        return True, "in eval no image depends on the others of its batch"
    return False, "in eval an image's output depends on the others of its batch"


@listed
def check_batch_size(module, x):
    net = evaluating(module)
    for size in (2, 3, 1):
        z = draw((size, *x.shape[1:])).to(x)
        try:
            fault = "" if net(z).shape[0] == size else "gives another number of images"
        except Exception as error:
            fault = described(error)
        if fault:
            return False, f"a batch of {size}, in a series of 2, 3 and 1, {fault}"
    return True, "may change from call to call"


@listed
def check_state(module, x):
    changed = set()
    for train in (False, True):
        net = copied(module).train(train)
        before = kept(net, buffers=not train)
        net(x.clone())
        after = kept(net, buffers=not train)
        changed |= {name for name in after if name not in before or before[name] != after[name]}
    if changed:
        return False, f"forward leaves something behind in {', '.join(sorted(changed))}"
    return True, "forward leaves nothing behind in plain attributes, nor in buffers in eval"


@listed
def check_second_backward(module, x):
    net = copied(module).train()
    for _ in range(2):
        net(x.clone().requires_grad_()).sum().backward()
    return True, "a second forward and backward pass works"


@listed
def check_gradients(module, x):
    if not any(p.requires_grad for p in module.parameters()):
        return None, "there is no parameter to train"
    faults = [f"{name} ({fault})" for name, fault in without_gradient(module, x).items()]
    if faults:
        return False, f"parameters without a usable gradient: {', '.join(faults)}"
    return True, "every parameter gets a finite gradient that is not zero"


@listed
def check_sizes(module, x):
    faults = []
    for b, h, w in [(1, *x.shape[2:]), (2, 7, 7), (2, 5, 9), (2, 1, 6), (1, 1, 1)]:
        z = draw((b, x.shape[1], h, w)).to(x)
        try:
            y = evaluating(module)(z.clone())
            fault = "changes shape" if y.shape != z.shape else "" if y.isfinite().all() else "is not finite"
        except Exception as error:
            fault = described(error)
        if fault:
            faults.append(f"a batch of {b} with {h} x {w} maps {fault}")
    return not faults, "; ".join(faults) or "odd, oblong and 1 x 1 maps and single images work"


@listed
def check_state_dict(module, x):
    net, other = redrawn(module, 1), redrawn(module, 2)
    wanted = net(x.clone())
    other.load_state_dict(net.state_dict())
    if close(other(x.clone()), wanted).all():
        return True, "loads into a copy with other weights and gives the same output"
    return False, "loads into a copy with other weights but gives another output"


@listed
def check_cost(module, x):
    parameters, macs = count_parameters(module), count_macs(module, x[:1])
    size = f"{x.shape[2]} x {x.shape[3]}"
    return None, f"{parameters:,} parameters; {macs:,} multiply-accumulates for one image of {size}"
