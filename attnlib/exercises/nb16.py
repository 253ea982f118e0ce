"""The exercises of 16_hrnet."""

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from attnlib.exercises.checker import Exercise, Wrong, choice, ramp

# 16.1 the fusion of two branches -------------------------------------------------------------------------


def fuse(fine: Tensor, coarse: Tensor, W_up: Tensor, W_down: Tensor) -> tuple[Tensor, Tensor]:
    up = F.interpolate(F.conv2d(coarse, W_up[:, :, None, None]), scale_factor=2, mode="nearest")
    down = F.conv2d(fine, W_down, stride=2, padding=1)
    return F.relu(fine + up), F.relu(coarse + down)


def fuse_by_einsum(fine: Tensor, coarse: Tensor, W_up: Tensor, W_down: Tensor) -> tuple[Tensor, Tensor]:
    up = torch.einsum("ce,behw->bchw", W_up, coarse).repeat_interleave(2, 2).repeat_interleave(2, 3)
    down = F.conv2d(F.pad(fine, (1, 1, 1, 1)), W_down, stride=2)
    return (fine + up).clamp(min=0), (coarse + down).clamp(min=0)


def fuse_up_first(fine: Tensor, coarse: Tensor, W_up: Tensor, W_down: Tensor) -> tuple[Tensor, Tensor]:
    large = coarse.repeat_interleave(2, dim=-1).repeat_interleave(2, dim=-2)
    up = F.conv2d(large, W_up[:, :, None, None])
    return torch.relu(fine + up), torch.relu(coarse + F.conv2d(fine, W_down, padding=1)[:, :, ::2, ::2])


def parts(fine: Tensor, coarse: Tensor, W_up: Tensor, W_down: Tensor) -> tuple[Tensor, Tensor]:
    up = F.interpolate(F.conv2d(coarse, W_up[:, :, None, None]), scale_factor=2, mode="nearest")
    return up, F.conv2d(fine, W_down, stride=2, padding=1)


def one_after_the_other(fine: Tensor, coarse: Tensor, W_up: Tensor, W_down: Tensor) -> tuple[Tensor, Tensor]:
    up, _ = parts(fine, coarse, W_up, W_down)
    fine = F.relu(fine + up)
    return fine, F.relu(coarse + F.conv2d(fine, W_down, stride=2, padding=1))


def bilinear(fine: Tensor, coarse: Tensor, W_up: Tensor, W_down: Tensor) -> tuple[Tensor, Tensor]:
    large = F.interpolate(F.conv2d(coarse, W_up[:, :, None, None]), scale_factor=2, mode="bilinear")
    return F.relu(fine + large), fuse(fine, coarse, W_up, W_down)[1]


def tiled(fine: Tensor, coarse: Tensor, W_up: Tensor, W_down: Tensor) -> tuple[Tensor, Tensor]:
    large = F.conv2d(coarse, W_up[:, :, None, None]).repeat(1, 1, 2, 2)
    return F.relu(fine + large), fuse(fine, coarse, W_up, W_down)[1]


def coarse_first(fine: Tensor, coarse: Tensor, W_up: Tensor, W_down: Tensor) -> tuple[Tensor, Tensor]:
    coarse = fuse(fine, coarse, W_up, W_down)[1]
    return fuse(fine, coarse, W_up, W_down)[0], coarse


def odd_windows(fine: Tensor, coarse: Tensor, W_up: Tensor, W_down: Tensor) -> tuple[Tensor, Tensor]:
    down = F.conv2d(fine, W_down, padding=1)[:, :, 1::2, 1::2]
    return fuse(fine, coarse, W_up, W_down)[0], F.relu(coarse + down)


def pooled(fine: Tensor, coarse: Tensor, W_up: Tensor, W_down: Tensor) -> tuple[Tensor, Tensor]:
    down = F.avg_pool2d(F.conv2d(fine, W_down, padding=1), 2)
    return fuse(fine, coarse, W_up, W_down)[0], F.relu(coarse + down)


def relu_on_parts(fine: Tensor, coarse: Tensor, W_up: Tensor, W_down: Tensor) -> tuple[Tensor, Tensor]:
    up, down = parts(fine, coarse, W_up, W_down)
    return fine + F.relu(up), coarse + F.relu(down)


