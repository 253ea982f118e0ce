"""What lies in the repository's folder data/: found, checked byte by byte, and loaded."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float32
from torch import Tensor

import attnlib
from attnlib._checks import check_choice
from attnlib.lab.images import Images

DIGIT_ROWS = {"train": slice(0, 1287), "test": slice(1287, 1797), "all": slice(0, 1797)}


def data_folder() -> Path:
    """The folder data/ beside the package, or the folder that the environment variable ATTNLIB_DATA names."""
    if named := os.environ.get("ATTNLIB_DATA"):
        folder, remedy = Path(named), "correct the environment variable ATTNLIB_DATA, or unset it"
    else:
        folder = Path(attnlib.__file__).parents[1] / "data"
        remedy = (
            "attnlib was installed without its repository: clone that, and run 'pip install -e .' in it or "
            "set the environment variable ATTNLIB_DATA to its folder data"
        )
    if not (folder / "SHA256SUMS").is_file():
        raise FileNotFoundError(
            f"expected the course's data and their SHA256SUMS in {folder}, found none; {remedy}. "
            f"In a clone that lost the file, 'git checkout -- data/SHA256SUMS' restores it"
        )
    return folder


def data_file(name: str) -> Path:
    """The path of the file ``name`` in data/, after its SHA-256 was compared with data/SHA256SUMS.

    Raises FileNotFoundError if the file is missing, and ValueError if its bytes are not those that were
    committed.
    """
    folder = data_folder()
    restore = f"run 'git checkout -- data/{name}' in the repository to restore it"
    lines = (folder / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    expected = {line[66:]: line[:64] for line in lines}.get(name)
    if expected is None:
        raise ValueError(
            f"{folder / 'SHA256SUMS'} does not list {name}; run 'git checkout -- data/SHA256SUMS'"
        )
    file = folder / name
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing; {restore}")
    if hashlib.sha256(file.read_bytes()).hexdigest() != expected:
        raise ValueError(f"{file} is damaged: its SHA-256 is not the one in SHA256SUMS; {restore}")
    return file


def load_digits(split: str = "train") -> Images:
    """Handwritten digits 0 to 9, as they were scanned: images (n, 1, 8, 8), ink 0 to 1 in steps of 1/16.

    ``split`` is ``"train"`` (1,287 images), ``"test"`` (510) or ``"all"``. The file holds one filled-in form
    after the other, each with the same sequence of digits, and no writers' ids. The cut lies where a form
    ends, so that no form is in both splits; a person who filled in two forms may be in both.

    Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning
    Repository, 1998, doi 10.24432/C50P49, CC BY 4.0; the test set, in scikit-learn's copy.
    """
    check_choice("split", split, DIGIT_ROWS)
    table = torch.from_numpy(np.load(data_file("digits.npy")))[DIGIT_ROWS[split]]
    images = table[:, :64].reshape(-1, 1, 8, 8).float() / 16
    return Images(images, table[:, 64].long(), tuple("0123456789"))


def load_photograph() -> Float32[Tensor, "3 53 80"]:
    """A photograph of a Chinese temple: red, green and blue, 0 to 1.

    Source: scikit-learn's copy of https://www.flickr.com/photos/danielbuechele/6061409035/ by danielbuechele,
    CC BY 2.0; scaled down, so that each pixel is the mean of 8x8.
    """
    return torch.from_numpy(np.load(data_file("china.npy"))).permute(2, 0, 1).float() / 255


def load_terms() -> pd.DataFrame:
    """The course's terms, with columns english, chinese, symbol (may be empty), notebook and meaning."""
    return pd.read_csv(data_file("terms.csv"), encoding="utf-8", keep_default_na=False)


def load_claims() -> pd.DataFrame:
    """The claims that the course settles, with columns id, claim, chinese, verdict, notebook and reason."""
    return pd.read_csv(data_file("claims.csv"), encoding="utf-8", keep_default_na=False)


def load_results(name: str) -> pd.DataFrame:
    """Stored runs of a notebook's experiment, data/results/NAME.csv: one row a trained network.

    Each row holds the settings that made it beside its result. FileNotFoundError names a missing file.
    """
    file = data_folder() / "results" / f"{name}.csv"
    if not file.is_file():
        restore = f"run 'git checkout -- data/results/{name}.csv' in the repository to restore it"
        raise FileNotFoundError(f"{file} is missing; {restore}")
    return pd.read_csv(file, encoding="utf-8")
