"""The learner's copies of the notebooks in ``work/``, and JupyterLab opened on them.

``notebooks/`` belongs to the course: a pull or a build replaces what stands there. ``work/`` belongs to the
learner: a notebook is copied there once and is never written again. Both folders stand side by side, so that
the links of a notebook hold in both.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

LANDING = "00_start_here.ipynb"


def open_course(root: Path, jupyter_arguments: Sequence[str] = (), open_lab: bool = True) -> int:
    """Copy the notebooks of the repository at ``root``, say what is new, and run JupyterLab until it ends.

    Args:
        root: the folder that holds ``notebooks/`` and ``.jupyter/``.
        jupyter_arguments: passed on to JupyterLab, such as ``["--no-browser", "--port", "9000"]``.
        open_lab: whether to run JupyterLab at all, or only to copy.

    Returns:
        JupyterLab's exit status, 0 when it was stopped with Ctrl-C or not run.

    Raises:
        FileNotFoundError: if there are no notebooks, as where attnlib is installed without the repository.
    """
    for line in copy_notebooks(root / "notebooks", root / "work"):
        print(line, flush=True)
    return run_jupyterlab(root, jupyter_arguments) if open_lab else 0


def copy_notebooks(notebooks: Path, work: Path) -> list[str]:
    """Copy each notebook that ``work`` does not hold yet; return one line for each that needs attention.

    Raises:
        FileNotFoundError: if ``notebooks`` holds no notebook.
    """
    originals = sorted(notebooks.glob("*.ipynb"))
    if not originals:
        raise FileNotFoundError(
            f"expected the course's notebooks in {notebooks}, found none; get the whole repository and "
            "install attnlib from its folder, as `make lab` does there"
        )
    work.mkdir(exist_ok=True)
    lines = []
    for original in originals:
        copy = work / original.name
        if not copy.exists():
            _copy_whole(original, copy)
        elif (yours := source_hash(copy)) is None:
            lines.append(
                f"work/{copy.name} cannot be read as one of the course's notebooks; it was left as it is. "
                "Rename it and run this again to get a fresh copy."
            )
        elif yours != source_hash(original):
            lines.append(
                f"work/{copy.name}: the course has a newer version. "
                "Rename yours and run this again to get it."
            )
    return lines


def source_hash(notebook: Path) -> str | None:
    """The hash over its cells with which a notebook was built, or None if the file does not hold one.

    A copy keeps it when its cells are edited, so it says from which version the copy was made.
    """
    try:
        return json.loads(notebook.read_text(encoding="utf-8"))["metadata"]["attnlib"]["source_hash"]
    except (ValueError, KeyError, TypeError):
        return None


def run_jupyterlab(root: Path, jupyter_arguments: Sequence[str] = ()) -> int:
    """Run JupyterLab on this computer only, at the learner's copy of the first notebook, until it ends.

    Its settings come from ``.jupyter`` (no news, no update check), its open tabs are kept in ``work/.tabs``,
    apart from those of other projects.
    """
    config = [str(root / ".jupyter"), *filter(None, [os.environ.get("JUPYTER_CONFIG_PATH")])]
    command = [
        *(sys.executable, "-m", "jupyter", "lab"),
        f"--LabApp.default_url=/lab/tree/work/{LANDING}",
        "--ServerApp.ip=127.0.0.1",
        f"--ServerApp.root_dir={root}",
        f"--LabApp.workspaces_dir={root / 'work' / '.tabs'}",
        "--ServerApp.answer_yes=True",  # one Ctrl-C ends it, without a question
    ]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")
    environment = {**os.environ, "JUPYTER_CONFIG_PATH": os.pathsep.join(config)}
    server = subprocess.Popen([*command, *jupyter_arguments], cwd=root, env=environment)
    stopped = False
    while True:
        try:
            status = server.wait()
            return 0 if stopped else status
        except KeyboardInterrupt:  # Ctrl-C reaches the server too: let it close its notebooks
            stopped = True


def _copy_whole(original: Path, copy: Path) -> None:
    """Copy so that ``copy`` is either whole or absent, also when this is interrupted."""
    part = copy.with_name(f".{copy.name}.{os.getpid()}")
    try:
        shutil.copyfile(original, part)
        part.replace(copy)
    finally:
        part.unlink(missing_ok=True)
