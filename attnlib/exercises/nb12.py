"""The exercises of 12_normalization_attention."""

import torch
from torch import Tensor
from torch.nn import functional as F

from attnlib.exercises.checker import Exercise, Wrong, choice, ramp

EPS = 1e-5


def column(v: Tensor) -> Tensor:
    return v[:, None, None]


def x_hat(x: Tensor, mean: Tensor, var: Tensor) -> Tensor:
    return (x - column(mean)) / column(torch.sqrt(var + EPS))


def norm(x: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, var: Tensor) -> Tensor:
    return column(gamma) * x_hat(x, mean, var) + column(beta)


def share(gamma: Tensor) -> Tensor:
    return gamma.abs() / gamma.abs().sum()


# 12.1 the gate -------------------------------------------------------------------------------------------


def nam_gate(x: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, var: Tensor) -> Tensor:
    w = gamma.abs() / gamma.abs().sum()
    return torch.sigmoid(column(w) * norm(x, gamma, beta, mean, var))


def nam_gate_functional(x: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, var: Tensor) -> Tensor:
    w = gamma.abs() / torch.linalg.vector_norm(gamma, 1)
    return torch.einsum("c,bchw->bchw", w, F.batch_norm(x, mean, var, gamma, beta)).sigmoid()


def nam_gate_by_channel(x: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, var: Tensor) -> Tensor:
    total = sum(abs(g) for g in gamma)
    gates = []
    for c in range(len(gamma)):
        y = gamma[c] * (x[:, c] - mean[c]) * (var[c] + EPS) ** -0.5 + beta[c]
        gates.append(1 / (1 + torch.exp(-abs(gamma[c]) / total * y)))
    return torch.stack(gates, 1)


def nam_gate_merged(x: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, var: Tensor) -> Tensor:
    a, b = swish_form(gamma, beta, mean, var)
    return torch.sigmoid(column(a) * x + column(b))


def gate_inputs() -> list[tuple]:
    """Scales of both signs, and in each a channel whose variance is so small that eps counts."""
    return [
        (
            2 * ramp(2, 4, 3, 5),
            torch.tensor([3.0, -2.0, 0.5, 1.0]).double(),
            2 * ramp(4),
            ramp(4, step=0.9),
            torch.tensor([0.5, 2.0, 1e-4, 4.0]).double(),
        ),
        (
            ramp(3, 6, 2, 2),
            3 * ramp(6, step=1.1) + 1,
            ramp(6, step=0.7),
            0.5 * ramp(6),
            torch.tensor([1e-4, 0.25, 3.0, 1.0, 2.0, 0.1]).double(),
        ),
    ]


def own_statistics(x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    return norm(x, gamma, beta, x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0))


def gate_with(w: Tensor, x: Tensor, *parameters: Tensor) -> Tensor:
    return torch.sigmoid(column(w) * norm(x, *parameters))


