"""What the learner passed is kept whole, set aside when damaged, and never in a test's way."""

import json
import os
import re
from datetime import date
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

from attnlib.exercises import all_exercises, check, progress
from attnlib.exercises.overview import draw_progress


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("ATTNLIB_PROGRESS", str(tmp_path / "kept" / "here"))
    return tmp_path / "kept" / "here"


@pytest.mark.parametrize("value", [None, ""])
def test_without_the_variable_it_is_the_place_for_user_data(monkeypatch, value):
    monkeypatch.delenv("ATTNLIB_PROGRESS")
    if value is not None:
        monkeypatch.setenv("ATTNLIB_PROGRESS", value)
    assert progress.folder().parts[-2:] == ("attnlib", "progress")


def test_a_pass_is_remembered_with_its_day(folder):
    assert progress.passed() == {}
    progress.record("08.1")
    progress.record("08.2")
    assert progress.passed() == {"08.1": date.today(), "08.2": date.today()}
    assert sorted(p.name for p in folder.iterdir()) == ["08.1.json", "08.2.json"]  # and no half-written file


def test_the_first_pass_keeps_its_day(folder):
    progress.record("08.1")
    (folder / "08.1.json").write_text(json.dumps({"exercise": "08.1", "passed": "2020-02-03"}), "utf-8")
    progress.record("08.1")
    assert progress.passed() == {"08.1": date(2020, 2, 3)}


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"exercise": "08.1"}', '{"exercise": "08.1", "passed": "soon"}']
)
def test_a_damaged_file_is_set_aside_with_a_message(folder, capsys, text):
    progress.record("08.2")
    (folder / "08.1.json").write_text(text, encoding="utf-8")
    assert set(progress.passed()) == {"08.2"}
    assert "08.1.json could not be read and was set aside as 08.1.json.damaged" in capsys.readouterr().out
    assert (folder / "08.1.json.damaged").read_text(encoding="utf-8") == text


def test_further_damaged_files_do_not_replace_the_first(folder, capsys):
    progress.record("08.2")
    for text in ("one", "two", "three"):
        (folder / "08.1.json").write_text(text, encoding="utf-8")
        progress.passed()
    assert (folder / "08.1.json.damaged").read_text(encoding="utf-8") == "one"
    assert (folder / "08.1.json.damaged-2").read_text(encoding="utf-8") == "two"
    assert (folder / "08.1.json.damaged-3").read_text(encoding="utf-8") == "three"


def test_a_place_that_cannot_be_written_is_no_reason_to_stop(tmp_path, monkeypatch, capsys):
    (tmp_path / "a_file").write_text("", encoding="utf-8")
    monkeypatch.setenv("ATTNLIB_PROGRESS", str(tmp_path / "a_file"))
    check("08.b", "c")
    printed = capsys.readouterr().out
    assert "✓ 08.b: right." in printed
    assert re.search(r"^This pass could not be remembered in .*a_file: .+\.$", printed, flags=re.M)


def test_an_interrupted_write_leaves_the_old_text(tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    progress.write_atomically(path, "old")

    def broken(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(progress.os, "replace", broken)
    with pytest.raises(KeyboardInterrupt):
        progress.write_atomically(path, "new")
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]
    assert path.read_text(encoding="utf-8") == "old"


def test_a_file_is_on_the_disk_before_it_takes_its_place(tmp_path, monkeypatch):
    seen = []

    def replace(temporary, path):
        seen.append((Path(temporary).parent, Path(temporary).suffix))

    monkeypatch.setattr(progress.os, "fsync", lambda handle: seen.append(os.fstat(handle).st_size))
    monkeypatch.setattr(progress.os, "replace", replace)
    progress.write_atomically(tmp_path / "x.json", "seven..")
    assert seen == [7, (tmp_path, ".part")]  # beside its place, where replace is one step; no *.json


def test_only_what_passes_is_remembered(folder, capsys):
    check("08.b", "a")
    check("08.b", ...)
    assert progress.passed() == {}
    check("08.b", "C")
    assert set(progress.passed()) == {"08.b"}


def test_the_figure_has_a_bar_for_each_notebook_and_what_is_passed_of_it(folder):
    for name in ("08.1", "08.b", "toolbox.3"):
        progress.record(name)
    plt.switch_backend("agg")
    ax = plt.subplots()[1]
    plt.figure()  # the last figure is another one
    assert draw_progress(ax=ax) is ax
    plt.close("all")
    there, passed = ([bar.get_width() for bar in bars] for bars in ax.containers)
    exercises = all_exercises()
    assert there == [len(names) for names in exercises.values()]
    assert dict(zip(exercises, passed, strict=True)) == {**dict.fromkeys(exercises, 0), "08": 2, "toolbox": 1}
    assert {"notebook 08", "toolbox"} <= {text.get_text() for text in ax.get_yticklabels()}
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["to do", "passed"]
    assert ax.get_xlabel() == "exercises and recall questions"
    bottom, top = ax.get_ylim()
    assert bottom > top  # the first notebook is on top
