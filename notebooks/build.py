"""Build notebooks/*.ipynb, with outputs, from the text sources notebooks/src/*.py (jupytext py:percent).

    python notebooks/build.py build [--force] [NAME ...]   execute what changed and write it;
                                                          where only prose did, outputs are kept
    python notebooks/build.py check                        say what is stale or unfit to store; runs nothing

A notebook is a product: the source decides its cells, their ids and their tags. A notebook whose cells a
person edited is never overwritten; the build names it and leaves it.
"""

import argparse
import concurrent.futures
import hashlib
import os
import re
import sys
import tempfile
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

NOTEBOOKS = Path(__file__).resolve().parent
SOURCES = NOTEBOOKS / "src"
KERNELSPEC = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
KEPT_METADATA = {"tags", "jupyter"}
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"

LARGEST_TEXT, LARGEST_IMAGE, LARGEST_NOTEBOOK = 8_000, 150_000, 500_000
UNSTABLE_TEXT = {
    r"\bat 0x[0-9a-fA-F]{6,}": "a memory address (end the line with a semicolon)",
    r"ipykernel_\d+|/tmp/|/var/folders/|\\Temp\\": "a temporary path (a warning?)",
    r"\d(?:it/s|s/it)\b|\d+%\|": "a progress bar (pass progress=False)",
}


def read_source(source: Path, *, solved: bool = False) -> NotebookNode:
    """The notebook a source stands for, without outputs.

    A cell tagged "solution" follows its "exercise" cell. The learner finds it folded in Markdown; with
    ``solved`` it takes the place of the stub instead, so that a test can run it. Either way it ends in the
    stub's call of ``check``.
    """
    cells: list[NotebookNode] = []
    for cell in jupytext.reads(source.read_text(encoding="utf-8"), fmt="py:percent").cells:
        if "solution" in cell.metadata.get("tags", []):
            stub = next(c for c in reversed(cells) if "exercise" in c.metadata.get("tags", []))
            code = with_check_of(stub.source, cell.source)
            if solved:
                stub.source = code
                continue
            cell = nbformat.v4.new_markdown_cell(folded("Solution", code))
        cell.metadata = NotebookNode({k: v for k, v in cell.metadata.items() if k in KEPT_METADATA})
        cells.append(cell)
    seen: dict[str, int] = {}
    for cell in cells:
        name = cell_name(cell)
        seen[name] = seen.get(name, 0) + 1
        cell.id = name if seen[name] == 1 else f"{name}-{seen[name]}"
    notebook = nbformat.v4.new_notebook(cells=cells)
    set_metadata(notebook)
    return notebook


def cell_name(cell: NotebookNode) -> str:
    """An id that stays while the cell does: claim-se-1 for the cell that settles SE-1, or else a digest.

    A link NOTEBOOK.ipynb#cell-id=claim-se-1 leads to such a cell.
    """
    claim = re.search(r"^# claim ([A-Z]+-\d+):", cell.source, flags=re.M)
    if claim and cell.cell_type == "code":
        return f"claim-{claim[1].lower()}"
    return hashlib.sha256(f"{cell.cell_type}\0{cell.source}".encode()).hexdigest()[:10]


def with_check_of(stub: str, solution: str) -> str:
    """The solution, ending in the stub's calls of check unless it has its own."""
    calls = [line for line in stub.splitlines() if "check(" in line]
    return solution if "check(" in solution else "\n".join([solution, "", *calls]).rstrip()


def folded(title: str, code: str) -> str:
    return f"<details><summary><b>{title}</b></summary>\n\n```python\n{code}\n```\n\n</details>"


def cells_hash(notebook: NotebookNode) -> str:
    """A hash over the cells' types and sources: what a person edits, not what running them changes."""
    text = "\0".join(f"{cell.cell_type}\0{cell.source}" for cell in notebook.cells)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def set_metadata(notebook: NotebookNode) -> None:
    notebook.metadata = NotebookNode(
        kernelspec=KERNELSPEC,
        language_info={"name": "python"},
        attnlib={"source_hash": cells_hash(notebook)},
    )


def was_edited(notebook: NotebookNode) -> bool:
    """Whether a person changed the cells since the build that wrote them."""
    return notebook.metadata.get("attnlib", {}).get("source_hash") != cells_hash(notebook)


def skeleton(notebook: NotebookNode) -> list[tuple]:
    """What the source decides of a notebook."""
    return [
        (c.cell_type, c.source, c.id, {k: v for k, v in c.metadata.items() if k in KEPT_METADATA})
        for c in notebook.cells
    ]


def execute(notebook: NotebookNode) -> None:
    """Run all cells in place, as the learner's Run All does, from the notebooks' folder."""
    NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(NOTEBOOKS)}},
    ).execute()


