"""The build of the notebooks: what is stale or unfit is named, what a person edited is left alone."""

import importlib.util
import os
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


RUNS = """\
# %%
import time
from pathlib import Path
print(2, flush=True)
time.sleep(0.3)
print(Path.cwd().name)

# %% tags=["nbval-ignore-output"]
import ipywidgets
print("kept")
ipywidgets.IntSlider()
"""


@pytest.fixture
def build(tmp_path, monkeypatch):
    """The build module, at work in a folder of its own with one source."""
    spec = importlib.util.spec_from_file_location("build", ROOT / "notebooks" / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setenv("ATTNLIB_PROGRESS", "")  # a build sets it; this puts it back
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
    assert cells[2].source == (
        "<details><summary><b>Solution</b></summary>\n\n```python\ndef f():\n    return 1\n```\n\n</details>"
    )


def test_the_solved_variant_runs_the_solution_and_the_stubs_check(build, tmp_path):
    text = SOURCE.replace('print("checked") or check', 'f = check("a", f)')
    source(build).write_text(text, encoding="utf-8")
    cells = build.read_source(source(build), solved=True).cells
    assert len(cells) == 3
    assert cells[1].source.splitlines()[-1] == 'f = check("a", f)'
    assert "return 1" in cells[1].source and "NotImplementedError" not in cells[1].source


def test_each_solution_takes_the_place_of_the_stub_before_it(build):
    second = SOURCE.replace("print(2)", "print(3)").replace("return 1", "return 7\nf = check('b', f)")
    second = second.replace('print("checked") or check', 'f = check("a", f)')
    source(build).write_text(SOURCE + "\n" + second, encoding="utf-8")
    solved = build.read_source(source(build), solved=True)
    stubs = [c.source for c in solved.cells if c.metadata.get("tags") == ["exercise"]]
    assert "return 1" in stubs[0] and "return 7" in stubs[1]
    assert stubs[1].count("check(") == 1  # the solution's own call; the stub's is not added


def test_a_cell_keeps_its_tags_and_what_jupyter_hides_and_no_more(build):
    text = '# %% jupyter={"source_hidden": true} tags=["a"] collapsed=true\nprint(1)\n'
    source(build).write_text(text, encoding="utf-8")
    (cell,) = build.read_source(source(build)).cells
    assert cell.metadata == {"jupyter": {"source_hidden": True}, "tags": ["a"]}


def test_cell_ids_depend_on_the_text_alone(build):
    first, again = build.read_source(source(build)), build.read_source(source(build))
    assert [c.id for c in first.cells] == [c.id for c in again.cells]
    doubled = SOURCE + "\n# %%\nprint(2)\n"
    source(build).write_text(doubled, encoding="utf-8")
    ids = [c.id for c in build.read_source(source(build)).cells]
    assert ids[:4] == [c.id for c in first.cells] and len(set(ids)) == 5
    source(build).write_text("# %%\nprint(0)\n\n" + SOURCE, encoding="utf-8")
    assert [c.id for c in build.read_source(source(build)).cells][1:] == [c.id for c in first.cells]


def test_a_current_notebook_has_no_problems(build):
    write_stored(build)
    assert build.problems(source(build)) == []


def test_a_missing_and_a_stale_notebook_are_named(build):
    assert build.problems(source(build)) == ["a.ipynb: not built yet, run make notebooks"]
    write_stored(build)
    source(build).write_text(SOURCE.replace("print(2)", "print(3)"), encoding="utf-8")
    assert build.problems(source(build)) == ["a.ipynb: older than src/a.py, run make notebooks"]


@pytest.mark.parametrize(
    "change", [lambda cell: cell.update(id="another"), lambda cell: cell.metadata.update(tags=["another"])]
)
def test_other_ids_and_tags_than_the_source_has_are_stale(build, change):
    write_stored(build, lambda notebook: change(first_code(notebook)))
    assert build.problems(source(build)) == ["a.ipynb: older than src/a.py, run make notebooks"]


@pytest.mark.parametrize(
    "change",
    [
        lambda notebook: first_code(notebook).update(cell_type="raw"),
        lambda notebook: notebook.metadata.pop("attnlib"),
    ],
)
def test_another_kind_of_cell_or_a_lost_mark_of_the_build_is_an_edit(build, change):
    notebook = build.read_source(source(build))
    assert not build.was_edited(notebook)
    change(notebook)
    assert build.was_edited(notebook)


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
    "image/svg+xml is not reproducible": lambda nb: first_code(nb).update(
        outputs=[output(**{"image/svg+xml": "<svg/>"})]
    ),
    "an image of 180000 bytes": lambda nb: first_code(nb).update(outputs=[output(image__png="A" * 240_000)]),
    "9000 characters of text": lambda nb: first_code(nb).update(outputs=[output(text__plain="x" * 9000)]),
    "over 500000 bytes": lambda nb: first_code(nb).update(
        outputs=[output(image__png="A" * 190_000) for _ in range(3)]
    ),
}


UNSTABLE = [
    ("a memory address", "<f at 0x7f001122aa>"),
    ("a temporary path", "/tmp/x.py"),
    ("a temporary path", "ipykernel_123"),
    ("a temporary path", "/var/folders/x"),
    ("a temporary path", "C:\\Users\\me\\Temp\\x"),
    ("a progress bar", "3.2it/s"),
    ("a progress bar", "3.2s/it"),
    ("a progress bar", " 10%|#"),
]


