"""Gradients by hand, by autograd and by differences: right ones pass, a wrong one is seen where it is."""

import re

import pandas as pd
import pytest
import torch

from attnlib.lab.gradients import central_differences, compare_gradients, gradient_gaps, jacobian


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


INPUTS = {"W": normal(2, 3), "x": normal(3, 5, seed=1)}


def forward(W, x):
    return torch.sigmoid(W @ x)


def backward(upstream, W, x):
    s = forward(W, x)
    inner = upstream * s * (1 - s)
    return {"W": inner @ x.T, "x": W.T @ inner}


def test_central_differences_by_hand():
    x = torch.tensor([[1.0, -2.0, 3.0]], dtype=torch.float64)
    upstream = torch.tensor([[1.0, 10.0, 100.0]], dtype=torch.float64)
    found = central_differences(lambda x: x**2, {"x": x}, upstream)
    expected = torch.tensor([[2.0, -40.0, 600.0]], dtype=torch.float64)
    torch.testing.assert_close(found["x"], expected, rtol=1e-7, atol=0)


def test_central_differences_use_the_given_step():
    x = torch.zeros(1, dtype=torch.float64)
    found = central_differences(lambda x: x**3, {"x": x}, torch.ones_like(x), eps=0.5)
    torch.testing.assert_close(found["x"], torch.full_like(x, 0.25))  # the error is eps^2


def test_central_differences_of_each_input_leave_them_alone():
    inputs = {"W": normal(2, 3), "x": normal(5, 3, seed=1).T}  # the second is not contiguous
    before = {name: x.clone() for name, x in inputs.items()}
    upstream = normal(2, 5, seed=2)
    found = central_differences(forward, inputs, upstream)
    expected = backward(upstream, **inputs)
    for name, x in inputs.items():
        torch.testing.assert_close(found[name], expected[name], rtol=1e-6, atol=1e-8)
        torch.testing.assert_close(x, before[name], rtol=0, atol=0)


def test_right_gradients():
    expected = pd.DataFrame(
        {"shape": [(2, 3), (3, 5)], "hand = autograd": [True, True], "hand = differences": [True, True]},
        index=["W", "x"],
    )
    pd.testing.assert_frame_equal(compare_gradients(forward, backward, INPUTS), expected)


@pytest.mark.parametrize("wrong", ["W", "x"])
def test_a_wrong_gradient_is_seen_in_its_row(wrong):
    def nearly(upstream, W, x):
        gradients = backward(upstream, W, x)
        return gradients | {wrong: gradients[wrong] * (1 + 1e-5)}

    found = compare_gradients(forward, nearly, INPUTS)
    for column in ("hand = autograd", "hand = differences"):
        assert found[column].to_dict() == {name: name != wrong for name in INPUTS}
    assert compare_gradients(forward, nearly, INPUTS, tolerance=1e-4)["hand = autograd"].all()


def test_the_two_columns_differ_where_autograd_is_stopped():
    def stopped(x):
        return x * x.detach()

    found = compare_gradients(stopped, lambda upstream, x: {"x": 2 * upstream * x}, {"x": normal(3, 5)})
    assert not found.loc["x", "hand = autograd"]
    assert found.loc["x", "hand = differences"]


def test_an_input_that_autograd_does_not_reach_has_gradient_zero():
    found = compare_gradients(
        lambda x, y: 2 * x,
        lambda upstream, x, y: {"x": 2 * upstream, "y": 0 * y},
        {"x": normal(3), "y": normal(2)},
    )
    assert found[["hand = autograd", "hand = differences"]].all(axis=None)


def test_nan_is_not_equal():
    found = compare_gradients(
        lambda x: 2 * x, lambda upstream, x: {"x": upstream * torch.nan}, {"x": normal(3)}
    )
    assert not found[["hand = autograd", "hand = differences"]].any(axis=None)


def test_gaps_are_relative_to_the_largest_entry():
    inputs = {"x": normal(3, 5)}
    upstream = torch.ones(3, 5, dtype=torch.float64)
    found = gradient_gaps(
        lambda x: 50 * x, lambda upstream, x: {"x": 49 * upstream}, inputs, upstream=upstream
    )
    assert found.loc["x", "shape"] == (3, 5)
    assert found.loc["x", "hand - autograd"] == pytest.approx(0.02)
    assert found.loc["x", "hand - differences"] == pytest.approx(0.02, rel=1e-4)
    found = gradient_gaps(
        lambda x: 0 * x, lambda upstream, x: {"x": 1e-4 * upstream}, inputs, upstream=upstream
    )
    assert found.loc["x", "hand - autograd"] == pytest.approx(0.01)


def test_upstream_is_given_or_drawn_from_the_seed():
    seen = []

    def watching(upstream, x):
        seen.append(upstream)
        return {"x": 2 * upstream}

    inputs, given = {"x": normal(3, 5)}, normal(3, 5, seed=4)
    for options in [{}, {"seed": 0}, {"seed": 1}, {"upstream": given}]:
        assert compare_gradients(lambda x: 2 * x, watching, inputs, **options)["hand = autograd"].all()
    assert torch.equal(seen[0], seen[1])
    assert not torch.allclose(seen[1], seen[2])
    assert seen[3] is given
    assert seen[0].dtype == torch.float64


@pytest.mark.no_shape_hook
@pytest.mark.parametrize(
    ("returned", "text"),
    [
        ({"W": normal(2, 3)}, "backward returned no gradient for 'x'; expected a dict with W, x"),
        (
            {"W": normal(3, 2), "x": normal(3, 5)},
            "the gradient for 'W' should have its shape (2, 3), got (3, 2); look for a missing sum, mean or "
            "transpose",
        ),
        (
            {"W": normal(2, 3), "x": normal(3, 5), "b": normal(2)},
            "backward returned a gradient for 'b', not an input; expected W, x",
        ),
    ],
)
def test_errors_of_the_gradients_by_hand(returned, text):
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        compare_gradients(forward, lambda upstream, W, x: returned, INPUTS)


@pytest.mark.no_shape_hook
def test_inputs_must_be_float64():
    text = "x is torch.float32; comparing gradients needs float64: convert it with x.double()"
    inputs = INPUTS | {"x": INPUTS["x"].float()}
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        compare_gradients(forward, backward, inputs)
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        central_differences(forward, inputs, normal(2, 5))


@pytest.mark.no_shape_hook
def test_upstream_must_have_the_output_s_shape():
    text = (
        "the upstream gradient should have the output's shape (2, 5), got (5,); there is one number for each "
        "output"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        compare_gradients(forward, backward, INPUTS, upstream=normal(5))
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        central_differences(forward, INPUTS, normal(5))


def test_jacobian():
    A = normal(2, 4, 3)
    found = jacobian(lambda x: torch.einsum("ijk,k->ij", A, x**2), x := normal(3, seed=1))
    assert found.shape == (2, 4, 3)
    torch.testing.assert_close(found, 2 * A * x)
    assert not found.requires_grad
