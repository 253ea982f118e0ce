"""What every notebook must hold, checked on its stored cells; and each one run with the solutions filled in.

nbval runs the notebooks as the learner finds them and compares their text; what it cannot see stands here.
"""

import importlib.util
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from attnlib.exercises.checker import all_exercises, find

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"
LONGEST_CELL, LONGEST_LINE = 8, 100
WORDS_FOR_CODE = 2

_spec = importlib.util.spec_from_file_location("build", NOTEBOOKS / "build.py")
build = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(build)

SOURCES = sorted(build.SOURCES.glob("*.py"))
every_notebook = pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)


def stored(source: Path) -> nbformat.NotebookNode:
    return nbformat.read(NOTEBOOKS / f"{source.stem}.ipynb", as_version=4)


def tags(cell) -> list[str]:
    return cell.metadata.get("tags", [])


def code_cells(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def words(text: str) -> int:
    """How many of the pieces between spaces hold a letter: `=` and `|` are no words."""
    return sum(any(character.isalpha() for character in piece) for piece in text.split())


def markdown(notebook) -> str:
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def without_folds(text: str) -> str:
    """Markdown without what is folded away (hints, solutions)."""
    return re.sub(r"<details>.*?</details>", "", text, flags=re.S)


def prose(notebook) -> str:
    return without_folds(markdown(notebook))


def anchors(notebook) -> set[str]:
    """The anchors of the headings, as JupyterLab makes them."""
    headings = re.findall(r"^#+ (.*)$", markdown(notebook), flags=re.M)
    return {heading.strip().replace(" ", "-") for heading in headings}


@every_notebook
def test_it_is_current_and_fit_to_be_stored(source):
    assert build.problems(source) == []


@every_notebook
def test_every_tagged_result_is_followed_by_its_assertion(source):
    cells = stored(source).cells
    last_heading = ""
    results = 0
    for number, cell in enumerate(cells):
        if cell.cell_type != "markdown":
            continue
        last_heading = (re.findall(r"^## .*$", cell.source, flags=re.M) or [last_heading])[-1]
        if "Summary" in last_heading:
            break
        for tag in re.findall(r"\\tag\{([\d.]+)\}", without_folds(cell.source)):
            results += 1
            lines = [
                line for c in cells[number + 1 :] if c.cell_type == "code" for line in c.source.splitlines()
            ]
            where = [line for line in lines if f"# ({tag})" in line]
            assert where, f"({tag}) is displayed, but no cell behind it has the comment # ({tag})"
            assert "assert" in where[0], f"the line with the comment # ({tag}) asserts nothing"
    if source.stem != "00_start_here":
        assert results > 0


@every_notebook
def test_code_cells_are_short(source):
    for cell in code_cells(stored(source)):
        lines = [line for line in cell.source.splitlines() if line.strip()]
        assert len(lines) <= LONGEST_CELL, f"{len(lines)} lines:\n{cell.source}"
        longest = max(lines, key=len, default="")
        assert len(longest) <= LONGEST_LINE, f"{len(longest)} characters: {longest}"


@every_notebook
def test_it_is_prose_first(source):
    notebook = stored(source)
    code = sum(words(cell.source) for cell in code_cells(notebook))
    assert words(prose(notebook)) >= WORDS_FOR_CODE * code


@every_notebook
def test_the_opening_says_what_a_learner_wants_to_know(source):
    opening = stored(source).cells[0].source
    assert opening.startswith(f"# {source.stem[:2]} · ")
    for needed in ("**Time.**", "minutes", "**Prerequisites.**"):
        assert needed in opening
    assert re.search(r"\]\([^)]+\)", opening), "the opening links nowhere"


@every_notebook
def test_links_within_the_course_resolve(source):
    text = markdown(stored(source))
    assert not re.search(r"<(a|img)\b|\]\([^)]*\s", text), "write links and images as [text](place)"
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith(("http://", "https://")):
            continue
        name, _, anchor = link.partition("#")
        target = NOTEBOOKS / name if name else NOTEBOOKS / f"{source.stem}.ipynb"
        assert target.exists(), f"the link {link} leads nowhere"
        if anchor.startswith("cell-id="):
            ids = {cell.id for cell in nbformat.read(target, as_version=4).cells}
            assert anchor.removeprefix("cell-id=") in ids, f"{name} has no cell {anchor}"
        elif anchor:
            assert anchor.isascii(), f"JupyterLab does not follow {link}: its anchor is not plain ASCII"
            assert anchor in anchors(nbformat.read(target, as_version=4)), f"{name} has no heading {anchor}"


@every_notebook
def test_every_image_says_what_is_to_be_seen(source):
    notebook = stored(source)
    for cell in code_cells(notebook):
        for output in cell.outputs:
            if "image/png" in output.get("data", {}):
                assert output.metadata.get("image/png", {}).get("alt"), f"no alt text:\n{cell.source}"
    for alt, link in re.findall(r"!\[(.*?)\]\((.*?)\)", prose(notebook)):
        assert len(alt.split()) >= 3, f"the image {link} has no alt text"


@every_notebook
def test_a_cell_that_shows_a_figure_has_it_stored(source):
    for cell in code_cells(stored(source)):
        images = [output.data for output in cell.outputs if "image/png" in output.get("data", {})]
        if re.search(r"^show\(", cell.source, flags=re.M):
            assert images, f"a figure was shown and none is stored:\n{cell.source}"
        twice = [data for data in images if data["text/plain"].startswith("<Figure size")]
        assert not twice, f"a figure is displayed without show, and so maybe twice:\n{cell.source}"


@every_notebook
def test_it_ran_in_order_without_errors(source):
    cells = [cell for cell in code_cells(stored(source)) if cell.source.strip()]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not [output for cell in cells for output in cell.outputs if output.output_type == "error"]


@every_notebook
def test_a_claim_is_settled_by_an_assertion(source):
    for cell in code_cells(stored(source)):
        for line in re.findall(r"^# claim.*", cell.source, flags=re.M | re.I):
            assert re.match(r"# claim [A-Z]+-\d+: [A-Z]+", line), (
                f"not of the form # claim SE-1: TRUE: {line}"
            )
            assert re.search(r"^\s*assert ", cell.source, flags=re.M), f"the cell of {line} asserts nothing"


@every_notebook
def test_equations_that_the_prose_refers_to_exist(source):
    text = prose(stored(source))
    displayed = set(re.findall(r"\\tag\{([\d.]+)\}", text))
    chapters = {number.partition(".")[0] for number in displayed}
    referred = set(re.findall(r"\((\d+\.\d+)\)", text))
    assert {number for number in referred if number.partition(".")[0] in chapters} <= displayed


def test_every_exercise_is_asked_in_a_notebook():
    texts = [source.read_text(encoding="utf-8") for source in SOURCES]
    asked = {name for text in texts for name in re.findall(r'check\("([^"]+)"', text)}
    assert asked == {name for names in all_exercises().values() for name in names}


@every_notebook
def test_every_exercise_has_three_hints_and_a_solution(source):
    text = source.read_text(encoding="utf-8")
    assert text.count('tags=["exercise"]') == text.count('tags=["solution"]')
    parts = re.split(r"^# ### (?:Exercise|Self-test) ", text, flags=re.M)[1:]
    asked = re.findall(r'^\w+ = check\("([^"]+)"', text, flags=re.M)
    assert [part.split()[0] for part in parts] == [name.removeprefix("toolbox.") for name in asked]
    for part in parts:
        assert part.count("<summary>Hint") >= 3, part.splitlines()[0]


@every_notebook
def test_a_tutors_sentence_refers_to_equations_that_exist(source):
    notebook = stored(source)
    displayed = set(re.findall(r"\\tag\{([\d.]+)\}", prose(notebook)))
    names = [n for cell in code_cells(notebook) for n in re.findall(r'check\("([^"]+)"', cell.source)]
    for exercise in map(find, names):
        for sentence in [exercise.praise, *(wrong.says for wrong in exercise.wrong)]:
            assert set(re.findall(r"\((\d+\.\d+)\)", sentence)) <= displayed, sentence


@every_notebook
def test_with_the_solutions_filled_in_every_check_passes(source):
    notebook = build.read_source(source, solved=True)
    asked = [name for cell in code_cells(notebook) for name in re.findall(r'check\("([^"]+)"', cell.source)]
    if not asked:
        pytest.skip("no exercises")
    NotebookClient(
        notebook, timeout=180, kernel_name="python3", resources={"metadata": {"path": str(NOTEBOOKS)}}
    ).execute()
    printed = "".join(output.get("text", "") for cell in code_cells(notebook) for output in cell.outputs)
    assert [name for name in asked if f"✓ {name}: right." not in printed] == []
