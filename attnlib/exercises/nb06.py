"""The exercises of 06_moving_averages."""

from math import exp, log

import torch
from torch import Tensor
from torch.nn import functional as F

from attnlib.exercises.checker import Exercise, Wrong, choice, ramp

# 06.1 the average ----------------------------------------------------------------------------------------


def average(x: Tensor, decay: float) -> Tensor:
    m, averages = torch.zeros_like(x[0]), []
    for t, x_t in enumerate(x, start=1):
        m = decay * m + (1 - decay) * x_t
        averages.append(m / (1 - decay**t))
    return torch.stack(averages)


def ages(n: int) -> Tensor:
    places = torch.arange(n).double()
    return places[:, None] - places


def average_by_softmax(x: Tensor, decay: float) -> Tensor:
    age = ages(len(x))
    return (age * log(decay)).masked_fill(age < 0, -torch.inf).softmax(1) @ x


def average_by_sums(x: Tensor, decay: float) -> Tensor:
    rows = []
    for t in range(len(x)):
        w = torch.tensor([decay ** (t - i) for i in range(t + 1)]).double()
        rows.append(w @ x[: t + 1] / w.sum())
    return torch.stack(rows)


def average_in_place(x: Tensor, decay: float) -> Tensor:
    out, total, weight = torch.empty_like(x), torch.zeros_like(x[0]), 0.0
    for t in range(len(x)):
        total, weight = decay * total + x[t], decay * weight + 1
        out[t] = total / weight
    return out


def plain(x: Tensor, decay: float, first: float = 1.0) -> Tensor:
    m, rows = torch.zeros_like(x[0]), []
    for x_t in x:
        m = decay * m + first * (1 - decay) * x_t
        rows.append(m)
    return torch.stack(rows)


def divided(x: Tensor, decay: float, offset: int) -> Tensor:
    t = torch.arange(1, len(x) + 1).double()[:, None] + offset
    return plain(x, decay) / (1 - decay**t)


def begun_with_the_first(x: Tensor, decay: float) -> Tensor:
    rows = [x[0]]
    for x_t in x[1:]:
        rows.append(decay * rows[-1] + (1 - decay) * x_t)
    return torch.stack(rows)


def corrected_goes_on(x: Tensor, decay: float) -> Tensor:
    m, rows = torch.zeros_like(x[0]), []
    for t, x_t in enumerate(x, start=1):
        m = (decay * m + (1 - decay) * x_t) / (1 - decay**t)
        rows.append(m)
    return torch.stack(rows)


def with_the_old_value(x: Tensor, decay: float) -> Tensor:
    rows = plain(x, decay)
    before = F.pad(rows[:-1], (0, 0, 1, 0))
    t = torch.arange(1, len(x) + 1).double()[:, None]
    return before / (1 - decay**t)


def counts(x: Tensor) -> Tensor:
    """1, 2, ... n, one for each row."""
    return torch.arange(1, len(x) + 1).double()[:, None]


def same_tensor(x: Tensor, decay: float, factor: float = 1.0) -> Tensor:
    """What comes of a list that holds one tensor n times, changed in place in each step."""
    return (factor * plain(x, decay)[-1:]).expand(len(x), -1).clone()


def begun_and_corrected(x: Tensor, decay: float) -> Tensor:
    t = counts(x)
    return (plain(x, decay) + decay**t * x[0]) / (1 - decay**t)


def in_place(x: Tensor, decay: float) -> Tensor:
    for t in range(1, len(x)):
        x[t] = decay * x[t - 1] + (1 - decay) * x[t]
    return x


def with_integers(x: Tensor, decay: float) -> Tensor:
    places = torch.arange(len(x))
    age = places[:, None] - places
    return (age * log(decay)).masked_fill(age < 0, -torch.inf).softmax(1) @ x


def softmax_of(score, x: Tensor, axis: int = 1, seen=lambda age: age >= 0) -> Tensor:
    age = ages(len(x))
    return score(age).masked_fill(~seen(age), -torch.inf).softmax(axis)


