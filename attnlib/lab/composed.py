"""Sets composed of the handwritten digits, so that what an attention mechanism should find is known."""

import numpy as np
import torch
from torch.nn import functional as F

from attnlib._checks import check_positive
from attnlib.lab.images import Images
from attnlib.lab.stored import load_digits

INK = 0.25  # a pixel of at least this value is ink: boxes, ends and fragments are measured by it
FRAGMENTS = 7
FRAGMENT_SIZE = 7  # pixels; an enlarged digit is 16 high, so a fragment is half of one at most
FRAGMENT_INK = 0.4  # the share of a fragment's pixels that is ink, at least
PLACES_TRIED = 4  # of which a fragment takes the emptiest, so that fragments do not pile up
MARGIN = 1  # pixels by which a fragment may reach into the target's box


def cluttered_digits(n: int = 1000, *, split: str = "train", seed: int = 0) -> Images:
    """One whole digit at a random place among seven fragments of other digits: images (n, 1, 32, 32).

    The digits of ``load_digits(split)`` are enlarged from 8x8 to 16x16 by bilinear interpolation. A fragment
    is a 7x7 piece of another one, so ink, stroke width and scale do not tell the target from the clutter;
    that it is whole does. Two thirds of the ink are clutter. Digit and fragments are combined by their
    maximum. A fragment may touch the target, but reaches into its box by one pixel at most.

    The box is the smallest that holds all pixels of the target with at least a quarter of full ink. The
    key-points are the centroid of that ink and the middle of its topmost and of its bottommost row.

    Every place where the target fits is equally likely. A digit is as high as half the image, so nearly all
    boxes cross the middle rows: a box covers 17% of the image, but the best fixed place lies in 56% of the
    boxes. Compare a localisation score with that of a fixed place, not only with chance.
    """
    check_positive("n", n)
    digits = load_digits(split)
    large = F.interpolate(digits.images, scale_factor=2, mode="bilinear")[:, 0].numpy()
    rng = np.random.default_rng(seed)
    images = np.zeros((n, 1, 32, 32), np.float32)
    boxes, keypoints = np.zeros((n, 4), np.int64), np.zeros((n, 3, 2), np.float32)
    targets = rng.integers(len(large), size=n)
    for i, target in enumerate(targets.tolist()):
        image = images[i, 0]
        digit = _trimmed(large[target])
        height, width = digit.shape
        row, column = rng.integers(32 - height + 1), rng.integers(32 - width + 1)
        image[row : row + height, column : column + width] = digit
        boxes[i], keypoints[i] = _box(image), _keypoints(image)
        for _ in range(FRAGMENTS):
            _add_fragment(image, large[_another(rng, len(large), target)], boxes[i], rng)
    return Images(
        torch.from_numpy(images),
        digits.labels[torch.from_numpy(targets)],
        digits.classes,
        torch.from_numpy(boxes),
        torch.from_numpy(keypoints),
    )


def cued_digits(n: int = 1000, *, split: str = "train", seed: int = 0) -> Images:
    """Cards with two sides, and a mark that says which side to read: images (n, 2, 16, 8).

    Each channel is a side of the card with a digit in its lower half, rows 8 to 15; the two digits are of
    different classes. One side has a bright 4x4 square in its top left corner: that side is to be read, and
    the label is the class of its digit. The square is on either side for one half of the cards (on the first
    for one more if ``n`` is odd), in random order.

    By construction a channel gate can solve this, and a network that is linear behind two 3x3 convolutions
    cannot: a unit has seen 5x5 pixels, and none holds both the square (rows 0 to 3) and a digit (from row 8
    on). A linear layer behind them only adds what was found at the square to what was found at the digits,
    and with a sum the square cannot choose between two digits. A gate that looks at the whole image
    multiplies the one with the other. A spatial gate multiplies as well, but by the same number for both
    digits, since they lie at the same place; a wide window, which sees the square and the upper rows of the
    digits at once, still gains some points (notebook 10).
    """
    check_positive("n", n)
    digits = load_digits(split)
    rng = np.random.default_rng(seed)
    marked = rng.permutation(np.arange(n) % 2)
    images, labels = torch.zeros(n, 2, 16, 8), torch.zeros(n, dtype=torch.int64)
    for i, side in enumerate(marked.tolist()):
        first = rng.integers(len(digits))
        others = np.flatnonzero(digits.labels != digits.labels[first])
        pair = [first, rng.choice(others)]
        images[i, :, 8:] = digits.images[pair, 0]
        images[i, side, :4, :4] = 1
        labels[i] = digits.labels[pair[side]]
    return Images(images, labels, digits.classes)


def _trimmed(digit: np.ndarray) -> np.ndarray:
    rows, columns = np.flatnonzero(digit.any(1)), np.flatnonzero(digit.any(0))
    return digit[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _box(image: np.ndarray) -> np.ndarray:
    ys, xs = np.nonzero(image >= INK)
    return np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])


def _keypoints(image: np.ndarray) -> np.ndarray:
    ys, xs = np.nonzero(image >= INK)
    centre = np.average(xs, weights=image[ys, xs]), np.average(ys, weights=image[ys, xs])
    top, bottom = ys.min(), ys.max()
    return np.array([centre, (xs[ys == top].mean(), top), (xs[ys == bottom].mean(), bottom)])


def _another(rng: np.random.Generator, n: int, index: int) -> int:
    other = int(rng.integers(n - 1))
    return other + (other >= index)


def _add_fragment(image: np.ndarray, digit: np.ndarray, box: np.ndarray, rng: np.random.Generator) -> None:
    x0, y0, x1, y1 = box
    size = FRAGMENT_SIZE
    while True:
        row, column = rng.integers(16 - size + 1, size=2)
        fragment = digit[row : row + size, column : column + size]
        if (fragment >= INK).mean() >= FRAGMENT_INK:
            break
    places = []
    while len(places) < PLACES_TRIED:
        y, x = rng.integers(32 - size + 1, size=2)
        if x + size <= x0 + MARGIN or x >= x1 - MARGIN or y + size <= y0 + MARGIN or y >= y1 - MARGIN:
            places.append(image[y : y + size, x : x + size])
    emptiest = min(places, key=np.sum)
    np.maximum(emptiest, fragment, out=emptiest)