def fuse_inputs() -> list[tuple]:
    """Oblong maps, other widths in the two branches, a batch of two."""
    return [
        (ramp(1, 2, 4, 6), ramp(1, 3, 2, 3, step=0.8), ramp(2, 3, step=1.1), ramp(3, 2, 3, 3, step=0.9)),
        (ramp(2, 1, 2, 4), ramp(2, 2, 1, 2, step=0.7), ramp(1, 2, step=1.3), ramp(2, 1, 3, 3, step=1.2)),
    ]


FUSE = Exercise(
    reference=fuse,
    right=(fuse_by_einsum, fuse_up_first),
    inputs=fuse_inputs,
    praise="Each branch hears the other, and both start from what they were: (16.2).",
    wrong=(
        Wrong(
            lambda *a: (a[0] + parts(*a)[0], a[1] + parts(*a)[1]),
            "the ReLU behind the sums is missing, (16.2)",
        ),
        Wrong(relu_on_parts, "the ReLU stands behind the sum, not on the part that is added"),
        Wrong(
            lambda *a: tuple(F.relu(part) for part in parts(*a)),
            "each branch should keep its own map too: add it to what comes from the other",
        ),
        Wrong(
            one_after_the_other,
            "the fine branch was overwritten before the coarse one had read it: both sums use the maps as they came in",
        ),
        Wrong(bilinear, "you enlarge with mode bilinear; HRNet repeats each cell, mode nearest"),
        Wrong(
            tiled, "repeat puts whole copies beside each other; every single cell should become a 2 x 2 block"
        ),
        Wrong(pooled, "the way down is one convolution with stride 2, not a convolution and a pooling"),
        Wrong(
            lambda *a: tuple(reversed(fuse(*a))),
            "both maps are right, in the wrong order: first the fine one, then the coarse one",
        ),
        Wrong(lambda *a: fuse(*a)[0], "the coarse branch is missing: return both maps"),
        Wrong(lambda *a: fuse(*a)[1], "the fine branch is missing: return both maps, the fine one first"),
        Wrong(
            lambda *a: (fuse(*a)[0], a[1] + parts(*a)[1]),
            "the fine branch is right; the coarse one lacks the ReLU behind its sum",
        ),
        Wrong(
            lambda *a: (a[0] + parts(*a)[0], fuse(*a)[1]),
            "the coarse branch is right; the fine one lacks the ReLU behind its sum",
        ),
        Wrong(
            lambda *a: (F.relu(parts(*a)[0]), fuse(*a)[1]),
            "the coarse branch is right; the fine one has lost its own map, f_11(x) = x",
        ),
        Wrong(
            lambda *a: (fuse(*a)[0], F.relu(parts(*a)[1])),
            "the fine branch is right; the coarse one has lost its own map, f_22(x) = x",
        ),
        Wrong(
            coarse_first,
            "the coarse branch was overwritten before the fine one had read it: both sums use the maps as they came in",
        ),
        Wrong(
            lambda *a: (F.relu(a[0] * parts(*a)[0]), F.relu(a[1] * parts(*a)[1])),
            "the maps are added, not multiplied; an exchange is no gate",
        ),
        Wrong(
            lambda *a: tuple((x + part).sigmoid() for x, part in zip(a[:2], parts(*a), strict=True)),
            "(16.2) ends in a ReLU, not in a sigmoid",
        ),
        Wrong(
            odd_windows,
            "your windows stand around the odd rows and columns; stride=2 with padding=1 puts the first around (0, 0)",
        ),
        Wrong(
            lambda *a: (fuse(*a)[0], F.relu(a[1] + F.conv2d(a[0], a[3], stride=2))),
            "the way down comes out too small: it lacks padding=1",
        ),
        Wrong(
            lambda *a: (fuse(*a)[0], F.relu(a[1] + F.conv2d(a[0], a[3], padding=1))),
            "the way down keeps the fine size: it lacks stride=2",
        ),
        Wrong(
            lambda *a: fuse(a[0], a[1], a[2].mT, a[3]),
            "W_up is (c, e) already, outputs first, as conv2d wants it; do not transpose it",
        ),
        Wrong(
            lambda *a: (F.relu(a[0] + a[1].repeat_interleave(2, 2).repeat_interleave(2, 3)), fuse(*a)[1]),
            "the coarse map has e channels and the fine one c: the 1x1 convolution with W_up comes before the sum",
        ),
        Wrong(
            lambda fine, coarse, W_up, W_down: fuse(fine, coarse, -W_up, -W_down),
            "the maps are added, not taken from each other",
        ),
        Wrong(
            lambda fine, coarse, W_up, W_down: (
                fuse(fine, coarse, W_up, W_down)[0],
                F.relu(coarse + F.conv2d(fine, W_down.flip(2, 3), stride=2, padding=1)),
            ),
            "your kernel is turned by half a turn; PyTorch's conv2d takes it as it stands",
        ),
        Wrong(
            lambda fine, coarse, W_up, W_down: F.conv2d(fine, W_down, stride=2) + coarse,
            "the padding is missing: with padding=1 the coarse map keeps half of the fine one's size",
        ),
        Wrong(
            lambda fine, coarse, W_up, W_down: fine + F.conv2d(coarse, W_up[:, :, None, None]),
            "maps of two sizes meet: enlarge the coarse one before you add, and go down with stride=2",
        ),
        Wrong(
            lambda fine, coarse, W_up, W_down: F.conv2d(coarse, W_up),
            "conv2d wants a kernel with four axes; W_up[:, :, None, None] adds the two of size 1",
        ),
    ),
)


