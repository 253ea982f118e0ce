"""``check("08.2", f)``: try the learner's answer, say what is wrong with it, and return one that works.

An exercise is one object: the reference, inputs that are the same on every machine, right answers written in
other ways, and a bank of wrong answers, each with the sentence a good tutor would say. An answer that behaves
like one of the bank gets that sentence; any other gets the first place where it departs from the reference.
"""

import copy
import importlib
import inspect
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any

import torch

from attnlib._checks import check_choice
from attnlib.exercises import progress


@dataclass(frozen=True)
class Wrong:
    """A wrong answer and what a tutor says to somebody who gives it."""

    answer: Any
    says: str


@dataclass(frozen=True)
class Exercise:
    """One exercise, or one recall question.

    Attributes:
        reference: the course's own answer: a function, or a value for a recall question.
        right: other ways to write it; the tests require that they pass.
        wrong: the bank; the tests require that each is told its own sentence.
        inputs: makes the list of argument tuples that a function is tried on.
        tolerance: how far a number may be off, relative to max(1, its size).
        praise: what to add to "right".
        whole: for an answer that must be an int: what to say where 5.0 stands for 5. Empty: either will do.
    """

    reference: Any
    right: tuple[Any, ...]
    wrong: tuple[Wrong, ...]
    inputs: Callable[[], list[tuple]] = list
    tolerance: float = 1e-6
    praise: str = ""
    whole: str = ""

    @property
    def is_function(self) -> bool:
        return callable(self.reference)


def choice(right: str, wrong: Mapping[str, str], praise: str) -> Exercise:
    """A recall question: the letter of the right choice, and for each other letter what to say."""
    return Exercise(
        reference=right,
        right=(right.upper(), f" ({right}) "),
        wrong=tuple(Wrong(letter, says) for letter, says in wrong.items()),
        praise=praise,
    )


def exercises_of(notebook: str) -> dict[str, Exercise]:
    """The exercises of one notebook by their names: those of "08" stand in the module ``nb08``."""
    module = f"nb{notebook}" if notebook.isdigit() else notebook
    if not (Path(__file__).parent / f"{module}.py").is_file():
        return {}
    return getattr(importlib.import_module(f"attnlib.exercises.{module}"), "EXERCISES", {})


def all_exercises() -> dict[str, list[str]]:
    """The names of the exercises and recall questions of every notebook that has some."""
    notebooks = [file.stem.removeprefix("nb") for file in sorted(Path(__file__).parent.glob("*.py"))]
    return {notebook: list(exercises_of(notebook)) for notebook in notebooks if exercises_of(notebook)}


def find(name: str) -> Exercise:
    """The exercise called ``name``; ValueError if there is none."""
    notebook = name.partition(".")[0]
    exercises = exercises_of(notebook)
    if not exercises:
        raise ValueError(f"there is no exercise {name!r}: no notebook {notebook!r} has exercises")
    check_choice("exercise", name, exercises)
    return exercises[name]


def check(name: str, answer: Any) -> Any:
    """Try ``answer`` as the exercise ``name``, print one line, and return an answer that works.

    Returns the learner's own function if it passes and the course's otherwise, so that the cells below work
    either way. A recall question (whose answer is a letter) returns None.

    Raises:
        ValueError: if there is no such exercise.
    """
    exercise = find(name)
    verdict = diagnose(exercise, answer, name)
    if verdict is None:
        print(f"✓ {name}: right. {exercise.praise}".rstrip())
        progress.record(name)
    else:
        print(f"{'○' if verdict == untouched(exercise) else '✗'} {name}: {verdict}")
    if exercise.is_function:
        return answer if verdict is None else exercise.reference
    return None


def inputs(name: str) -> list[tuple]:
    """The inputs on which ``check`` tries an answer, to try it on them oneself: ``f(*inputs("08.1")[0])``."""
    return find(name).inputs()


def untouched(exercise: Exercise) -> str:
    if exercise.is_function:
        return "not written yet; the notebook goes on with the course's own version"
    return "not answered yet; put your letter in the place of the three dots"


def diagnose(exercise: Exercise, answer: Any, name: str = "") -> str | None:
    """None for a right answer, else the sentence for the learner of the exercise ``name``."""
    if answer is ...:
        return untouched(exercise)
    if exercise.is_function and not callable(answer):
        return f"expected a function, got {describe(answer)}; hand over its name, without brackets behind it"
    got = outcomes(exercise, answer)
    if any(isinstance(g, NotImplementedError) for g in got):
        return untouched(exercise)
    expected = outcomes(exercise, exercise.reference)
    if matches(got, expected, exercise.tolerance):
        if exercise.whole and not all(isinstance(g, Integral) for g in got):
            return exercise.whole
        return None
    for wrong in exercise.wrong:
        if matches(got, outcomes(exercise, wrong.answer), exercise.tolerance):
            return wrong.says
    return first_departure(exercise, expected, got, name)


class ChangedItsInput:
    """The outcome of a function that wrote into its arguments."""

    def __str__(self) -> str:
        return "changed its input"


