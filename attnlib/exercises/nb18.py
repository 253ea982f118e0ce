"""The exercises of 18_claims_on_trial."""

import torch
from torch import Tensor

from attnlib.exercises.checker import Exercise, Wrong, choice, ramp

# 18.1 what a gate varies over ----------------------------------------------------------------------------


def varies_over(gate: Tensor) -> str:
    channels = not torch.allclose(gate, gate[:, :1])
    places = not torch.allclose(gate, gate[:, :, :1, :1])
    if channels and places:
        return "both"
    return "channels" if channels else "places" if places else "neither"


def varies_by_range(gate: Tensor) -> str:
    over_channels = (gate.amax(1) - gate.amin(1)).max() > 1e-6
    over_places = (gate.flatten(2).amax(2) - gate.flatten(2).amin(2)).max() > 1e-6
    return {(1, 1): "both", (1, 0): "channels", (0, 1): "places", (0, 0): "neither"}[
        int(over_channels), int(over_places)
    ]


def varies_by_std(gate: Tensor) -> str:
    answer = {name for name, axes in (("channels", (1,)), ("places", (2, 3))) if gate.std(axes).max() > 1e-6}
    return "both" if len(answer) == 2 else answer.pop() if answer else "neither"


def gates() -> list[tuple]:
    """A gate of each kind, one that varies along one row only, one of two images that each stand still.

    The last three differ from 1 in the middle alone, and with all their means over channels or places equal.
    """
    channel, place = ramp(1, 3, 1, 1), ramp(1, 1, 2, 4, step=0.7)
    ones = torch.ones(1, 3, 2, 4, dtype=channel.dtype)
    column_only = ramp(1, 1, 1, 4, step=0.9)
    row_only = ramp(1, 1, 2, 1, step=1.3)
    two = torch.stack([ones[0], 2 * ones[0]])
    last_channel = ones.clone()
    last_channel[:, 2] += 1
    last_place = ones.clone()
    last_place[:, :, 1, 3] += 1
    of_second = torch.cat([ones, ones * channel])
    cases = [channel * ones, place * ones, channel * place * ones, ones / 2, column_only * ones]
    in_the_middle = ones.clone()
    in_the_middle[:, 1, 0, 1] += 1
    middle_channel = ones.clone()
    middle_channel[:, 1] += 1
    signs = torch.tensor([1.0, -1, 0, 0, 0, 0, 0, 0], dtype=ones.dtype).view(1, 1, 2, 4)
    equal_means = 1 + torch.tensor([0.5, 0, -0.5], dtype=ones.dtype).view(1, 3, 1, 1) * signs
    more = [row_only * ones, two, last_channel, last_place, of_second]
    return [(g,) for g in [*cases, *more, in_the_middle, middle_channel, equal_means]]


def swapped(gate: Tensor) -> str:
    return {"channels": "places", "places": "channels"}.get(varies_over(gate), varies_over(gate))


def rows_forgotten(gate: Tensor) -> str:
    return varies_over(gate[:, :, :1])


def columns_forgotten(gate: Tensor) -> str:
    return varies_over(gate[:, :, :, :1])


def first_channel_only(gate: Tensor) -> str:
    places = not torch.allclose(gate, gate[:, :, :1, :1])
    channels = not torch.allclose(gate[:, 0], gate[:, 1])
    if channels and places:
        return "both"
    return "channels" if channels else "places" if places else "neither"


def first_image_only(gate: Tensor) -> str:
    return varies_over(gate[:1])


def images_too(gate: Tensor) -> str:
    channels = not torch.allclose(gate, gate[:1, :1])
    places = not torch.allclose(gate, gate[:, :, :1, :1])
    if channels and places:
        return "both"
    return "channels" if channels else "places" if places else "neither"


def word(channels: object, places: object) -> str:
    if channels and places:
        return "both"
    return "channels" if channels else "places" if places else "neither"


def by_means(gate: Tensor) -> str:
    channel_means, place_means = gate.mean((2, 3)), gate.mean(1)
    return word(
        not torch.allclose(channel_means, channel_means[:, :1]),
        not torch.allclose(place_means, place_means[:, :1, :1]),
    )


def at_one_place(gate: Tensor) -> str:
    corner = gate[:, :1, :1, :1]
    return word(
        not torch.allclose(gate[:, :, :1, :1], corner),
        not torch.allclose(gate[:, :1], corner),
    )


def first_and_last(gate: Tensor) -> str:
    return word((gate[:, 0] != gate[:, -1]).any(), (gate[..., 0, 0] != gate[..., -1, -1]).any())


def by_equal(gate: Tensor) -> str:
    return word(not torch.equal(gate, gate[:, :1]), not torch.equal(gate, gate[:, :, :1, :1]))


def rows_and_columns(gate: Tensor) -> str:
    rows, columns = (not torch.allclose(gate, first) for first in (gate[:, :, :1], gate[..., :1]))
    return word(not torch.allclose(gate, gate[:, :1]), rows and columns)


def batch_for_channels(gate: Tensor) -> str:
    return word(not torch.allclose(gate, gate[:1]), not torch.allclose(gate, gate[:, :, :1, :1]))