# 16.2 the parameters of a fusion -------------------------------------------------------------------------


def fusion_parameters(widths: list[int]) -> int:
    total = 0
    for i, to in enumerate(widths):
        for j, source in enumerate(widths):
            if j > i:
                total += source * to + 2 * to
            elif j < i:
                total += (i - j - 1) * (9 * source**2 + 2 * source) + 9 * source * to + 2 * to
    return total


def fusion_parameters_by_layers(widths: list[int]) -> int:
    n, layers = len(widths), []
    for j in range(n):
        layers += [(widths[j], widths[i], 1) for i in range(j)]
        for i in range(j + 1, n):
            layers += [(widths[j], widths[j], 3)] * (i - j - 1) + [(widths[j], widths[i], 3)]
    return sum(a * b * k * k + 2 * b for a, b, k in layers)


def fusion_parameters_by_convolutions(widths: list[int]) -> int:
    total = 0
    for i in range(len(widths)):
        for j in range(len(widths)):
            ends = [widths[j]] * max(i - j, 0) + [widths[i]] if j <= i else [widths[j], widths[i]]
            kernel = 3 if j < i else 1
            total += sum(kernel**2 * a * b + 2 * b for a, b in itertools.pairwise(ends))
    return total


def fusion_with(up, step, last):
    """A count from functions of (source, to): for a way up, a step down, and the last step down."""

    def count(widths: list[int]) -> int:
        total = 0
        for i, to in enumerate(widths):
            for j, source in enumerate(widths):
                if j > i:
                    total += up(source, to)
                elif j < i:
                    total += (i - j - 1) * step(source, to) + last(source, to)
        return total

    return count


def norm(w: int) -> int:
    return 2 * w


def one_step_too_many(widths: list[int]) -> int:
    extra = ((j, i) for i in range(len(widths)) for j in range(i))
    return fusion_parameters(widths) + sum(9 * widths[j] ** 2 + 2 * widths[j] for j, i in extra)


def widening_chain(widths: list[int]) -> int:
    n = len(widths)
    up = sum(widths[j] * widths[i] + 2 * widths[i] for i in range(n) for j in range(i + 1, n))
    steps = (k for i in range(n) for j in range(i) for k in range(j, i))
    return up + sum(9 * widths[k] * widths[k + 1] + 2 * widths[k + 1] for k in steps)


