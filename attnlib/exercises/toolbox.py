"""The self-tests of 00_toolbox, one for each page."""

from math import ceil, prod, sqrt

import torch
from torch import Tensor
from torch.nn import functional as F

from attnlib.exercises.checker import Exercise, Wrong, ramp

# toolbox.1 back through a softmax ------------------------------------------------------------------------


def softmax_vjp(p: Tensor, g: Tensor) -> Tensor:
    return p * (g - (p * g).sum(-1, keepdim=True))


def softmax_vjp_by_jacobian(p: Tensor, g: Tensor) -> Tensor:
    J = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    return torch.einsum("bij,bi->bj", J, g)


def softmax_vjp_autograd(p: Tensor, g: Tensor) -> Tensor:
    scores = p.log().requires_grad_()
    scores.softmax(-1).backward(g)
    return scores.grad


SOFTMAX = Exercise(
    reference=softmax_vjp,
    right=(softmax_vjp_by_jacobian, softmax_vjp_autograd),
    inputs=lambda: [
        ((3 * ramp(3, 4)).softmax(-1), 2 * ramp(3, 4, step=0.8)),
        (ramp(2, 5, step=1.1).softmax(-1), ramp(2, 5, step=0.6)),
    ],
    praise="The shortest way, (1.4), never builds the n x n Jacobian.",
    wrong=(
        Wrong(
            lambda p, g: p * (1 - p) * g,
            "you use the diagonal of the Jacobian only; raising one score also lowers all the other probabilities",
        ),
        Wrong(
            lambda p, g: p * g,
            "half of it is there: p g is the part of diag(p); the part of -p pᵀ is missing, see (1.3)",
        ),
        Wrong(
            lambda p, g: p * (g - g.sum(-1, keepdim=True)),
            "you subtract the plain sum of g; what comes off is the sum weighted by p",
        ),
        Wrong(
            lambda p, g: p * (g - g.mean(-1, keepdim=True)),
            "you subtract the plain mean of g; what comes off is the mean weighted by p",
        ),
        Wrong(
            lambda p, g: g - (p * g).sum(-1, keepdim=True),
            "the bracket is right; the factor p in front of it is missing",
        ),
        Wrong(
            lambda p, g: p * g - (p * g).sum(-1, keepdim=True),
            "the factor p belongs to both terms: p g minus p times the sum",
        ),
        Wrong(
            lambda p, g: p * (g - (p * g).mean(-1, keepdim=True)),
            "p is the weighting already, so the weighted mean of g is the sum of p g; do not divide it by n again",
        ),
        Wrong(
            lambda p, g: p * (g - (p * g).sum(-1)),  # raises, and the sentence is for that
            "the sum lost its axis, so that it does not fit the rows any more: keepdim=True",
        ),
        Wrong(
            lambda p, g: p * ((p * g).sum(-1, keepdim=True) - g),
            "the sign is the wrong way round: a score with a large g gets a positive gradient",
        ),
        Wrong(
            lambda p, g: p * (g - (p * g).sum()),
            "your sum runs over the whole batch; each row is a softmax of its own, so sum over the last axis only",
        ),
        Wrong(
            lambda p, g: p * (g - (p * g).sum(0, keepdim=True)),
            "your sum runs down the batch; each row is a softmax of its own, so sum over the last axis",
        ),
        Wrong(
            lambda p, g: p.softmax(-1) * (g - (p.softmax(-1) * g).sum(-1, keepdim=True)),
            "p is the softmax already; you apply it a second time",
        ),
    ),
)


# toolbox.2 back through a linear layer -------------------------------------------------------------------