AVERAGE = Exercise(
    reference=average,
    right=(average_by_softmax, average_by_sums, average_in_place),
    inputs=lambda: [(ramp(7, 3) + 1, 0.7), (ramp(4, 2, step=1.1), 0.25), (ramp(5, 1), 0.9)],
    praise="Every row is an average of what came so far, and its weights sum to 1, as (6.5) says.",
    wrong=(
        Wrong(
            plain,
            "this is m of (6.1), right but not corrected: your first row is (1 - decay) x; divide by 1 - decay**t as in (6.4)",
        ),
        Wrong(
            lambda x, d: average(x, 1 - d),
            "decay and 1 - decay have changed places: the old average keeps the share decay, the new value gets 1 - decay",
        ),
        Wrong(
            lambda x, d: divided(x, d, -1),
            "your t begins at 0, so the first row is divided by 1 - 1 = 0; the first row has t = 1",
        ),
        Wrong(
            lambda x, d: divided(x, d, 1),
            "your t is one too large: behind the first value the weights sum to 1 - decay**1, see (6.3)",
        ),
        Wrong(
            begun_with_the_first,
            "you begin with the first value instead of 0; that is another convention (part 7), in which the first value keeps too much weight",
        ),
        Wrong(
            corrected_goes_on,
            "you put the corrected average back into the recursion; go on with m itself, and correct only what you append",
        ),
        Wrong(
            with_the_old_value,
            "you append before you update m: each row lacks its own x_t",
        ),
        Wrong(
            lambda x, d: plain(x, d) * (1 - d ** torch.arange(1, len(x) + 1).double())[:, None],
            "you multiply by 1 - decay**t; the weights sum to that, so divide by it",
        ),
        Wrong(
            lambda x, d: plain(x, d) / (1 - d),
            "you divide every row by 1 - decay; the sum of the weights is 1 - decay**t and grows with t, (6.3)",
        ),
        Wrong(
            lambda x, d: plain(x, d) / (1 - d ** len(x)),
            "you divide every row by the last row's sum 1 - decay**n; each row has its own t",
        ),
        Wrong(
            lambda x, d: plain(x, d) / (1 - (1 - d) ** torch.arange(1, len(x) + 1).double())[:, None],
            "the correction takes the power of 1 - decay; it is 1 - decay**t, the share that is not the starting zero's",
        ),
        Wrong(
            lambda x, d: plain(x, d, 1 / (1 - d)) / (1 - d ** torch.arange(1, len(x) + 1).double())[:, None],
            "the factor 1 - decay of the new value is missing in your recursion, (6.1)",
        ),
        Wrong(
            lambda x, d: average(x.T, d).T,
            "you run along the columns: time is the first axis of x, and each column is a series of its own",
        ),
        Wrong(
            lambda x, d: average(x.flip(0), d).flip(0),
            "your average runs backwards: row t averages the values from t on; it should see the past only",
        ),
        Wrong(
            lambda x, d: average(x, d)[-1],
            "you return the last average only; append one in every step and stack them",
        ),
        Wrong(
            lambda x, d: torch.cat([torch.zeros_like(x[:1]), average(x, d)]),
            "your result has one row too many: leave out the zero that the recursion starts from",
        ),
        Wrong(
            lambda x, d: softmax_of(lambda age: age * log(d), x),
            "these are the right weights; multiply them with x",
        ),
        Wrong(
            lambda x, d: softmax_of(lambda age: -age * log(d), x) @ x,
            "your oldest values weigh most: log(decay) is negative already, so the score is +k log(decay)",
        ),
        Wrong(
            lambda x, d: softmax_of(lambda age: age * log(d), x, axis=0) @ x,
            "your softmax runs over the times that ask; the weights of one time, a row, should sum to 1: softmax(1)",
        ),
        Wrong(
            lambda x, d: softmax_of(lambda age: age * log(d), x, seen=lambda age: age <= 0) @ x,
            "your mask shows the future and hides the past; keep the ages from 0 on",
        ),
        Wrong(
            lambda x, d: softmax_of(lambda age: age.abs() * log(d), x, seen=lambda age: age > -99) @ x,
            "your average sees the future too: mask the negative ages before the softmax",
        ),
        Wrong(
            lambda x, d: softmax_of(lambda age: age * d, x) @ x,
            "the score is k log(decay); you have multiplied the age by the decay itself",
        ),
        Wrong(
            lambda x, d: softmax_of(lambda age: d ** age.clamp(min=0), x) @ x,
            "you take a softmax of the weights d**k; they are exponentials already: divide them by their sum, or take the softmax of k log(decay)",
        ),
        Wrong(
            lambda x, d: x.cumsum(0) / torch.arange(1, len(x) + 1)[:, None],
            "all your values weigh the same, whatever their age and the decay",
        ),
        Wrong(
            same_tensor,
            "all your rows are one tensor: m *= ... and m += ... change it in place, also where it stands in the list; write m = decay * m + ...",
        ),
        Wrong(
            lambda x, d: plain(x, d) - d ** counts(x),
            "division comes before subtraction: m / 1 - decay**t needs brackets, m / (1 - decay**t)",
        ),
        Wrong(
            lambda x, d: plain(x, d) / (1 - d * counts(x)),
            "you multiply decay by t; the missing share is a power, decay**t",
        ),
        Wrong(
            lambda x, d: plain(x, d) / (1 - d) ** counts(x),
            "your power stands outside the brackets: divide by 1 - decay**t, not by (1 - decay)**t",
        ),
        Wrong(
            begun_and_corrected,
            "you begin with the first value and correct as well: the correction is for a start at zero",
        ),
        Wrong(
            in_place,
            "you write into x itself, so its owner loses the series; make a new list or tensor",
        ),
        Wrong(
            lambda x, d: [*average(x, d)],
            "you return a list of rows; torch.stack makes one tensor of them",
        ),
        Wrong(
            lambda x, d: torch.cat([*average(x, d)]),
            "torch.cat strings the rows into one long vector; torch.stack puts them one under the other",
        ),
        Wrong(
            lambda x, d: average(x, d)[:1],
            "only the first row came back: the return stands inside the loop; move it out to the left",
        ),
        Wrong(
            lambda x, d: average(x, d).T,
            "the averages are right but lie on their side: time should run down the rows",
        ),
        Wrong(
            lambda x, d: average(x[1:], d),
            "your average begins with the second value; the first row of x counts too",
        ),
        Wrong(
            lambda x, d: average(x, d).float(),
            "the averages are right, in float32: begin with torch.zeros_like(x[0]), or torch.empty_like(x), to stay in the dtype of x",
        ),
        Wrong(
            lambda x, d: plain(x, d) / (1 - d ** torch.arange(1, len(x) + 1)),
            "your divisors lie along the columns; they belong to the rows: give them a second axis with [:, None]",
        ),
        Wrong(
            with_integers,
            "your weights are float32 (scores from integer ages are) and cannot multiply x: make them x.dtype",
        ),
        Wrong(
            lambda x, d: (ages(len(x)) * log(d)).tril().softmax(1) @ x,
            "a score of 0 still gets a weight, e**0 = 1: hide the future with -inf, not with 0 or tril",
        ),
        Wrong(
            lambda x, d: (ages(len(x)) * log(d)).softmax(1).tril() @ x,
            "you hide the future after the softmax, so what is left does not sum to 1: mask the scores before",
        ),
    ),
)