FUSION_COUNT = Exercise(
    reference=fusion_parameters,
    right=(fusion_parameters_by_layers, fusion_parameters_by_convolutions),
    inputs=lambda: [([18, 36],), ([18, 36, 72, 144],), ([32, 64, 128],), ([3, 5, 7, 11],), ([4],)],
    praise="Every way between two branches, to the last parameter.",
    wrong=(
        Wrong(
            fusion_with(lambda s, t: s * t, lambda s, t: 9 * s * s, lambda s, t: 9 * s * t),
            "the batch norms are missing: two parameters for each channel that a convolution puts out",
        ),
        Wrong(
            fusion_with(lambda s, t: s * t + t, lambda s, t: 9 * s * s + s, lambda s, t: 9 * s * t + t),
            "a batch norm has a scale and a shift: two parameters a channel; the convolutions have no bias",
        ),
        Wrong(
            fusion_with(
                lambda s, t: 9 * s * t + norm(t),
                lambda s, t: 9 * s * s + norm(s),
                lambda s, t: 9 * s * t + norm(t),
            ),
            "the ways up are 1x1 convolutions; only the ways down have 3x3 kernels",
        ),
        Wrong(
            fusion_with(lambda s, t: s * t + norm(t), lambda s, t: 0, lambda s, t: 9 * s * t + norm(t)),
            "a way down over two steps is two convolutions; the ones before the last keep the source's width",
        ),
        Wrong(
            fusion_with(
                lambda s, t: s * t + norm(t),
                lambda s, t: 9 * s * t + norm(t),
                lambda s, t: 9 * s * t + norm(t),
            ),
            "all steps of a way down but the last keep the source's width: 9 times its square",
        ),
        Wrong(
            fusion_with(lambda s, t: s * t + norm(t), lambda s, t: 0, lambda s, t: 0),
            "the ways down are missing, from the finer branches to the coarser ones",
        ),
        Wrong(
            fusion_with(lambda s, t: 0, lambda s, t: 9 * s * s + norm(s), lambda s, t: 9 * s * t + norm(t)),
            "the ways up are missing, from the coarser branches to the finer ones",
        ),
        Wrong(
            fusion_with(
                lambda s, t: s * t + norm(t),
                lambda s, t: 3 * s * s + norm(s),
                lambda s, t: 3 * s * t + norm(t),
            ),
            "a 3x3 kernel has nine weights for each pair of channels, not three",
        ),
        Wrong(
            fusion_with(
                lambda s, t: s * t + norm(t), lambda s, t: 9 * s * s, lambda s, t: 9 * s * t + norm(t)
            ),
            "nearly: the convolutions before the last of a way down have a norm too, 2 times their width",
        ),
        Wrong(
            fusion_with(
                lambda s, t: s * t, lambda s, t: 9 * s * s + norm(s), lambda s, t: 9 * s * t + norm(t)
            ),
            "nearly: the ways up have a norm behind their convolution too",
        ),
        Wrong(
            fusion_with(lambda s, t: s * t + norm(t), lambda s, t: 9 * s * s + norm(s), lambda s, t: 0),
            "the last step of each way down is missing, from the source's width to the target's",
        ),
        Wrong(
            one_step_too_many,
            "a way over i - j steps has i - j convolutions, the last of which changes the width: i - j - 1 before it",
        ),
        Wrong(
            lambda widths: sum(fusion_parameters(list(pair)) for pair in itertools.pairwise(widths)),
            "you count neighbours only; every pair of branches has a way in each direction, also over several steps",
        ),
        Wrong(
            widening_chain,
            "your ways down widen at every step; here all but the last convolution keep the source's width",
        ),
        Wrong(
            lambda widths: fusion_parameters(widths) + sum(4 * (18 * w * w + 4 * w) for w in widths),
            "the residual blocks are counted too; asked are the ways between branches only",
        ),
        Wrong(
            lambda widths: fusion_parameters(widths[1:]),
            "you leave out the finest branch; count from index 0",
        ),
        Wrong(
            lambda widths: fusion_parameters(widths) // 2,
            "that is half of it; is something counted for one direction, or for every second pair only?",
        ),
        Wrong(
            lambda widths: fusion_parameters(widths) + sum(w * w + 2 * w for w in widths),
            "a branch's way to itself is the identity; it has no parameters",
        ),
        Wrong(
            lambda widths: fusion_parameters(widths[:2]),
            "you count the first two branches only; every pair of branches has a way in each direction",
        ),
        Wrong(
            lambda widths: fusion_parameters(widths[::-1]),
            "up and down have changed places: the first width is that of the finest branch, and from there it goes down",
        ),
    ),
)


# 16.3 the average of the weights -------------------------------------------------------------------------


def update_average(average: list, live: list, d: float) -> list:
    return [
        d * old + (1 - d) * new if new.is_floating_point() else new
        for old, new in zip(average, live, strict=True)
    ]


def update_by_lerp(average: list, live: list, d: float) -> list:
    result = []
    for old, new in zip(average, live, strict=True):
        result.append(torch.lerp(old, new, 1 - d) if new.dtype.is_floating_point else new.clone())
    return result


def update_by_a_step(average: list, live: list, d: float) -> list:
    return [
        a if torch.equal(a, b) else (a - (1 - d) * (a - b) if a.is_floating_point() else b)
        for a, b in zip(average, live, strict=True)
    ]


