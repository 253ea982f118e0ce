"""Rebuild the data files from their sources, and SHA256SUMS over all of them.

    python data/build.py [--out FOLDER] [NAME ...]

Without names every set is rebuilt. Sets come from scikit-learn's and statsmodels' copies
(pip install -e ".[dev]"). With --out, the files that were written by hand are copied there, so that the
folder is complete.
"""

import argparse
import hashlib
import io
import shutil
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
BY_HAND = ["claims.csv", "terms.csv"]
SUFFIXES = {".npy", ".csv"}  # of the files that SHA256SUMS lists


def npy(array: np.ndarray) -> bytes:
    """The bytes of ``array`` as a .npy file of version 1.0, the same on every system."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def digits() -> dict[str, bytes]:
    """Handwritten digits: one row an image, the 64 pixels (0..16) row by row, then the label."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise SystemExit('rebuilding the digits needs scikit-learn: pip install -e ".[dev]"') from error
    source = load_digits()
    return {"digits.npy": npy(np.column_stack([source.data, source.target]).astype(np.uint8))}


def photograph() -> dict[str, bytes]:
    """One photograph in blocks: each number is the rounded mean of 8x8 pixels; rows, columns, colours."""
    try:
        from sklearn.datasets import load_sample_image
    except ImportError as error:
        raise SystemExit('rebuilding the photograph needs scikit-learn: pip install -e ".[dev]"') from error
    pixels = load_sample_image("china.jpg")[:424].astype(np.int64)  # 427 rows are no multiple of 8
    sums = pixels.reshape(53, 8, 80, 8, 3).sum((1, 3))
    return {"china.npy": npy(((sums + 32) // 64).astype(np.uint8))}


def statsmodels_rows(name: str) -> list[tuple]:
    """The rows of the set ``name`` in statsmodels' copy."""
    try:
        from statsmodels import datasets
    except ImportError as error:
        raise SystemExit('rebuilding the series needs statsmodels: pip install -e ".[dev]"') from error
    return [*getattr(datasets, name).load_pandas().data.itertuples()]


def carbon_dioxide() -> dict[str, bytes]:
    """Carbon dioxide over Mauna Loa: the week's date, a Saturday, and ppm to a tenth."""
    rows = [(day, ppm) for day, ppm in statsmodels_rows("co2") if ppm == ppm]  # weeks without a value go
    lines = [f"{day:%Y-%m-%d},{ppm:.1f}\n" for day, ppm in rows]
    return {"co2.csv": "".join(["week,ppm\n", *lines]).encode()}


def sunspots() -> dict[str, bytes]:
    """The yearly mean of the sunspot number, to a tenth."""
    lines = [f"{year:.0f},{number:.1f}\n" for _, year, number in statsmodels_rows("sunspots")]
    return {"sunspots.csv": "".join(["year,number\n", *lines]).encode()}


# each set is a function that returns the contents of its files by their names
SETS = {"digits": digits, "photograph": photograph, "co2": carbon_dioxide, "sunspots": sunspots}


def checksums(folder: Path) -> bytes:
    """The lines that sha256sum writes for the data files in ``folder``, sorted by file name."""
    names = sorted(file.name for file in folder.iterdir() if file.suffix in SUFFIXES)
    lines = [f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    return "".join(lines).encode()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Rebuild the data files from their sources.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"sets to rebuild: {', '.join(SETS)}")
    parser.add_argument("--out", type=Path, default=HERE, metavar="FOLDER", help="where to write")
    options = parser.parse_args(arguments)
    for name in options.names:
        if name not in SETS:
            parser.error(f"there is no set {name!r}; the sets are {', '.join(SETS)}")
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.names or SETS:
        for file, content in SETS[name]().items():
            (options.out / file).write_bytes(content)
    for file in BY_HAND:
        if options.out.resolve() != HERE:
            shutil.copyfile(HERE / file, options.out / file)
    (options.out / "SHA256SUMS").write_bytes(checksums(options.out))


if __name__ == "__main__":
    main()
