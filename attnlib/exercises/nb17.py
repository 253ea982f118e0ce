"""The exercises of 17_face_off."""

import math

import torch
from torch import Tensor

from attnlib.exercises.checker import Exercise, Wrong, choice, ramp

# 17.1 a paired interval ----------------------------------------------------------------------------------


def paired_interval(a: Tensor, b: Tensor, quantile: float) -> tuple[Tensor, Tensor]:
    differences = a - b
    return differences.mean(), quantile * differences.std() / math.sqrt(len(differences))


def paired_by_sums(a: Tensor, b: Tensor, quantile: float) -> tuple[Tensor, Tensor]:
    n = a.numel()
    mean = sum(x - y for x, y in zip(a, b, strict=True)) / n
    squares = sum((x - y - mean) ** 2 for x, y in zip(a, b, strict=True))
    return mean, quantile * (squares / (n - 1) / n).sqrt()


def paired_by_covariance(a: Tensor, b: Tensor, quantile: float) -> tuple[Tensor, Tensor]:
    shared = ((a - a.mean()) * (b - b.mean())).sum() / (len(a) - 1)
    return a.mean() - b.mean(), quantile * ((a.var() + b.var() - 2 * shared) / len(a)) ** 0.5


def paired_inputs() -> list[tuple]:
    return [
        (ramp(5, step=0.9) * 0.1 + 0.6, ramp(5, step=1.3) * 0.1 + 0.5, 2.776),
        (ramp(3, step=1.1), ramp(3, step=0.7), 4.303),
    ]


PAIRED = Exercise(
    reference=paired_interval,
    right=(paired_by_sums, paired_by_covariance),
    inputs=paired_inputs,
    praise="Seed by seed, the luck that both networks share drops out: (17.1).",
    wrong=(
        Wrong(
            lambda a, b, q: (a.mean() - b.mean(), q * ((a.var() + b.var()) / len(a)) ** 0.5),
            "this is the interval for unpaired runs: take the differences seed by seed first, then their spread",
        ),
        Wrong(
            lambda a, b, q: ((a - b).mean(), q * (a - b).std(correction=0) / len(a) ** 0.5),
            "the standard deviation divides by n; a sample's divides by n - 1, std() without an argument does it",
        ),
        Wrong(
            lambda a, b, q: ((a - b).mean(), q * (a - b).std()),
            "that is the spread of single runs; the mean of n runs varies by the square root of n less",
        ),
        Wrong(
            lambda a, b, q: ((a - b).mean(), q * (a - b).std() / len(a)),
            "divide by the square root of n, not by n: variances add, standard deviations do not",
        ),
        Wrong(
            lambda a, b, q: ((a - b).mean(), q * (a - b).var() / len(a) ** 0.5),
            "a variance is in squared points: take its root before you multiply",
        ),
        Wrong(
            lambda a, b, q: ((a - b).mean(), (a - b).std() / len(a) ** 0.5),
            "that is the standard error; Student's quantile is still to be multiplied in",
        ),
        Wrong(
            lambda a, b, q: ((a - b).mean(), 1.96 * (a - b).std() / len(a) ** 0.5),
            "1.96 belongs to a normal distribution with known spread; use the quantile that is given",
        ),
        Wrong(
            lambda a, b, q: ((a - b).mean(), 2 * q * (a - b).std() / len(a) ** 0.5),
            "you return the whole width of the interval; its reach to one side is half of that",
        ),
        Wrong(
            lambda a, b, q: ((b - a).mean(), q * (a - b).std() / len(a) ** 0.5),
            "the sign is turned: a positive difference should say that a is better",
        ),
        Wrong(
            lambda a, b, q: ((a - b).abs().mean(), q * (a - b).abs().std() / len(a) ** 0.5),
            "without their signs differences cannot cancel, and two equal networks would seem to differ",
        ),
        Wrong(
            lambda a, b, q: ((a - b).median(), q * (a - b).std() / len(a) ** 0.5),
            "the interval (17.2) lies around the mean, not around the median",
        ),
        Wrong(
            lambda a, b, q: (
                (a - b).mean() - q * (a - b).std() / len(a) ** 0.5,
                (a - b).mean() + q * (a - b).std() / len(a) ** 0.5,
            ),
            "these are the interval's two ends; asked are its middle and its reach",
        ),
        Wrong(
            lambda a, b, q: ((a - b).mean(), q * (a - b).std() / (len(a) - 1) ** 0.5),
            "std() has divided by n - 1 already; under this root stands n, the number of seeds",
        ),
        Wrong(
            lambda a, b, q: (q * (a - b).std() / len(a) ** 0.5, (a - b).mean()),
            "the two are in the wrong order: first the mean, then the reach",
        ),
        Wrong(
            lambda a, b, q: ((a - b).mean(), q * (a.std() - b.std()).abs() / len(a) ** 0.5),
            "a difference of two spreads is not the spread of the differences",
        ),
        Wrong(
            lambda a, b, q: ((a - b).mean(), q * (a.std() + b.std()) / len(a) ** 0.5),
            "standard deviations do not add; take the spread of the differences a - b",
        ),
        Wrong(
            lambda a, b, q: (a - b, q * (a - b).std() / len(a) ** 0.5),
            "the differences themselves: asked is their mean",
        ),
        Wrong(
            lambda a, b, q: ((a - b).mean(), q * (a - b).std() / math.sqrt(5)),
            "the 5 is fixed; another study has another number of seeds, len(a)",
        ),
        Wrong(lambda a, b, q: (a - b).mean(), "the reach is missing: return two numbers, mean and reach"),
        Wrong(
            lambda a, b, q: q * (a - b).std() / len(a) ** 0.5,
            "the mean is missing: return two numbers, mean and reach",
        ),
    ),
)


