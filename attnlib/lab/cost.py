"""What a mechanism costs: parameters, multiply-accumulates, memory for training, time against a floor.

Closed forms stand beside counts, so that each can be held against the other.
"""

import copy
import inspect
import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from types import SimpleNamespace

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from attnlib._checks import check_positive
from attnlib.feature_map import REGISTRY, build_attention
from attnlib.lab.closed_forms import MACS, PARAMETERS

aten = torch.ops.aten

# Products that FlopCounterMode does not know, in its own unit: two operations for each multiply-accumulate.
MORE_PRODUCTS = {
    aten.mv: lambda W, x, **_: 2 * prod(W),
    aten.addmv: lambda y, W, x, **_: 2 * prod(W),
    aten.dot: lambda x, y, **_: 2 * prod(x),
    aten.mkldnn_rnn_layer: lambda x, W, U, *_, **__: 2 * x[0] * x[1] * (prod(W) + prod(U)),
}


@dataclass(frozen=True)
class Cost:
    """Parameters, and multiply-accumulates for one image."""

    parameters: int
    macs: int


def closed_form(name: str, channels: int, height: int, width: int, **options: object) -> Cost:
    """The cost of the mechanism ``name`` on one image (channels, height, width), by its formula.

    ``options`` are those of the mechanism's class, with its defaults. Raises ValueError for what
    ``build_attention`` refuses, and for a height or width below 1.
    """
    check_positive("height", height)
    check_positive("width", width)
    with torch.device("meta"):  # checks the arguments without storing a weight
        build_attention(name, channels, **options)
    arguments = inspect.signature(REGISTRY[name]).bind(channels, **options)
    arguments.apply_defaults()
    sizes = channels, height, width, SimpleNamespace(**arguments.arguments)
    return Cost(parameters=PARAMETERS[name](*sizes), macs=MACS[name](*sizes))


def count_parameters(module: nn.Module) -> int:
    """The number of trainable and frozen parameters; a shared one counts once, buffers not at all."""
    return sum(p.numel() for p in module.parameters())


def count_macs(module: nn.Module, *inputs: Tensor) -> int:
    """Multiply-accumulates of one forward pass in eval mode, for the whole batch given.

    Counted are matrix products, convolutions and attention operators, with PyTorch's FlopCounterMode, which
    has two operations for each multiply-accumulate, and nothing else: pooling, biases, norms, activations
    and the product of gate and features are not in it, nor are sums of products written with ``*`` and
    ``sum``. Padding is multiplied too. The module's mode, state and gradients stay as they are.
    """
    return int(cost_table(module, *inputs).loc["total", "macs"])


def cost_table(module: nn.Module, *inputs: Tensor) -> pd.DataFrame:
    """Parameters and MACs by sub-module, counted as in ``count_macs``.

    Returns:
        A row for each sub-module that owns parameters or multiplies, by its dotted name, and "total", which
        is their sum; integer columns "parameters" and "macs". A sub-module's row leaves out what its own
        sub-modules own and do; "(itself)" is the module given. What is shared stands in one row.
    """
    module = copy.deepcopy(module).eval()
    module.requires_grad_()  # without gradients PyTorch fuses attention layers into one uncounted operator
    names = {m: name or "(itself)" for name, m in module.named_modules()}
    counter = FlopCounterMode(display=False, custom_mapping=MORE_PRODUCTS)
    macs, running = Counter(), []

    def book() -> None:
        total = counter.get_total_flops() // 2
        if running:
            macs[running[-1]] += total - macs.total()

    def enter(m: nn.Module, _: object) -> None:
        book()
        running.append(names[m])

    def leave(*_: object) -> None:
        book()
        running.pop()

    for m in names:
        m.register_forward_pre_hook(enter)
        m.register_forward_hook(leave)
    # the other kernels of scaled dot-product attention are not counted on a CPU
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        module(*inputs)

    parameters = Counter(dict.fromkeys(names.values(), 0))
    for name, parameter in module.named_parameters():
        parameters[name.rpartition(".")[0] or "(itself)"] += parameter.numel()
    rows = {name: (parameters[name], macs[name]) for name in names.values() if parameters[name] or macs[name]}
    rows["total"] = (parameters.total(), macs.total())
    return pd.DataFrame.from_dict(rows, orient="index", columns=["parameters", "macs"], dtype="int64")