def states() -> list[tuple]:
    """A weight, a running variance, the whole number of batches seen and a single scale."""

    def state(step: float, seen: int) -> list:
        return [
            ramp(2, 3, step=step),
            1 + ramp(3, step=step),
            torch.tensor(seen),
            ramp(1, step=step)[0] * seen,
        ]

    return [(state(0.4, 7), state(0.9, 8), 0.75), (state(1.3, 1), state(0.2, 25), 0.9)]


def average_by(rule):
    """All right but for the rule by which numbers are averaged."""

    def update(average: list, live: list, d: float) -> list:
        pairs = zip(average, live, strict=True)
        return [rule(old, new, d) if new.is_floating_point() else new for old, new in pairs]

    return update


AVERAGE = Exercise(
    reference=update_average,
    right=(update_by_lerp, update_by_a_step),
    inputs=states,
    praise="A copy that follows slowly; the counter is a whole number and is copied.",
    wrong=(
        Wrong(
            average_by(lambda old, new, d: (1 - d) * old + d * new),
            "the two shares have changed places: d is what the average keeps of itself",
        ),
        Wrong(
            lambda average, live, d: [d * a + (1 - d) * b for a, b in zip(average, live, strict=True)],
            "the counter of batches is a whole number; it is copied, not averaged",
        ),
        Wrong(
            lambda average, live, d: [
                (d * a + (1 - d) * b).to(b.dtype) for a, b in zip(average, live, strict=True)
            ],
            "the counter is averaged and then cut to a whole number, as PyTorch does it; here it is copied",
        ),
        Wrong(
            lambda average, live, d: [
                d * a + (1 - d) * b if b.is_floating_point() else a
                for a, b in zip(average, live, strict=True)
            ],
            "the whole number is copied from the live list, not kept from the average",
        ),
        Wrong(
            lambda average, live, d: [
                d * a + (1 - d) * b if b.ndim else b for a, b in zip(average, live, strict=True)
            ],
            "a number without axes may have a point too, as a scale has; ask is_floating_point()",
        ),
        Wrong(
            lambda average, live, d: [
                d * a + (1 - d) * b for a, b in zip(average, live, strict=True) if b.is_floating_point()
            ],
            "the whole number is missing from your list; copy it",
        ),
        Wrong(
            average_by(lambda old, new, d: d * old + 1 - d * new),
            "brackets are missing around 1 - d",
        ),
        Wrong(
            average_by(lambda old, new, d: d * old - (1 - d) * new),
            "the live weights are added with their share 1 - d, not taken away",
        ),
        Wrong(
            lambda average, live, d: update_average(average, live, 0.9),
            "use the d that is handed over; yours is always 0.9",
        ),
        Wrong(
            lambda average, live, d: live,
            "that is a plain copy of the live weights; (16.7) keeps the share d of the average",
        ),
        Wrong(
            lambda average, live, d: average,
            "the average did not move; (16.7) takes the share 1 - d of the live weights",
        ),
        Wrong(
            average_by(lambda old, new, d: (old + new) / 2),
            "that is the plain mean of the two; (16.7) weighs them with d and 1 - d",
        ),
        Wrong(
            average_by(lambda old, new, d: d * old + new),
            "the factor 1 - d before the live weights is missing; the shares should sum to 1",
        ),
        Wrong(
            average_by(lambda old, new, d: d * (old + new)),
            "both are multiplied by d; the live weights have the share 1 - d",
        ),
        Wrong(
            lambda average, live, d: update_average(average, live, d)[0],
            "you return the first tensor only; a network has many, return the list",
        ),
    ),
)


# 16.4 mend a fusion that overwrites its input ------------------------------------------------------------


def fuse_all(x: Sequence, ways: Sequence) -> list:
    return [sum(W @ part for W, part in zip(row, x, strict=True)).relu() for row in ways]


def fuse_all_by_loop(x: Sequence, ways: Sequence) -> list:
    fused = []
    for row in ways:
        total = 0
        for j in range(len(x)):
            total = total + torch.einsum("nm,m->n", row[j], x[j])
        fused.append(torch.relu(total))
    return fused


def fuse_all_joined(x: Sequence, ways: Sequence) -> tuple:
    together = torch.cat([torch.cat(row, 1) for row in ways]) @ torch.cat(x)
    return tuple(together.relu().split([len(part) for part in x]))


