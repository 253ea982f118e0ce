"""Everything the course learns from: what is stored, what is composed of it, and your own folders."""

from pathlib import Path

import torch
from jaxtyping import Float64
from torch import Tensor

from attnlib._checks import nearest
from attnlib.lab.composed import cluttered_digits, cued_digits
from attnlib.lab.folder import image_folder
from attnlib.lab.images import Images, batches
from attnlib.lab.series import Series, load_co2, load_sunspots
from attnlib.lab.stored import (
    data_file,
    data_folder,
    load_claims,
    load_digits,
    load_photograph,
    load_results,
    load_terms,
)

__all__ = [
    "Images",
    "Series",
    "batches",
    "cluttered_digits",
    "cued_digits",
    "data_file",
    "data_folder",
    "example_feature_map",
    "image_folder",
    "load_claims",
    "load_co2",
    "load_digits",
    "load_images",
    "load_photograph",
    "load_results",
    "load_sunspots",
    "load_terms",
]

SETS = {"digits": load_digits, "cluttered": cluttered_digits, "cued": cued_digits}


def load_images(source: str | Path, *, split: str = "train", **options: object) -> Images:
    """Load a set of images by its name, or from a folder that has one sub-folder of pictures for each class.

    Args:
        source: ``"digits"``, ``"cluttered"``, ``"cued"``, or the path of a folder.
        split: ``"train"``, ``"test"`` or ``"all"``.
        options: what the set's own function takes besides: ``n`` and ``seed`` for the two composed sets;
            ``size``, ``test_fraction`` and ``seed`` for a folder.

    Raises ValueError if there is neither such a set nor such a folder.
    """
    if source in SETS:
        return SETS[source](split=split, **options)
    if not Path(source).is_dir():
        names = ", ".join(repr(name) for name in SETS)
        raise ValueError(f"source={str(source)!r} is none of {names}, nor a folder{nearest(source, SETS)}")
    return image_folder(source, split=split, **options)


def example_feature_map() -> Float64[Tensor, "1 4 2 2"]:
    """The feature map that the notebooks on feature maps follow with a pencil: four channels of 2x2.

    The channels' means are 2, 1, -1, 1 and their maxima 3, 2, 0, 4.
    """
    channels = [[[1, 2], [3, 2]], [[0, 1], [1, 2]], [[-2, 0], [-1, -1]], [[4, 0], [0, 0]]]
    return torch.tensor([channels], dtype=torch.float64)
