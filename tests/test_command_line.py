"""The command line, called as a function and as the programs that a learner types."""

import subprocess
import sys
from importlib.metadata import entry_points

import pytest

from attnlib import __main__ as command_line
from attnlib.__main__ import main
from attnlib.lab import workspace


@pytest.fixture
def opened(monkeypatch) -> list[tuple]:
    """What `attnlib lab` asks of the workspace, instead of doing it."""
    calls = []

    def open_course(root, jupyter_arguments, open_lab):
        calls.append((root, jupyter_arguments, open_lab))
        return 7

    monkeypatch.setattr(workspace, "open_course", open_course)
    return calls


def test_without_arguments_it_prints_help(capsys):
    assert main([]) == 0
    said = capsys.readouterr().out
    assert said.startswith("usage: attnlib")
    assert "lab" in said


def test_an_unknown_command_is_refused(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["lap"])
    assert stopped.value.code == 2
    assert "invalid choice: 'lap'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "passed_on", "open_lab"),
    [
        ([], [], True),
        (["--no-open"], [], False),
        (["--"], [], True),
        (["--", "--no-browser", "--port", "9000"], ["--no-browser", "--port", "9000"], True),
        (["--no-open", "--", "--no-open"], ["--no-open"], False),
    ],
)
def test_lab_passes_its_arguments_on(opened, arguments, passed_on, open_lab):
    assert main(["lab", *arguments]) == 7, "the exit status is JupyterLab's"
    ((root, jupyter_arguments, opens),) = opened
    assert (root / "attnlib" / "__main__.py").samefile(command_line.__file__)
    assert jupyter_arguments == passed_on
    assert opens == open_lab


def test_lab_refuses_an_option_of_jupyterlab_before_the_dashes(opened, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["lab", "--no-browser"])
    assert stopped.value.code == 2
    assert "--no-browser" in capsys.readouterr().err
    assert opened == []


def test_lab_without_the_repository_fails_with_one_line(tmp_path, monkeypatch, capsys):
    installed = tmp_path / "site-packages" / "attnlib" / "__main__.py"
    monkeypatch.setattr(command_line, "__file__", str(installed))
    assert main(["lab"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("attnlib lab: expected the course's notebooks in ")
    assert said.count("\n") == 1


def test_python_m_attnlib_runs_it():
    asked = subprocess.run(
        [sys.executable, "-m", "attnlib", "lab", "--help"], capture_output=True, text=True, check=True
    )
    assert asked.stdout.startswith("usage: attnlib lab")


def test_the_installed_command_is_this_main():
    (command,) = entry_points(group="console_scripts", name="attnlib")
    assert command.load() is main