# 17.2 Holm's correction ----------------------------------------------------------------------------------


def holm(p: Tensor) -> Tensor:
    values, order = p.sort()
    stepped = (values * torch.arange(len(p), 0, -1)).cummax(0).values.clamp(max=1)
    corrected = torch.empty_like(p)
    corrected[order] = stepped
    return corrected


def holm_by_loop(p: Tensor) -> Tensor:
    corrected, largest = [0.0] * len(p), 0.0
    for rank, i in enumerate(sorted(range(len(p)), key=lambda i: float(p[i]))):
        largest = max(largest, min(1.0, (len(p) - rank) * float(p[i])))
        corrected[i] = largest
    return torch.tensor(corrected, dtype=p.dtype)


def holm_by_pairs(p: Tensor) -> Tensor:
    ranks = (p[None] < p[:, None]).sum(1)
    scaled = p * (len(p) - ranks)
    return torch.stack([scaled[p <= value].max() for value in p]).clamp(max=1)


def holm_inputs() -> list[tuple]:
    return [
        (torch.tensor([0.03, 0.001, 0.2, 0.02], dtype=torch.float64),),
        (torch.tensor([0.6, 0.015, 0.5, 0.011, 0.012], dtype=torch.float64),),
        (torch.tensor([0.9, 0.7, 0.8], dtype=torch.float64),),
    ]


def holm_upwards(p: Tensor) -> Tensor:
    values, order = p.sort()
    corrected = torch.empty_like(p)
    corrected[order] = (values * torch.arange(1, len(p) + 1)).cummax(0).values.clamp(max=1)
    return corrected


def benjamini_hochberg(p: Tensor) -> Tensor:
    values, order = p.sort(descending=True)
    n = len(p)
    corrected = torch.empty_like(p)
    corrected[order] = (values * n / torch.arange(n, 0, -1)).cummin(0).values.clamp(max=1)
    return corrected


def not_running(p: Tensor) -> Tensor:
    values, order = p.sort()
    corrected = torch.empty_like(p)
    corrected[order] = (values * torch.arange(len(p), 0, -1)).clamp(max=1)
    return corrected


def not_capped(p: Tensor) -> Tensor:
    values, order = p.sort()
    corrected = torch.empty_like(p)
    corrected[order] = (values * torch.arange(len(p), 0, -1)).cummax(0).values
    return corrected


def from_the_largest(p: Tensor) -> Tensor:
    values, order = p.sort(descending=True)
    corrected = torch.empty_like(p)
    corrected[order] = (values * torch.arange(len(p), 0, -1)).cummax(0).values.clamp(max=1)
    return corrected


def holm_summed(p: Tensor) -> Tensor:
    values, order = p.sort()
    corrected = torch.empty_like(p)
    corrected[order] = (values * torch.arange(len(p), 0, -1)).cumsum(0).clamp(max=1)
    return corrected


