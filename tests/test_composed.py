"""The composed sets keep what their docstrings promise: what is to be found is there, where it says."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from attnlib.lab.data import cluttered_digits, cued_digits, load_digits

N = 120


@pytest.fixture(scope="module")
def cluttered():
    return cluttered_digits(N, seed=3)


@pytest.fixture(scope="module")
def cued():
    return cued_digits(N, seed=3)


@pytest.mark.parametrize(
    ("make", "shape"), [(cluttered_digits, (5, 1, 32, 32)), (cued_digits, (5, 2, 16, 8))]
)
def test_shape_range_and_seed(make, shape):
    first, again, other = make(5), make(5, seed=0), make(5, seed=1)
    assert first.images.shape == shape
    assert first.images.min() == 0 and first.images.max() <= 1
    assert torch.equal(first.images, again.images) and torch.equal(first.labels, again.labels)
    assert not torch.equal(first.images, other.images)
    assert not torch.equal(first.images, make(5, split="test").images)


@pytest.mark.parametrize("make", [cluttered_digits, cued_digits])
def test_arguments_are_checked(make):
    with pytest.raises(ValueError, match="n=0 should be a whole number of at least 1"):
        make(0)
    with pytest.raises(ValueError, match=r"split='tset' is not one of .*did you mean 'test'"):
        make(3, split="tset")


def target_in(image, box, large, labels):
    """The enlarged digit whose ink fits into ``box`` of ``image`` best, its label and its distance.

    The outermost pixels of the box are left out, since fragments may reach into them.
    """
    x0, y0, x1, y1 = box
    best = (np.inf, None, None)
    for digit, label in zip(large, labels, strict=True):
        ys, xs = np.nonzero(digit >= 0.25)
        if (ys.max() + 1 - ys.min(), xs.max() + 1 - xs.min()) != (y1 - y0, x1 - x0):
            continue
        ink = digit[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]
        distance = np.abs(ink - image[y0:y1, x0:x1])[1:-1, 1:-1].max()
        if distance < best[0]:
            best = (distance, ink, label)
    return best


def test_the_target_is_whole_unhidden_and_in_its_box(cluttered):
    digits = load_digits("train")
    large = F.interpolate(digits.images, scale_factor=2, mode="bilinear")[:, 0].numpy()
    for i in range(40):
        x0, y0, x1, y1 = box = cluttered.boxes[i].tolist()
        assert 0 <= x0 < x1 <= 32 and 0 <= y0 < y1 <= 32
        distance, ink, label = target_in(cluttered.images[i, 0].numpy(), box, large, digits.labels.tolist())
        assert distance == 0
        assert (cluttered.images[i, 0, y0:y1, x0:x1].numpy() >= ink).all()
        assert label == cluttered.labels[i]
        ys, xs = np.nonzero(ink >= 0.25)
        weights = ink[ys, xs]
        expected = [
            [x0 + (xs * weights).sum() / weights.sum(), y0 + (ys * weights).sum() / weights.sum()],
            [x0 + xs[ys == 0].mean(), y0],
            [x0 + xs[ys == ink.shape[0] - 1].mean(), y1 - 1],
        ]
        assert torch.allclose(cluttered.keypoints[i], torch.tensor(expected).float())


def test_targets_come_from_the_split_only():
    digits = load_digits("test")
    large = F.interpolate(digits.images, scale_factor=2, mode="bilinear")[:, 0].numpy()
    data = cluttered_digits(20, split="test")
    for image, box in zip(data.images[:, 0].numpy(), data.boxes.tolist(), strict=True):
        assert target_in(image, box, large, digits.labels.tolist())[0] == 0


def test_two_thirds_of_the_ink_are_clutter():
    data = cluttered_digits(400)
    inside = sum(
        image[0, y0:y1, x0:x1].sum()
        for image, (x0, y0, x1, y1) in zip(data.images, data.boxes.tolist(), strict=True)
    )
    assert 0.29 < inside / data.images.sum() < 0.38


def test_no_fragment_can_hold_a_whole_digit():
    digits = load_digits("all").images[:, 0]
    assert (digits[:, 0].amax(1) > 0).all() and (
        digits[:, -1].amax(1) > 0
    ).all()  # all are 8, enlarged 16, high


def test_chance_and_the_best_fixed_place():
    data = cluttered_digits(1000, seed=5)
    covered = torch.zeros(32, 32)
    for x0, y0, x1, y1 in data.boxes.tolist():
        covered[y0:y1, x0:x1] += 1 / len(data)
    assert covered.mean().item() == pytest.approx(0.17, abs=0.01)
    assert covered.max().item() == pytest.approx(0.56, abs=0.04)


def test_targets_are_spread_over_all_places():
    boxes = cluttered_digits(1000, seed=5).boxes
    # ink too faint for the box may take the outermost pixel
    assert boxes[:, 0].min() <= 1 and boxes[:, 2].max() >= 31
    assert boxes[:, 1].min() <= 1 and boxes[:, 3].max() >= 31
    centres = (boxes[:, 0] + boxes[:, 2]).float() / 2
    assert centres.mean().item() == pytest.approx(16, abs=0.8)


def test_labels_are_drawn_over_all_classes(cluttered, cued):
    assert set(cluttered.labels.tolist()) == set(range(10))
    assert set(cued.labels.tolist()) == set(range(10))


def test_the_square_says_which_side_the_label_is_of(cued):
    digits = load_digits("train")
    for image, label in zip(cued.images, cued.labels.tolist(), strict=True):
        marked = int(image[1, 0, 0])
        assert image[marked, :4, :4].eq(1).all() and not image[1 - marked, :8].any()
        found = [
            set(digits.labels[(digits.images[:, 0] == d).all(-1).all(-1)].tolist()) for d in image[:, 8:]
        ]
        assert label in found[marked] and label not in found[1 - marked]


def test_no_window_of_five_pixels_holds_the_square_and_a_digit(cued):
    rest = cued.images.clone()
    rest[:, :, :4, :4] = 0
    rest[:, :, 8:] = 0
    assert not rest.any()
    assert cued.images[:, :, 8].any() and cued.images[:, :, 3].any()  # and no row is given away


def test_squares_are_balanced_and_in_random_order():
    for n, on_the_first in [(10, 5), (11, 6), (1, 1)]:
        assert cued_digits(n).images[:, 0, 0, 0].sum() == on_the_first
    order = cued_digits(40).images[:, 0, 0, 0].tolist()
    assert order not in ([1, 0] * 20, [0, 1] * 20, sorted(order), sorted(order, reverse=True))
