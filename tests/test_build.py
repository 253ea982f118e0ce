"""The build of the notebooks: what is stale or unfit is named, what a person edited is left alone."""

import importlib.util
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]

SOURCE = """\
# %% [markdown]
# # A title

# %% tags=["exercise"]
from attnlib.exercises import check
def f():
    raise NotImplementedError
print("checked") or check

# %% tags=["solution"]
def f():
    return 1

# %%
print(2)
"""


@pytest.fixture
def build(tmp_path, monkeypatch):
    """The build module, at work in a folder of its own with one source."""
    spec = importlib.util.spec_from_file_location("build", ROOT / "notebooks" / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "NOTEBOOKS", tmp_path)
    monkeypatch.setattr(module, "SOURCES", tmp_path / "src")
    module.SOURCES.mkdir()
    (module.SOURCES / "a.py").write_text(SOURCE, encoding="utf-8")
    return module


def source(build) -> Path:
    return build.SOURCES / "a.py"


def write_stored(build, change=lambda notebook: None):
    """A notebook as if it had been built: outputs made up, nothing run."""
    notebook = build.read_source(source(build))
    for number, cell in enumerate(c for c in notebook.cells if c.cell_type == "code"):
        cell.execution_count = number + 1
        cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text=f"{number}\n")]
    change(notebook)
    nbformat.write(notebook, build.NOTEBOOKS / "a.ipynb")


def first_code(notebook):
    return next(cell for cell in notebook.cells if cell.cell_type == "code")


def test_the_solution_is_folded_for_the_learner(build):
    cells = build.read_source(source(build)).cells
    assert [cell.cell_type for cell in cells] == ["markdown", "code", "markdown", "code"]
    assert "raise NotImplementedError" in cells[1].source
    assert cells[2].source.startswith("<details><summary><b>Solution</b></summary>")
    assert "return 1" in cells[2].source


def test_the_solved_variant_runs_the_solution_and_the_stubs_check(build, tmp_path):
    text = SOURCE.replace('print("checked") or check', 'f = check("a", f)')
    source(build).write_text(text, encoding="utf-8")
    cells = build.read_source(source(build), solved=True).cells
    assert len(cells) == 3
    assert cells[1].source.splitlines()[-1] == 'f = check("a", f)'
    assert "return 1" in cells[1].source and "NotImplementedError" not in cells[1].source


def test_cell_ids_depend_on_the_text_alone(build):
    first, again = build.read_source(source(build)), build.read_source(source(build))
    assert [c.id for c in first.cells] == [c.id for c in again.cells]
    doubled = SOURCE + "\n# %%\nprint(2)\n"
    source(build).write_text(doubled, encoding="utf-8")
    ids = [c.id for c in build.read_source(source(build)).cells]
    assert ids[:4] == [c.id for c in first.cells] and len(set(ids)) == 5


def test_a_current_notebook_has_no_problems(build):
    write_stored(build)
    assert build.problems(source(build)) == []


def test_a_missing_and_a_stale_notebook_are_named(build):
    assert build.problems(source(build)) == ["a.ipynb: not built yet, run make notebooks"]
    write_stored(build)
    source(build).write_text(SOURCE.replace("print(2)", "print(3)"), encoding="utf-8")
    assert build.problems(source(build)) == ["a.ipynb: older than src/a.py, run make notebooks"]


def test_an_edited_notebook_is_named_and_not_overwritten(build, capsys):
    write_stored(build)
    path = build.NOTEBOOKS / "a.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[1].source = "def f():\n    return 'my own answer'"
    nbformat.write(notebook, path)
    before = path.read_bytes()
    assert "edited by hand" in build.problems(source(build))[0]
    assert build.main(["build", "--force"]) == 1
    assert "a.ipynb was edited by hand and is left as it is" in capsys.readouterr().out
    assert path.read_bytes() == before


def test_running_a_notebook_is_no_edit(build):
    write_stored(build)
    path = build.NOTEBOOKS / "a.ipynb"
    notebook = nbformat.read(path, as_version=4)
    first_code(notebook).outputs = []
    first_code(notebook).metadata["scrolled"] = True
    nbformat.write(notebook, path)
    assert build.problems(source(build)) == []