GATE = Exercise(
    reference=nam_gate,
    right=(nam_gate_functional, nam_gate_by_channel, nam_gate_merged),
    inputs=gate_inputs,
    praise="Your gate equals equation (12.4) on maps of two sizes, with scales of both signs.",
    wrong=(
        Wrong(
            lambda x, g, b, m, v: gate_with(g / g.sum(), x, g, b, m, v),
            "some of your weights are negative: take the absolute value of gamma, above and below the fraction bar; see (12.3)",
        ),
        Wrong(
            lambda x, g, b, m, v: gate_with(g / g.abs().sum(), x, g, b, m, v),
            "the sum is right, but the numerator keeps its sign; |gamma| is wanted above the fraction bar too",
        ),
        Wrong(
            lambda x, g, b, m, v: gate_with(g.abs() / g.sum(), x, g, b, m, v),
            "your weights do not sum to 1: you add up gamma with its signs, below the fraction bar; add up |gamma|",
        ),
        Wrong(
            lambda x, g, b, m, v: gate_with(g.abs() / g.abs().mean(), x, g, b, m, v),
            "your weights are c times too large: divide by the sum of |gamma|, not by its mean",
        ),
        Wrong(
            lambda x, g, b, m, v: gate_with(g.abs() / g.abs().max(), x, g, b, m, v),
            "you divide by the largest |gamma|; a share is a part of the sum",
        ),
        Wrong(
            lambda x, g, b, m, v: gate_with(g.softmax(0), x, g, b, m, v),
            "your weights are a softmax of gamma; (12.3) divides |gamma| by its sum, without any exponential",
        ),
        Wrong(
            lambda x, g, b, m, v: gate_with(g.abs().softmax(0), x, g, b, m, v),
            "your weights are a softmax of |gamma|; the plain share |gamma| / sum is wanted",
        ),
        Wrong(
            lambda x, g, b, m, v: gate_with(g**2 / (g**2).sum(), x, g, b, m, v),
            "your weights are shares of gamma squared; they should be shares of |gamma|",
        ),
        Wrong(
            lambda x, g, b, m, v: norm(x, g, b, m, v).sigmoid(),
            "that is the sigmoid of the batch norm; the weights w are missing",
        ),
        Wrong(
            lambda x, g, b, m, v: column(share(g)) * norm(x, g, b, m, v),
            "some of your gates are negative or above 1: the sigmoid of (12.4) is missing",
        ),
        Wrong(
            lambda x, g, b, m, v: column(share(g)) * norm(x, g, b, m, v).sigmoid(),
            "you weigh after the sigmoid, so a channel's gate can never exceed w; the weight belongs inside",
        ),
        Wrong(
            lambda x, g, b, m, v: torch.sigmoid(column(share(g)) * x),
            "you weigh x itself; (12.4) weighs the batch-normalised x",
        ),
        Wrong(
            lambda x, g, b, m, v: torch.sigmoid(column(share(g)) * x_hat(x, m, v)),
            "gamma and beta of the norm are missing: gamma appears twice, once in w and once in BN(x)",
        ),
        Wrong(
            lambda x, g, b, m, v: torch.sigmoid(column(share(g) * g) * x_hat(x, m, v)),
            "beta is missing: BN(x) is gamma times x_hat plus beta",
        ),
        Wrong(
            lambda x, g, b, m, v: torch.sigmoid(column(share(g) * g) * x_hat(x, m, v) + column(b)),
            "you add beta after the weighting; it is a part of BN(x), so w multiplies it too",
        ),
        Wrong(
            lambda x, g, b, m, v: gate_with(share(g), x, g.abs(), b, m, v),
            "you took |gamma| in the batch norm as well; only the weights use the absolute value",
        ),
        Wrong(
            lambda x, g, b, m, v: torch.sigmoid(column(share(g)) * own_statistics(x, g, b)),
            "you normalise with the statistics of this batch; in eval the running mean and var that you were given are used",
        ),
        Wrong(
            lambda x, g, b, m, v: torch.sigmoid(
                column(share(g)) * (column(g) * (x - column(m)) / column(v + EPS) + column(b))
            ),
            "you divide by the variance; divide by its square root",
        ),
        Wrong(
            lambda x, g, b, m, v: torch.sigmoid(
                column(share(g)) * (column(g) * (x - column(m)) / column(v.sqrt() + EPS) + column(b))
            ),
            "your eps stands outside the root; it is added to the variance, under the root",
        ),
        Wrong(
            lambda x, g, b, m, v: torch.sigmoid(
                column(share(g)) * (column(g) * (x - column(m)) / column(v.sqrt()) + column(b))
            ),
            "eps is missing: add 1e-5 to the variance, under the root; where the variance is small it counts",
        ),
        Wrong(
            lambda x, g, b, m, v: gate_with(share(g), x, g, b, 0 * m, v),
            "you do not subtract the mean",
        ),
        Wrong(
            lambda x, g, b, m, v: torch.tanh(column(share(g)) * norm(x, g, b, m, v)),
            "a tanh runs from -1 to 1; the gate is a sigmoid, between 0 and 1",
        ),
        Wrong(
            lambda x, g, b, m, v: torch.sigmoid(
                column(share(g)) * norm(x, g, b, m, v).mean((2, 3), keepdim=True)
            ),
            "you average over the pixels, as SE does; this gate has a value of its own at every pixel",
        ),
        Wrong(
            lambda x, g, b, m, v: x * nam_gate(x, g, b, m, v),
            "you return the rescaled features; this exercise asks for the gate alone",
        ),
        Wrong(
            lambda x, g, b, m, v: torch.sigmoid(column(share(g)) * F.batch_norm(x, g, b, m, v)),
            "F.batch_norm wants mean and var before gamma and beta: F.batch_norm(x, mean, var, gamma, beta)",
        ),
        Wrong(
            lambda x, g, b, m, v: column(share(g).sigmoid()) * norm(x, g, b, m, v),
            "you took the sigmoid of the weights; it goes around the whole product, w times BN(x)",
        ),
        Wrong(
            lambda x, g, b, m, v: gate_with(g.abs() // g.abs().sum(), x, g, b, m, v),
            "// is the division without remainder, so your weights are all 0; write / for the share",
        ),
        Wrong(
            lambda x, g, b, m, v: gate_with(g.abs() / g.norm(), x, g, b, m, v),
            "you divide by the root of the sum of squares; (12.3) divides by the sum of |gamma|",
        ),
        Wrong(
            lambda x, g, b, m, v: gate_with(g.abs() / len(g), x, g, b, m, v),
            "you divide by the number of channels; (12.3) divides by the sum of |gamma|",
        ),
        Wrong(
            lambda x, g, b, m, v: (column(share(g)) * norm(x, g, b, m, v)).softmax(1),
            "your gates sum to 1 over the channels: that is a softmax; (12.4) takes a sigmoid of every number by itself",
        ),
        Wrong(
            lambda x, g, b, m, v: gate_with(g.abs(), x, g, b, m, v),
            "you weigh with |gamma| itself; a share is |gamma| divided by the sum of all |gamma|",
        ),
    ),
)


# 12.2 the gate as a Swish --------------------------------------------------------------------------------


def swish_form(gamma: Tensor, beta: Tensor, mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
    rho = torch.sqrt(var + EPS)
    w = gamma.abs() / gamma.abs().sum()
    return w * gamma / rho, w * (beta - gamma * mean / rho)


def swish_form_by_two_points(gamma: Tensor, beta: Tensor, mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
    points = torch.stack([torch.zeros_like(gamma), torch.ones_like(gamma)])[:, :, None, None]
    at_0, at_1 = (column(share(gamma)) * norm(points, gamma, beta, mean, var))[:, :, 0, 0]
    return at_1 - at_0, at_0


def swish_form_in_steps(gamma: Tensor, beta: Tensor, mean: Tensor, var: Tensor) -> list[Tensor]:
    slope = gamma * (var + EPS).rsqrt()
    offset = beta - slope * mean
    return [slope * share(gamma), offset * share(gamma)]


def swish_inputs() -> list[tuple]:
    return [arguments[1:] for arguments in gate_inputs()]


def rho(var: Tensor) -> Tensor:
    return torch.sqrt(var + EPS)


def swish_of(w: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
    """Slope and offset with other weights."""
    return w * gamma / rho(var), w * (beta - gamma * mean / rho(var))


SWISH = Exercise(
    reference=swish_form,
    right=(swish_form_by_two_points, swish_form_in_steps),
    inputs=swish_inputs,
    praise="Two numbers for each channel, and the whole block is x times the sigmoid of a straight line.",
    wrong=(
        Wrong(
            lambda g, b, m, v: (g / rho(v), b - g * m / rho(v)),
            "that is the straight line of the batch norm alone; the gate's logit is w times it",
        ),
        Wrong(
            lambda g, b, m, v: (share(g) * g / rho(v), b - share(g) * g * m / rho(v)),
            "your slope is right; in the offset w must multiply beta too",
        ),
        Wrong(
            lambda g, b, m, v: (share(g) * g / rho(v), share(g) * b - g * m / rho(v)),
            "your slope is right; in the offset w must multiply the term with the mean too",
        ),
        Wrong(
            lambda g, b, m, v: (share(g) * g / rho(v), share(g) * (b + g * m / rho(v))),
            "your slope is right; check the sign of the mean: BN subtracts it",
        ),
        Wrong(
            lambda g, b, m, v: (share(g) * g / rho(v), share(g) * (b - g * m)),
            "your slope is right; in the offset the mean is divided by the square root of var + eps as well",
        ),
        Wrong(
            lambda g, b, m, v: (share(g) * g / rho(v), share(g) * (b - m / rho(v))),
            "your slope is right; gamma is missing in front of the mean",
        ),
        Wrong(
            lambda g, b, m, v: (share(g) * g / rho(v), share(g) * b),
            "your slope is right; the offset lacks the mean, which BN subtracts",
        ),
        Wrong(
            lambda g, b, m, v: (share(g) * g / rho(v), -share(g) * g * m / rho(v)),
            "your slope is right; beta is missing in the offset",
        ),
        Wrong(
            lambda g, b, m, v: (share(g) / rho(v), share(g) * (b - m / rho(v))),
            "gamma appears twice: in the weight w, and as the scale of the batch norm; yours has it once",
        ),
        Wrong(
            lambda g, b, m, v: (share(g) * g / (v + EPS), share(g) * (b - g * m / (v + EPS))),
            "you divide by the variance; divide by its square root",
        ),
        Wrong(
            lambda g, b, m, v: (share(g) * g / v.sqrt(), share(g) * (b - g * m / v.sqrt())),
            "eps is missing: the root is that of var + 1e-5",
        ),
        Wrong(
            lambda g, b, m, v: (
                share(g) * g / (v.sqrt() + EPS),
                share(g) * (b - g * m / (v.sqrt() + EPS)),
            ),
            "your eps stands outside the root; it is added to the variance, under the root",
        ),
        Wrong(
            lambda g, b, m, v: (g / g.sum() * g / rho(v), g / g.sum() * (b - g * m / rho(v))),
            "the weights need |gamma| above and below the fraction bar; see (12.3)",
        ),
        Wrong(
            lambda g, b, m, v: (
                share(g) * g.abs() / rho(v),
                share(g) * (b - g.abs() * m / rho(v)),
            ),
            "only the weights use |gamma|; the scale of the batch norm keeps its sign",
        ),
        Wrong(
            lambda g, b, m, v: swish_form(g, b, m, v)[::-1],
            "the numbers are right, in the wrong order: return the slope a first, then the offset b",
        ),
        Wrong(
            lambda g, b, m, v: swish_form(g, b, m, v)[0],
            "that is the slope a; return the offset b too, as a pair",
        ),
        Wrong(
            lambda g, b, m, v: torch.stack(swish_form(g, b, m, v)),
            "the numbers are right; return them as a pair (a, b), not as one tensor",
        ),
        Wrong(
            lambda g, b, m, v: (share(g) * g / rho(v), share(g) * (g * m / rho(v) - b)),
            "your slope is right; the whole offset has its sign turned: beta is added and the mean subtracted",
        ),
        Wrong(
            lambda g, b, m, v: (share(g) * g / rho(v), share(g) * (b - g * m) / rho(v)),
            "your slope is right; in the offset only the term with the mean is divided by rho, beta stands outside",
        ),
        Wrong(
            lambda g, b, m, v: swish_of(g.softmax(0), g, b, m, v),
            "your weights are a softmax of gamma; (12.3) takes the share of |gamma|",
        ),
        Wrong(
            lambda g, b, m, v: swish_of(g.abs().softmax(0), g, b, m, v),
            "your weights are a softmax of |gamma|; (12.3) takes the plain share",
        ),
        Wrong(
            lambda g, b, m, v: swish_of(g.abs() / g.sum(), g, b, m, v),
            "your weights do not sum to 1: below the fraction bar stands the sum of |gamma| too",
        ),
        Wrong(
            lambda g, b, m, v: swish_of(g / g.abs().sum(), g, b, m, v),
            "the sum in your weights is right; above the fraction bar |gamma| is wanted, not gamma",
        ),
        Wrong(
            lambda g, b, m, v: swish_of(g.abs(), g, b, m, v),
            "w is the share, |gamma| divided by the sum of all |gamma|; the division is missing",
        ),
    ),
)


# 12.3 the path through the weights -----------------------------------------------------------------------


def path_through_weights(q: Tensor, gamma: Tensor) -> Tensor:
    total = gamma.abs().sum()
    w = gamma.abs() / total
    return gamma.sign() / total * (q - (w * q).sum())


def path_by_matrix(q: Tensor, gamma: Tensor) -> Tensor:
    total = gamma.abs().sum()
    w = gamma.abs() / total
    J = gamma.sign() * (torch.eye(len(gamma), dtype=gamma.dtype) - w[:, None]) / total  # dw_j / dgamma_c
    return q @ J


def path_by_autograd(q: Tensor, gamma: Tensor) -> Tensor:
    gamma = gamma.clone().requires_grad_()
    return torch.autograd.grad(share(gamma), gamma, q)[0]


def path_inputs() -> list[tuple]:
    return [
        (torch.tensor([1.0, -2.0, 3.0]).double(), torch.tensor([2.0, -1.0, 5.0]).double()),
        (4 * ramp(6) + 1, 3 * ramp(6, step=1.1) + 1),
    ]


def total(gamma: Tensor) -> Tensor:
    return gamma.abs().sum()


def shares_jacobian(gamma: Tensor) -> Tensor:
    """dw_j / dgamma_c in row j and column c."""
    return gamma.sign() * (torch.eye(len(gamma), dtype=gamma.dtype) - share(gamma)[:, None]) / total(gamma)


PATH = Exercise(
    reference=path_through_weights,
    right=(path_by_matrix, path_by_autograd),
    inputs=path_inputs,
    praise="Only the differences between the q count: one channel's share can grow only at the others' expense.",
    wrong=(
        Wrong(
            lambda q, g: (q - (share(g) * q).sum()) / total(g),
            "right where gamma is positive; the slope of |gamma| is -1 where gamma is negative",
        ),
        Wrong(
            lambda q, g: g.sign() * (q - (share(g) * q).sum()),
            "the division by the sum of |gamma| is missing",
        ),
        Wrong(
            lambda q, g: g.sign() / total(g) * q,
            "you let gamma_c move w_c alone; it is in the sum below the fraction bar, so it moves every w_j",
        ),
        Wrong(
            lambda q, g: q / total(g),
            "you let gamma_c move w_c alone, and its sign is missing; gamma_c moves every w_j, through the sum",
        ),
        Wrong(
            lambda q, g: -g.sign() / total(g) * (share(g) * q).sum(),
            "you kept the sum below the fraction bar and forgot the numerator: j = c has a term of its own",
        ),
        Wrong(
            lambda q, g: g.sign() / total(g) * (q + (share(g) * q).sum()),
            "a larger sum makes the shares smaller: the second term has a minus",
        ),
        Wrong(
            lambda q, g: g.sign() / total(g) * (q - share(g) * q.sum()),
            "you multiplied by the matrix on the wrong side: with dw_j/dgamma_c, sum over j, so each q_j takes its own w_j",
        ),
        Wrong(
            lambda q, g: g.sign() / total(g) * (q - share(g) * q),
            "you kept j = c only; sum w_j q_j over all j",
        ),
        Wrong(
            lambda q, g: g.sign() / total(g) * (q - q.mean()),
            "you subtract the plain mean of q; it is the mean weighted by w",
        ),
        Wrong(
            lambda q, g: g.sign() / total(g) * (q - q.sum()),
            "you subtract the sum of q; each q_j is weighted by its share w_j",
        ),
        Wrong(
            lambda q, g: share(g) * (q - (share(g) * q).sum()),
            "that is the Jacobian of a softmax; shares have sign(gamma_c) / sum in the place of w_c",
        ),
        Wrong(
            lambda q, g: (q - (g / g.sum() * q).sum()) / g.sum(),
            "you differentiate gamma / sum(gamma); with the absolute values of (12.3) signs enter",
        ),
        Wrong(
            lambda q, g: g / total(g) * (q - (share(g) * q).sum()),
            "you have gamma_c where its sign belongs",
        ),
        Wrong(
            lambda q, g: g.sign() / total(g) ** 2 * (q - (share(g) * q).sum()),
            "you divide by the sum twice: |gamma_j| / sum^2 is w_j / sum",
        ),
        Wrong(
            lambda q, g: g.sign() / total(g) * (q - (g.abs() * q).sum()),
            "in the second term |gamma_j| is still to be divided by the sum: |gamma_j| / sum^2 is w_j / sum",
        ),
        Wrong(
            lambda q, g: g.sign() * (q - (share(g) * q).sum()) / g.sum(),
            "you divide by the sum of gamma with its signs; the weights divide by the sum of |gamma|",
        ),
        Wrong(
            lambda q, g: g.sign() * (torch.eye(len(g)).double() - share(g)[:, None]) / total(g),
            "that is the whole Jacobian dw_j/dgamma_c; multiply by q_j and sum over j",
        ),
        Wrong(
            lambda q, g: -path_through_weights(q, g),
            "your sign is turned round: q already is the gradient of the loss, so nothing is to be negated",
        ),
        Wrong(
            lambda q, g: shares_jacobian(g) @ q,
            "your matrix is right, row j and column c, but J @ q sums over c; the sum runs over j: q @ J",
        ),
        Wrong(
            lambda q, g: shares_jacobian(g).sum(0) * q,
            "you sum dw_j/dgamma_c over j before q comes in; each q_j multiplies its own dw_j first",
        ),
        Wrong(
            lambda q, g: g.sign() / total(g) * (q - (g / total(g) * q).sum()),
            "you put gamma's sign into w as well; w is |gamma| over the sum, and the sign stands in front only",
        ),
        Wrong(
            lambda q, g: (q - (g / total(g) * q).sum()) / total(g),
            "the sign belongs in front of the bracket, not into w",
        ),
        Wrong(
            lambda q, g: g.sign() / total(g) * (q - (share(g) * q).mean()),
            "you take the mean of w_j q_j; they are added up, since the weights sum to 1 already",
        ),
        Wrong(
            lambda q, g: g.sign() * (q - (share(g) * q).sum()) / g.abs().mean(),
            "you divide by the mean of |gamma|; S is their sum",
        ),
    ),
)


# 12.4 mend a published mistake ---------------------------------------------------------------------------


def mended(x: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, var: Tensor) -> Tensor:
    y = F.batch_norm(x, mean, var, gamma, beta)
    w = gamma.abs() / gamma.abs().sum()
    return x * torch.sigmoid(column(w) * y)


def mended_by_gate(x: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, var: Tensor) -> Tensor:
    return nam_gate_by_channel(x, gamma, beta, mean, var) * x


def mended_by_swish(x: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, var: Tensor) -> Tensor:
    return x * nam_gate_merged(x, gamma, beta, mean, var)


def times_gate(w: Tensor, x: Tensor, *parameters: Tensor) -> Tensor:
    return x * gate_with(w, x, *parameters)


def mend_inputs() -> list[tuple]:
    """As for the gate, and scales whose sum is nearly nothing although none of them is small."""
    x, _, beta, mean, var = gate_inputs()[0]
    return [*gate_inputs(), (x, torch.tensor([-2.0, 1.5, -1.0, 1.4]).double(), beta, mean, var)]


MEND = Exercise(
    reference=mended,
    right=(mended_by_gate, mended_by_swish),
    inputs=mend_inputs,
    praise="Now every weight lies between 0 and 1, and they sum to 1, whatever the signs of gamma.",
    wrong=(
        Wrong(
            lambda x, g, *rest: times_gate(g / g.sum(), x, g, *rest),
            "nothing has changed yet: print the weights for gamma = (-2, 1.5, -1, 1.4)",
        ),
        Wrong(
            lambda x, g, *rest: times_gate(g.abs() / g.sum(), x, g, *rest),
            "now the weights are positive or negative together, but the sum can still be nearly 0: it needs |gamma| too",
        ),
        Wrong(
            lambda x, g, *rest: times_gate(g / g.abs().sum(), x, g, *rest),
            "the sum is mended; above the fraction bar gamma still has its sign",
        ),
        Wrong(
            lambda x, g, *rest: times_gate((g / g.sum()).abs(), x, g, *rest),
            "the weights are positive now, but the sum below the fraction bar can still be nearly 0: take |gamma| before you add up",
        ),
        Wrong(
            lambda x, g, *rest: times_gate(g.softmax(0), x, g, *rest),
            "a softmax gives positive weights, but a strongly negative gamma then weighs least; (12.3) takes |gamma|",
        ),
        Wrong(
            lambda x, g, *rest: times_gate(g.abs().softmax(0), x, g, *rest),
            "|gamma| is right; the softmax is not in (12.3): a plain share will do",
        ),
        Wrong(
            lambda x, g, *rest: times_gate(g**2 / (g**2).sum(), x, g, *rest),
            "squares are positive too, but they are not the standard deviations of (12.1)",
        ),
        Wrong(
            lambda x, g, *rest: times_gate(g.clamp(min=0) / g.clamp(min=0).sum(), x, g, *rest),
            "you throw negative scales away; a channel with gamma = -2 varies as much as one with gamma = 2",
        ),
        Wrong(
            lambda x, g, *rest: times_gate(torch.ones_like(g), x, g, *rest),
            "now the weights are gone altogether; keep them, with |gamma|",
        ),
        Wrong(
            lambda x, g, *rest: times_gate(share(g), x, g.abs(), *rest),
            "the weights are mended, but you also turned the sign of gamma in the batch norm, which was right",
        ),
        Wrong(
            lambda x, g, *rest: gate_with(share(g), x, g, *rest),
            "the gate is right; the block returns x times the gate",
        ),
        Wrong(
            lambda x, g, *rest: x + times_gate(share(g), x, g, *rest),
            "the weights are mended, but an x was added; the block returns x times the gate",
        ),
        Wrong(
            lambda x, g, *rest: x * column(share(g)) * norm(x, g, *rest),
            "the weights are mended, but the sigmoid is lost: x times BN(x) has no bound",
        ),
        Wrong(
            lambda x, g, *rest: x * column(share(g)) * norm(x, g, *rest).sigmoid(),
            "the weights are mended, but they stand outside the sigmoid now",
        ),
        Wrong(
            lambda x, g, *rest: x * torch.sigmoid((column(share(g)) * norm(x, g, *rest)).abs()),
            "you took the absolute value of the logit as well; then no gate can fall below 1/2",
        ),
        Wrong(
            lambda x, g, *rest: times_gate(g / (g.sum() + EPS), x, g, *rest),
            "an eps keeps the sum from being exactly 0, no more: it can still be -0.1 among scales of 2; take |gamma|",
        ),
        Wrong(
            lambda x, g, *rest: times_gate(g.abs() / (g.sum() + EPS), x, g, *rest),
            "an eps does not mend the sum below the fraction bar; with |gamma| there it needs none",
        ),
        Wrong(
            lambda x, g, *rest: times_gate(g.abs() / g.abs().max(), x, g, *rest),
            "positive, but no shares: the largest weight is always 1; divide by the sum of |gamma|",
        ),
        Wrong(
            lambda x, g, *rest: times_gate(g.abs() / g.abs().mean(), x, g, *rest),
            "positive, but c times too large: divide by the sum of |gamma|, not by its mean",
        ),
        Wrong(
            lambda x, g, *rest: times_gate(g.abs() / g.norm(), x, g, *rest),
            "norm() is the root of the sum of squares; a share divides by the sum of |gamma|",
        ),
        Wrong(
            lambda x, g, *rest: times_gate(g / g.norm(), x, g, *rest),
            "norm() is the root of the sum of squares, and above the fraction bar gamma still has its sign",
        ),
        Wrong(
            lambda x, g, *rest: times_gate(g.abs(), x, g, *rest),
            "the sign is mended, but the division by the sum is lost; the weights are shares",
        ),
    ),
)


# 12.5 the other way round --------------------------------------------------------------------------------


def scales_for(a: Tensor, b: Tensor, mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
    u = a * torch.sqrt(var + EPS)
    root = u.abs().sqrt()
    gamma = u.sign() * root * root.sum()
    w = root / root.sum()
    return gamma, b / w + gamma * mean / torch.sqrt(var + EPS)


def scales_by_total(a: Tensor, b: Tensor, mean: Tensor, var: Tensor) -> list[Tensor]:
    u = a * (var + EPS) ** 0.5
    total = u.abs().sqrt().sum() ** 2
    gamma = u.sign() * (u.abs() * total).sqrt()
    return [gamma, (b + a * mean) * total / gamma.abs()]


def scales_by_iteration(a: Tensor, b: Tensor, mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
    u, gamma = a * (var + EPS) ** 0.5, torch.ones_like(a)
    for _ in range(200):  # gamma_c^2 = |u_c| sum |gamma|, solved step by step
        gamma = (u.abs() * gamma.abs().sum()).sqrt()
    gamma = gamma * u.sign()
    return gamma, (b + a * mean) / share(gamma)


def scales_inputs() -> list[tuple]:
    return [
        (
            torch.tensor([1.0, -0.25, 4.0]).double(),
            torch.tensor([0.0, 1.0, -2.0]).double(),
            torch.tensor([0.5, -1.0, 2.0]).double(),
            torch.tensor([1.0, 4.0, 1e-4]).double(),
        ),
        (2 * ramp(5), ramp(5, step=0.8), ramp(5, step=1.3), ramp(5) ** 2 + 0.1),
    ]


def given(gamma: Tensor, a: Tensor, b: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
    """The right beta for these scales, were their slopes the wanted ones."""
    return gamma, (b + a * mean) / share(gamma)


def roots(a: Tensor, var: Tensor) -> Tensor:
    return (a * rho(var)).abs().sqrt()


def with_beta(beta):
    """A wrong answer whose gamma is right."""

    def answer(a: Tensor, b: Tensor, mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
        gamma = scales_for(a, b, mean, var)[0]
        return gamma, beta(gamma, share(gamma), a, b, mean, var)

    return answer


def unsigned_scales(a: Tensor, b: Tensor, mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
    root = (a * rho(var)).sqrt()
    gamma = a.sign() * root * root.sum()
    return gamma, b / (root / root.sum()) + gamma * mean / rho(var)


def without_rho(a: Tensor, b: Tensor, mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
    root = a.abs().sqrt()
    gamma = a.sign() * root * root.sum()
    return gamma, b / (root / root.sum()) + gamma * mean / rho(var)


SCALES = Exercise(
    reference=scales_for,
    right=(scales_by_total, scales_by_iteration),
    inputs=scales_inputs,
    praise="Any slopes but 0 and any offsets can be had, so the sum of the weights to 1 forbids nothing.",
    wrong=(
        Wrong(
            lambda a, b, m, v: given(roots(a, v) * roots(a, v).sum(), a, b, m),
            "the sizes of gamma are right; its sign is that of a",
        ),
        Wrong(
            lambda a, b, m, v: given(a * rho(v), a, b, m),
            "that gamma would be right without the weights; w multiplies it, and depends on gamma too",
        ),
        Wrong(
            lambda a, b, m, v: given(a.sign() * roots(a, v), a, b, m),
            "you have the root of |u|; the factor sqrt(S) is missing, and S is the square of the sum of the roots",
        ),
        Wrong(
            lambda a, b, m, v: given(a.sign() * roots(a, v) * roots(a, v).sum() ** 2, a, b, m),
            "you multiply by S; under the root stands |u_c| S, so the factor is sqrt(S), the sum of the roots",
        ),
        Wrong(
            lambda a, b, m, v: given(a.sign() * roots(a, v) * roots(a, v).sum().sqrt(), a, b, m),
            "sqrt(S) is the sum of the roots; you took one root too many",
        ),
        Wrong(
            lambda a, b, m, v: given(
                a.sign() * ((a * rho(v)).abs() * (a * rho(v)).abs().sum()).sqrt(), a, b, m
            ),
            "you took the sum of |u| for S; S is the sum of |gamma|, which comes out as the square of the sum of the roots",
        ),
        Wrong(
            lambda a, b, m, v: given(
                a.sign() * (a / rho(v)).abs().sqrt() * (a / rho(v)).abs().sqrt().sum(), a, b, m
            ),
            "the slope divides by rho, so going back multiplies by it: u = a rho",
        ),
        Wrong(
            lambda a, b, m, v: given(a.sign() * a.abs().sqrt() * a.abs().sqrt().sum(), a, b, m),
            "rho is missing: u = a times the square root of var + eps",
        ),
        Wrong(
            lambda a, b, m, v: given(
                a.sign() * (a * (v + EPS)).abs().sqrt() * (a * (v + EPS)).abs().sqrt().sum(), a, b, m
            ),
            "you multiply by the variance; rho is its square root",
        ),
        Wrong(
            lambda a, b, m, v: given(
                a.sign() * (a * v.sqrt()).abs().sqrt() * (a * v.sqrt()).abs().sqrt().sum(), a, b, m
            ),
            "eps is missing: rho is the square root of var + 1e-5",
        ),
        Wrong(
            lambda a, b, m, v: (scales_for(a, b, m, v)[0], b + a * m),
            "your gamma is right; for beta the offset is still to be divided by w",
        ),
        Wrong(
            lambda a, b, m, v: (scales_for(a, b, m, v)[0], b / share(scales_for(a, b, m, v)[0])),
            "your gamma is right; beta must also make up for the mean that BN subtracts",
        ),
        Wrong(
            lambda a, b, m, v: (scales_for(a, b, m, v)[0], (b - a * m) / share(scales_for(a, b, m, v)[0])),
            "your gamma is right; check the sign: beta = b/w plus gamma mean/rho",
        ),
        Wrong(
            lambda a, b, m, v: (
                scales_for(a, b, m, v)[0],
                b / share(scales_for(a, b, m, v)[0]) + scales_for(a, b, m, v)[0] * m,
            ),
            "your gamma is right; in beta the mean is divided by rho",
        ),
        Wrong(
            lambda a, b, m, v: (
                scales_for(a, b, m, v)[0],
                b / share(scales_for(a, b, m, v)[0]) + a * m,
            ),
            "your gamma is right; in beta, a mean is still to be divided by w: gamma mean/rho is a mean/w",
        ),
        Wrong(
            lambda a, b, m, v: (scales_for(a, b, m, v)[0], b * share(scales_for(a, b, m, v)[0]) + a * m),
            "your gamma is right; b holds a factor w already, so divide by it",
        ),
        Wrong(
            lambda a, b, m, v: scales_for(a, b, m, v)[::-1],
            "the numbers are right, in the wrong order: return gamma first, then beta",
        ),
        Wrong(
            lambda a, b, m, v: scales_for(a, b, m, v)[0],
            "that is gamma; return beta too, as a pair",
        ),
        Wrong(
            with_beta(lambda gamma, w, a, b, m, v: b + gamma * m / rho(v)),
            "your gamma is right; solving b = w (beta - gamma mean/rho) for beta divides b by w",
        ),
        Wrong(
            with_beta(lambda gamma, w, a, b, m, v: w * b + gamma * m / rho(v)),
            "your gamma and the term with the mean are right; b is w times something, so divide by w",
        ),
        Wrong(
            with_beta(lambda gamma, w, a, b, m, v: b / w + m / rho(v)),
            "your gamma is right; in beta the mean is multiplied by gamma, for BN does that too",
        ),
        Wrong(
            with_beta(lambda gamma, w, a, b, m, v: b / w + a * m / rho(v)),
            "your gamma is right; in beta stands gamma mean/rho; a holds w and 1/rho already, so with a it is a mean/w",
        ),
        Wrong(
            lambda a, b, m, v: unsigned_scales(a, b, m, v),
            "some of your numbers are nan: u is negative where a is; take |u| under the root, the sign comes back in front",
        ),
        Wrong(
            lambda a, b, m, v: without_rho(a, b, m, v),
            "rho is missing in gamma: u = a rho, since the slope is w gamma/rho; your beta follows from it",
        ),
        Wrong(
            lambda a, b, m, v: torch.stack(scales_for(a, b, m, v)),
            "the numbers are right; return them as a pair (gamma, beta), not as one tensor",
        ),
    ),
)


EXERCISES = {
    "12.a": choice(
        "b",
        {
            "a": "a standard deviation is never negative",
            "c": "gamma squared is the variance; its root is asked for",
            "d": "x_hat has the standard deviation 1; gamma then multiplies it",
            "e": "that is what the norm is for: in training it makes the size of its output independent of the input's",
        },
        "|gamma|, whatever comes in.",
    ),
    "12.b": choice(
        "c",
        {
            "a": "that is so in training; in eval the running statistics take the place of the batch's",
            "b": "the running mean and variance are constants in eval, so no other pixel enters",
            "d": "even in training each channel has statistics of its own",
            "e": "the statistics are constants; the output is not, it is a straight line in the input",
        },
        "In eval it is a straight line, for each channel its own, applied to every number by itself.",
    ),
    "12.c": choice(
        "b",
        {
            "a": "near 0 a sigmoid is near 1/2, not near its argument",
            "c": "the slope of the sigmoid at 0 is 1/4, not 1",
            "d": "1/4 is its slope at 0; its value there is 1/2",
            "e": "a sigmoid stays below 1",
        },
        "1/2 + 0.02/4: near 0, a sigmoid adds a quarter of its argument to one half.",
    ),
    "12.1": GATE,
    "12.2": SWISH,
    "12.3": PATH,
    "12.4": MEND,
    "12.5": SCALES,
}
