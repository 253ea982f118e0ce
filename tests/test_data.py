"""Every experiment takes any set: by name, or a folder."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from attnlib.lab.data import cued_digits, example_feature_map, load_digits, load_images


@pytest.mark.parametrize(
    ("source", "shape"),
    [("digits", (510, 1, 8, 8)), ("cluttered", (1000, 1, 32, 32)), ("cued", (1000, 2, 16, 8))],
)
def test_every_set_by_name(source, shape):
    assert load_images(source, split="test").images.shape == shape


def test_split_and_options_reach_the_set():
    assert torch.equal(load_images("digits").images, load_digits("train").images)
    direct = cued_digits(6, split="test", seed=4)
    assert torch.equal(load_images("cued", split="test", n=6, seed=4).images, direct.images)


@pytest.mark.parametrize("kind", [str, Path])
def test_a_folder_of_pictures(tmp_path, kind):
    for name in ["a", "b"]:
        (tmp_path / name).mkdir()
        for i in range(3):
            Image.new("RGB", (6, 4)).save(tmp_path / name / f"{i}.png")
    assert load_images(kind(tmp_path), split="train", size=5).images.shape == (4, 3, 5, 5)


def test_a_misspelt_name():
    with pytest.raises(
        ValueError, match=r"source='clutered' is none of 'digits', .*; did you mean 'cluttered'\?"
    ):
        load_images("clutered")
    with pytest.raises(ValueError, match="nor a folder"):
        load_images(Path("no") / "where")


def test_example_feature_map():
    x = example_feature_map()
    assert x.dtype == torch.float64
    assert x.shape == (1, 4, 2, 2)
    assert x.mean((2, 3)).tolist() == [[2, 1, -1, 1]]
    assert x.amax((2, 3)).tolist() == [[3, 2, 0, 4]]
    assert x[0].tolist() == [[[1, 2], [3, 2]], [[0, 1], [1, 2]], [[-2, 0], [-1, -1]], [[4, 0], [0, 0]]]
