"""What every feature-map mechanism keeps: the same properties, run over the whole registry.

A new mechanism adds one row to MECHANISMS.
"""

from dataclasses import dataclass, field

import pytest
import torch
from torch import nn
from torch.func import functional_call

from attnlib.feature_map import REGISTRY, build_attention
from attnlib.lab.checks import CHECKS, draw, gate_of, has_weights, redrawn, without_gradient


@dataclass(frozen=True)
class Mechanism:
    """What a mechanism declares about itself; everything else is the same for all.

    Args:
        gate: the shape of ``weights(x)`` with forward(x) = x * weights(x), in the letters of x's shape "bchw"
            with 1 for a constant axis; None if ``weights`` is not such a factor.
        channels_permuted: "equivariant" if forward(x with channels permuted) is forward(x) permuted so.
        positions_permuted: "invariant gate" if the gate does not see a permutation of the pixels,
            "equivariant" if forward follows it, "neither".
        without_gradient: the parameters whose gradient is zero or missing in training, each with the reason.
        batch_statistics: whether training needs more than one value for each channel.
        stops_gradient: why the gradient is not that of the differences, if it is not.
        fixed_size: the only (height, width) that the module takes, if there is one.
        smallest_side: the least height and width that it takes.
    """

    name: str
    channels: int
    gate: str | None
    channels_permuted: str
    positions_permuted: str
    options: dict[str, object] = field(default_factory=dict)
    without_gradient: dict[str, str] = field(default_factory=dict)
    batch_statistics: bool = False
    stops_gradient: str = ""
    fixed_size: tuple[int, int] | None = None
    smallest_side: int = 1

    def takes(self, height: int, width: int) -> bool:
        fits = self.fixed_size is None or (height, width) == self.fixed_size
        return fits and min(height, width) >= self.smallest_side

    def build(self) -> nn.Module:
        """A double-precision module in eval mode, every parameter drawn at random."""
        return redrawn(build_attention(self.name, self.channels, **self.options).double(), seed=3)

    def features(self, batch: int = 2, height: int = 5, width: int = 7, seed: int = 0) -> torch.Tensor:
        """Features without ties: a shuffled row of equally spaced numbers, none of them zero."""
        count = batch * self.channels * height * width
        order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
        return (torch.linspace(-2, 2, 2 * count, dtype=torch.float64)[::2][order]).view(
            batch, self.channels, height, width
        )


def rows(name: str, channels: int, gate: str | None, channels_permuted: str, positions_permuted: str, **more):
    """A function that declares ``name`` with some options and with what differs then."""
    declared = {
        "name": name,
        "channels": channels,
        "gate": gate,
        "channels_permuted": channels_permuted,
        "positions_permuted": positions_permuted,
        **more,
    }
    return lambda options=None, **differs: Mechanism(**(declared | differs), options=options or {})


def reasons(reason: str, *parameters: str) -> dict[str, str]:
    return dict.fromkeys(parameters, reason)


BEFORE_NORM = "a batch norm takes away what a bias in front of it adds"
SUMS_TO_ONE = "averages of values with one bias in common have that bias, and a batch norm takes it away"
SOFTMAX = "a softmax does not see what all its scores have in common"
BAM_BIASES = reasons(BEFORE_NORM, "channel.0.bias", "spatial.0.bias", "spatial.3.bias", "spatial.6.bias")
OUTER = reasons(BEFORE_NORM, "W_z.bias")
WITH_SOFTMAX = OUTER | reasons(SUMS_TO_ONE, "g.bias")

se = rows("se", 6, "bc11", "neither", "invariant gate")
eca = rows("eca", 8, "bc11", "neither", "invariant gate")
cbam = rows("cbam", 6, None, "neither", "neither")
bam = rows("bam", 6, "bchw", "neither", "neither", batch_statistics=True, without_gradient=BAM_BIASES)
sam = rows("sam", 5, "b1hw", "equivariant", "neither")
point_sam = rows("point_sam", 5, "bchw", "neither", "equivariant")
nam = rows("nam", 5, "bchw", "neither", "equivariant", batch_statistics=True)
gam_biases = reasons(BEFORE_NORM, "f_1.bias", "f_2.bias")
gam = rows("gam", 8, "bchw", "neither", "neither", batch_statistics=True, without_gradient=gam_biases)
nonlocal_ = rows("nonlocal", 6, None, "neither", "equivariant", batch_statistics=True)
emau = rows("emau", 5, None, "neither", "equivariant", batch_statistics=True)
ema = rows("ema", 6, "bchw", "neither", "neither")
strips = reasons(BEFORE_NORM, "conv_1.bias")
coordinate = rows("coordinate", 5, "bchw", "neither", "neither", without_gradient=strips)
simam = rows("simam", 5, "bchw", "equivariant", "equivariant")
gc = rows("gc", 6, None, "neither", "equivariant", without_gradient=reasons(SOFTMAX, "W_k.bias"))
sk = rows("sk", 6, None, "neither", "neither", batch_statistics=True)
triplet = rows("triplet", 5, "bchw", "neither", "neither", batch_statistics=True)