def holm_one_short(p: Tensor) -> Tensor:
    values, order = p.sort()
    corrected = torch.empty_like(p)
    corrected[order] = (values * torch.arange(len(p) - 1, -1, -1)).cummax(0).values.clamp(max=1)
    return corrected


HOLM = Exercise(
    reference=holm,
    right=(holm_by_loop, holm_by_pairs),
    inputs=holm_inputs,
    praise="The smallest pays for all comparisons, each next one for one fewer: (17.4).",
    wrong=(
        Wrong(
            lambda p: (p * len(p)).clamp(max=1),
            "that is Bonferroni, where every p-value pays for all; in Holm's the second pays for n - 1 only, and so on",
        ),
        Wrong(
            lambda p: (p.sort().values * torch.arange(len(p), 0, -1)).cummax(0).values.clamp(max=1),
            "the values are right and in rising order; put each back in its comparison's place",
        ),
        Wrong(
            lambda p: (p * torch.arange(len(p), 0, -1)).cummax(0).values.clamp(max=1),
            "the p-values were never sorted: the factor n goes with the smallest, not with the first",
        ),
        Wrong(
            lambda p: (
                (p.sort().values * torch.arange(len(p), 0, -1)).cummax(0).values.clamp(max=1)[p.argsort()]
            ),
            "stepped[order] mixes the places once more; write corrected[order] = stepped to put them back",
        ),
        Wrong(holm_summed, "you carry the sum along; carry the largest so far, cummax"),
        Wrong(holm_one_short, "the smallest is multiplied by n, not by n - 1, and the last by 1, not by 0"),
        Wrong(not_running, "a larger p-value must not come out smaller: take the running maximum, cummax"),
        Wrong(not_capped, "a probability above 1: clamp(max=1) is missing"),
        Wrong(
            holm_upwards,
            "the factors run the wrong way: the smallest p-value is multiplied by n, the largest by 1",
        ),
        Wrong(from_the_largest, "sort from the smallest to the largest; you start with the largest"),
        Wrong(
            benjamini_hochberg,
            "this is Benjamini and Hochberg's correction, which bounds the share of false alarms, not the chance of any",
        ),
        Wrong(
            lambda p: 1 - (1 - p) ** len(p),
            "this is Sidak's correction, the same for all and only for independent tests; Holm's goes step by step",
        ),
        Wrong(lambda p: p / len(p), "you divide: p-values are multiplied, levels would be divided"),
        Wrong(lambda p: p, "nothing was corrected"),
        Wrong(lambda p: holm(p) < 0.05, "return the corrected p-values, not whether they pass"),
    ),
)


# 17.3 the Pareto front -----------------------------------------------------------------------------------


def pareto(cost: Tensor, accuracy: Tensor) -> Tensor:
    no_dearer = cost[None] <= cost[:, None]
    no_worse = accuracy[None] >= accuracy[:, None]
    better = (cost[None] < cost[:, None]) | (accuracy[None] > accuracy[:, None])
    return ~(no_dearer & no_worse & better).any(1)


def pareto_by_loop(cost: Tensor, accuracy: Tensor) -> Tensor:
    points = list(zip(cost.tolist(), accuracy.tolist(), strict=True))
    return torch.tensor(
        [not any(d <= c and b >= a and (d, b) != (c, a) for d, b in points) for c, a in points]
    )


def pareto_by_cheaper(cost: Tensor, accuracy: Tensor) -> Tensor:
    keep = []
    for c, a in zip(cost, accuracy, strict=True):
        cheaper, as_dear = accuracy[cost < c], accuracy[cost == c]
        keep.append(bool(a >= as_dear.max() and not (cheaper >= a).any()))
    return torch.tensor(keep)


def pareto_inputs() -> list[tuple]:
    """Ties in cost, ties in accuracy, two equal points, and one point that beats all."""
    return [
        (torch.tensor([1.0, 2, 3, 4, 5]), torch.tensor([0.5, 0.7, 0.6, 0.8, 0.8])),
        (torch.tensor([2.0, 2, 1, 3, 3]), torch.tensor([0.6, 0.5, 0.4, 0.9, 0.9])),
        (torch.tensor([3.0, 1, 2]), torch.tensor([0.3, 0.2, 0.1])),
        (torch.tensor([2.0, 1, 3]), torch.tensor([0.5, 0.9, 0.6])),
        (torch.tensor([2.0, 1, 4]), torch.tensor([0.9, 0.2, 0.8])),
    ]


