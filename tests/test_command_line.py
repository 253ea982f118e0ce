"""The command line, called as a function and as the programs that a learner types."""

import json
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


def test_cost_prints_the_parts_and_what_was_published(capsys):
    assert main(["cost", "resnet50", "--attention", "se", "--against", "paper"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("resnet50, attention se, one image of 224 x 224\n")
    assert "attention  2,530,992     2,514,944" in said
    assert "total     28,088,024 4,091,699,200" in said
    assert "formula: 2,530,992 parameters and 2,514,944 multiply-accumulates, the same as counted" in said
    assert "26.77 (parameters / 2^20); here 26.79: their SE has no biases" in said
    assert "28.09 (parameters / 10^6); here 28.09: the same" in said


def test_cost_for_programs(capsys):
    arguments = ["--attention", "eca", "--option", "kernel_size=3,5,5,7", "--json", "--against", "paper"]
    assert main(["cost", "resnet50", *arguments]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["parameters"], found["macs"]) == (25_557_112, 4_089_270_528)
    assert found["attention_by_formula"] == {"parameters": 80, "macs": 86_272}
    assert found["published"][0]["printed"] == found["published"][0]["counted"] == "24.37"


def test_cost_without_a_mechanism_or_a_published_size(capsys):
    assert main(["cost", "resnet20", "--classes", "10", "--image", "32", "--against", "paper"]) == 0
    said = capsys.readouterr().out
    assert "269,722" in said and "formula" not in said
    assert said.endswith("no published size of this network is on record here\n")


def test_cost_with_other_options_than_the_published_ones(capsys):
    assert (
        main(["cost", "resnet50", "--attention", "se", "--option", "reduction=8", "--against", "paper"]) == 0
    )
    assert "28.09 (parameters / 10^6); here 30.60: theirs had other options" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["resnet51"], "name='resnet51' is not one of"),
        (["resnet50", "--attention", "see"], "did you mean 'se'?"),
        (["resnet50", "--attention", "se", "--option", "bais=false"], "did you mean 'bias'?"),
        (["resnet50", "--attention", "se", "--option", "bias"], "expected an option as NAME=VALUE"),
        (["resnet50", "--option", "bias=true"], "options bias go with a mechanism's name"),
    ],
)
def test_cost_says_what_is_wrong(arguments, text, capsys):
    assert main(["cost", *arguments]) == 2
    said = capsys.readouterr().err
    assert said.startswith("attnlib cost: ")
    assert text in said


def test_options_are_read_by_kind():
    read = command_line.read_option
    assert read("bias=False") == ("bias", False)
    assert read("kernel_size=3,5") == ("kernel_size", [3, 5])
    assert read("scale=0.5") == ("scale", 0.5)
    assert read("pool=max") == ("pool", "max")