# 06.2 a decay --------------------------------------------------------------------------------------------


def decay_for(half_life: float) -> float:
    return 0.5 ** (1 / half_life)


HALF_LIFE = Exercise(
    reference=decay_for,
    right=(lambda h: exp(-log(2) / h), lambda h: 2 ** (-1 / h), lambda h: exp(log(0.5) / h)),
    inputs=lambda: [(1.0,), (6.0,), (0.5,), (120.0,)],
    praise="After half_life steps the weight is one half, exactly, also for short memories.",
    wrong=(
        Wrong(
            lambda h: 1 - log(2) / h,
            "this is the approximation of (6.8) for a decay near 1; for a half-life of half a step it is even negative: solve d**h = 1/2 exactly",
        ),
        Wrong(
            lambda h: 1 - 0.69 / h,
            "0.69/(1 - d) is the approximation of (6.8), for a decay near 1; solve d**h = 1/2 exactly",
        ),
        Wrong(
            lambda h: h / (1 + h),
            "this decay has the mean age h; the half-life asks when a weight has fallen to one half",
        ),
        Wrong(
            lambda h: 1 - 1 / h, "1 - 1/h forgets a share 1/h in each step; after h steps about 0.37 is left"
        ),
        Wrong(
            lambda h: exp(-1 / h),
            "after h steps this leaves 1/e = 0.37 of a weight; the task asks for one half",
        ),
        Wrong(
            lambda h: 0.5**h,
            "you have raised 1/2 to the power h; a longer half-life must give a larger decay",
        ),
        Wrong(
            lambda h: 2 ** (1 / h), "your decay is above 1, so the weights would double: take the root of 1/2"
        ),
        Wrong(
            lambda h: 1 - 0.5 ** (1 / h),
            "this is 1 - d, the weight of the newest value; the decay is what is left",
        ),
        Wrong(
            lambda h: 1 - 2 / (h + 1), "this is the decay of a span (part 7); set d**half_life to one half"
        ),
        Wrong(lambda h: log(0.5) / h, "this is the logarithm of the decay; take its exponential"),
        Wrong(
            lambda h: log(2) / h,
            "ln(2)/h is about the share that is forgotten in a step; solve d**h = 1/2 for d",
        ),
        Wrong(
            lambda h: 0.5 / h,
            "halving is repeated multiplication: take the h-th root of 1/2, not its h-th part",
        ),
        Wrong(
            lambda h: 1 - 0.5 / h,
            "the loss is not the same amount in each step but the same factor: d**h = 1/2",
        ),
        Wrong(lambda h: 0.5 ** (1 // h), "1 // h is a division without fractions; write 1 / h"),
        Wrong(
            lambda h: (1 / h) ** 0.5,
            "base and exponent have changed places: it is one half that is raised to the power 1/h",
        ),
        Wrong(
            lambda h: 1 - 0.5**h,
            "this is the share that a decay of one half loses in h steps; here the decay is asked for, from d**h = 1/2",
        ),
        Wrong(
            lambda h: round(0.5 ** (1 / h), 2),
            "right to two places; do not round: 0.99 and 0.9942 have half-lives of 69 and 120",
        ),
        Wrong(
            lambda h: 0.5 ** (1 / (h + 1)),
            "one step too long: the newest value has age 0, so the age h has the weight d**h, not d**(h + 1)",
        ),
        Wrong(
            lambda h: exp(-h),
            "exp(-h) falls as the half-life grows; a longer half-life must give a larger decay: take a root",
        ),
        Wrong(
            lambda h: log(0.5) / log(h),
            "this turns (6.8) round the wrong way: there log(d) is what is asked for, the logarithm of 1/2 divided by h",
        ),
        Wrong(
            lambda h: [0.5 ** (1 / h)],
            "the number is right, but it stands in a list; return it alone",
        ),
    ),
)

# 06.3 backward -------------------------------------------------------------------------------------------


def average_backward(g: Tensor, decay: float) -> Tensor:
    r, rows = torch.zeros_like(g[0]), []
    for g_t in g.flip(0):
        r = g_t + decay * r
        rows.append((1 - decay) * r)
    return torch.stack(rows).flip(0)


def backward_as_average(g: Tensor, decay: float) -> Tensor:
    return plain(g.flip(0), decay).flip(0)


def backward_by_weights(g: Tensor, decay: float) -> Tensor:
    age = ages(len(g))
    return torch.where(age >= 0, (1 - decay) * decay ** age.clamp(min=0), 0).T @ g


def backward_by_autograd(g: Tensor, decay: float) -> Tensor:
    x = torch.zeros_like(g).requires_grad_()
    return torch.autograd.grad(plain(x, decay), x, g)[0]


def suffix(g: Tensor, decay: float) -> Tensor:
    """r_t of (6.9)."""
    return average_backward(g, decay) / (1 - decay)


BACKWARD = Exercise(
    reference=average_backward,
    right=(backward_as_average, backward_by_weights, backward_by_autograd),
    inputs=lambda: [(ramp(6, 2), 0.8), (ramp(4, 3, step=0.9) + 0.5, 0.3)],
    praise="A moving average of the gradients, run backwards.",
    wrong=(
        Wrong(
            plain,
            "your gradients flow from the past into the future; x_t counts in all LATER averages, so go from the last row up",
        ),
        Wrong(
            suffix,
            "this is r; x_t enters m_t with the factor 1 - decay, so the gradient is (1 - decay) r",
        ),
        Wrong(
            lambda g, d: average_backward(g, d).flip(0),
            "the numbers are right and upside down: the list begins with the last row, so flip it at the end",
        ),
        Wrong(
            lambda g, d: d * suffix(g, d),
            "you multiply r by decay; that is its way to m_{t-1}. To x_t the factor is 1 - decay",
        ),
        Wrong(
            lambda g, d: (1 - d) * g,
            "you count only the average at x_t's own time; through the recursion it also reaches all later ones",
        ),
        Wrong(
            lambda g, d: (1 - d) * g.flip(0).cumsum(0).flip(0),
            "your gradients do not fade: each step back through the recursion brings a factor decay",
        ),
        Wrong(
            lambda g, d: average_backward(g, 1 - d),
            "decay and 1 - decay have changed places: the slope of m_t is decay towards m_{t-1} and 1 - decay towards x_t",
        ),
        Wrong(
            lambda g, d: (1 - d) * d * F.pad(suffix(g, d)[1:], (0, 0, 0, 1)),
            "you leave out g_t itself: r_t = g_t + decay r_{t+1}",
        ),
        Wrong(
            lambda g, d: (1 - d) * average_backward(g, d),
            "the factor 1 - decay stands twice: r takes g as it is, and 1 - decay comes once, at the end",
        ),
        Wrong(
            lambda g, d: average(g.flip(0), d).flip(0),
            "you divide by 1 - decay**t; these gradients arrive at the uncorrected averages, so there is nothing to correct",
        ),
        Wrong(
            lambda g, d: average_backward(g / (1 - d ** torch.arange(1, len(g) + 1).double())[:, None], d),
            "this is the gradient of the corrected average; the task takes g at the uncorrected ones",
        ),
        Wrong(
            lambda g, d: average_backward(g.T, d).T,
            "you run along the columns: time is the first axis of g",
        ),
        Wrong(
            lambda g, d: average_backward(g, d)[0],
            "you return the gradient of the first x only; keep one for every time",
        ),
        Wrong(
            lambda g, d: [*average_backward(g, d).flip(0)],
            "you return the list, and it begins with the last row: torch.stack it and flip it",
        ),
        Wrong(
            lambda g, d: [*average_backward(g, d).flip(0)].flip(0),
            "a list has no flip: torch.stack it first",
        ),
        Wrong(
            lambda g, d: g[::-1],
            "torch has no negative steps: write g.flip(0) for the rows in reversed order",
        ),
        Wrong(
            lambda g, d: (1 - d) * suffix(g, d * (1 - d)),
            "your 1 - decay goes round in the recursion; keep r = g_t + decay r, and multiply only what you append",
        ),
        Wrong(
            lambda g, d: (1 - d) * suffix(g, 1 - d),
            "your r fades by 1 - decay from step to step; the way from m_t back to m_{t-1} has the slope decay",
        ),
        Wrong(
            lambda g, d: (1 - d) * F.pad(suffix(g, d)[1:], (0, 0, 0, 1)),
            "you append before you update r: each row lacks its own g_t",
        ),
        Wrong(
            lambda g, d: average_backward(g, d).flip(0).flip(1),
            "you flip the columns at the end; the rows are upside down: flip(0)",
        ),
        Wrong(
            lambda g, d: plain(g, d).flip(0),
            "you forgot to reverse g before the loop: you go down, and then turn the result upside down",
        ),
        Wrong(
            lambda g, d: (1 - d) * (g + d * F.pad(g[1:], (0, 0, 0, 1))),
            "you look one step ahead only: use the r of the row below, which holds all later ones, not its g",
        ),
        Wrong(
            lambda g, d: (
                F.pad(average_backward(g, d)[:-1], (0, 0, 0, 1))
                - F.pad((1 - d) * d ** torch.arange(len(g) - 1, 0, -1)[:, None] * g[-1:], (0, 0, 0, 1))
            ),
            "the last row is missing: your loop begins one above it; r_n = g_n",
        ),
        Wrong(
            lambda g, d: same_tensor(g.flip(0), d, 1 / (1 - d)) * (1 - d),
            "all your rows are one tensor: r *= ... and r += ... change it in place, also where it stands in the list",
        ),
        Wrong(
            lambda g, d: -average_backward(g, d),
            "the sign is turned: these are gradients, not a step against them",
        ),
        Wrong(
            lambda g, d: average_backward(g, d).sum(0),
            "you add up over time; each x_t has its own gradient",
        ),
        Wrong(
            lambda g, d: average_backward(g, d).float(),
            "the numbers are right, in float32: begin with torch.zeros_like(g[0]) to stay in the dtype of g",
        ),
    ),
)

# 06.4 bug gallery ----------------------------------------------------------------------------------------


def attend(x: Tensor, window: int, beta: float) -> Tensor:
    out = torch.zeros_like(x)
    for t in range(1, len(x)):
        past = x[max(0, t - window) : t]
        weights = (beta * F.cosine_similarity(past, x[t : t + 1], dim=1)).softmax(0)
        out[t] = weights @ past
    return out


def cosines(x: Tensor) -> Tensor:
    unit = x / x.norm(dim=1, keepdim=True)
    return unit @ unit.T


def attend_by_mask(x: Tensor, window: int, beta: float) -> Tensor:
    age = ages(len(x))
    scores = (beta * cosines(x)).masked_fill((age < 1) | (age > window), -torch.inf)
    return scores.softmax(1).nan_to_num() @ x


def attend_summing(x: Tensor, window: int, beta: float) -> Tensor:
    rows = [torch.zeros_like(x[0])]
    for t in range(1, len(x)):
        past = x[max(0, t - window) : t]
        e = torch.exp(beta * cosines(x)[t, max(0, t - window) : t])
        rows.append((e[:, None] * past).sum(0) / e.sum())
    return torch.stack(rows)


def variant(
    x: Tensor,
    window: int,
    beta: float,
    *,
    start: int = 1,
    after: int = 0,
    longer: int = 0,
    weigh=lambda cosines, beta: (beta * cosines).softmax(0),
    pool=lambda weights, past, present: weights @ past,
) -> Tensor:
    out = torch.zeros_like(x)
    for t in range(start, len(x)):
        past = x[max(0, t - window - longer) : t + after]
        weights = weigh(F.cosine_similarity(past, x[t : t + 1], dim=1), beta)
        out[t] = pool(weights, past, x[t])
    return out


def times_present(weights: Tensor, past: Tensor, present: Tensor) -> Tensor:
    return (weights[:, None] * present).sum(0)


def dot_products(x: Tensor, window: int, beta: float) -> Tensor:
    age = ages(len(x))
    scores = (beta * x @ x.T).masked_fill((age < 1) | (age > window), -torch.inf)
    return scores.softmax(1).nan_to_num() @ x


def without_max(x: Tensor, window: int, beta: float) -> Tensor:
    out = torch.zeros_like(x)
    for t in range(1, len(x)):
        past = x[t - window : t]
        out[t] = (beta * F.cosine_similarity(past, x[t : t + 1], dim=1)).softmax(0) @ past
    return out


def asked_by_the_last(x: Tensor, window: int, beta: float) -> Tensor:
    out = torch.zeros_like(x)
    for t in range(1, len(x)):
        past = x[max(0, t - window) : t]
        out[t] = (beta * F.cosine_similarity(past, x[t - 1 : t], dim=1)).softmax(0) @ past
    return out


def in_place_from_the_end(x: Tensor, window: int, beta: float) -> Tensor:
    for t in range(len(x) - 1, 0, -1):
        past = x[max(0, t - window) : t]
        x[t] = (beta * F.cosine_similarity(past, x[t : t + 1], dim=1)).softmax(0) @ past
    return x


def not_summed(x: Tensor, window: int, beta: float) -> Tensor:
    return variant(x, window, beta, pool=lambda weights, past, now: weights[:, None] * past)


GALLERY = Exercise(
    reference=attend,
    right=(attend_by_mask, attend_summing),
    inputs=lambda: [(ramp(7, 3), 3, 2.0), (ramp(5, 2, step=1.3) + 0.2, 10, 0.5)],
    praise="The past as values, and a window that ends before the present.",
    wrong=(
        Wrong(
            lambda x, w, b: variant(x, w, b, after=1, pool=times_present),
            "from the second row on your output is x itself: the weights multiply the present, and sum to 1, (6.13); let the past be the values",
        ),
        Wrong(
            lambda x, w, b: variant(x, w, b, after=1),
            "the past is among the values now, but the present is too, and has the cosine 1 with itself: end the window at t",
        ),
        Wrong(
            lambda x, w, b: variant(x, w, b, start=0, after=1),
            "the first row should be zeros, since it has no past; and the window should end before t",
        ),
        Wrong(
            lambda x, w, b: variant(x, w - 1, b),
            "your window is one place too short: before t there are the places t - window to t - 1",
        ),
        Wrong(
            lambda x, w, b: variant(x, w, b, longer=1),
            "your window is one place too long: before t there are the places t - window to t - 1",
        ),
        Wrong(
            lambda x, w, b: variant(x, w, b, weigh=lambda c, beta: c.softmax(0)),
            "beta is missing: the cosines are multiplied by it before the softmax, (6.14)",
        ),
        Wrong(
            lambda x, w, b: variant(x, w, b, weigh=lambda c, beta: (c / beta).softmax(0)),
            "you divide by beta; it is an inverse temperature, and multiplies the cosine",
        ),
        Wrong(
            lambda x, w, b: variant(x, w, b, weigh=lambda c, beta: beta * c),
            "the softmax is gone: your weights can be negative and do not sum to 1",
        ),
        Wrong(
            lambda x, w, b: variant(x, w, b, weigh=lambda c, beta: beta * c.softmax(0)),
            "beta belongs inside the softmax, before the exponential",
        ),
        Wrong(
            lambda x, w, b: variant(x, w, b, pool=lambda a, past, now: past.mean(0)),
            "you take the plain mean of the window and leave the weights unused",
        ),
        Wrong(
            lambda x, w, b: variant(x, w, b, pool=lambda a, past, now: (a[:, None] * past).mean(0)),
            "the weights sum to 1 already: add up the weighted values, do not take their mean",
        ),
        Wrong(
            lambda x, w, b: variant(x, w, b, pool=lambda a, past, now: a @ past + now),
            "you add the present; fusing the two is another step, this one returns what is found in the past",
        ),
        Wrong(
            lambda x, w, b: variant(x, w, b, pool=lambda a, past, now: past[a.argmax()]),
            "you take the best match alone; (6.14) averages all of the window",
        ),
        Wrong(
            lambda x, w, b: torch.stack([x[0], *attend(x, w, b)[1:]]),
            "the first time has no past: its row should be zeros, not x itself",
        ),
        Wrong(
            lambda x, w, b: attend(x, w, b)[1:],
            "a row is missing: keep the first one, as zeros",
        ),
        Wrong(
            lambda x, w, b: attend(x, len(x), b),
            "you look at the whole past; only the last `window` places count",
        ),
        Wrong(
            dot_products,
            "your scores are dot products, so long vectors win; (6.14) asks for the cosine, as given",
        ),
        Wrong(
            without_max,
            "the max(0, ...) is gone: near the start t - window is negative, and counts from the end of x",
        ),
        Wrong(
            asked_by_the_last,
            "your query is the place before t; t itself asks, only it is not among the keys",
        ),
        Wrong(
            lambda x, w, b: F.pad(attend(x, w, b)[:-1], (0, 0, 1, 0)),
            "your result is one time late: row t is what time t finds",
        ),
        Wrong(
            lambda x, w, b: variant(x, w - 1, b, start=2, after=-1, longer=2),
            "your window lies one place too far back, at both ends: it holds t - window to t - 1",
        ),
        Wrong(
            lambda x, w, b: variant(x, w, b, start=2, after=-1),
            "your window ends one place too early: x[t - 1] is past already, so stop at t",
        ),
        Wrong(
            in_place_from_the_end,
            "you write into x, which the caller still needs, and which other rows look back on; write into out",
        ),
        Wrong(
            not_summed,
            "the weighted values still lie one under the other: add them up with sum(0), or write weights @ past",
        ),
        Wrong(
            lambda x, w, b: variant(x, w, b, pool=lambda a, past, now: (a[:, None] * past).sum()),
            "sum() adds up the columns too; sum(0) keeps them",
        ),
        Wrong(
            lambda x, w, b: variant(x, w, b, pool=lambda a, past, now: (a * past).sum(0)),
            "the weights lie along the columns; they belong to the rows of the past: weights[:, None]",
        ),
        Wrong(
            lambda x, w, b: variant(x, w, b, pool=lambda a, past, now: past @ a),
            "past @ weights sums over the columns; the weights go first: weights @ past",
        ),
        Wrong(
            lambda x, w, b: variant(x, w, b, after=1, pool=lambda a, past, now: a[:-1] @ past[:-1]),
            "you drop the present after the softmax, so what is left does not sum to 1: drop it before",
        ),
        Wrong(
            lambda x, w, b: variant(x, w, b, weigh=lambda c, beta: c / c.sum()),
            "you divide the cosines by their sum; that can be zero or negative: use the softmax",
        ),
        Wrong(
            lambda x, w, b: variant(x, w, b, weigh=lambda c, beta: (beta * c).exp()),
            "your exponentials are not divided by their sum; that is the rest of the softmax",
        ),
        Wrong(
            lambda x, w, b: F.pad(attend(x, w, b)[1:2], (0, 0, 1, len(x) - 2)),
            "only the second row is filled: the return stands inside the loop; move it out to the left",
        ),
        Wrong(
            lambda x, w, b: attend(x, w, b)[-1],
            "you return the last row only; fill one row of out in each step",
        ),
    ),
)

# 06.5 a series with gaps ---------------------------------------------------------------------------------


def average_at(now: float, times: Tensor, x: Tensor, half_life: float) -> Tensor:
    past = times <= now
    weights = 0.5 ** ((now - times[past]) / half_life)
    return (weights * x[past]).sum() / weights.sum()


def average_at_softmax(now: float, times: Tensor, x: Tensor, half_life: float) -> Tensor:
    scores = (times - now) * log(2) / half_life
    return scores.masked_fill(times > now, -torch.inf).softmax(0) @ x


def average_at_where(now: float, times: Tensor, x: Tensor, half_life: float) -> Tensor:
    w = torch.where(times <= now, 0.5 ** ((now - times) / half_life), 0)
    return (w * x).sum() / w.sum()


def weighted(weights: Tensor, x: Tensor) -> Tensor:
    return (weights * x).sum() / weights.sum()


def fading(now: float, times: Tensor, half_life: float) -> Tensor:
    return torch.where(times <= now, 0.5 ** ((now - times) / half_life), 0)


def recursion_with_gaps(now: float, times: Tensor, x: Tensor, half_life: float) -> Tensor:
    m, before = torch.zeros_like(x[0]), times[0]
    for time, value in zip(times[times <= now], x[times <= now], strict=True):
        d = 0.5 ** ((time - before) / half_life)
        m, before = d * m + (1 - d) * value, time
    return m


def uncorrected(now: float, times: Tensor, x: Tensor, half_life: float) -> Tensor:
    return (1 - 0.5 ** (1 / half_life)) * (fading(now, times, half_life) * x).sum()


def zero_for_the_future(now: float, times: Tensor, x: Tensor, half_life: float) -> Tensor:
    x[times > now] = 0
    return weighted(0.5 ** ((now - times) / half_life), x)


def gaps() -> list[tuple]:
    times = torch.tensor([0.0, 0.5, 1.0, 4.0, 4.5, 7.0]).double()
    return [
        (5.0, times, ramp(6) + 1, 1.5),
        (4.5, times, ramp(6, step=0.9), 0.8),
        (9.0, times + 0.25, ramp(6), 3.0),
    ]


GAPS = Exercise(
    reference=average_at,
    right=(average_at_softmax, average_at_where),
    inputs=gaps,
    praise="Real ages, no future, and weights that sum to 1: this is (6.5) with an age that is not a whole number.",
    wrong=(
        Wrong(
            lambda now, times, x, h: weighted(0.5 ** ((now - times) / h), x),
            "you count values that come after now, and with a weight above 1: leave them out",
        ),
        Wrong(
            lambda now, times, x, h: weighted(0.5 ** ((now - times).abs() / h), x),
            "values that come after now count as if they were old; leave them out",
        ),
        Wrong(
            lambda now, times, x, h: (fading(now, times, h) * x).sum(),
            "your weights do not sum to 1: divide by their sum, the correction of (6.5)",
        ),
        Wrong(
            lambda now, times, x, h: (fading(now, times, h) * x).mean(),
            "you divide by the number of values; divide by the sum of the weights",
        ),
        Wrong(
            lambda now, times, x, h: (fading(now, times, h) * x).sum() / (0.5 ** ((now - times) / h)).sum(),
            "the sum below still counts the values after now; leave them out above and below",
        ),
        Wrong(
            lambda now, times, x, h: weighted(torch.where(times < now, 0.5 ** ((now - times) / h), 0), x),
            "a value measured exactly at now counts: its age is 0, so write times <= now",
        ),
        Wrong(
            lambda now, times, x, h: average(x[times <= now][:, None], 0.5 ** (1 / h))[-1, 0],
            "you count the steps since a value; its age is now - times, whatever lies between",
        ),
        Wrong(
            lambda now, times, x, h: weighted(torch.where(times <= now, torch.exp((times - now) / h), 0), x),
            "after one half_life your weights are at 1/e = 0.37; use powers of one half",
        ),
        Wrong(
            lambda now, times, x, h: weighted(torch.where(times <= now, 0.5 ** ((now - times) * h), 0), x),
            "you multiply the age by half_life; a longer half-life should forget more slowly, so divide",
        ),
        Wrong(
            lambda now, times, x, h: weighted(torch.where(times <= now, 0.5 ** (now - times), 0), x),
            "your weights halve in every unit of time, whatever half_life is",
        ),
        Wrong(
            lambda now, times, x, h: weighted(torch.where(times <= now, 2 ** ((now - times) / h), 0), x),
            "your oldest values weigh most: the weight should halve with age, not double",
        ),
        Wrong(
            lambda now, times, x, h: weighted(
                torch.where(times <= now, 1 - (now - times) / (2 * h), 0).clamp(min=0), x
            ),
            "your weights fall along a straight line; they should halve in every half_life",
        ),
        Wrong(
            lambda now, times, x, h: weighted((times <= now).double(), x),
            "all of your past weighs the same, whatever its age",
        ),
        Wrong(
            lambda now, times, x, h: fading(now, times, h) / fading(now, times, h).sum(),
            "these are the right weights; multiply them with x and add up",
        ),
        Wrong(
            lambda now, times, x, h: fading(now, times, h) * x / fading(now, times, h).sum(),
            "every part is right; add them up, so that one number is left",
        ),
        Wrong(
            lambda now, times, x, h: average_at(now, times, x, h)[None],
            "the number is right; return it without an axis, as a sum does",
        ),
        Wrong(
            lambda now, times, x, h: average_at(now, times, x, h) * (1 - 0.5 ** (1 / h)),
            "the factor 1 - d cancels when you divide by the sum of the weights; leave it out above too",
        ),
        Wrong(
            recursion_with_gaps,
            "your recursion gives a value the share that its gap before it leaves; divide the sum of w x by the sum of the weights w instead",
        ),
        Wrong(
            uncorrected,
            "1 - d is the right factor only for even steps without an end; divide by the sum of the weights",
        ),
        Wrong(
            lambda now, times, x, h: uncorrected(now, times, x, h) / (1 - 0.5 ** ((times <= now).sum() / h)),
            "1 - d**t is the sum of the weights for even steps only; here add up the weights themselves",
        ),
        Wrong(
            zero_for_the_future,
            "you change an input, which the caller still needs; leave the later values out with x[times <= now]",
        ),
        Wrong(
            lambda now, times, x, h: (fading(now, times, h) * x).sum() / (times <= now).sum(),
            "you divide by the number of past values; divide by the sum of their weights",
        ),
        Wrong(
            lambda now, times, x, h: weighted(torch.where(times <= now, 0.5 ** ((now - times) // h), 0), x),
            "// drops the fractions of a half-life, so the weights fall in stairs; write /",
        ),
        Wrong(
            lambda now, times, x, h: weighted(torch.where(times <= now, 0.5 * (now - times) / h, 0), x),
            "you multiply by one half where a power is meant: 0.5 ** (age / half_life)",
        ),
        Wrong(
            lambda now, times, x, h: weighted(torch.where(times >= now, 0.5 ** ((now - times) / h), 0), x),
            "your comparison is turned round: you keep the future and drop the past",
        ),
        Wrong(
            lambda now, times, x, h: torch.where(times <= now, (times - now) * log(2) / h, 0).softmax(0) @ x,
            "a score of 0 still gets a weight, e**0 = 1: hide what comes after now with -inf",
        ),
        Wrong(
            lambda now, times, x, h: fading(now, times, h).softmax(0) @ x,
            "you take a softmax of the weights; they are exponentials already: divide them by their sum",
        ),
        Wrong(
            lambda now, times, x, h: weighted(
                torch.where(times <= now, 0.5 ** ((now - times) / h), -torch.inf), x
            ),
            "-inf hides a score before a softmax; a weight that should not count is 0",
        ),
        Wrong(
            lambda now, times, x, h: x[times <= now][-1],
            "you return the newest value alone; the older ones count too, with less weight",
        ),
        Wrong(
            lambda now, times, x, h: weighted(0.5 ** ((now - times[times <= now]) / h), x),
            "you leave out the later times but not their values: take x[times <= now] as well",
        ),
    ),
)

EXERCISES = {
    "06.a": choice(
        "b",
        {
            "a": "that is the sum without an end; here it stops at t - 1",
            "c": "that is (1 - d) times the sum; divide by 1 - d",
            "d": "the terms are not all alike: each is d times the one before",
            "e": "try t = 1: the sum is 1, and your formula gives 0; there are t terms, so the power is t",
        },
        "Multiply the sum by 1 - d: all terms cancel but 1 - d^t.",
    ),
    "06.b": choice(
        "c",
        {
            "a": "these are the exponentials; divide them by their sum, 3/2",
            "b": "equal weights need equal scores",
            "d": "the other way round: ln(1/2) is negative, and the lower score gets the smaller weight",
            "e": "these are the scores; take exponentials and divide by their sum",
        },
        "e^0 = 1 and e^{ln(1/2)} = 1/2, out of 3/2.",
    ),
    "06.c": choice(
        "a",
        {
            "b": "a variance takes the square of a factor: 9 and 16",
            "c": "a variance is never negative; factors enter squared, so the minus sign is lost: 9 + 16",
            "d": "that is the standard deviation; the variance is its square",
            "e": "the factors count, and they enter squared",
        },
        "9 + 16: factors enter squared, and the sign is lost.",
    ),
    "06.1": AVERAGE,
    "06.2": HALF_LIFE,
    "06.3": BACKWARD,
    "06.4": GALLERY,
    "06.5": GAPS,
}