def take_outputs(notebook: NotebookNode, path: Path) -> bool:
    """Give the cells the outputs stored in ``path`` if its code cells are the same; False if they are not.

    So an edit of the prose runs nothing.
    """
    if not path.exists():
        return False
    stored = [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
    cells = [c for c in notebook.cells if c.cell_type == "code"]
    if [(c.source, c.metadata.get("tags")) for c in cells] != [
        (c.source, c.metadata.get("tags")) for c in stored
    ]:
        return False
    for cell, old in zip(cells, stored, strict=True):
        cell.outputs, cell.execution_count = old.outputs, old.execution_count
    return True


def build(source: Path, *, force: bool = False) -> Path:
    """Execute a source and write its notebook; with ``force`` also where only its prose has changed."""
    notebook = read_source(source)
    if force or not take_outputs(notebook, NOTEBOOKS / f"{source.stem}.ipynb"):
        execute(notebook)
    set_metadata(notebook)  # execution adds the kernel's version, and the widgets' state
    for cell in notebook.cells:
        if "nbval-ignore-output" in cell.metadata.get("tags", []):
            cell.outputs = [o for o in cell.outputs if WIDGET_VIEW not in o.get("data", {})]
    nbformat.validate(notebook)
    target = NOTEBOOKS / f"{source.stem}.ipynb"
    target.write_text(nbformat.writes(notebook, indent=1).rstrip("\n") + "\n", encoding="utf-8", newline="\n")
    return target


def problems(source: Path) -> list[str]:
    """Why the stored notebook of a source may not stay as it is; empty where it may."""
    path = NOTEBOOKS / f"{source.stem}.ipynb"
    if not path.exists():
        return [f"{path.name}: not built yet, run make notebooks"]
    notebook = nbformat.read(path, as_version=4)
    if was_edited(notebook):
        return [
            f"{path.name}: edited by hand; move the edit to src/{source.name}, or keep it under another name"
        ]
    if skeleton(notebook) != skeleton(read_source(source)):
        return [f"{path.name}: older than src/{source.name}, run make notebooks"]
    found = [] if path.stat().st_size < LARGEST_NOTEBOOK else [f"over {LARGEST_NOTEBOOK} bytes"]
    for number, cell in enumerate(c for c in notebook.cells if c.cell_type == "code"):
        found += [f"code cell {number}: {problem}" for problem in cell_problems(cell)]
    return [f"{path.name}: {problem}" for problem in found]


def cell_problems(cell: NotebookNode) -> list[str]:
    found = [] if cell.execution_count or not cell.source.strip() else ["was never run"]
    if "nbval-ignore-output" in cell.metadata.get("tags", []):
        return found
    for output in cell.outputs:
        if output.output_type == "error":
            found.append(f"stored an error, {output.ename}")
        if output.get("name") == "stderr":
            found.append("writes to stderr")
        data = dict(output.get("data", {}), **({"text/plain": output.text} if "text" in output else {}))
        for kind, value in data.items():
            found += output_problems(kind, value)
    return found


def output_problems(kind: str, value: str) -> list[str]:
    if kind == "image/png":
        size = len(value) * 3 // 4
        return [f"an image of {size} bytes"] if size > LARGEST_IMAGE else []
    if not kind.startswith("text/"):
        return [f"{kind} is not reproducible"]
    found = [why for pattern, why in UNSTABLE_TEXT.items() if re.search(pattern, value)]
    if len(value) > LARGEST_TEXT:
        found.append(f"{len(value)} characters of text")
    return found


def is_safe_to_overwrite(source: Path) -> bool:
    path = NOTEBOOKS / f"{source.stem}.ipynb"
    return not path.exists() or not was_edited(nbformat.read(path, as_version=4))


def run_build(sources: list[Path], *, force: bool, jobs: int) -> list[str]:
    """Build what needs it; return what went wrong."""
    todo = [s for s in sources if force or problems(s)]
    refused = [s for s in todo if not is_safe_to_overwrite(s)]
    failures = [
        f"{s.stem}.ipynb was edited by hand and is left as it is; rename it to keep it" for s in refused
    ]
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as progress, concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        os.environ["ATTNLIB_PROGRESS"] = progress  # stored outputs must not depend on who built them
        building = {pool.submit(build, s, force=force): s for s in todo if s not in refused}
        for future in concurrent.futures.as_completed(building):
            if error := future.exception():
                failures.append(f"{building[future].name}: {error}")
            else:
                print(f"built {future.result().name}", flush=True)
    return failures


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=["build", "check"])
    parser.add_argument("names", nargs="*", help="notebooks to build, such as 08_squeeze_and_excitation")
    parser.add_argument("--force", action="store_true", help="execute also what is up to date")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="notebooks to run at a time")
    options = parser.parse_intermixed_args(arguments)
    everything = sorted(SOURCES.glob("*.py"))
    if unknown := set(options.names) - {s.stem for s in everything}:
        parser.error(f"no source in notebooks/src for {', '.join(sorted(unknown))}")
    sources = [s for s in everything if not options.names or s.stem in options.names]
    found = run_build(sources, force=options.force, jobs=options.jobs) if options.command == "build" else []
    found = found or [problem for source in sources for problem in problems(source)]
    orphans = {p.stem for p in NOTEBOOKS.glob("*.ipynb")} - {s.stem for s in everything}
    found += [f"{name}.ipynb: no source in notebooks/src" for name in sorted(orphans)]
    print("\n".join(found) or f"{len(sources)} notebooks are up to date")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
