"""The registry: names, options, and what is said to a misspelt one."""

import inspect
import re

import pytest
from torch import nn

import attnlib
from attnlib.feature_map import REGISTRY, SqueezeExcitation, build_attention


def test_build_passes_channels_and_options_on():
    module = build_attention("se", 12, reduction=3, bias=False, pool="max", gate="hard_sigmoid")
    assert type(module) is SqueezeExcitation
    assert module.W_1.weight.shape == (4, 12)
    assert module.W_1.bias is None
    assert (module.pool, module.gate) == ("max", "hard_sigmoid")


def test_public_name_is_the_registry_s():
    assert attnlib.build_attention is build_attention


@pytest.mark.parametrize("mechanism", REGISTRY.values(), ids=REGISTRY)
def test_every_entry_takes_channels_first_and_the_rest_by_keyword(mechanism):
    assert issubclass(mechanism, nn.Module)
    first, *others = inspect.signature(mechanism).parameters.values()
    assert first.name == "channels"
    assert {p.kind for p in others} <= {inspect.Parameter.KEYWORD_ONLY}


@pytest.mark.no_shape_hook
def test_misspelt_name():
    listed = ", ".join(repr(name) for name in REGISTRY)
    text = f"name='see' is not one of {listed}; did you mean 'se'?"
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        build_attention("see", 12)


@pytest.mark.no_shape_hook
def test_misspelt_option():
    text = "'se' has no option 'reductoin', only reduction, bias, pool, gate; did you mean 'reduction'?"
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        build_attention("se", 12, reductoin=3)


@pytest.mark.no_shape_hook
def test_channels_is_not_an_option():
    module = "'se' has no option 'width', only reduction, bias, pool, gate"
    with pytest.raises(ValueError, match=f"^{re.escape(module)}$"):
        build_attention("se", 12, width=3)


@pytest.mark.no_shape_hook
def test_what_the_mechanism_refuses_comes_through():
    with pytest.raises(ValueError, match=r"^channels=30 is not divisible by reduction=16; use 15 or 10$"):
        build_attention("se", 30)