def record_in_given_order(cost: Tensor, accuracy: Tensor) -> Tensor:
    best, keep = -math.inf, []
    for a in accuracy.tolist():
        keep.append(a > best)
        best = max(best, a)
    return torch.tensor(keep)


def beaten(cost: Tensor, accuracy: Tensor, *, strict_cost: bool, strict_accuracy: bool) -> Tensor:
    cheaper = cost[None] < cost[:, None] if strict_cost else cost[None] <= cost[:, None]
    better = accuracy[None] > accuracy[:, None] if strict_accuracy else accuracy[None] >= accuracy[:, None]
    return (cheaper & better).any(1)


def rivals(cost: Tensor, accuracy: Tensor) -> Tensor:
    """Row i says who beats i."""
    better = (cost[None] < cost[:, None]) | (accuracy[None] > accuracy[:, None])
    return (cost[None] <= cost[:, None]) & (accuracy[None] >= accuracy[:, None]) & better


PARETO = Exercise(
    reference=pareto,
    right=(pareto_by_loop, pareto_by_cheaper),
    inputs=pareto_inputs,
    praise="What is left is worth a thought; everything else is beaten by something at once cheaper and better.",
    wrong=(
        Wrong(lambda c, a: ~pareto(c, a), "turned round: True should mark those that nothing beats"),
        Wrong(
            lambda c, a: ~beaten(c, a, strict_cost=True, strict_accuracy=True),
            "a rival that costs the same and is better, or is as good and cheaper, beats too",
        ),
        Wrong(
            lambda c, a: ~beaten(c, a, strict_cost=False, strict_accuracy=False),
            "every point is at least as good as itself: ask the rival to be better in one of the two",
        ),
        Wrong(
            lambda c, a: ~beaten(c, a, strict_cost=False, strict_accuracy=True),
            "a rival that is just as accurate and cheaper beats as well",
        ),
        Wrong(
            lambda c, a: ~beaten(c, a, strict_cost=True, strict_accuracy=False),
            "a rival that costs just as much and is more accurate beats as well",
        ),
        Wrong(
            lambda c, a: ~((c[None] < c[:, None]) | (a[None] > a[:, None])).any(1),
            "a rival must be no worse in both; being better in one of them is not enough",
        ),
        Wrong(
            lambda c, a: pareto(-c, a),
            "a high cost is a fault here; you look for the dearest",
        ),
        Wrong(lambda c, a: pareto(c, -a), "a high accuracy is a merit here; you look for the lowest"),
        Wrong(
            lambda c, a: ~rivals(c, a).any(0),
            "you ask who beats somebody; row i of the table holds the rivals of i, so ask along axis 1",
        ),
        Wrong(lambda c, a: ~rivals(c, a).all(1), "one rival is enough to be beaten: any, not all"),
        Wrong(rivals, "the table of who beats whom; close it with any over the rivals, and turn it round"),
        Wrong(
            record_in_given_order,
            "the points do not come sorted by cost; compare each with all the others",
        ),
        Wrong(
            lambda c, a: a == a.max(),
            "only the most accurate are marked; cheaper ones may be on the front too",
        ),
        Wrong(
            lambda c, a: c == c.min(),
            "only the cheapest are marked; dearer and better ones are on the front too",
        ),
        Wrong(
            lambda c, a: a / c == (a / c).max(),
            "the best ratio is one point; the front holds all that nothing beats, whatever a point is worth to you",
        ),
        Wrong(
            lambda c, a: pareto(c, a).nonzero()[:, 0],
            "these are numbers of points; asked is True or False for each",
        ),
        Wrong(lambda c, a: pareto(c, a).any(), "one answer for all: asked is True or False for each point"),
        Wrong(lambda c, a: pareto(c, a).float(), "ones and zeros: return them as True and False"),
    ),
)


# 17.4 how many seeds -------------------------------------------------------------------------------------


def seeds_needed(spread: float, difference: float) -> int:
    return math.ceil((1.96 * spread / difference) ** 2)