def outcomes(exercise: Exercise, answer: Any) -> list[Any]:
    """What the answer does: for a function its result on each input, an exception or a changed input."""
    if not exercise.is_function:
        return [answer.strip(" ().").lower() if isinstance(answer, str) else answer]
    results = []
    for arguments in exercise.inputs():
        kept = copy.deepcopy(arguments)
        try:
            result = answer(*arguments)
        except Exception as error:
            result = error
        if departure(kept, arguments, 0.0) is not None:
            result = ChangedItsInput()
        results.append(result)
    return results


def matches(got: list[Any], expected: list[Any], tolerance: float) -> bool:
    return all(departure(e, g, tolerance) is None for e, g in zip(expected, got, strict=True))


def first_departure(exercise: Exercise, expected: list[Any], got: list[Any], name: str) -> str:
    """The generic sentence: the first input on which the answer departs, with expected and got."""
    if not exercise.is_function:
        return f"{got[0]!r} is not one of the choices; answer with a letter, such as {'a'!r}"
    for number, (arguments, e, g) in enumerate(zip(exercise.inputs(), expected, got, strict=True)):
        where = f"with {named(exercise.reference, arguments)}, "
        if isinstance(g, ChangedItsInput):
            return where + "your function changes its input; compute into a new tensor instead"
        if isinstance(g, Exception):
            first_line = (str(g).splitlines() or [""])[0]
            if "Boolean value of Tensor" in first_line:
                return (
                    where
                    + "you use `and`, `or` or `if` on a whole tensor; write (a > 0) & (b < 1), with brackets"
                )
            return where + f"your function raises {type(g).__name__}: {first_line}"
        if g is None:
            return where + "your function returns None; does it end in a return?"
        if (what := departure(e, g, exercise.tolerance)) is not None:
            see = f'; attnlib.exercises.inputs("{name}")[{number}] holds this input' if name else ""
            return where + what + see
    raise AssertionError("first_departure was called for a right answer")


def named(function: Callable, arguments: tuple) -> str:
    """'x of shape (2, 3) and scale = 2', with the names that the reference gives its arguments."""
    parts = []
    for name, value in inspect.signature(function).bind(*arguments).arguments.items():
        if isinstance(value, torch.Tensor) and value.ndim:
            parts.append(f"{name} of shape {tuple(value.shape)}")
        elif isinstance(value, tuple):
            parts.append(f"{name} of {len(value)} items")
        else:
            parts.append(f"{name} = {describe(value)}")
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def departure(expected: Any, got: Any, tolerance: float) -> str | None:
    """None where two outcomes agree, else 'expected …, got …' at the first place where they do not."""
    if isinstance(expected, (Exception, ChangedItsInput)) or isinstance(got, (Exception, ChangedItsInput)):
        same = type(expected) is type(got) and str(expected) == str(got)
        return None if same else "one raises what the other does not"
    if isinstance(expected, (tuple, list)):
        if not isinstance(got, (tuple, list)) or len(got) != len(expected):
            return f"expected {describe(expected)}, got {describe(got)}"
        for i, (e, g) in enumerate(zip(expected, got, strict=True)):
            if (what := departure(e, g, tolerance)) is not None:
                return f"item {i} of the result: {what}"
        return None
    if isinstance(expected, str):
        return None if expected == got else f"expected {expected!r}, got {got!r}"
    try:
        e, g = (torch.as_tensor(value, dtype=torch.float64) for value in (expected, got))
    except (TypeError, ValueError, OverflowError):
        return f"expected {describe(expected)}, got {describe(got)}"
    if e.shape != g.shape:
        return f"expected {describe(expected)}, got {describe(got)}"
    if isinstance(expected, torch.Tensor) and expected.ndim and kind(got) != kind(expected):
        wanted = f"the right answer is a {kind(expected)}, yours is a {kind(got)}"
        return f"{wanted}; stay with torch, and with the dtype of the input"
    off = ((e - g).abs() > tolerance * e.abs().clamp(min=1)) | (e.isnan() != g.isnan())
    if not off.any():
        return None
    place = tuple(off.nonzero()[0].tolist())
    at = f" at [{', '.join(map(str, place))}]" if place else ""
    return f"expected {e[place].item():.6g}{at}, got {g[place].item():.6g}"


def kind(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} tensor"
    return "NumPy array" if type(value).__module__ == "numpy" else type(value).__name__


def describe(value: Any) -> str:
    if isinstance(value, torch.Tensor) and value.ndim:
        return f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, torch.Tensor):
        return f"{value.item():.6g}"
    if isinstance(value, (tuple, list)) and any(isinstance(v, torch.Tensor) for v in value):
        return f"a {type(value).__name__} of {len(value)} tensors (torch.stack joins tensors of one shape)"
    if isinstance(value, dict):
        return f"a dict with the keys {', '.join(map(str, value))}"
    return (
        reprlib.repr(value)
        if value is None or isinstance(value, (int, float, str, tuple, list))
        else kind(value)
    )


def ramp(*shape: int, step: float = 0.37) -> torch.Tensor:
    """Numbers in (-1, 1) that look random and are the same everywhere: sin(1), sin(1 + step) and so on."""
    return torch.sin(1 + step * torch.arange(torch.Size(shape).numel(), dtype=torch.float64)).reshape(shape)
