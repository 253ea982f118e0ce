"""Learners' copies: made once, never written over, and compared with the originals they came from."""

import json
import os
import sys
from pathlib import Path

import pytest

from attnlib.lab import workspace
from attnlib.lab.workspace import copy_notebooks, open_course, run_jupyterlab, source_hash

NAMES = ["00_start_here.ipynb", "01_what_is_attention.ipynb", "02_self_attention.ipynb"]


def write_notebook(path: Path, built: str, source: str = "1 + 1") -> None:
    cell = {"cell_type": "code", "source": source, "outputs": [], "metadata": {}, "execution_count": None}
    path.write_text(
        json.dumps({"cells": [cell], "metadata": {"attnlib": {"source_hash": built}}, "nbformat": 4}),
        encoding="utf-8",
    )


@pytest.fixture
def course(tmp_path: Path) -> Path:
    """A repository with three notebooks and nothing else."""
    (tmp_path / "notebooks").mkdir()
    for name in NAMES:
        write_notebook(tmp_path / "notebooks" / name, built=f"first {name}")
    return tmp_path


def copy(course: Path) -> list[str]:
    return copy_notebooks(course / "notebooks", course / "work")


class Server:
    """Stands in for JupyterLab: remembers how it was started, then waits as told."""

    def __init__(self, *waits: int | type[BaseException]) -> None:
        self.waits = list(waits)

    def __call__(self, command: list[str], cwd: Path, env: dict[str, str]) -> "Server":
        self.command, self.cwd, self.env = command, cwd, env
        return self

    def wait(self) -> int:
        outcome = self.waits.pop(0)
        if isinstance(outcome, int):
            return outcome
        raise outcome


def test_every_notebook_is_copied_once_and_nothing_else(course):
    (course / "notebooks" / "build.py").write_text("pass", encoding="utf-8")
    assert copy(course) == []
    assert sorted(p.name for p in (course / "work").iterdir()) == NAMES
    for name in NAMES:
        assert (course / "work" / name).read_bytes() == (course / "notebooks" / name).read_bytes()


def test_an_edited_copy_survives(course):
    copy(course)
    edited = course / "work" / NAMES[1]
    write_notebook(edited, built=f"first {NAMES[1]}", source="my answer")
    before = edited.read_bytes()
    for _ in range(2):
        assert copy(course) == [], "an edited copy of the newest version needs no attention"
        assert edited.read_bytes() == before


def test_a_newer_original_is_announced_and_comes_after_a_rename(course):
    copy(course)
    edited = course / "work" / NAMES[1]
    write_notebook(edited, built=f"first {NAMES[1]}", source="my answer")
    before = edited.read_bytes()
    write_notebook(course / "notebooks" / NAMES[1], built="second")
    line = "work/01_what_is_attention.ipynb: the course has a newer version"
    assert [said.startswith(line) for said in copy(course)] == [True]
    assert edited.read_bytes() == before

    edited.rename(course / "work" / "mine.ipynb")
    assert copy(course) == []
    assert source_hash(edited) == "second"
    assert (course / "work" / "mine.ipynb").read_bytes() == before


@pytest.mark.parametrize(
    "content", [b"", b"{not json", b"\xff\xfe", b"[]", b'{"metadata": {}}', b'{"metadata": {"attnlib": 3}}']
)
def test_a_copy_that_cannot_be_read_is_named_and_left_alone(course, content):
    copy(course)
    damaged = course / "work" / NAMES[2]
    damaged.write_bytes(content)
    (said,) = copy(course)
    assert said.startswith("work/02_self_attention.ipynb cannot be read")
    assert damaged.read_bytes() == content


def test_an_interrupted_copy_leaves_nothing(course, monkeypatch):
    def stop_half_way(original, part):
        part.write_bytes(original.read_bytes()[:20])
        raise KeyboardInterrupt

    monkeypatch.setattr(workspace.shutil, "copyfile", stop_half_way)
    with pytest.raises(KeyboardInterrupt):
        copy(course)
    assert list((course / "work").iterdir()) == []


def test_without_the_repository_it_says_what_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"notebooks in .*, found none; get the whole repository"):
        open_course(tmp_path, open_lab=False)
    assert list(tmp_path.iterdir()) == []


def test_open_course_prints_what_needs_attention_then_starts(course, monkeypatch, capsys):
    monkeypatch.setattr(workspace.subprocess, "Popen", server := Server(0))
    copy(course)
    write_notebook(course / "notebooks" / NAMES[0], built="second")
    assert open_course(course, ["--port", "9000"]) == 0
    assert capsys.readouterr().out.startswith("work/00_start_here.ipynb: the course has a newer version")
    assert server.command[-2:] == ["--port", "9000"]


def test_open_course_can_stop_after_copying(course, monkeypatch):
    monkeypatch.delattr(workspace.subprocess, "Popen")
    assert open_course(course, open_lab=False) == 0
    assert (course / "work" / NAMES[0]).exists()


def test_jupyterlab_is_started_on_this_computer_with_the_courses_settings(course, monkeypatch):
    monkeypatch.setattr(workspace.subprocess, "Popen", server := Server(3))
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", "elsewhere")
    assert run_jupyterlab(course, ["--no-browser"]) == 3
    assert server.command[:4] == [sys.executable, "-m", "jupyter", "lab"]
    assert "--LabApp.default_url=/lab/tree/work/00_start_here.ipynb" in server.command
    assert "--ServerApp.ip=127.0.0.1" in server.command
    assert f"--ServerApp.root_dir={course}" in server.command
    assert server.command[-1] == "--no-browser", "the learner's arguments come last, so that they win"
    assert server.env["JUPYTER_CONFIG_PATH"] == f"{course / '.jupyter'}{os.pathsep}elsewhere"
    assert server.cwd == course


@pytest.mark.parametrize(("user", "allowed"), [(0, True), (1000, False), (None, False)])
def test_only_root_needs_allow_root(course, monkeypatch, user, allowed):
    monkeypatch.setattr(workspace.subprocess, "Popen", server := Server(0))
    if user is None:
        monkeypatch.delattr(workspace.os, "geteuid", raising=False)
    else:
        monkeypatch.setattr(workspace.os, "geteuid", lambda: user, raising=False)
    run_jupyterlab(course)
    assert ("--allow-root" in server.command) == allowed


def test_ctrl_c_waits_for_the_server_and_ends_quietly(course, monkeypatch):
    monkeypatch.setattr(
        workspace.subprocess, "Popen", server := Server(KeyboardInterrupt, KeyboardInterrupt, 1)
    )
    assert run_jupyterlab(course) == 0
    assert server.waits == []
