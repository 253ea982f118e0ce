"""Labelled images in memory, and batches of them for training."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from attnlib._checks import check_positive


@dataclass(frozen=True, eq=False, repr=False)
class Images:
    """A set of labelled images.

    Attributes:
        images: n images of c channels, float32; in [0, 1] in every set that this package makes.
        labels: the class of each image, an index into ``classes``.
        classes: the names of the classes.
        boxes: for each image x0, y0, x1, y1 of the object in it, in pixels, the ends left out: the object
            lies in ``image[:, y0:y1, x0:x1]``. None where the set has no boxes.
        keypoints: for each image the (x, y) of the object's centre, top end and bottom end, in pixels; the
            centre of the pixel in column 3 of row 5 is (3, 5). None where the set has no key-points.

    Attributes that do not fit together raise ValueError.
    """

    images: Float32[Tensor, "n c h w"]
    labels: Int64[Tensor, " n"]
    classes: tuple[str, ...]
    boxes: Int64[Tensor, "n 4"] | None = None
    keypoints: Float[Tensor, "n 3 2"] | None = None

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.images.dtype != torch.float32:
            raise ValueError(
                f"images should be a float32 tensor of shape (n, channels, height, width), got "
                f"{self.images.dtype} of shape {tuple(self.images.shape)}; convert with .float() and add or "
                f"remove axes"
            )
        n = len(self.images)
        for name, shape in [("labels", (n,)), ("boxes", (n, 4)), ("keypoints", (n, 3, 2))]:
            value = getattr(self, name)
            if value is not None and tuple(value.shape) != shape:
                raise ValueError(
                    f"{name} should have shape {shape} for {n} images, got {tuple(value.shape)}; "
                    f"give one row for each image"
                )
        if self.labels.dtype != torch.int64:
            raise ValueError(f"labels should be int64, got {self.labels.dtype}; convert with .long()")
        if n and not 0 <= int(self.labels.min()) <= int(self.labels.max()) < len(self.classes):
            raise ValueError(
                f"labels should lie in 0..{len(self.classes) - 1} for {len(self.classes)} classes, got "
                f"{int(self.labels.min())}..{int(self.labels.max())}; number the classes from 0 and name each"
            )

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        size = " x ".join(str(s) for s in self.images.shape[1:])
        return f"Images({len(self)} of {size}, {len(self.classes)} classes)"

    def subset(self, indices: Tensor | np.ndarray | Sequence[int] | slice) -> "Images":
        """The images that ``indices`` picks, in its order: whole numbers, a slice, or n booleans."""

        def pick(value: Tensor | None) -> Tensor | None:
            return None if value is None else value[indices]

        return Images(
            self.images[indices], self.labels[indices], self.classes, pick(self.boxes), pick(self.keypoints)
        )


def batches(data: Images, batch_size: int, *, seed: int) -> Iterator[Images]:
    """Yield all of ``data`` once, ``batch_size`` images at a time, in an order that ``seed`` alone decides.

    The last batch is smaller where ``batch_size`` does not divide ``len(data)``.
    """
    check_positive("batch_size", batch_size)
    order = np.random.default_rng(seed).permutation(len(data))
    for start in range(0, len(data), batch_size):
        yield data.subset(order[start : start + batch_size])