def as_it_was(x: Sequence, ways: Sequence) -> list:
    x = list(x)
    for i, row in enumerate(ways):
        x[i] = sum(W @ part for W, part in zip(row, x, strict=True)).relu()
    return x


def in_place(x: Sequence, ways: Sequence) -> list:
    for i, row in enumerate(ways):
        x[i] = sum(W @ part for W, part in zip(row, x, strict=True)).relu()
    return x


def three_branches() -> list[tuple]:
    sizes = [4, 2, 3]
    ways = tuple(
        tuple(ramp(n, m, step=0.3 * (1 + i) + 0.2 * j) for j, m in enumerate(sizes))
        for i, n in enumerate(sizes)
    )
    return [([ramp(4), ramp(2, step=0.8), ramp(3, step=1.2)], ways)]


FUSE_ALL = Exercise(
    reference=fuse_all,
    right=(fuse_all_by_loop, fuse_all_joined),
    inputs=three_branches,
    praise="Every branch reads what all of them held before the exchange.",
    wrong=(
        Wrong(
            as_it_was,
            "the second branch still reads the first one after its fusion; a copy of the list is not enough, collect the results in a new one",
        ),
        Wrong(
            in_place,
            "that is the code as it was: the second branch reads the first one after its fusion; collect the results in a new list",
        ),
        Wrong(
            lambda x, ways: x,
            "these are the maps as they came in; return the new list, not x",
        ),
        Wrong(
            lambda x, ways: fuse_all(x, ways)[:1],
            "your list ends after the first branch; the return stands inside the loop",
        ),
        Wrong(
            lambda x, ways: [
                (part + sum(W @ p for W, p in zip(row, x, strict=True))).relu()
                for part, row in zip(x, ways, strict=True)
            ],
            "the way of a branch to itself, ways[i][i], is in the sum already; its map is added once more",
        ),
        Wrong(
            lambda x, ways: [
                sum(row[j] @ x[j] for j in range(len(x)) if j != i).relu() for i, row in enumerate(ways)
            ],
            "the way of a branch to itself, ways[i][i], belongs to the sum too",
        ),
        Wrong(
            lambda x, ways: torch.cat(fuse_all(x, ways)),
            "the branches are glued into one vector; return a list of them",
        ),
        Wrong(
            lambda x, ways: torch.stack(fuse_all(x, ways)),
            "the branches have different sizes and cannot be stacked; return a list",
        ),
        Wrong(
            lambda x, ways: [number for part in fuse_all(x, ways) for number in part],
            "extend takes the vectors apart; append keeps each branch whole",
        ),
        Wrong(
            lambda x, ways: [
                (sum(W @ p for W, p in zip(row, x, strict=True)) / len(x)).relu() for row in ways
            ],
            "(16.2) has the sum of the parts, not their mean",
        ),
        Wrong(
            lambda x, ways: [sum(ways[j][i] @ x[j] for j in range(3)).relu() for i in range(3)],
            "the two indices have changed places: ways[i][j] leads from branch j to branch i",
        ),
        Wrong(
            lambda x, ways: [sum(W @ p for W, p in zip(row, x, strict=True)) for row in ways],
            "the fusion reads the old maps now, but the ReLU is gone",
        ),
        Wrong(
            lambda x, ways: [sum(ways[j][i].mT @ x[j] for j in range(3)).relu() for i in range(3)],
            "ways[i][j] leads from branch j to branch i; you follow it the other way round",
        ),
        Wrong(
            lambda x, ways: [(row[i] @ x[i]).relu() for i, row in enumerate(ways)],
            "each branch hears only itself; add the parts from all branches",
        ),
        Wrong(
            lambda x, ways: [sum((W @ p).relu() for W, p in zip(row, x, strict=True)) for row in ways],
            "the ReLU stands behind the sum, not on its parts",
        ),
        Wrong(
            lambda x, ways: fuse_all(x, ways)[0],
            "you return the first branch only; the next unit needs all of them",
        ),
        Wrong(
            lambda x, ways: tuple(fuse_all(x, ways))[::-1],
            "the branches come out in reverse order",
        ),
    ),
)


# 16.5 groups that fit ------------------------------------------------------------------------------------


def fitting_groups(widths: list[int]) -> list[int]:
    common = math.gcd(*widths)
    return [g for g in range(1, common + 1) if common % g == 0 and g < min(widths)]


def fitting_groups_by_trial(widths: list[int]) -> list[int]:
    return [g for g in range(1, min(widths)) if all(w % g == 0 for w in widths)]


