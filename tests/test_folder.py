"""Any folder of class sub-folders is a data set, and whatever is wrong with it is named."""

import numpy as np
import pytest
import torch
from PIL import Image

from attnlib.lab.data import Images, image_folder


def paint(file, *, value, width=11, height=9, mode="RGB"):
    """A picture of one colour, whose red says which picture it is."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), (value, 40, 80)).convert(mode).save(file)


@pytest.fixture
def pets(tmp_path):
    """Ten dogs with red 100 to 109 and five cats with red 200 to 204."""
    for i in range(10):
        paint(tmp_path / "dog" / f"{i}.png", value=100 + i)
    for i in range(5):
        paint(tmp_path / "cat" / f"{i}.png", value=200 + i)
    return tmp_path


def reds(data: Images) -> list[int]:
    return (data.images[:, 0, 0, 0] * 255).round().int().tolist()


def test_all_pictures_with_classes_by_name(pets):
    data = image_folder(pets, size=7)
    assert data.images.shape == (15, 3, 7, 7)
    assert data.classes == ("cat", "dog")
    assert data.labels.tolist() == [0] * 5 + [1] * 10
    assert reds(data) == [*range(200, 205), *range(100, 110)]
    assert torch.allclose(data.images[:, 1:, 3, 5], torch.tensor([40 / 255, 80 / 255]))
    assert data.boxes is None and data.keypoints is None


def test_splits_are_stratified_disjoint_and_seeded(pets):
    train, test = image_folder(pets, split="train"), image_folder(pets, split="test")
    assert test.labels.tolist() == [0] + [1] * 2
    assert train.labels.tolist() == [0] * 4 + [1] * 8
    assert sorted(reds(train) + reds(test)) == sorted(reds(image_folder(pets)))
    assert reds(image_folder(pets, split="test")) == reds(test)
    others = [reds(image_folder(pets, split="test", seed=seed)) for seed in range(1, 5)]
    assert any(other != reds(test) for other in others)


@pytest.mark.parametrize(("fraction", "expected"), [(0.01, [1, 1]), (0.4, [2, 4]), (0.99, [4, 9])])
def test_either_split_has_a_picture_of_each_class(pets, fraction, expected):
    test = image_folder(pets, split="test", test_fraction=fraction)
    train = image_folder(pets, split="train", test_fraction=fraction)
    assert test.labels.bincount().tolist() == expected
    assert train.labels.bincount().tolist() == [5 - expected[0], 10 - expected[1]]


def test_folders_train_and_test_are_the_splits(tmp_path):
    for split, name, value in [("train", "b", 1), ("train", "a", 2), ("test", "a", 3), ("test", "b", 4)]:
        paint(tmp_path / split / name / "one.png", value=value)
    assert reds(image_folder(tmp_path, split="train")) == [2, 1]
    assert reds(image_folder(tmp_path, split="test")) == [3, 4]
    both = image_folder(tmp_path)
    assert reds(both) == [2, 3, 1, 4]
    assert both.labels.tolist() == [0, 0, 1, 1]
    assert both.classes == ("a", "b")


@pytest.mark.parametrize("upright", [False, True], ids=["lying", "upright"])
def test_shorter_side_is_scaled_and_the_centre_kept(tmp_path, upright):
    # 12 x 36: three squares, red at both ends and green in the middle
    pixels = np.zeros((12, 36, 3), np.uint8)
    pixels[:, :, 0], pixels[:, 12:24, 0], pixels[:, 12:24, 1] = 255, 0, 255
    (tmp_path / "x").mkdir()
    Image.fromarray(pixels.swapaxes(0, 1) if upright else pixels).save(tmp_path / "x" / "a.png")
    image = image_folder(tmp_path, size=6).images[0]
    assert image.shape == (3, 6, 6)
    # at the border the scaling mixes in a little of the neighbours
    assert torch.equal(image[:, 1:-1, 1:-1], torch.tensor([0.0, 1.0, 0.0]).view(3, 1, 1).expand(3, 4, 4))


def test_a_photograph_is_turned_as_its_camera_says(tmp_path):
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:4] = 255  # white above; the orientation 6 asks for a quarter turn to the right
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "x").mkdir()
    Image.fromarray(pixels).save(tmp_path / "x" / "a.png", exif=exif)
    image = image_folder(tmp_path, size=8).images[0]
    assert torch.equal(image[:, :, 4:], torch.ones(3, 8, 4))
    assert torch.equal(image[:, :, :4], torch.zeros(3, 8, 4))


def test_grey_pictures_become_rgb(tmp_path):
    paint(tmp_path / "x" / "a.png", value=250, mode="L")
    image = image_folder(tmp_path).images[0]
    assert torch.equal(image[0], image[1]) and torch.equal(image[0], image[2])


def test_hidden_files_are_passed_over(pets):
    for place in [pets, pets / "cat"]:
        for name in [".DS_Store", "Thumbs.db", "desktop.ini"]:
            (place / name).write_bytes(b"x")
    assert len(image_folder(pets)) == 15


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda p: (p / "cat" / "0.png").write_bytes(b"no picture"),
            r"0\.png cannot be read as a picture .*replace or",
        ),
        (lambda p: cut(p / "cat" / "3.png"), r"3\.png cannot be read as a picture .*replace or remove"),
        (lambda p: (p / "cat" / "notes.txt").write_text("hello"), r"notes\.txt cannot be read as a picture"),
        (lambda p: (p / "list.csv").write_text("hello"), r"list\.csv lies outside the class folders"),
        (lambda p: (p / "bird").mkdir(), r"class folder .*bird is empty; put pictures into it or remove it"),
        (lambda p: (p / "cat" / "old").mkdir(), r"old is a folder inside the class folder 'cat'"),
        (
            lambda p: (p / "test" / "cat").mkdir(parents=True) or (p / "train").mkdir(),
            r"cat lies beside the folders",
        ),
    ],
    ids=[
        "not a picture",
        "cut off",
        "text",
        "outside a class",
        "empty class",
        "folder in a class",
        "beside splits",
    ],
)
def test_what_does_not_belong_is_named(pets, spoil, message):
    spoil(pets)
    with pytest.raises(ValueError, match=message):
        image_folder(pets)


def cut(file):
    noise = np.random.default_rng(0).integers(0, 256, (64, 48, 3), np.uint8)
    Image.fromarray(noise).save(file)
    file.write_bytes(file.read_bytes()[:4000])


def test_missing_folder_and_no_classes(tmp_path):
    with pytest.raises(
        ValueError, match=r"there is no folder .*nowhere; give a folder that has one sub-folder"
    ):
        image_folder(tmp_path / "nowhere")
    with pytest.raises(
        ValueError, match="has no class folders; make one sub-folder of pictures for each class"
    ):
        image_folder(tmp_path)


def test_a_class_of_one_picture_cannot_be_split(pets):
    paint(pets / "bird" / "a.png", value=1)
    with pytest.raises(ValueError, match="class 'bird' has one picture, which cannot be split"):
        image_folder(pets, split="train")


def test_a_class_in_one_split_only(tmp_path):
    for name in ["train/a", "train/b", "test/a"]:
        paint(tmp_path / name / "one.png", value=1)
    with pytest.raises(ValueError, match="class 'b' is in only one of the folders train and test"):
        image_folder(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "size=0 should be a whole number of at least 1"),
        ({"split": "tests"}, "split='tests' is not one of 'train', 'test', 'all'; did you mean 'test'"),
        ({"test_fraction": 1.0}, "test_fraction=1.0 should lie between 0 and 1"),
    ],
)
def test_options_are_checked(pets, options, message):
    with pytest.raises(ValueError, match=message):
        image_folder(pets, **options)