def linear_backward(g: Tensor, x: Tensor, W: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return g @ W, g.T @ x, g.sum(0)


def linear_backward_einsum(g: Tensor, x: Tensor, W: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return torch.einsum("no,oi->ni", g, W), torch.einsum("no,ni->oi", g, x), torch.einsum("no->o", g)


def linear_backward_by_example(g: Tensor, x: Tensor, W: Tensor) -> list[Tensor]:
    grad_x = torch.stack([W.T @ row for row in g])
    grad_W = sum(torch.outer(row, example) for row, example in zip(g, x, strict=True))
    return [grad_x, grad_W, sum(g)]


LINEAR = Exercise(
    reference=linear_backward,
    right=(linear_backward_einsum, linear_backward_by_example),
    inputs=lambda: [
        (ramp(5, 3, step=0.8), ramp(5, 2), ramp(3, 2, step=1.3)),
        (2 * ramp(4, 2), ramp(4, 6, step=0.6), ramp(2, 6)),
    ],
    praise="In matrices, (2.5), the three are two products and a sum.",
    wrong=(
        Wrong(
            lambda g, x, W: (g @ W, x.T @ g, g.sum(0)),
            "your gradient of W is transposed: a gradient has the shape of what it belongs to, here (out, in)",
        ),
        Wrong(
            lambda g, x, W: (g @ W, g.T @ x / len(g), g.mean(0)),
            "you average over the examples; each of them used W and b, so their gradients add up",
        ),
        Wrong(
            lambda g, x, W: (g @ W, g.T @ x, g.mean(0)),
            "the bias serves every example, so its gradient is the sum over them, not the mean",
        ),
        Wrong(
            lambda g, x, W: (g @ W, g.T @ x, g),
            "your gradient of b still has a row for each example; there is one b, so add the rows up",
        ),
        Wrong(
            lambda g, x, W: (g @ W, g.T @ x, g.sum(1)),
            "you sum g over the outputs; the gradient of b has an entry for each output, so sum over the examples",
        ),
        Wrong(
            lambda g, x, W: (g @ W, g.T @ x, g.sum()),
            "you sum all of g; the gradient of b has an entry for each output, so sum over the first axis only",
        ),
        Wrong(
            lambda g, x, W: (g.T @ x, g @ W, g.sum(0)),
            "all three are right, but the order is x, W, b; you return W first",
        ),
        Wrong(
            lambda g, x, W: (g @ W, g.T @ x),
            "two of three: the layer has a bias as well, and its gradient is the third result",
        ),
        Wrong(
            lambda g, x, W: (g.sum(0, keepdim=True) @ W, g.T @ x, g.sum(0)),
            "you added up the gradients of x; every example has an x of its own, so its gradient keeps n rows",
        ),
    ),
)


# toolbox.3 the variance of a score -----------------------------------------------------------------------


def score_variance(d: int, mean_q: float, var_q: float, var_k: float, scale: float) -> float:
    return scale**2 * d * (var_q + mean_q**2) * var_k


def score_variance_by_terms(d: int, mean_q: float, var_q: float, var_k: float, scale: float) -> float:
    second_moment = (scale * mean_q) ** 2 + scale**2 * var_q
    return sum(second_moment * var_k for _ in range(d))


def score_variance_general_rule(d: int, mean_q: float, var_q: float, var_k: float, scale: float) -> float:
    mean_k = 0.0
    product = var_q * var_k + var_q * mean_k**2 + var_k * mean_q**2
    return (scale * sqrt(d * product)) ** 2


VARIANCE = Exercise(
    reference=score_variance,
    right=(score_variance_by_terms, score_variance_general_rule),
    inputs=lambda: [(16, 0.0, 2.0, 3.0, 0.5), (64, 0.5, 1.0, 1.0, 0.125), (9, -2.0, 0.5, 4.0, 2.0)],
    praise="With mean 0 and variances 1, the scale that keeps the variance at 1 is 1/sqrt(d).",
    wrong=(
        Wrong(
            lambda d, m, q, k, s: s**2 * d * q * k,
            "right as long as the mean of q is 0; otherwise a product needs the mean square of q, variance + mean²",
        ),
        Wrong(
            lambda d, m, q, k, s: s * d * (q + m**2) * k,
            "a factor in front of a random number comes out of its variance squared",
        ),
        Wrong(
            lambda d, m, q, k, s: s**2 * (q + m**2) * k,
            "that is one product q_i k_i; a score adds up d of them",
        ),
        Wrong(
            lambda d, m, q, k, s: s**2 * d**2 * (q + m**2) * k,
            "d² would be right for d copies of one product; independent ones add their variances, which gives d",
        ),
        Wrong(
            lambda d, m, q, k, s: s * sqrt(d * (q + m**2) * k),
            "that is the standard deviation; the variance is its square",
        ),
        Wrong(
            lambda d, m, q, k, s: s**2 * d * (q + m**2 + k),
            "variances add for a sum; q_i k_i is a product, so they multiply",
        ),
        Wrong(
            lambda d, m, q, k, s: d * (q + m**2) * k,
            "that is q·k itself; you have left out the factor scale",
        ),
        Wrong(
            lambda d, m, q, k, s: s**2 * d * (q + m) * k,
            "the mean enters squared: the mean square of q is variance + mean²",
        ),
        Wrong(
            lambda d, m, q, k, s: s**2 * d * (q - m**2) * k,
            "the variance is mean square minus mean², so the mean square is variance plus mean²",
        ),
    ),
)


# toolbox.4 what a convolution costs ----------------------------------------------------------------------


def out_size(size: int, kernel: int, stride: int, padding: int) -> int:
    return (size + 2 * padding - kernel) // stride + 1


def conv_macs(
    c_in: int, c_out: int, kernel: int, height: int, width: int, stride: int, padding: int, groups: int
) -> int:
    pixels = out_size(height, kernel, stride, padding) * out_size(width, kernel, stride, padding)
    return c_in // groups * c_out * kernel**2 * pixels


def conv_macs_by_group(
    c_in: int, c_out: int, kernel: int, height: int, width: int, stride: int, padding: int, groups: int
) -> int:
    places = [range(0, size + 2 * padding - kernel + 1, stride) for size in (height, width)]
    one_group = (c_in // groups) * (c_out // groups) * kernel * kernel
    return groups * one_group * prod(len(starts) for starts in places)


def conv_macs_by_torch(
    c_in: int, c_out: int, kernel: int, height: int, width: int, stride: int, padding: int, groups: int
) -> int:
    weight = torch.zeros(c_out, c_in // groups, kernel, kernel)
    x = torch.zeros(1, c_in, height, width)
    return F.conv2d(x, weight, None, stride, padding, 1, groups).numel() * weight[0].numel()


CONV_MACS = Exercise(
    reference=conv_macs,
    right=(conv_macs_by_group, conv_macs_by_torch),
    inputs=lambda: [
        (3, 8, 3, 10, 12, 1, 1, 1),
        (16, 32, 3, 14, 9, 2, 1, 1),
        (12, 12, 5, 11, 7, 1, 2, 12),
        (8, 12, 1, 6, 5, 1, 0, 4),
        (4, 6, 3, 9, 8, 2, 0, 2),
    ],
    praise="Exact, with stride, padding and groups.",
    wrong=(
        Wrong(
            lambda i, o, k, h, w, s, p, g: i // g * o * k**2 * h * w,
            "you count the pixels of the input; a product is formed for each pixel of the output, see (4.2)",
        ),
        Wrong(
            lambda i, o, k, h, w, s, p, g: conv_macs(i, o, k, h, w, s, p, 1),
            "you have not used groups: an output channel sees only c_in / groups input channels",
        ),
        Wrong(
            lambda i, o, k, h, w, s, p, g: conv_macs(i, o, k, h, w, s, p, g) // g,
            "you divide by groups twice: the inputs of an output shrink, but there are still c_out outputs",
        ),
        Wrong(
            lambda i, o, k, h, w, s, p, g: conv_macs(i, o, k, h, w, s, p, g) // k,
            "the window has kernel rows and kernel columns: kernel², not kernel",
        ),
        Wrong(
            lambda i, o, k, h, w, s, p, g: 2 * conv_macs(i, o, k, h, w, s, p, g),
            "you count the multiplication and the addition apart (FLOPs); one MAC is both together",
        ),
        Wrong(
            lambda i, o, k, h, w, s, p, g: conv_macs(i, o, k, h, w, s, p, g) // o,
            "that is one output channel; there are c_out of them",
        ),
        Wrong(
            lambda i, o, k, h, w, s, p, g: (
                i // g * o * k**2 * ((h + p - k) // s + 1) * ((w + p - k) // s + 1)
            ),
            "padding stands on both sides, so the map grows by 2 x padding",
        ),
        Wrong(
            lambda i, o, k, h, w, s, p, g: (
                i // g * o * k**2 * ((h + 2 * p - k) // s) * ((w + 2 * p - k) // s)
            ),
            "one place is missing in each direction: the window also stands at the very beginning, hence the + 1",
        ),
        Wrong(
            lambda i, o, k, h, w, s, p, g: (
                i // g * o * k**2 * ((h + 2 * p - k) / s + 1) * ((w + 2 * p - k) / s + 1)
            ),
            "you count a part of a place; a window that does not fit is not counted: round down, with //",
        ),
        Wrong(
            lambda i, o, k, h, w, s, p, g: (
                i // g * o * k**2 * (ceil((h + 2 * p - k) / s) + 1) * (ceil((w + 2 * p - k) / s) + 1)
            ),
            "a window that does not fit is not counted: round down, not up",
        ),
        Wrong(
            lambda i, o, k, h, w, s, p, g: i // g * o * k**2 * (h // s) * (w // s),
            "size // stride holds for some paddings only; how many places there are also depends on kernel and padding, see (4.2)",
        ),
        Wrong(
            lambda i, o, k, h, w, s, p, g: i // g * o * k**2 * out_size(h, k, s, p) ** 2,
            "you square the number of rows; the image is not square, so count its columns as well",
        ),
        Wrong(
            lambda i, o, k, h, w, s, p, g: (
                (i // g * k**2 + 1) * o * out_size(h, k, s, p) * out_size(w, k, s, p)
            ),
            "you count a bias; there is none here, and adding one would not be a product",
        ),
        Wrong(
            lambda i, o, k, h, w, s, p, g: i // g * o * k**2,
            "that is the number of weights; each of them is used once for each pixel of the output",
        ),
    ),
)


# toolbox.5 BatchNorm -------------------------------------------------------------------------------------

AXES = (0, 2, 3)  # batch, height, width: everything but the channel
Results = tuple[Tensor, Tensor, Tensor]


def normalised(x: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, var: Tensor) -> Tensor:
    x_hat = (x - mean[:, None, None]) / torch.sqrt(var[:, None, None] + 1e-5)
    return gamma[:, None, None] * x_hat + beta[:, None, None]


def batchnorm(x: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, var: Tensor, training: bool) -> Results:
    if not training:
        return normalised(x, gamma, beta, mean, var), mean, var
    batch_mean, batch_var = x.mean(AXES), x.var(AXES, correction=0)
    new_mean, new_var = 0.9 * mean + 0.1 * batch_mean, 0.9 * var + 0.1 * x.var(AXES, correction=1)
    return normalised(x, gamma, beta, batch_mean, batch_var), new_mean, new_var


def batchnorm_by_torch(
    x: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, var: Tensor, training: bool
) -> Results:
    mean, var = mean.clone(), var.clone()
    return F.batch_norm(x, mean, var, gamma, beta, training, 0.1, 1e-5), mean, var


def batchnorm_by_columns(
    x: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, var: Tensor, training: bool
) -> Results:
    b, c, h, w = x.shape
    columns = x.permute(1, 0, 2, 3).reshape(c, -1)
    used_mean, used_var = mean, var
    if training:
        n = columns.shape[1]
        used_mean = columns.sum(1) / n
        used_var = (columns**2).sum(1) / n - used_mean**2
        mean = mean + 0.1 * (used_mean - mean)
        var = var + 0.1 * (used_var * n / (n - 1) - var)
    slope = gamma / (used_var + 1e-5) ** 0.5
    y = slope[:, None] * (columns - used_mean[:, None]) + beta[:, None]
    return y.reshape(c, b, h, w).permute(1, 0, 2, 3), mean, var


def batchnorm_unbiased_output(
    x: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, var: Tensor, training: bool
) -> Results:
    y, new_mean, new_var = batchnorm(x, gamma, beta, mean, var, training)
    return normalised(x, gamma, beta, x.mean(AXES), x.var(AXES)) if training else y, new_mean, new_var


def batchnorm_biased_running(
    x: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, var: Tensor, training: bool
) -> Results:
    y, new_mean, new_var = batchnorm(x, gamma, beta, mean, var, training)
    return y, new_mean, 0.9 * var + 0.1 * x.var(AXES, correction=0) if training else new_var


def batchnorm_reversed_momentum(
    x: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, var: Tensor, training: bool
) -> Results:
    y, new_mean, new_var = batchnorm(x, gamma, beta, mean, var, training)
    if training:
        new_mean, new_var = 0.1 * mean + 0.9 * x.mean(AXES), 0.1 * var + 0.9 * x.var(AXES)
    return y, new_mean, new_var


def batchnorm_eps_outside(
    x: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, var: Tensor, training: bool
) -> Results:
    used_mean, used_var = (x.mean(AXES), x.var(AXES, correction=0)) if training else (mean, var)
    x_hat = (x - used_mean[:, None, None]) / (used_var[:, None, None].sqrt() + 1e-5)
    y = gamma[:, None, None] * x_hat + beta[:, None, None]
    return y, *batchnorm(x, gamma, beta, mean, var, training)[1:]


def batchnorm_without_root(
    x: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, var: Tensor, training: bool
) -> Results:
    used_mean, used_var = (x.mean(AXES), x.var(AXES, correction=0)) if training else (mean, var)
    x_hat = (x - used_mean[:, None, None]) / (used_var[:, None, None] + 1e-5)
    y = gamma[:, None, None] * x_hat + beta[:, None, None]
    return y, *batchnorm(x, gamma, beta, mean, var, training)[1:]


def batchnorm_per_image(
    x: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, var: Tensor, training: bool
) -> Results:
    y = torch.cat([batchnorm(image[None], gamma, beta, mean, var, training)[0] for image in x])
    return y, *batchnorm(x, gamma, beta, mean, var, training)[1:]


def batchnorm_over_images_only(
    x: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, var: Tensor, training: bool
) -> Results:
    if training:
        return x, 0.9 * mean + 0.1 * x.mean(0), var  # raises: x.mean(0) is (c, h, w)
    return batchnorm(x, gamma, beta, mean, var, training)


def batchnorm_inputs() -> list[tuple]:
    gamma, beta = torch.tensor([1.5, 0.5, -2.0]).double(), torch.tensor([0.0, 1.0, -1.0]).double()
    mean, var = torch.tensor([0.2, 0.0, -0.3]).double(), torch.tensor([0.6, 1.4, 0.2]).double()
    return [
        (ramp(2, 3, 2, 4) + 0.5, gamma, beta, mean, var, True),
        (ramp(4, 3, 1, 2, step=0.9), gamma, beta, mean, var, False),
    ]


BATCHNORM = Exercise(
    reference=batchnorm,
    right=(batchnorm_by_torch, batchnorm_by_columns),
    inputs=batchnorm_inputs,
    praise="It agrees with PyTorch's in both modes, running statistics included.",
    wrong=(
        Wrong(
            batchnorm_unbiased_output,
            "you normalise with the variance that divides by n - 1; inside the layer it divides by n",
        ),
        Wrong(
            batchnorm_biased_running,
            "the output is right; but running_var keeps the unbiased variance, which divides by n - 1",
        ),
        Wrong(
            batchnorm_reversed_momentum,
            "the momentum is the wrong way round: PyTorch's 0.1 is the share of the new batch, see (5.3)",
        ),
        Wrong(
            lambda *a: (batchnorm(*a[:5], True)[0], *batchnorm(*a)[1:]),
            "in eval you normalise with the batch's own statistics; there the running ones are used",
        ),
        Wrong(
            lambda *a: (batchnorm(*a[:5], False)[0], *batchnorm(*a)[1:]),
            "in training you normalise with the running statistics; there the batch's own are used",
        ),
        Wrong(
            lambda *a: (batchnorm(*a)[0], *batchnorm(*a[:5], True)[1:]),
            "the running statistics move in eval too; they may change in training only",
        ),
        Wrong(
            lambda *a: (batchnorm(*a)[0], *batchnorm(*a[:5], False)[1:]),
            "the output is right; but in training the running statistics have to move towards the batch's",
        ),
        Wrong(
            batchnorm_eps_outside,
            "eps is added to the variance, under the root, not to the standard deviation",
        ),
        Wrong(
            batchnorm_without_root,
            "you divide by the variance; the standard deviation, its square root, is what is wanted",
        ),
        Wrong(
            batchnorm_per_image,
            "you normalise each image with its own mean and variance; a channel's statistics run over the whole batch",
        ),
        Wrong(
            batchnorm_over_images_only,
            "your statistics run over the images only; take the mean over the pixels as well, x.mean((0, 2, 3)), which is of shape (c,)",
        ),
        Wrong(
            lambda x, gamma, beta, *rest: batchnorm(x, torch.ones_like(gamma), torch.zeros_like(beta), *rest),
            "you return x-hat; multiply it by gamma and add beta",
        ),
    ),
)


# toolbox.6 back through a residual block -----------------------------------------------------------------


def residual_backward(g: Tensor, x: Tensor, W_1: Tensor, W_2: Tensor) -> Tensor:
    return g + (g @ W_2 * (x @ W_1.T > 0)) @ W_1


def residual_backward_autograd(g: Tensor, x: Tensor, W_1: Tensor, W_2: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    (x + F.linear(F.relu(F.linear(x, W_1)), W_2)).backward(g)
    return x.grad


def residual_backward_by_jacobian(g: Tensor, x: Tensor, W_1: Tensor, W_2: Tensor) -> Tensor:
    rows = []
    for row, example in zip(g, x, strict=True):
        J = torch.eye(len(example), dtype=x.dtype) + W_2 @ torch.diag((W_1 @ example > 0).to(x)) @ W_1
        rows.append(J.T @ row)
    return torch.stack(rows)


RESIDUAL = Exercise(
    reference=residual_backward,
    right=(residual_backward_autograd, residual_backward_by_jacobian),
    inputs=lambda: [
        (ramp(2, 3), ramp(2, 3, step=0.8), ramp(5, 3, step=1.3), ramp(3, 5, step=0.6)),
        (ramp(4, 2, step=0.9), ramp(4, 2), 2 * ramp(3, 2, step=0.7), ramp(2, 3, step=1.1)),
    ],
    praise="In (6.2), the g on its own is the identity path.",
    wrong=(
        Wrong(
            lambda g, x, W_1, W_2: (g @ W_2 * (x @ W_1.T > 0)) @ W_1,
            "that is the branch alone; x also reaches y directly, and along that way g comes back unchanged",
        ),
        Wrong(
            lambda g, x, W_1, W_2: g + g @ W_2 @ W_1,
            "the ReLU is missing: nothing comes back through a unit whose input was negative",
        ),
        Wrong(
            lambda g, x, W_1, W_2: x + (g @ W_2 * (x @ W_1.T > 0)) @ W_1,
            "you add x; that is the forward pass. Backward, the identity path carries g",
        ),
        Wrong(
            lambda g, x, W_1, W_2: g + (g @ W_2 * F.relu(x @ W_1.T)) @ W_1,
            "you multiply by the ReLU's value; the chain rule asks for its slope, 1 or 0",
        ),
        Wrong(
            lambda g, x, W_1, W_2: g * ((g @ W_2 * (x @ W_1.T > 0)) @ W_1),
            "you multiply the two paths; two ways from x to y add up",
        ),
        Wrong(
            lambda g, x, W_1, W_2: 1 + (g @ W_2 * (x @ W_1.T > 0)) @ W_1,
            "the identity's slope is 1, and it multiplies g as well: g + ..., not 1 + ...",
        ),
        Wrong(
            lambda g, x, W_1, W_2: g + F.relu(g @ W_2) @ W_1,
            "the ReLU's slope depends on what went forward, x W_1ᵀ, not on the gradient that comes back",
        ),
        Wrong(
            lambda g, x, W_1, W_2: (
                (g + (g @ W_2 * (x @ W_1.T > 0)) @ W_1) * (x + F.relu(x @ W_1.T) @ W_2.T > 0)
            ),
            "you put a second ReLU behind the addition; this block has none there",
        ),
    ),
)


# toolbox.7 one GRU step ----------------------------------------------------------------------------------


def gru_step(x: Tensor, h: Tensor, W: Tensor, U: Tensor, b: Tensor, c: Tensor) -> Tensor:
    W_r, W_z, W_n = (x @ W.T + b).chunk(3, -1)
    U_r, U_z, U_n = (h @ U.T + c).chunk(3, -1)
    r, z = torch.sigmoid(W_r + U_r), torch.sigmoid(W_z + U_z)
    n = torch.tanh(W_n + r * U_n)
    return (1 - z) * n + z * h


def gru_step_by_torch(x: Tensor, h: Tensor, W: Tensor, U: Tensor, b: Tensor, c: Tensor) -> Tensor:
    return torch.gru_cell(x, h, W, U, b, c)


def gru_step_by_slices(x: Tensor, h: Tensor, W: Tensor, U: Tensor, b: Tensor, c: Tensor) -> Tensor:
    size = h.shape[-1]
    parts = [slice(0, size), slice(size, 2 * size), slice(2 * size, 3 * size)]
    from_x = [F.linear(x, W[p], b[p]) for p in parts]
    from_h = [F.linear(h, U[p], c[p]) for p in parts]
    r, z = (1 / (1 + torch.exp(-from_x[i] - from_h[i])) for i in (0, 1))
    n = torch.tanh(from_x[2] + r * from_h[2])
    return n + z * (h - n)


def gru_reset_first(x: Tensor, h: Tensor, W: Tensor, U: Tensor, b: Tensor, c: Tensor) -> Tensor:
    size = h.shape[-1]
    gates = torch.sigmoid(x @ W[: 2 * size].T + b[: 2 * size] + h @ U[: 2 * size].T + c[: 2 * size])
    r, z = gates.chunk(2, -1)
    n = torch.tanh(x @ W[2 * size :].T + b[2 * size :] + (r * h) @ U[2 * size :].T + c[2 * size :])
    return (1 - z) * n + z * h


def gru_variant(x: Tensor, h: Tensor, W: Tensor, U: Tensor, b: Tensor, c: Tensor, *, change: str) -> Tensor:
    """One GRU step with one mistake."""
    size = h.shape[-1]
    (W_r, W_z, W_n), (U_r, U_z, U_n) = (x @ W.T + b).chunk(3, -1), (h @ U.T + c).chunk(3, -1)
    r, z = torch.sigmoid(W_r + U_r), torch.sigmoid(W_z + U_z)
    if change == "order":
        r, z = z, r
    before_tanh = {
        "no reset": W_n + U_n,
        "reset everything": r * (W_n + U_n),
        "reset without bias": W_n + r * (U_n - c[2 * size :]) + c[2 * size :],
    }.get(change, W_n + r * U_n)
    n = torch.sigmoid(before_tanh) if change == "sigmoid" else torch.tanh(before_tanh)
    if change == "update reversed":
        return z * n + (1 - z) * h
    kept = 0 * h if change == "no old state" else h
    return n if change == "no update" else (1 - z) * n + z * kept


def gru_wrong(change: str, says: str) -> Wrong:
    return Wrong(lambda *arguments: gru_variant(*arguments, change=change), says)


def gru_inputs() -> list[tuple]:
    return [
        (ramp(2, 3), ramp(2, 4, step=0.8), *gru_weights(3, 4)),
        (ramp(5, 2, step=0.6), 2 * ramp(5, 3), *gru_weights(2, 3)),
    ]


def gru_weights(inputs: int, hidden: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    W, U = 2 * ramp(3 * hidden, inputs, step=1.3), 2 * ramp(3 * hidden, hidden, step=0.9)
    return W, U, ramp(3 * hidden), ramp(3 * hidden, step=1.7)


GRU = Exercise(
    reference=gru_step,
    right=(gru_step_by_torch, gru_step_by_slices),
    inputs=gru_inputs,
    praise="Your step equals PyTorch's.",
    wrong=(
        gru_wrong(
            "update reversed",
            "your z lets the new state in, as in some papers; here it keeps the old one, h' = (1 - z) n + z h; see (7.1)",
        ),
        Wrong(
            gru_reset_first,
            "you reset h before the linear layer, as in the first paper; PyTorch multiplies by r behind it",
        ),
        gru_wrong(
            "reset without bias",
            "r multiplies the whole result of the linear layer on h, its bias c included",
        ),
        gru_wrong("order", "the gates are stacked as r, z, n; you took the first block for z"),
        gru_wrong("no reset", "your r is never used: it multiplies what the candidate n hears of h"),
        gru_wrong(
            "reset everything", "your r also multiplies the input's part; it resets only what comes from h"
        ),
        gru_wrong("sigmoid", "the candidate n goes through tanh, so that a state can be negative"),
        gru_wrong(
            "no old state", "you return (1 - z) n alone; what is kept of the old state, z h, is missing"
        ),
        Wrong(
            lambda x, h, W, U, b, c: gru_step(x, h, W, U, b, 0 * c),
            "the bias c is missing: it is added to what U makes of h",
        ),
        Wrong(
            lambda x, h, *rest: gru_step(x, h, *(torch.cat(w.chunk(3)[::-1]) for w in rest)),
            "the parts are stacked as r, z, n; you took the first block for n and the last for r",
        ),
        gru_wrong("no update", "you return the candidate n; the new state is a mixture of n and the old h"),
    ),
)


EXERCISES = {
    "toolbox.1": SOFTMAX,
    "toolbox.2": LINEAR,
    "toolbox.3": VARIANCE,
    "toolbox.4": CONV_MACS,
    "toolbox.5": BATCHNORM,
    "toolbox.6": RESIDUAL,
    "toolbox.7": GRU,
}