MECHANISMS = [
    se({"reduction": 2}),
    se({"reduction": 3, "bias": False}),
    se({"reduction": 2, "pool": "max", "gate": "hard_sigmoid"}),
    eca(),
    eca({"kernel_size": 5}),
    eca({"kernel_size": 3, "padding": "circular", "bias": True}),
    cbam({"reduction": 2}, batch_statistics=True),
    cbam({"reduction": 3, "kernel_size": 3, "norm": False, "order": "spatial-channel"}),
    bam({"reduction": 2}),
    bam({"reduction": 3, "combine": "multiply"}),
    sam(batch_statistics=True),
    sam({"kernel_size": 3, "norm": False, "bias": True}),
    point_sam(batch_statistics=True),
    point_sam({"norm": False}),
    nam(stops_gradient="the weights are read out of the graph"),
    nam({"detach": False}),
    nam(
        {"branch": "both", "size": (5, 7), "detach": False},
        fixed_size=(5, 7),
        positions_permuted="neither",
    ),
    nam(
        {"branch": "pixel", "size": (5, 7), "absolute": False, "detach": False},
        fixed_size=(5, 7),
        channels_permuted="equivariant",
        positions_permuted="neither",
    ),
    gam({"reduction": 2}),
    gam({"reduction": 2, "groups": 2, "channel_sigmoid": False}),
    nonlocal_({"similarity": "gaussian"}, without_gradient=WITH_SOFTMAX),
    nonlocal_({"similarity": "embedded"}, without_gradient=WITH_SOFTMAX | reasons(SOFTMAX, "phi.bias")),
    nonlocal_({"similarity": "euclidean"}, without_gradient=WITH_SOFTMAX),
    nonlocal_({"similarity": "dot"}, without_gradient=OUTER),
    nonlocal_({"similarity": "concatenation"}, without_gradient=OUTER),
    nonlocal_({"similarity": "embedded", "norm": False, "bias": False}, batch_statistics=False),
    nonlocal_(
        {"similarity": "dot", "pool": True},
        smallest_side=2,
        positions_permuted="neither",
        without_gradient=OUTER,
    ),
    emau({"bases": 3}),
    emau(
        {"bases": 3, "detach": True},
        stops_gradient="expectation and maximisation run without gradients",
        without_gradient=reasons("only they use it", "conv_in.weight", "conv_in.bias"),
    ),
    ema({"groups": 2}),
    coordinate(),
    simam(),
    gc({"reduction": 2}),
    gc({"reduction": 2, "combine": "multiply"}, positions_permuted="invariant gate"),
    sk({"groups": 2, "minimum": 4}),
    triplet({"kernel_size": 3}),
]

each = pytest.mark.parametrize(
    "mechanism", MECHANISMS, ids=[f"{m.name}-{'-'.join(map(str, m.options.values()))}" for m in MECHANISMS]
)
# the audit's checks, without the one for gradients, for which exceptions are declared
AUDITED = [check for check in CHECKS if check.__name__ != "check_gradients"]


def equal(a, b):
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_every_mechanism_is_declared():
    assert {m.name for m in MECHANISMS} == set(REGISTRY)


@each
@pytest.mark.parametrize("check", AUDITED, ids=lambda check: check.__name__.removeprefix("check_"))
def test_the_audit_holds(mechanism, check):
    """Shape, dtype, input, finite output, determinism, independent images, sizes, state, state dict ..."""
    found = check(mechanism.build(), mechanism.features())
    if check.__name__ == "check_sizes" and not mechanism.takes(1, 1):
        assert found.holds is False, "the declared limit of its sizes was not found"
    else:
        assert found.holds is not False, found.sentence


@each
def test_parameters_get_a_gradient_but_for_the_declared_ones(mechanism):
    found = without_gradient(mechanism.build(), mechanism.features())
    assert set(found) == set(mechanism.without_gradient), found
    assert set(found.values()) <= {"none", "zero"}, found
    assert all(mechanism.without_gradient.values()), "each exception needs its reason"


