"""The argument checks: each message says what was expected, what came and what would do."""

import re

import pytest
import torch

from attnlib._checks import (
    check_choice,
    check_divides,
    check_feature_map,
    check_odd,
    check_positive,
    check_queries_keys,
    check_values,
    nearest,
)

pytestmark = pytest.mark.no_shape_hook


def message(text: str) -> str:
    return f"^{re.escape(text)}$"


@pytest.mark.parametrize("value", [0, -3, 2.0, True, "4", None])
def test_check_positive_names_argument_and_value(value):
    with pytest.raises(
        ValueError, match=message(f"channels={value!r} should be a whole number of at least 1")
    ):
        check_positive("channels", value)


def test_check_positive_accepts_one():
    check_positive("channels", 1)


@pytest.mark.parametrize(("value", "use"), [(2, "1 or 3"), (8, "7 or 9")])
def test_check_odd_names_the_neighbours(value, use):
    text = f"kernel_size={value} is even, so its window would have no middle; use {use}"
    with pytest.raises(ValueError, match=message(text)):
        check_odd("kernel_size", value)


@pytest.mark.parametrize("value", [0, -3, 3.0, True, None])
def test_check_odd_wants_a_positive_whole_number_first(value):
    text = f"kernel_size={value!r} should be a whole number of at least 1"
    with pytest.raises(ValueError, match=message(text)):
        check_odd("kernel_size", value)


def test_check_odd_accepts_one_and_seven():
    check_odd("kernel_size", 1)
    check_odd("kernel_size", 7)


@pytest.mark.parametrize(
    ("value", "divisor", "use"),
    [(30, 16, "15 or 10"), (7, 2, "1 or 7"), (64, 24, "16 or 32"), (2, 16, "2 or 1"), (1, 5, "1")],
)
def test_check_divides_names_the_nearest_divisors(value, divisor, use):
    text = f"channels={value} is not divisible by reduction={divisor}; use {use}"
    with pytest.raises(ValueError, match=message(text)):
        check_divides("channels", value, "reduction", divisor)


def test_check_divides_accepts_a_divisor_and_the_number_itself():
    check_divides("channels", 12, "reduction", 4)
    check_divides("channels", 12, "reduction", 12)


def test_check_divides_checks_both_numbers_first():
    with pytest.raises(ValueError, match=message("channels=0 should be a whole number of at least 1")):
        check_divides("channels", 0, "reduction", 2)
    with pytest.raises(ValueError, match=message("reduction=0 should be a whole number of at least 1")):
        check_divides("channels", 4, "reduction", 0)


def test_check_choice_names_the_nearest_one():
    with pytest.raises(
        ValueError, match=message("pool='maxx' is not one of 'mean', 'max'; did you mean 'max'?")
    ):
        check_choice("pool", "maxx", ["mean", "max"])


def test_check_choice_names_none_where_none_is_near():
    with pytest.raises(ValueError, match=message("pool=7 is not one of 'mean', 'max'")):
        check_choice("pool", 7, ["mean", "max"])


def test_check_choice_accepts_each_key_of_a_dict():
    check_choice("gate", "b", {"a": 1, "b": 2})


def test_nearest():
    assert nearest("reductoin", ["channels", "reduction"]) == "; did you mean 'reduction'?"
    assert nearest("xyz", ["channels", "reduction"]) == ""


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (
            torch.zeros(3, 5, 7),
            "expected a feature map of shape (batch, 5, height, width), got a tensor of shape (3, 5, 7); add "
            "or remove axes so that there are four",
        ),
        (
            torch.zeros(2, 7, 3, 5),
            "this module was built for channels=5, the input of shape (2, 7, 3, 5) has 7; build it with "
            "channels=7 or check the axis order (b, c, h, w)",
        ),
        (
            torch.zeros(2, 5, 3, 7, dtype=torch.int64),
            "expected floating-point features, got torch.int64; convert with x.float()",
        ),
        (
            torch.zeros(2, 5, 0, 7),
            "expected a feature map with at least one element, got shape (2, 5, 0, 7)",
        ),
    ],
)
def test_check_feature_map(x, text):
    with pytest.raises(ValueError, match=message(text)):
        check_feature_map(x, 5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_check_feature_map_accepts_floats(dtype):
    check_feature_map(torch.zeros(2, 5, 1, 1, dtype=dtype), 5)


WIDTHS = (
    "queries have 4 features and keys 6; this score compares them one by one, so project one of the two, or "
    "use BilinearScore or AdditiveScore"
)
QUERIES = "expected q of shape (..., queries, features), got (4,); add the axis that counts the queries"
KEYS = "expected k of shape (..., keys, features), got (); add the axis that counts the keys"
FIT = "do not fit each other; they should be equal, or of size 1"


@pytest.mark.parametrize(
    ("q", "k", "widths", "text"),
    [
        ((4,), (3, 4), (), QUERIES),
        ((3, 4), (), (), KEYS),
        ((5, 4), (7, 6), (), WIDTHS),
        ((5, 4), (7, 6), (3, 6), "this score was built for q of width 3, got (5, 4)"),
        ((5, 4), (7, 6), (4, 5), "this score was built for k of width 5, got (7, 6)"),
        ((2, 5, 4), (3, 7, 4), (), f"the leading axes of q (2, 5, 4) and k (3, 7, 4) {FIT}"),
        ((2, 3, 5, 4), (2, 7, 6), (4, 6), f"the leading axes of q (2, 3, 5, 4) and k (2, 7, 6) {FIT}"),
    ],
)
def test_check_queries_keys(q, k, widths, text):
    with pytest.raises(ValueError, match=message(text)):
        check_queries_keys(torch.zeros(q), torch.zeros(k), *widths)


def test_check_queries_keys_wants_floats():
    whole, x = torch.zeros(5, 4, dtype=torch.int64), torch.zeros(5, 4)
    for name, q, k in (("q", whole, x), ("k", x, whole)):
        text = f"expected floating-point {name}, got torch.int64; convert with {name}.float()"
        with pytest.raises(ValueError, match=message(text)):
            check_queries_keys(q, k)


@pytest.mark.parametrize(
    ("q", "k", "widths"),
    [
        ((5, 4), (7, 4), ()),
        ((5, 4), (7, 6), (4, 6)),
        ((2, 1, 5, 4), (3, 7, 4), ()),
        ((2, 5, 4), (7, 4), ()),
        ((5, 4), (0, 4), ()),
    ],
)
def test_check_queries_keys_accepts_what_broadcasts(q, k, widths):
    check_queries_keys(torch.zeros(q), torch.zeros(k), *widths)


@pytest.mark.parametrize(
    ("k", "v", "text"),
    [
        ((7, 4), (5, 6), "expected one value for each key, so v of shape (..., 7, features); got (5, 6)"),
        ((7, 4), (7,), "expected one value for each key, so v of shape (..., 7, features); got (7,)"),
        ((2, 7, 4), (3, 7, 6), f"the leading axes of k (2, 7, 4) and v (3, 7, 6) {FIT}"),
    ],
)
def test_check_values(k, v, text):
    with pytest.raises(ValueError, match=message(text)):
        check_values(torch.zeros(5, 4), torch.zeros(k), torch.zeros(v))


def test_check_values_accepts_what_broadcasts():
    check_values(torch.zeros(5, 4), torch.zeros(2, 1, 7, 4), torch.zeros(3, 7, 6))
