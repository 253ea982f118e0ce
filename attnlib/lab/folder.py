"""Any folder of pictures as a set of labelled images."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from attnlib._checks import check_choice, check_positive
from attnlib.lab.images import Images


def image_folder(
    path: str | Path, *, size: int = 32, split: str = "all", test_fraction: float = 0.2, seed: int = 0
) -> Images:
    """Read a folder that has one sub-folder of pictures for each class.

    Args:
        path: the folder. The names of its sub-folders, sorted, are the classes. If it has sub-folders
            ``train`` and ``test``, these hold the class folders and are the splits.
        size: each picture is scaled until its shorter side has this many pixels, then cropped at the centre.
        split: ``"train"``, ``"test"`` or ``"all"``.
        test_fraction: the share of each class that goes to the test split; at least one picture of each class
            goes to either split. Without meaning where the folder has its own splits.
        seed: decides which pictures these are.

    Returns RGB images (n, 3, size, size), without boxes or key-points. Hidden files are passed over. A
    missing folder, no classes, an empty class, and a file that is not a readable picture or lies in the wrong
    place raise ValueError, which names it.
    """
    check_positive("size", size)
    check_choice("split", split, ["train", "test", "all"])
    if not 0 < test_fraction < 1:
        raise ValueError(f"test_fraction={test_fraction!r} should lie between 0 and 1, for instance 0.2")
    root = Path(path)
    if not root.is_dir():
        raise ValueError(f"there is no folder {root}; give a folder that has one sub-folder for each class")
    if (root / "train").is_dir() and (root / "test").is_dir():
        files = _files_of_given_splits(root, split)
    else:
        files = _files_of_drawn_splits(_files_by_class(root), split, test_fraction, seed)
    pictures = [_read(file, size) for members in files.values() for file in members]
    labels = [label for label, members in enumerate(files.values()) for _ in members]
    images = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()
    return Images(images.float() / 255, torch.tensor(labels), tuple(files))


def _files_of_given_splits(root: Path, split: str) -> dict[str, list[Path]]:
    for entry in _visible(root):
        if entry.name not in ("train", "test"):
            raise ValueError(
                f"{entry} lies beside the folders train and test; move it into a class of one of them"
            )
    train, test = _files_by_class(root / "train"), _files_by_class(root / "test")
    if odd := sorted(train.keys() ^ test.keys()):
        raise ValueError(
            f"class {odd[0]!r} is in only one of the folders train and test of {root}; add it to both"
        )
    return {
        name: {"train": train[name], "test": test[name], "all": train[name] + test[name]}[split]
        for name in train
    }


def _files_of_drawn_splits(
    files: dict[str, list[Path]], split: str, test_fraction: float, seed: int
) -> dict[str, list[Path]]:
    if split == "all":
        return files
    rng = np.random.default_rng(seed)
    chosen = {}
    for name, members in files.items():
        if len(members) < 2:
            raise ValueError(
                f"class {name!r} has one picture, which cannot be split; add more or use split='all'"
            )
        tests = min(max(round(test_fraction * len(members)), 1), len(members) - 1)
        in_test = set(rng.permutation(len(members))[:tests].tolist())
        chosen[name] = [file for i, file in enumerate(members) if (i in in_test) == (split == "test")]
    return chosen


def _files_by_class(root: Path) -> dict[str, list[Path]]:
    files = {}
    for folder in _visible(root):
        if not folder.is_dir():
            raise ValueError(f"{folder} lies outside the class folders of {root}; move or remove it")
        files[folder.name] = _visible(folder)
        if not files[folder.name]:
            raise ValueError(f"class folder {folder} is empty; put pictures into it or remove it")
    if not files:
        raise ValueError(f"{root} has no class folders; make one sub-folder of pictures for each class")
    return files


def _visible(folder: Path) -> list[Path]:
    hidden = {"thumbs.db", "desktop.ini"}
    entries = [e for e in folder.iterdir() if not e.name.startswith(".") and e.name.lower() not in hidden]
    return sorted(entries, key=lambda e: e.name)


def _read(file: Path, size: int) -> np.ndarray:
    if file.is_dir():
        raise ValueError(
            f"{file} is a folder inside the class folder {file.parent.name!r}; move its pictures up, or, "
            f"if the classes are meant to lie inside of splits, name these train and test"
        )
    try:
        with Image.open(file) as picture:
            upright = ImageOps.exif_transpose(picture).convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{file} cannot be read as a picture ({error}); replace or remove it") from error
    return np.asarray(ImageOps.fit(upright, (size, size), Image.Resampling.BICUBIC))