def output(**data):
    return nbformat.v4.new_output("display_data", data={k.replace("__", "/"): v for k, v in data.items()})


UNFIT = {
    "was never run": lambda nb: first_code(nb).update(execution_count=None),
    "stored an error, ValueError": lambda nb: first_code(nb).update(
        outputs=[nbformat.v4.new_output("error", ename="ValueError", evalue="", traceback=[])]
    ),
    "writes to stderr": lambda nb: first_code(nb).update(
        outputs=[nbformat.v4.new_output("stream", name="stderr", text="w")]
    ),
    "a memory address": lambda nb: first_code(nb).update(outputs=[output(text__plain="<f at 0x7f001122aa>")]),
    "a temporary path": lambda nb: first_code(nb).update(outputs=[output(text__plain="/tmp/x.py")]),
    "a progress bar": lambda nb: first_code(nb).update(outputs=[output(text__plain="100%|## 3.2it/s")]),
    "image/svg+xml is not reproducible": lambda nb: first_code(nb).update(
        outputs=[output(**{"image/svg+xml": "<svg/>"})]
    ),
    "an image of 180000 bytes": lambda nb: first_code(nb).update(outputs=[output(image__png="A" * 240_000)]),
    "9000 characters of text": lambda nb: first_code(nb).update(outputs=[output(text__plain="x" * 9000)]),
    "over 500000 bytes": lambda nb: first_code(nb).update(
        outputs=[output(image__png="A" * 190_000) for _ in range(3)]
    ),
}


@pytest.mark.parametrize("problem", UNFIT)
def test_what_is_unfit_to_be_stored_is_named(build, problem):
    write_stored(build, UNFIT[problem])
    found = build.problems(source(build))
    assert len(found) == 1 and found[0].startswith("a.ipynb: ") and problem in found[0]


def test_cells_that_are_not_compared_may_hold_anything(build):
    def widget(notebook):
        first_code(notebook).metadata["tags"] = ["exercise", "nbval-ignore-output"]
        first_code(notebook).outputs = [output(text__plain="<f at 0x7f001122aa>")]

    text = SOURCE.replace('tags=["exercise"]', 'tags=["exercise", "nbval-ignore-output"]')
    source(build).write_text(text, encoding="utf-8")
    write_stored(build, widget)
    assert build.problems(source(build)) == []


def test_a_notebook_without_a_source_is_named(build, capsys):
    write_stored(build)
    (build.NOTEBOOKS / "b.ipynb").write_bytes((build.NOTEBOOKS / "a.ipynb").read_bytes())
    assert build.main(["check"]) == 1
    assert capsys.readouterr().out == "b.ipynb: no source in notebooks/src\n"


def test_a_name_without_a_source_is_refused(build, capsys):
    with pytest.raises(SystemExit):
        build.main(["build", "zzz"])
    assert "no source in notebooks/src for zzz" in capsys.readouterr().err


def test_a_cell_that_raises_is_reported_with_its_notebook(build, capsys):
    source(build).write_text("# %%\nraise ValueError('not today')\n", encoding="utf-8")
    assert build.main(["build"]) == 1
    printed = capsys.readouterr().out
    assert printed.startswith("a.py: ") and "not today" in printed
    assert not (build.NOTEBOOKS / "a.ipynb").exists()


def test_a_built_notebook_is_current_and_the_same_when_built_again(build):
    text = '# %%\nprint(2)\n\n# %% tags=["nbval-ignore-output"]\nimport ipywidgets\nipywidgets.IntSlider()\n'
    source(build).write_text(text, encoding="utf-8")
    assert build.main(["build"]) == 0
    path = build.NOTEBOOKS / "a.ipynb"
    first = path.read_bytes()
    notebook = nbformat.read(path, as_version=4)
    assert notebook.cells[0].outputs[0].text == "2\n"
    assert notebook.cells[1].outputs == [] and "widgets" not in notebook.metadata
    assert build.main(["build", "--force"]) == 0
    assert path.read_bytes() == first