@each
def test_gradients_are_those_of_the_differences(mechanism):
    height, width = mechanism.fixed_size or (3, 2)
    module, x = mechanism.build(), mechanism.features(1, height, width).requires_grad_()
    names = [name for name, _ in module.named_parameters()]
    values = [p.detach().clone().requires_grad_() for p in module.parameters()]

    def forward(x, *values):
        return functional_call(module, dict(zip(names, values, strict=True)), x)

    agrees = torch.autograd.gradcheck(forward, (x, *values), raise_exception=False)
    assert agrees == (not mechanism.stops_gradient)


@each
def test_the_gate_has_the_declared_shape(mechanism):
    module, x = mechanism.build(), mechanism.features()
    assert has_weights(module, x) == (mechanism.gate is not None)
    if mechanism.gate is not None:
        sizes = dict(zip("bchw", x.shape, strict=True)) | {"1": 1}
        assert list(module.weights(x).shape) == [sizes[letter] for letter in mechanism.gate]


@each
def test_permuting_channels(mechanism):
    module, x = mechanism.build(), mechanism.features()
    order = torch.randperm(mechanism.channels, generator=torch.Generator().manual_seed(1))
    follows = torch.allclose(module(x[:, order]), module(x)[:, order], rtol=1e-9, atol=1e-9)
    assert ("equivariant" if follows else "neither") == mechanism.channels_permuted


@each
def test_permuting_positions(mechanism):
    module, x = mechanism.build(), mechanism.features()
    order = torch.randperm(x[0, 0].numel(), generator=torch.Generator().manual_seed(1))

    def permuted(x):
        return x.flatten(2)[:, :, order].view_as(x)

    gate = gate_of(module, x)
    if torch.allclose(gate(permuted(x)), gate(x), rtol=1e-9, atol=1e-9):
        found = "invariant gate"
    elif torch.allclose(module(permuted(x)), permuted(module(x)), rtol=1e-9, atol=1e-9):
        found = "equivariant"
    else:
        found = "neither"
    assert found == mechanism.positions_permuted


@each
def test_memory_format_does_not_matter(mechanism):
    module, x = mechanism.build(), mechanism.features()
    wanted = module(x)
    equal(module(x.to(memory_format=torch.channels_last)), wanted)
    turned = x.transpose(2, 3).contiguous().transpose(2, 3)
    assert not turned.is_contiguous()
    equal(module(turned), wanted)
    every_other = torch.stack([x, draw(x.shape).to(x)], -1).flatten(3)[..., ::2]
    assert not every_other.is_contiguous()
    equal(module(every_other), wanted)


@each
@pytest.mark.parametrize("height_and_width", [(5, 7), (4, 4), (1, 6), (1, 1)])
@pytest.mark.parametrize("train", [False, True])
def test_a_batch_of_images_of_any_size_trains_and_evaluates(mechanism, height_and_width, train):
    module = mechanism.build().train(train)
    x = mechanism.features(3, *height_and_width).requires_grad_()
    if not mechanism.takes(*height_and_width):
        with pytest.raises(ValueError, match=r"size|2 x 2"):
            module(x)
        return
    y = module(x)
    assert y.shape == x.shape
    assert y.isfinite().all()
    y.sum().backward()
    assert x.grad.isfinite().all()


@each
def test_training_on_one_value_for_each_channel(mechanism):
    if not mechanism.takes(1, 1):
        pytest.skip("it takes no map of one place")
    module, x = mechanism.build().train(), mechanism.features(1, 1, 1)
    if mechanism.batch_statistics:
        with pytest.raises(ValueError, match="more than 1 value"):
            module(x)
    else:
        assert module(x).isfinite().all()


@each
def test_bfloat16_stays_near(mechanism):
    module, x = mechanism.build(), mechanism.features()
    wanted = module(x)
    found = module.to(torch.bfloat16)(x.to(torch.bfloat16)).double()
    assert (found - wanted).abs().max() < 0.05 * wanted.abs().max()


@each
@pytest.mark.no_shape_hook
@pytest.mark.parametrize("train", [False, True])
def test_compiles_without_a_graph_break(mechanism, train):
    module, x = mechanism.build().train(train), mechanism.features()
    torch.compiler.reset()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    equal(compiled(x), module(x))


@each
def test_the_state_dict_loads_into_a_fresh_instance(mechanism):
    module, x = mechanism.build(), mechanism.features()
    wanted = module(x)
    fresh = build_attention(mechanism.name, mechanism.channels, **mechanism.options).double().eval()
    assert not torch.allclose(fresh(x), wanted) or not module.state_dict()
    fresh.load_state_dict(module.state_dict())
    equal(fresh(x), wanted)
