"""Seconds and peak memory of every notebook, run from top to bottom with one kernel at a time.

    python tests/benchmarks/notebooks.py [NAME ...]

Prints a table and asserts nothing: machines differ. The aim is 30 seconds a notebook, none above 60.
"""

import argparse
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"

# run in the notebook's own kernel, so that only its memory counts
PEAK_MEMORY = """\
import psutil, sys
if sys.platform == "win32":
    peak = psutil.Process().memory_info().peak_wset
else:
    import resource
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
print(peak)"""


def measure(path: Path) -> tuple[float, int]:
    """Seconds (with the start of the kernel) and peak bytes of the notebook's kernel."""
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(PEAK_MEMORY))
    client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(NOTEBOOKS)}})
    start = time.perf_counter()
    client.execute()
    seconds = time.perf_counter() - start
    return seconds, int(notebook.cells[-1].outputs[0].text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="such as 08_squeeze_and_excitation; all by default")
    names = parser.parse_args().names or sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))
    print(f"{'notebook':<34}{'seconds':>9}{'peak MiB':>10}")
    for name in names:
        seconds, peak = measure(NOTEBOOKS / f"{name}.ipynb")
        print(f"{name:<34}{seconds:>9.1f}{peak / 2**20:>10.0f}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