@dataclass(frozen=True, repr=False)
class AgainstFormula:
    """A closed form beside the count; printed, it says where the two depart.

    ``parts`` is the ``cost_table`` of one image, without its last row.
    """

    formula: Cost
    counted: Cost
    parts: pd.DataFrame

    @property
    def holds(self) -> bool:
        return self.formula == self.counted

    def __repr__(self) -> str:
        return "\n".join(self._line(name) for name in ("parameters", "macs"))

    def _line(self, name: str) -> str:
        formula, counted = getattr(self.formula, name), getattr(self.counted, name)
        label = {"parameters": "parameters", "macs": "MACs"}[name]
        line = f"{label}: {formula:,} by your formula, {counted:,} counted"
        if formula == counted:
            return line
        parts = self.parts[name]
        line += f", {abs(counted - formula):,} {'more' if counted > formula else 'fewer'}"
        same = parts[parts == counted - formula]
        if len(same):
            names = " or ".join(same.index).replace("(itself)", "the module itself")
            line += f"; exactly as many as {names} has"
        elif name == "macs" and not counted:
            line += "; products written with * and sum are not counted, layers and @ are"
        else:
            line += "; counted: " + (", ".join(f"{p} {n:,}" for p, n in parts.items() if n) or "none at all")
        return line


def against_formula(
    module: nn.Module, x: Float[Tensor, "b c h w"], *, parameters: int | float, macs: int | float
) -> AgainstFormula:
    """Hold a closed form against the count: print what it returns, or ask whether it ``holds``.

    Args:
        module: your own, or any other.
        x: features; the count is for its first image, as in ``Cost``.
        parameters, macs: what your formula says for this module and this image.

    Where they depart, the printed line says by how much, and which sub-module has exactly the missing number,
    or else what each sub-module has. Raises ValueError for formulas that do not give whole numbers.
    """
    for name, value in (("parameters", parameters), ("macs", macs)):
        if isinstance(value, bool) or value != int(value) or value < 0:
            raise ValueError(
                f"{name}={value!r} should be a whole number of at least 0; does your formula divide where it "
                f"should round?"
            )
    table = cost_table(module, x[:1])
    total = table.loc["total"]
    counted = Cost(int(total["parameters"]), int(total["macs"]))
    return AgainstFormula(Cost(int(parameters), int(macs)), counted, table.drop(index="total"))


def saved_bytes(function: Callable[..., Tensor], *inputs: Tensor) -> int:
    """Bytes that autograd keeps from the forward pass for the backward pass.

    Each storage counts once and whole. The inputs are left out, and a module's own parameters and buffers:
    they exist anyway. A module runs in the mode it is in, on a copy, with gradients asked for every
    floating-point input, as in the middle of a network.
    """
    if isinstance(function, nn.Module):
        function = copy.deepcopy(function)
        own = [*function.parameters(), *function.buffers()]
    else:
        own = []
    inputs = tuple(x.detach().requires_grad_(x.is_floating_point()) for x in inputs)
    there = {t.untyped_storage().data_ptr() for t in [*inputs, *own]}
    kept: dict[int, int] = {}

    def keep(saved: Tensor) -> Tensor:
        storage = saved.untyped_storage()
        if storage.data_ptr() not in there:
            kept[storage.data_ptr()] = storage.nbytes()
        return saved

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda saved: saved):
        output = function(*inputs)  # held, so that no storage is freed and its address used again
    del output
    return sum(kept.values())


def floor(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """The least that a gate made from the whole map must do: read it, read it again, write it once."""
    return x * x.mean((2, 3), keepdim=True)


def time_against(
    module: Callable[[Tensor], Tensor],
    other: Callable[[Tensor], Tensor],
    x: Float[Tensor, "b c h w"],
    *,
    repeats: int = 30,
) -> float:
    """How many times longer ``module(x)`` takes than ``other(x)``, in eval mode without gradients.

    The two are timed in turn, pair by pair, and the median of the pairs' ratios is returned, so that a
    machine that slows down or speeds up meanwhile cancels out. Modules are copied and stay as they are.
    """
    check_positive("repeats", repeats)
    module, other = (copy.deepcopy(f).eval() if isinstance(f, nn.Module) else f for f in (module, other))
    with torch.no_grad():
        for _ in range(3):  # warm-up
            _seconds(module, x), _seconds(other, x)
        return statistics.median(_seconds(module, x) / _seconds(other, x) for _ in range(repeats))


def time_against_floor(module: nn.Module, x: Float[Tensor, "b c h w"], *, repeats: int = 30) -> float:
    """How many times longer the module's forward pass takes than ``floor``, as ``time_against`` has it."""
    return time_against(module, floor, x, repeats=repeats)


def _seconds(function: Callable[[Tensor], Tensor], x: Tensor) -> float:
    start = time.perf_counter()
    function(x)
    return time.perf_counter() - start