def turned_round(gate: Tensor) -> str:
    return word(torch.allclose(gate, gate[:, :1]), torch.allclose(gate, gate[:, :, :1, :1]))


def as_booleans(gate: Tensor) -> tuple[bool, bool]:
    return not torch.allclose(gate, gate[:, :1]), not torch.allclose(gate, gate[:, :, :1, :1])


VARIES = Exercise(
    reference=varies_over,
    right=(varies_by_range, varies_by_std),
    inputs=gates,
    praise="That tells a channel gate from a spatial one, whatever it is called.",
    wrong=(
        Wrong(swapped, "turned round: a gate that differs from channel to channel varies over channels"),
        Wrong(rows_forgotten, "you look at one row only; a gate may change from row to row"),
        Wrong(columns_forgotten, "you look at one column only; a gate may change from column to column"),
        Wrong(first_channel_only, "two channels are compared, and the third may be the one that differs"),
        Wrong(first_image_only, "you look at the first image only; the batch has another"),
        Wrong(images_too, "two images may have different gates without any of them varying over channels"),
        Wrong(
            lambda gate: "both" if varies_over(gate) != "neither" else "neither",
            "which of the two? you only say whether it varies at all",
        ),
        Wrong(
            lambda gate: "channels" if varies_over(gate) in ("channels", "both") else varies_over(gate),
            "a gate can vary over channels and places at once: that is both",
        ),
        Wrong(
            lambda gate: "places" if varies_over(gate) == "both" else varies_over(gate),
            "a gate that varies over both is filed under places; ask about channels before you answer",
        ),
        Wrong(
            lambda gate: varies_over(gate).rstrip("s") if "s" in varies_over(gate) else varies_over(gate),
            "the words asked for are channels, places, both and neither",
        ),
        Wrong(
            lambda gate: "both" if torch.unique(gate).numel() > 1 else "neither",
            "more than one value says that it varies, not over what",
        ),
        Wrong(
            lambda gate: {"neither": "none"}.get(varies_over(gate), varies_over(gate)),
            "the word for a gate that stands still is neither",
        ),
        Wrong(lambda gate: (varies_over(gate),), "return the word itself, not a tuple"),
        Wrong(by_means, "different values can have one mean; compare the values themselves"),
        Wrong(
            at_one_place, "you look at one place for the channels and at one channel for the places; take all"
        ),
        Wrong(first_and_last, "the first and the last may agree where those between them do not"),
        Wrong(
            by_equal,
            "you always find a difference of shapes; torch.allclose compares values, by broadcasting",
        ),
        Wrong(
            rows_and_columns, "one of the two is enough: a gate that changes along rows varies over places"
        ),
        Wrong(batch_for_channels, "gate[:1] is the first image; the channels are axis 1, gate[:, :1]"),
        Wrong(
            turned_round, "allclose says that they are equal; to vary is the opposite, so put a not in front"
        ),
        Wrong(as_booleans, "those are the two answers; join them into one of the four words"),
        Wrong(
            lambda gate: varies_over(gate) if varies_over(gate) != "neither" else "places",
            "a gate that stands still ends up with a word for one that varies; the fourth word is neither",
        ),
        Wrong(
            lambda gate: {"both": "channels and places"}.get(varies_over(gate), varies_over(gate)),
            "the word for channels and places together is both",
        ),
    ),
)


# 18.2 how far a gate listens -----------------------------------------------------------------------------


def reach(slopes: Tensor) -> int:
    far = [abs(i - j) for i, j in slopes.nonzero().tolist()]
    return max(far, default=0)


def reach_by_bands(slopes: Tensor) -> int:
    n = len(slopes)
    for k in range(n - 1, 0, -1):
        if slopes.diagonal(k).any() or slopes.diagonal(-k).any():
            return k
    return 0


def reach_by_distance(slopes: Tensor) -> int:
    places = torch.arange(len(slopes))
    distance = (places[:, None] - places).abs()
    return int((distance * (slopes != 0)).max())


def slope_tables() -> list[tuple]:
    """Bands of several widths, one-sided ones, nothing, one far entry, negative and tiny slopes."""
    ones = torch.ones(6, 6, dtype=torch.float64)
    band = ones.triu(-1).tril(1)
    far = torch.eye(6, dtype=torch.float64)
    far[1, 5] = 1e-6
    negative = -ones.triu(-2).tril(2)
    only_far = torch.zeros(6, 6, dtype=torch.float64)
    only_far[4, 0] = -1
    cancelling = torch.eye(6, dtype=torch.float64)
    cancelling[3, 0], cancelling[0, 3] = 1, -1
    scattered = torch.zeros(6, 6, dtype=torch.float64)
    scattered[0, 3], scattered[2, 4], scattered[3, 4], scattered[5, 1] = 1, -2, 1, 1
    tables = [
        ones,
        band,
        torch.eye(6, dtype=torch.float64),
        0 * ones,
        ones.tril(0).triu(-3),
        ones.triu(0).tril(2),
    ]
    return [(table,) for table in [*tables, far, negative, only_far, cancelling, scattered]]


