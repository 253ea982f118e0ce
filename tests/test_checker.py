"""The checker itself: what it says to answers that no bank knows."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from attnlib.exercises import checker
from attnlib.exercises.checker import (
    Exercise,
    Wrong,
    all_exercises,
    check,
    choice,
    departure,
    diagnose,
    find,
    inputs,
    named,
    ramp,
)


def double(x):
    return 2 * x


DOUBLE = Exercise(
    reference=double,
    right=(),
    inputs=lambda: [(torch.ones(2, 3, dtype=torch.float64),), (torch.zeros(1, dtype=torch.float64),)],
    wrong=(Wrong(lambda x: x, "you forgot to double"), Wrong(lambda x: x.no_such, "there is no such method")),
)
ON_THE_FIRST = "with x of shape (2, 3), "


def changes_its_input(x):
    x += 1e-6
    return 2 * (x - 1e-6)


def raises(x):
    raise RuntimeError("first line\nsecond line")


def raises_without_a_word(x):
    raise AssertionError


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (lambda x: x, "you forgot to double"),
        (lambda x: x.no_such, "there is no such method"),
        (
            lambda x: x.other,
            ON_THE_FIRST + "your function raises AttributeError: 'Tensor' object has no attribute 'other'",
        ),
        (lambda x: None, ON_THE_FIRST + "your function returns None; does it end in a return?"),
        (lambda x: 2 * x[0], ON_THE_FIRST + "expected a tensor of shape (2, 3), got a tensor of shape (3,)"),
        (
            lambda x: 2 * x + (x * 0).index_fill(1, torch.tensor(2), 1),
            ON_THE_FIRST + "expected 2 at [0, 2], got 3",
        ),
        (
            lambda x: [2 * row for row in x],
            ON_THE_FIRST
            + "expected a tensor of shape (2, 3), got a list of 2 tensors (torch.stack joins tensors of one shape)",
        ),
        (
            lambda x: {"y": 2 * x},
            ON_THE_FIRST + "expected a tensor of shape (2, 3), got a dict with the keys y",
        ),
        (lambda x: (2 * x).sum(), ON_THE_FIRST + "expected a tensor of shape (2, 3), got 12"),
        (
            lambda x: (2 * x[0]).numpy(),
            ON_THE_FIRST + "expected a tensor of shape (2, 3), got NumPy array",
        ),
        (lambda x: "two", ON_THE_FIRST + "expected a tensor of shape (2, 3), got 'two'"),
        (lambda x: x.double() * float("nan"), ON_THE_FIRST + "expected 2 at [0, 0], got nan"),
        (
            changes_its_input,
            ON_THE_FIRST + "your function changes its input; compute into a new tensor instead",
        ),
        (raises, ON_THE_FIRST + "your function raises RuntimeError: first line"),
        (raises_without_a_word, ON_THE_FIRST + "your function raises AssertionError: "),
        (
            lambda x: 2 * x + 1e-8 + (x.numel() == 1),
            "with x of shape (1,), expected 0 at [0], got 1",
        ),
        (
            torch.ones(2),
            "expected a function, got a tensor of shape (2,); hand over its name, without brackets behind it",
        ),
        (3, "expected a function, got 3; hand over its name, without brackets behind it"),
    ],
)
def test_what_a_wrong_answer_is_told(answer, sentence):
    assert diagnose(DOUBLE, answer) == sentence


@pytest.mark.parametrize("answer", [double, lambda x: x + x, lambda x: 2 * x + 1e-8])
def test_right_answers_pass(answer):
    assert diagnose(DOUBLE, answer) is None


@pytest.mark.parametrize(
    ("convert", "kind"),
    [
        (torch.Tensor.float, "float32 tensor"),
        (torch.Tensor.numpy, "NumPy array"),
        (torch.Tensor.tolist, "list"),
    ],
)
def test_right_numbers_of_another_kind_are_named_since_cells_below_would_fail(convert, kind):
    assert diagnose(DOUBLE, lambda x: convert(2 * x)) == (
        f"{ON_THE_FIRST}the right answer is a float64 tensor, yours is a {kind}; "
        "stay with torch, and with the dtype of the input"
    )


def test_a_stub_is_recognised_by_what_it_raises():
    def stub(x):
        raise NotImplementedError

    assert diagnose(DOUBLE, stub) == "not written yet; the notebook goes on with the course's own version"


def test_an_answer_with_a_case_left_open_is_not_written_yet():
    def half_written(x):
        if x.numel() == 1:
            raise NotImplementedError
        return 2 * x

    assert diagnose(DOUBLE, half_written).startswith("not written yet")


def test_the_arguments_are_named_as_the_reference_names_them():
    assert named(lambda x, W, r: x, (torch.ones(2, 3), torch.tensor(0.5), 4)) == (
        "x of shape (2, 3), W = 0.5 and r = 4"
    )


@pytest.mark.parametrize(
    ("praise", "line"), [("Well done.", "✓ 77.1: right. Well done."), ("", "✓ 77.1: right.")]
)
def test_a_right_answer_gets_its_praise(monkeypatch, capsys, praise, line):
    exercise = replace(DOUBLE, praise=praise)
    monkeypatch.setattr(checker, "find", lambda name: exercise)
    check("77.1", double)
    assert capsys.readouterr().out == f"{line}\n"


def test_check_returns_the_learners_function_only_if_it_passes(capsys):
    def mine(x, W_1, W_2):
        return torch.sigmoid((x.mean((2, 3)) @ W_1.T).clamp(min=0) @ W_2.T)

    assert check("08.1", mine) is mine
    assert check("08.1", lambda *_: None) is find("08.1").reference
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("✓ 08.1: right.") and printed[1].startswith("✗ 08.1: with x of shape")


def test_a_choice_takes_letters_however_they_are_written():
    question = choice("b", {"a": "not a"}, "Yes.")
    assert question.praise == "Yes."
    assert [diagnose(question, answer) for answer in ("b", "B", " (b). ", "a", ...)] == [
        None,
        None,
        None,
        "not a",
        "not answered yet; put your letter in the place of the three dots",
    ]
    assert diagnose(question, "x") == "'x' is not one of the choices; answer with a letter, such as 'a'"
    assert diagnose(question, 2) == "2 is not one of the choices; answer with a letter, such as 'a'"


def test_results_of_several_parts_are_compared_part_by_part():
    expected = (torch.ones(2), {"kept": 1})
    assert (
        departure((torch.ones(2), 3.0), (torch.ones(2), 4.0), 1e-6)
        == "item 1 of the result: expected 3, got 4"
    )
    assert departure(expected, torch.ones(2), 1e-6) == (
        "expected a tuple of 2 tensors (torch.stack joins tensors of one shape), got a tensor of shape (2,)"
    )
    assert departure("a", "b", 0.0) == "expected 'a', got 'b'"


def test_a_large_number_may_be_off_by_more():
    assert departure(2000.0, 2000.001, 1e-6) is None
    assert departure(0.002, 0.0020005, 1e-6) is None
    assert departure(2000.0, 2000.003, 1e-6) == "expected 2000, got 2000"
    assert departure(0.002, 0.002002, 1e-6) == "expected 0.002, got 0.002002"


def test_single_numbers_may_be_of_any_kind_and_nan_equals_nan():
    assert departure(torch.tensor(2.0), 2, 0.0) is None
    assert departure(float("nan"), float("nan"), 0.0) is None


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (lambda C, gamma, b: torch.tensor(find("09.2").reference(C, gamma, b)), True),
        (lambda C, gamma, b: float(find("09.2").reference(C, gamma, b)), True),
        (lambda C, gamma, b: find("09.2").reference(C, gamma, b) * (1.0 if C == 300 else 1), True),
        (lambda C, gamma, b: np.int64(find("09.2").reference(C, gamma, b)), False),
    ],
)
def test_a_kernel_size_must_be_a_whole_number(answer, told):
    assert diagnose(find("09.2"), answer) == (find("09.2").whole if told else None)
    assert ("int" in find("09.2").whole) and not find("11.3").whole  # elsewhere 5.0 may stand for 5


def test_two_errors_are_the_same_if_type_and_text_agree():
    assert departure(ValueError("x"), ValueError("x"), 0.0) is None
    assert departure(ValueError("x"), TypeError("x"), 0.0) is not None
    assert departure(ValueError("x"), ValueError("y"), 0.0) is not None


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("08.9", r"exercise='08.9' is not one of .*did you mean '08\..'\?"),
        ("77.1", "there is no exercise '77.1': no notebook '77' has exercises"),
        ("checker.1", "there is no exercise 'checker.1': no notebook 'checker' has exercises"),
    ],
)
def test_a_name_that_does_not_exist_is_refused(name, sentence):
    with pytest.raises(ValueError, match=sentence):
        check(name, double)


def test_every_notebook_with_exercises_is_listed():
    listed = all_exercises()
    assert {"00", "toolbox", "08"} <= set(listed)
    assert list(listed) == sorted(listed)
    assert listed["08"][:3] == ["08.a", "08.b", "08.c"]


def test_ramp_is_the_same_everywhere():
    assert ramp(2, 2).dtype == torch.float64
    assert [round(v, 6) for v in ramp(2, 2).flatten().tolist()] == [0.841471, 0.979908, 0.985719, 0.858118]


def test_the_generic_sentence_names_an_input_that_can_be_had(capsys):
    check("00.1", lambda weights, values: 3 * weights @ values)
    assert 'attnlib.exercises.inputs("00.1")[0] holds this input' in capsys.readouterr().out
    weights, values = inputs("00.1")[0]
    assert torch.equal(find("00.1").reference(weights, values), weights @ values)


def test_a_condition_on_a_whole_tensor_is_explained():
    sentence = diagnose(DOUBLE, lambda x: 2 * x if x > 0 else x)
    assert sentence == ON_THE_FIRST + (
        "you use `and`, `or` or `if` on a whole tensor; write (a > 0) & (b < 1), with brackets"
    )


def test_a_number_too_large_to_compare_is_no_crash():
    sentence = diagnose(DOUBLE, lambda x: 10**400)
    assert (
        sentence.startswith(ON_THE_FIRST + "expected a tensor of shape (2, 3), got 1000")
        and len(sentence) < 120
    )