@pytest.mark.parametrize(("problem", "text"), UNSTABLE)
@pytest.mark.parametrize("kind", ["stream", "plain", "html"])
def test_text_that_changes_from_run_to_run_is_named_with_its_cell(build, problem, text, kind):
    text = f"before {text} behind"
    shown = {
        "stream": nbformat.v4.new_output("stream", name="stdout", text=text),
        "plain": output(text__plain=text),
        "html": output(text__html=text),
    }[kind]
    write_stored(build, lambda notebook: notebook.cells[-1].update(outputs=[shown]))
    (found,) = build.problems(source(build))
    assert found.startswith(f"a.ipynb: code cell 1: {problem}")


def test_html_a_percentage_and_an_empty_cell_may_be_stored(build):
    source(build).write_text(SOURCE + "\n# %%\n\n# %%\nprint(4)\n", encoding="utf-8")

    def change(notebook):
        first_code(notebook).outputs = [output(text__html="<b>90%</b>")]
        notebook.cells[4].update(execution_count=None, outputs=[])

    write_stored(build, change)
    assert build.read_source(source(build)).cells[4].source == ""
    assert build.problems(source(build)) == []


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
    write_stored(build, lambda notebook: first_code(notebook).update(execution_count=None))
    assert build.problems(source(build)) == ["a.ipynb: code cell 0: was never run"]


def test_check_runs_nothing_and_counts_what_is_up_to_date(build, monkeypatch, capsys):
    monkeypatch.setattr(build, "execute", lambda notebook: pytest.fail("check ran a notebook"))
    write_stored(build)
    assert build.main(["check"]) == 0
    assert capsys.readouterr().out == "1 notebooks are up to date\n"
    (build.NOTEBOOKS / "a.ipynb").unlink()
    assert build.main(["check"]) == 1
    assert capsys.readouterr().out == "a.ipynb: not built yet, run make notebooks\n"


def test_only_what_needs_it_or_is_named_is_built(build, monkeypatch, capsys):
    ran = []
    monkeypatch.setattr(build, "execute", lambda notebook: ran.append(notebook.cells[-1].source))
    for name in "bc":
        (build.SOURCES / f"{name}.py").write_text(f"# %% [markdown]\n# {name}\n", encoding="utf-8")
    assert build.main(["build", "b"]) == 0
    assert capsys.readouterr().out == "built b.ipynb\n1 notebooks are up to date\n"
    assert build.main(["build", "b", "c", "--jobs", "1"]) == 0
    assert build.main(["build", "b", "--force", "c"]) == 0
    assert sorted(ran) == ["b", "b", "c", "c"]


def test_a_build_has_one_thread_and_a_progress_folder_of_its_own(build, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setenv("ATTNLIB_PROGRESS", "the learner's")
    seen = []
    names = ("OMP_NUM_THREADS", "ATTNLIB_PROGRESS")
    monkeypatch.setattr(build, "execute", lambda notebook: seen.extend(os.environ[n] for n in names))
    build.main(["build"])
    assert seen[0] == "1" and seen[1] != "the learner's"


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


def test_a_widget_may_be_shown_only_where_outputs_are_not_compared(build, capsys):
    text = RUNS.replace(' tags=["nbval-ignore-output"]', "")
    source(build).write_text(text, encoding="utf-8")
    assert build.main(["build"]) == 1
    found = "a.ipynb: code cell 1: application/vnd.jupyter.widget-view+json is not reproducible\n"
    assert capsys.readouterr().out == "built a.ipynb\n" + found


def test_where_only_prose_changed_the_outputs_are_kept(build, monkeypatch):
    write_stored(build)
    source(build).write_text(SOURCE.replace("# # A title", "# # Another title"), encoding="utf-8")
    monkeypatch.setattr(build, "execute", lambda notebook: pytest.fail("a cell was run"))
    assert build.run_build([source(build)], force=False, jobs=1) == []
    built = nbformat.read(build.NOTEBOOKS / "a.ipynb", as_version=4)
    assert built.cells[0].source == "# Another title"
    assert [c.outputs[0].text for c in built.cells if c.cell_type == "code"] == ["0\n", "1\n"]
    assert build.problems(source(build)) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("print(2)", "print(3)"),
        lambda text: text.replace('"exercise"', '"exercise", "slow"'),
        lambda text: text + "\n# %%\nprint(4)\n",
    ],
)
def test_where_code_changed_all_is_run_again(build, monkeypatch, change):
    write_stored(build)
    source(build).write_text(change(SOURCE), encoding="utf-8")
    ran = []
    monkeypatch.setattr(build, "execute", ran.append)
    build.build(source(build))
    assert len(ran) == 1


def test_force_runs_what_is_up_to_date(build, monkeypatch):
    write_stored(build)
    ran = []
    monkeypatch.setattr(build, "execute", ran.append)
    build.run_build([source(build)], force=True, jobs=1)
    assert len(ran) == 1


def test_a_built_notebook_is_current_and_the_same_when_built_again(build):
    source(build).write_text(RUNS, encoding="utf-8")
    assert build.main(["build"]) == 0
    path = build.NOTEBOOKS / "a.ipynb"
    first = path.read_bytes()
    notebook = nbformat.read(path, as_version=4)
    assert [o.text for o in notebook.cells[0].outputs] == [f"2\n{build.NOTEBOOKS.name}\n"]
    assert [o.text for o in notebook.cells[1].outputs] == ["kept\n"]
    assert notebook.metadata == build.read_source(source(build)).metadata
    assert set(notebook.metadata) == {"attnlib", "kernelspec", "language_info"}
    assert first.startswith(b'{\n "cells"') and first.endswith(b"}\n") and b"\r" not in first
    assert build.main(["build", "--force"]) == 0
    assert path.read_bytes() == first
