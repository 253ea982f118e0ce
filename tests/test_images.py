"""Images holds together what belongs together, and batches go through all of it in a seeded order."""

import pytest
import torch

from attnlib.lab.data import Images, batches


def seven() -> Images:
    """Seven images of 2x3x5 pixels whose values, boxes and key-points all tell their number."""
    number = torch.arange(7)
    return Images(
        images=(number.float() / 7).view(7, 1, 1, 1).expand(7, 2, 3, 5).contiguous(),
        labels=number % 4,
        classes=("a", "b", "c", "d"),
        boxes=number.view(7, 1).expand(7, 4).contiguous(),
        keypoints=number.float().view(7, 1, 1).expand(7, 3, 2).contiguous(),
    )


def numbers(data: Images) -> list[int]:
    """The numbers of the images in ``data``, which all its parts must agree on."""
    from_images = (data.images[:, 0, 0, 0] * 7).round().long()
    assert torch.equal(data.boxes[:, 2], from_images)
    assert torch.equal(data.keypoints[:, 1, 0].long(), from_images)
    assert torch.equal(data.labels, from_images % 4)
    return from_images.tolist()


def test_length_and_short_description():
    assert len(seven()) == 7
    assert repr(seven()) == "Images(7 of 2 x 3 x 5, 4 classes)"


@pytest.mark.parametrize(
    ("indices", "expected"),
    [
        ([5, 0, 5], [5, 0, 5]),
        (slice(1, 6, 2), [1, 3, 5]),
        (torch.tensor([6, 2]), [6, 2]),
        (torch.arange(7) > 4, [5, 6]),
        ([], []),
    ],
    ids=["list", "slice", "tensor", "booleans", "none"],
)
def test_subset_takes_every_part_along(indices, expected):
    subset = seven().subset(indices)
    assert numbers(subset) == expected
    assert subset.classes == ("a", "b", "c", "d")


def test_subset_without_boxes_and_keypoints():
    data = seven()
    subset = Images(data.images, data.labels, data.classes).subset([3])
    assert subset.boxes is None
    assert subset.keypoints is None


def order_of(*, batch_size: int, seed: int) -> list[int]:
    return [number for batch in batches(seven(), batch_size, seed=seed) for number in numbers(batch)]


def test_batches_go_through_all_images_once():
    assert [len(batch) for batch in batches(seven(), 3, seed=0)] == [3, 3, 1]
    order = order_of(batch_size=3, seed=0)
    assert sorted(order) == list(range(7))
    assert order != list(range(7))


def test_seed_alone_decides_the_order():
    assert order_of(batch_size=3, seed=8) == order_of(batch_size=5, seed=8)
    assert order_of(batch_size=3, seed=8) != order_of(batch_size=3, seed=9)


def test_batch_size_is_checked():
    with pytest.raises(ValueError, match="batch_size=0 should be a whole number of at least 1"):
        next(batches(seven(), 0, seed=0))


@pytest.mark.no_shape_hook
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"images": torch.zeros(7, 3, 5)},
            r"images should be a float32 tensor of shape .*torch.float32 of shape \(7, 3, 5\)",
        ),
        (
            {"images": torch.zeros(7, 2, 3, 5).double()},
            r"images should be a float32 tensor.* got torch.float64",
        ),
        ({"labels": torch.zeros(6).long()}, r"labels should have shape \(7,\) for 7 images, got \(6,\)"),
        ({"labels": torch.zeros(7)}, r"labels should be int64, got torch.float32; convert with .long\(\)"),
        (
            {"labels": torch.tensor([0, 1, 2, 3, 4, 0, 0])},
            r"labels should lie in 0..3 for 4 classes, got 0..4",
        ),
        (
            {"labels": torch.tensor([0, 1, 2, 3, -1, 0, 0])},
            r"labels should lie in 0..3 for 4 classes, got -1..3",
        ),
        ({"boxes": torch.zeros(7, 3).long()}, r"boxes should have shape \(7, 4\) for 7 images, got \(7, 3\)"),
        ({"keypoints": torch.zeros(8, 3, 2)}, r"keypoints should have shape \(7, 3, 2\) .* got \(8, 3, 2\)"),
    ],
    ids=["axes", "dtype", "too few labels", "float labels", "label 4", "label -1", "boxes", "keypoints"],
)
def test_parts_that_do_not_fit_together(change, message):
    data = seven()
    parts = {"images": data.images, "labels": data.labels, "boxes": data.boxes, "keypoints": data.keypoints}
    with pytest.raises(ValueError, match=message):
        Images(classes=data.classes, **(parts | change))
