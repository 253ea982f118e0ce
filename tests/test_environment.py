"""The ways to set up the course ask for the same packages: pyproject.toml, environment.yml, constraints.txt,
and the pip lines in Makefile, README.md and the CI workflow."""

import json
import os
import re
import shlex
import sys
import tempfile
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
CONDA_NAMES = {"pytorch-cpu": "torch"}
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def specifiers(requirements: list[str]) -> dict[str, SpecifierSet]:
    """Package name -> version range, of requirements as pip and conda write them ("numpy >=2.2")."""
    parsed = [Requirement(r) for r in requirements]
    return {canonicalize_name(CONDA_NAMES.get(r.name, r.name)): r.specifier for r in parsed}


def pip_ranges() -> dict[str, SpecifierSet]:
    project = tomllib.loads(read("pyproject.toml"))["project"]
    return specifiers(project["dependencies"] + project["optional-dependencies"]["dev"])


def pins() -> dict[str, str]:
    lines = read("constraints.txt").splitlines()
    return {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}


def pip_lines(name: str) -> set[tuple[str, ...]]:
    """The arguments of every `pip install` in a file, with the variables of the Makefile filled in."""
    text = read(name).replace("$(PIP) install", "pip install").replace("$(TORCH_INDEX)", TORCH_INDEX)
    found = re.findall(r"^\s*(?:python -m )?pip install (.*)$", text, re.MULTILINE)
    return {tuple(shlex.split(line)) for line in found}


def test_conda_asks_for_the_same_packages_and_ranges_as_pip():
    environment = yaml.safe_load(read("environment.yml"))
    *packages, from_pip = environment["dependencies"]
    conda = specifiers(packages)
    assert conda.pop("pip") == SpecifierSet()
    python = conda.pop("python")
    assert conda == pip_ranges()
    assert from_pip == {"pip": ["-e ."]}, "pip should install attnlib and nothing else"
    asked = SpecifierSet(tomllib.loads(read("pyproject.toml"))["project"]["requires-python"])
    assert [v for v in ("3.10", "3.11", "3.12", "3.13") if v in python] == ["3.11", "3.12", "3.13"]
    assert [v for v in ("3.10", "3.11", "3.12", "3.13") if v in asked] == ["3.11", "3.12", "3.13"]


@pytest.mark.parametrize("name", sorted(pip_ranges()))
def test_the_pinned_version_lies_in_the_range(name):
    pinned = pins()
    assert name in pinned, f"constraints.txt pins no version of {name}; run `make lock`"
    assert pinned[name] in pip_ranges()[name]


def test_constraints_are_plain_pins_in_order():
    lines = read("constraints.txt").splitlines()
    wrong = [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line)]
    assert not wrong, "expected name==version without a host, a path or a local version"
    assert lines == sorted(lines, key=str.upper), "expected the order of `make lock`"
    assert not {"pip", "setuptools", "wheel", "attnlib"} & pins().keys()


def test_makefile_names_the_torch_index():
    assert re.search(r"^TORCH_INDEX \?= (.*)$", read("Makefile"), re.MULTILINE)[1] == TORCH_INDEX


@pytest.mark.parametrize("name", ["README.md", ".github/workflows/course.yml"])
def test_pip_lines_are_the_makefiles(name):
    lines = pip_lines(name)
    assert len(lines) >= 2, f"expected {name} to say how to set up without make"
    assert lines <= pip_lines("Makefile")


def test_workflow_runs_the_makefiles_tests():
    makefile = read("Makefile").replace("\\\n\t", "").replace("$(JOBS)", "auto")
    wanted = [" ".join(line.split()) for line in re.findall(r"\$\(PY\) (-m (?:pytest|ruff) .*)", makefile)]
    workflow = read(".github/workflows/course.yml")
    ours = [line for line in wanted if "$$" not in line]
    assert len(ours) == 4
    assert [line for line in ours if f"python {line}\n" not in workflow] == []


def test_every_jupyterlab_setting_still_exists():
    schemas = Path(sys.prefix) / "share" / "jupyter" / "lab" / "schemas"
    for plugin, settings in json.loads(read(".jupyter/labconfig/default_setting_overrides.json")).items():
        package, name = plugin.split(":")
        schema = json.loads((schemas / package / f"{name}.json").read_text(encoding="utf-8"))
        assert settings.keys() <= schema["properties"].keys(), plugin


def test_tests_keep_away_from_the_readers_progress():
    assert Path(os.environ["ATTNLIB_PROGRESS"]).is_relative_to(tempfile.gettempdir())
    assert os.environ["OMP_NUM_THREADS"] == "1"
