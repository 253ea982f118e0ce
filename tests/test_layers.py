"""Imports run one way: exercises -> lab -> backbone -> feature_map and sequence -> _checks."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "attnlib"
LAYERS = [{"_checks"}, {"feature_map", "sequence"}, {"backbone"}, {"lab"}, {"exercises"}]
HEIGHT = {name: height for height, names in enumerate(LAYERS) for name in names}


def layer(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_layers(path: Path) -> set[str]:
    """The layers that a file imports from, at its top or inside a function."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("attnlib.")} & HEIGHT.keys()


FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if layer(path) in HEIGHT]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_imports_only_from_its_own_layer_and_those_below(path):
    own = layer(path)
    above = {name for name in imported_layers(path) if HEIGHT[name] > HEIGHT[own]}
    beside = {name for name in imported_layers(path) if HEIGHT[name] == HEIGHT[own] and name != own}
    assert not above and not beside


def test_there_are_files_in_the_layers_that_exist():
    assert {layer(path) for path in FILES} >= {"_checks", "feature_map", "lab", "exercises"}


def test_the_library_proper_imports_no_laboratory():
    assert imported_layers(PACKAGE / "__init__.py") <= {"feature_map", "sequence", "backbone", "_checks"}
