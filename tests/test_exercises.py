"""Every exercise: right answers pass, each wrong answer is told its own sentence, a stub is left alone."""

import pytest

from attnlib.exercises import all_exercises, check
from attnlib.exercises.checker import diagnose, find, untouched

NAMES = [name for names in all_exercises().values() for name in names]
RIGHT = [(name, i) for name in NAMES for i in range(len(find(name).right))]
WRONG = [(name, i) for name in NAMES for i in range(len(find(name).wrong))]


@pytest.mark.parametrize("name", NAMES)
def test_it_has_enough_answers_and_distinct_sentences(name):
    exercise = find(name)
    assert len(exercise.right) >= 2
    sentences = [wrong.says for wrong in exercise.wrong]
    assert len(set(sentences)) == len(sentences) >= 4


@pytest.mark.parametrize("name", NAMES)
def test_the_reference_passes_and_is_handed_back(name, capsys):
    exercise = find(name)
    returned = check(name, exercise.reference)
    assert capsys.readouterr().out.startswith(f"✓ {name}: right.")
    assert returned is (exercise.reference if exercise.is_function else None)


@pytest.mark.parametrize(("name", "i"), RIGHT)
def test_a_right_answer_written_otherwise_passes(name, i):
    assert diagnose(find(name), find(name).right[i]) is None


@pytest.mark.parametrize(("name", "i"), WRONG)
def test_a_wrong_answer_is_told_its_own_sentence(name, i):
    wrong = find(name).wrong[i]
    assert diagnose(find(name), wrong.answer) == wrong.says


@pytest.mark.parametrize("name", NAMES)
def test_an_untouched_stub_prints_one_line(name, capsys):
    def stub(*arguments):
        raise NotImplementedError

    exercise = find(name)
    returned = check(name, stub if exercise.is_function else ...)
    assert capsys.readouterr().out == f"○ {name}: {untouched(exercise)}\n"
    assert returned is (exercise.reference if exercise.is_function else None)


@pytest.mark.parametrize("name", NAMES)
def test_any_other_wrong_answer_gets_a_sentence(name):
    sentence = diagnose(find(name), (lambda *arguments: None) if find(name).is_function else 3.5)
    assert "returns None" in sentence or "answer with a letter" in sentence