def strongest(slopes: Tensor) -> int:
    i, j = divmod(int(slopes.abs().argmax()), len(slopes))
    return abs(i - j)


def first_found(slopes: Tensor) -> int:
    return next((abs(i - j) for i, j in slopes.nonzero().tolist()), 0)


def until_a_gap(slopes: Tensor) -> int:
    k = 0
    while k + 1 < len(slopes) and (slopes.diagonal(k + 1).any() or slopes.diagonal(-k - 1).any()):
        k += 1
    return k


def weighed(slopes: Tensor) -> float:
    places = torch.arange(len(slopes))
    return float(((places[:, None] - places).abs() * slopes.abs()).max())


def width_of_a_row(slopes: Tensor) -> int:
    heard = [row.nonzero().flatten().tolist() for row in slopes]
    return max((row[-1] - row[0] for row in heard if row), default=0)


REACH = Exercise(
    reference=reach,
    right=(reach_by_bands, reach_by_distance),
    inputs=slope_tables,
    praise="0 for NAM, (k-1)/2 for ECA, everything for SE: one number tells them apart.",
    wrong=(
        Wrong(
            lambda s: max((i - j for i, j in s.nonzero().tolist()), default=0),
            "you look to one side only: take the absolute value of i - j",
        ),
        Wrong(
            lambda s: max((abs(i - j) for i, j in (s > 0).nonzero().tolist()), default=0),
            "a negative slope is a dependence too: ask whether it differs from zero",
        ),
        Wrong(
            lambda s: max((abs(i - j) for i, j in (s.abs() > 1e-3).nonzero().tolist()), default=0),
            "a small slope is not zero; a dependence may be weak",
        ),
        Wrong(
            lambda s: int((s != 0).sum(1).max()), "that counts how many are heard, not how far away they are"
        ),
        Wrong(lambda s: int((s != 0).sum()), "you count all the slopes that are not zero"),
        Wrong(lambda s: reach(s) + 1, "one too many: a gate that hears itself alone has reach 0"),
        Wrong(lambda s: 2 * reach(s) + 1, "that is the width of the window; its reach to one side is asked"),
        Wrong(
            lambda s: max((abs(i - j) for i, j in s[:1].nonzero().tolist()), default=0),
            "you look at the first row only, and every row is one gate",
        ),
        Wrong(
            lambda s: max((abs(i - j) for i, j in s[3:4].nonzero().tolist()), default=0),
            "rows and columns are numbered anew after slicing; go over the whole table",
        ),
        Wrong(
            lambda s: min((abs(i - j) for i, j in s.nonzero().tolist()), default=0),
            "that is the nearest that is heard; asked is the farthest",
        ),
        Wrong(
            lambda s: max((max(i, j) for i, j in s.nonzero().tolist()), default=0),
            "that is a number of a row or column; the distance is the difference of the two",
        ),
        Wrong(lambda s: float(s.abs().max()), "that is the largest slope; asked is a distance"),
        Wrong(lambda s: reach(s) > 0, "how far, not whether: return a whole number"),
        Wrong(
            lambda s: max((j - i for i, j in s.nonzero().tolist()), default=0),
            "you look to the right of the diagonal only: take the absolute value of j - i",
        ),
        Wrong(
            lambda s: max(abs(i - j) for i, j in s.nonzero().tolist()),
            "a table of zeros has no slope to look at; max(..., default=0) gives its reach",
        ),
        Wrong(strongest, "that is how far away the strongest slope is; a weak one farther off counts too"),
        Wrong(first_found, "you return at the first slope that you find; go through all of them"),
        Wrong(until_a_gap, "you stop at the first empty diagonal; one far entry behind it counts too"),
        Wrong(weighed, "the distance is multiplied by the slope; only whether the slope is zero counts"),
        Wrong(
            width_of_a_row, "that is how wide a row's window is; asked is how far from the diagonal it goes"
        ),
        Wrong(lambda s: len(s) - 1, "that is the farthest there could be; look at which slopes are zero"),
        Wrong(lambda s: (reach(s),), "return the number itself, not a tuple"),
    ),
)


EXERCISES = {
    "18.a": choice(
        "c",
        {
            "a": "acronyms are given by authors, and nobody keeps a list",
            "b": "then one claim about NAM would be true and false at once",
            "d": "a score decides which vectors are compared, not what the words mean",
            "e": "even two papers use one acronym for different things",
        },
        "Read the formula first, and the name after it.",
    ),
    "18.b": choice(
        "a",
        {
            "b": "code may run and compute something else than it says",
            "c": "a mechanism that exists under another name is called MISNAMED",
            "d": "what must be measured is called DEPENDS",
            "e": "what is right in one part and wrong in another is called PARTLY",
        },
        "It raises, or it runs and computes something else.",
    ),
    "18.c": choice(
        "b",
        {
            "a": "SE's gate has one number for each channel, the same at all places",
            "c": "its size is 1 x 1 over the places",
            "d": "its channels have different weights; it does not vary over places",
            "e": "its value follows the image, but that is not what the question asks",
        },
        "One number for each channel, at all places the same.",
    ),
    "18.1": VARIES,
    "18.2": REACH,
}