def fitting_groups_by_sets(widths: list[int]) -> list[int]:
    divisors = [{g for g in range(1, w + 1) if w % g == 0} for w in widths]
    return sorted(set.intersection(*divisors) - {min(widths)})


GROUPS = Exercise(
    reference=fitting_groups,
    right=(fitting_groups_by_trial, fitting_groups_by_sets),
    inputs=lambda: [([18, 36, 72, 144],), ([32, 64, 128, 256],), ([12, 30],), ([7, 14],)],
    praise="All group numbers that leave every branch whole groups of two channels or more.",
    wrong=(
        Wrong(
            lambda widths: [g for g in range(1, min(widths) + 1) if all(w % g == 0 for w in widths)],
            "the last one leaves groups of a single channel in the narrowest branch, where both softmaxes are 1",
        ),
        Wrong(
            lambda widths: fitting_groups(widths[:1]),
            "that holds for the first branch; the number must divide the width of every branch",
        ),
        Wrong(
            lambda widths: max(fitting_groups(widths)),
            "you return the largest one; the exercise asks for the list of all",
        ),
        Wrong(
            lambda widths: math.gcd(*widths),
            "that is the greatest common divisor; asked are all its divisors, but for the width of the finest branch",
        ),
        Wrong(
            lambda widths: len(fitting_groups(widths)),
            "that is how many there are; return the numbers themselves",
        ),
        Wrong(
            lambda widths: [g for g in range(min(widths)) if all(w % g == 0 for w in widths)],
            "range begins at 0, and nothing can be divided by 0; begin at 1",
        ),
        Wrong(
            lambda widths: [g for g in range(1, min(widths) // 2) if all(w % g == 0 for w in widths)],
            "half of the narrowest width can be a number of groups too: two channels in each are enough",
        ),
        Wrong(
            lambda widths: [g for g in range(1, min(widths)) if all(g % w == 0 for w in widths)],
            "the division is the wrong way round: w % g is 0 where g divides w",
        ),
        Wrong(
            lambda widths: fitting_groups(widths[-1:]),
            "that holds for the widest branch; the number must divide the width of every branch",
        ),
        Wrong(
            lambda widths: [[w // g for w in widths] for g in fitting_groups(widths)],
            "those are the channels in the groups; asked are the numbers of groups",
        ),
        Wrong(
            lambda widths: fitting_groups(widths)[1:],
            "one group fits as well: it is the module without any grouping",
        ),
        Wrong(
            lambda widths: fitting_groups(widths)[::-1],
            "the numbers are right; give them in rising order",
        ),
        Wrong(
            lambda widths: [g for g in range(1, min(widths)) if any(w % g == 0 for w in widths)],
            "any is not enough: the number must divide all the widths",
        ),
        Wrong(
            lambda widths: [w // g for g in fitting_groups(widths) for w in widths[:1]],
            "those are the channels in a group of the first branch; asked are the numbers of groups",
        ),
    ),
)


EXERCISES = {
    "16.a": choice(
        "c",
        {
            "a": "7 is the number of cells on a side; 224 pixels are shared among them",
            "b": "cells of 16 pixels would be 14 on a side; divide 224 by 7",
            "d": "that is the number of halvings; a cell of the map covers 2 to that power",
            "e": "that would be the whole image, one number for each channel",
        },
        "Five halvings, and 2 to the fifth is 32.",
    ),
    "16.b": choice(
        "b",
        {
            "a": "a 1x1 convolution gives the same result before and after the enlargement: it works on each cell alone",
            "c": "the result is the same; only the number of cells that are multiplied differs",
            "d": "count the cells: each side grows by 4, so there are 16 times as many",
            "e": "a 1x1 convolution costs as many products as there are cells, times weights, and the enlarged map has more cells",
        },
        "The same map, at a sixteenth of the price.",
    ),
    "16.c": choice(
        "d",
        {
            "a": "the average is never used in training, so nothing in it can change a gradient",
            "b": "the average follows the weights; the weights do not follow it",
            "c": "it is read, not written: a copy of the weights is updated",
            "e": "the batches are drawn by the seed, which does not know of the average",
        },
        "The average looks on. It never touches the live weights.",
    ),
    "16.1": FUSE,
    "16.2": FUSION_COUNT,
    "16.3": AVERAGE,
    "16.4": FUSE_ALL,
    "16.5": GROUPS,
}
