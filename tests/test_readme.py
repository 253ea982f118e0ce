"""README and the map of notebook 00 list the same notebooks, and link exactly those that are built."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LISTS = {
    "README.md": ROOT / "README.md",
    "00_start_here": ROOT / "notebooks" / "src" / "00_start_here.py",
}


def rows(path: Path) -> list[str]:
    """The first cells of the table rows that name a notebook."""
    text = path.read_text(encoding="utf-8")
    return re.findall(r"^(?:# )?\| (\[?\d\d_[^|]*?) \|", text, flags=re.M)


def stem(row: str) -> str:
    return re.search(r"\d\d_\w+", row)[0]


@pytest.mark.parametrize("name", LISTS)
def test_a_notebook_is_linked_if_it_is_built(name):
    found = rows(LISTS[name])
    assert len(found) >= 20
    for row in found:
        is_built = (ROOT / "notebooks" / f"{stem(row)}.ipynb").exists()
        assert row.startswith("[") == is_built, f"{name}: {row} is {'' if is_built else 'not '}built"
        if is_built:
            assert f"{stem(row)}.ipynb)" in row, f"{name}: {row} leads to another notebook"


def test_what_is_not_built_says_so():
    open_rows = [row for row in rows(LISTS["README.md"]) if not row.startswith("[")]
    assert [row for row in open_rows if not row.endswith("(not built yet)")] == []


def test_the_make_targets_it_names_exist():
    text = LISTS["README.md"].read_text(encoding="utf-8")
    named = re.findall(r"(?:^|`)make ([a-z]+)", text, flags=re.M)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert len(named) >= 8
    assert [name for name in named if not re.search(rf"^{name}:.*## ", makefile, flags=re.M)] == []


def test_both_list_the_same_notebooks_in_the_same_order():
    in_readme = [stem(row) for row in rows(LISTS["README.md"])]
    in_the_map = [stem(row) for row in rows(LISTS["00_start_here"])]
    assert len(in_readme) == 21
    assert in_readme == ["00_start_here", *in_the_map]


def test_links_of_the_readme_resolve():
    text = LISTS["README.md"].read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert len(links) >= 4
    assert [link for link in links if not link.startswith("http") and not (ROOT / link).exists()] == []


def test_the_library_example_runs():
    text = LISTS["README.md"].read_text(encoding="utf-8")
    example = re.search(r"```python\n(.*?)```", text, flags=re.S)[1]
    names: dict = {}
    exec(example.replace("gate(x).shape, gate", "shapes = gate(x).shape, gate"), names)
    assert [tuple(shape) for shape in names["shapes"]] == [(2, 64, 14, 14), (2, 64, 1, 1)]