def seeds_by_search(spread: float, difference: float) -> int:
    n = 1
    while 1.96 * spread / n**0.5 > difference:
        n += 1
    return n


def seeds_by_negative_floor(spread: float, difference: float) -> int:
    return int(-((-(3.8416 * spread**2 / difference**2)) // 1))


SEEDS = Exercise(
    reference=seeds_needed,
    right=(seeds_by_search, seeds_by_negative_floor),
    inputs=lambda: [(1.0, 0.5), (0.7, 0.2), (1.3, 1.0), (2.0, 0.1), (0.4, 1.0)],
    praise="Half the difference asks for four times the seeds: (17.5).",
    wrong=(
        Wrong(lambda s, d: (1.96 * s / d) ** 2, "there are no parts of a seed: round up, with math.ceil"),
        Wrong(
            lambda s, d: round((1.96 * s / d) ** 2),
            "rounding to the nearest may leave one seed too few; round up",
        ),
        Wrong(lambda s, d: int((1.96 * s / d) ** 2), "int cuts off, which leaves one seed too few; round up"),
        Wrong(
            lambda s, d: math.ceil(1.96 * s / d),
            "the square is missing: the reach falls with the root of n, so n grows with the square",
        ),
        Wrong(lambda s, d: math.ceil((s / d) ** 2), "the 1.96 is missing, or your interval covers 68% only"),
        Wrong(
            lambda s, d: math.ceil((1.96 * d / s) ** 2),
            "turned over: a larger spread asks for more seeds, a larger difference for fewer",
        ),
        Wrong(lambda s, d: math.ceil(1.96 * (s / d) ** 2), "1.96 belongs inside the square"),
        Wrong(
            lambda s, d: math.ceil((1.96 * s**2 / d) ** 2),
            "spread and difference are both in points; one of yours is squared before the fraction",
        ),
        Wrong(
            lambda s, d: math.ceil((2 * 1.96 * s / d) ** 2),
            "the reach to one side must be no larger than the difference; you asked it of the whole width",
        ),
        Wrong(
            lambda s, d: math.ceil(1.96 * s / d) ** 2,
            "square first and round up last: the square grows the error",
        ),
        Wrong(lambda s, d: math.ceil((2 * s / d) ** 2), "2 is near, but (17.5) has 1.96"),
        Wrong(
            lambda s, d: math.ceil((2.8 * s / d) ** 2),
            "2.8 is for a find in eight of ten studies; asked is (17.5), with 1.96",
        ),
        Wrong(
            lambda s, d: math.ceil((2.776 * s / d) ** 2),
            "Student's 2.78 belongs to five seeds; here n is not known yet, and (17.5) takes 1.96",
        ),
        Wrong(lambda s, d: math.ceil(1.96 * s / d**2), "square the whole fraction, not the difference alone"),
        Wrong(lambda s, d: math.ceil((1.96 * s / d) ** 0.5), "the square, not the root: n grows with it"),
        Wrong(lambda s, d: math.ceil((1.96 * s / d) ** 2) + 1, "one more than needed: rounding up is enough"),
    ),
)


# 17.5 a report that flatters -----------------------------------------------------------------------------


def report(curves: Tensor) -> tuple[Tensor, Tensor]:
    return curves[:, -1].mean(), curves[:, -1].std()


def report_by_sums(curves: Tensor) -> tuple[Tensor, Tensor]:
    last = [curve[len(curve) - 1] for curve in curves]
    mean = sum(last) / len(last)
    return mean, (sum((value - mean) ** 2 for value in last) / (len(last) - 1)) ** 0.5


def report_transposed(curves: Tensor) -> tuple[Tensor, Tensor]:
    final = curves.T[-1]
    return final.sum() / final.numel(), final.var().sqrt()


def report_inputs() -> list[tuple]:
    return [
        (0.5 + 0.1 * ramp(5, 4, step=1.7),),
        (0.6 + 0.05 * ramp(3, 6, step=0.9),),
    ]


REPORT = Exercise(
    reference=report,
    right=(report_by_sums, report_transposed),
    inputs=report_inputs,
    praise="Decided before the test images were seen, and from every seed.",
    wrong=(
        Wrong(
            lambda c: (c.max(1).values.max(), c.max(1).values.std(correction=0)),
            "untouched: it reports the luckiest seed at its luckiest epoch",
        ),
        Wrong(
            lambda c: (c.max(1).values.mean(), c.max(1).values.std()),
            "the mean over seeds is mended; but each seed's epoch is still chosen by the test images",
        ),
        Wrong(
            lambda c: (c[:, -1].max(), c[:, -1].std()),
            "the epoch is mended; but of the seeds only the best is reported",
        ),
        Wrong(
            lambda c: (c[:, -1].mean(), c[:, -1].std(correction=0)),
            "with a handful of seeds it matters: the spread of a sample divides by n - 1, not by n",
        ),
        Wrong(
            lambda c: (c.max(1).values.mean(), c.max(1).values.std(correction=0)),
            "two of three left: the epoch is chosen by the test images, and the spread divides by n",
        ),
        Wrong(
            lambda c: (c.mean(), c.std()),
            "this averages all epochs, the untrained ones too; take the last",
        ),
        Wrong(
            lambda c: (c.mean(1).mean(), c.mean(1).std()),
            "you average over the epochs; what a finished network can do is in the last one",
        ),
        Wrong(
            lambda c: (c[-1].mean(), c[-1].std()),
            "curves[-1] is the last seed; the last epoch is curves[:, -1]",
        ),
        Wrong(
            lambda c: (c[:, -1].mean(), c[:, -1].std() / len(c) ** 0.5),
            "this is the standard error of the mean; asked is the spread from seed to seed",
        ),
        Wrong(
            lambda c: (c[:, -1].median(), c[:, -1].std()), "asked is the mean over the seeds, not the median"
        ),
        Wrong(
            lambda c: (c[:, c.mean(0).argmax()].mean(), c[:, c.mean(0).argmax()].std()),
            "one epoch for all seeds, but the test images still choose it; decide for the last",
        ),
        Wrong(
            lambda c: (c[:, -1].mean(), c.std()),
            "the mean is mended; the spread is still over all epochs, take it over the last one",
        ),
        Wrong(
            lambda c: (c[:, -1].mean(), c.max(1).values.std()),
            "the mean is mended; the spread still belongs to the best epochs",
        ),
        Wrong(
            lambda c: (c.max(1).values.max(), c.max(1).values.std()),
            "only the n - 1 is mended; the best seed at its best epoch is still reported",
        ),
        Wrong(
            lambda c: (c[:, -1].max(), c[:, -1].std(correction=0)),
            "the epoch is mended; the best seed is reported, and the spread divides by n",
        ),
        Wrong(lambda c: (c[:, -1], c[:, -1].std()), "every seed counts, but in one number: take their mean"),
        Wrong(
            lambda c: (c[:, -1].std(), c[:, -1].mean()),
            "the two are in the wrong order: first the mean, then the standard deviation",
        ),
        Wrong(lambda c: c[:, -1].mean(), "the spread is missing: return mean and standard deviation"),
        Wrong(lambda c: (c[:, -1].mean(), c[:, -1].var()), "the second number is a variance; take its root"),
    ),
)


EXERCISES = {
    "17.a": choice(
        "b",
        {
            "a": "the spread within each is large, but both networks had the same luck; compare seed by seed",
            "c": "it says which one is ahead, and forgets by how much",
            "d": "the best seed of each is the one with the most luck",
            "e": "three seeds say something: how evenly the difference comes out",
        },
        "What a seed does to both networks drops out of the difference.",
    ),
    "17.b": choice(
        "c",
        {
            "a": "each single test raises a false alarm in one of twenty cases; there are twenty tests",
            "b": "one of twenty in each test, and twenty tests: multiply once more",
            "d": "five in a hundred, and there are only twenty",
            "e": "each test alone is honest, and each may still raise a false alarm",
        },
        "Twenty times a twentieth. Part 4 counts it.",
    ),
    "17.c": choice(
        "d",
        {
            "a": "equality cannot be measured; a small difference may hide in the noise",
            "b": "the study may be fine and the difference small",
            "c": "then the interval would lie below zero, and a difference would have been found",
            "e": "more seeds may change the finding; they cannot make it have been wrong to report it",
        },
        "So a finding of this kind should always come with how much the study could have seen.",
    ),
    "17.1": PAIRED,
    "17.2": HOLM,
    "17.3": PARETO,
    "17.4": SEEDS,
    "17.5": REPORT,
}
