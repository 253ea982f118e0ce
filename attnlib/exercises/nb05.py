"""The exercises of 05_transformer."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from attnlib.exercises.checker import Exercise, Wrong, choice, ramp

# 05.1 one sub-layer --------------------------------------------------------------------------------------


def ffn(x: Tensor, W_1: Tensor, b_1: Tensor, W_2: Tensor, b_2: Tensor) -> Tensor:
    return (x @ W_1 + b_1).clamp(min=0) @ W_2 + b_2


def norm(x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    return F.layer_norm(x, (x.shape[-1],), gamma, beta)


def sublayer(
    x: Tensor,
    W_1: Tensor,
    b_1: Tensor,
    W_2: Tensor,
    b_2: Tensor,
    gamma: Tensor,
    beta: Tensor,
    norm_first: bool,
) -> Tensor:
    if norm_first:
        return x + ffn(norm(x, gamma, beta), W_1, b_1, W_2, b_2)
    return norm(x + ffn(x, W_1, b_1, W_2, b_2), gamma, beta)


def sublayer_by_token(x, W_1, b_1, W_2, b_2, gamma, beta, norm_first):
    def one(token):
        normal = (token - token.mean()) / torch.sqrt(token.var(correction=0) + 1e-5)
        return normal * gamma + beta

    rows = []
    for token in x:
        seen = one(token) if norm_first else token
        hidden = [max(0.0, (seen @ W_1[:, u] + b_1[u]).item()) for u in range(len(b_1))]
        total = token + torch.tensor(hidden, dtype=x.dtype) @ W_2 + b_2
        rows.append(total if norm_first else one(total))
    return torch.stack(rows)


def sublayer_with_modules(x, W_1, b_1, W_2, b_2, gamma, beta, norm_first):
    layer = torch.nn.LayerNorm(x.shape[1]).double()
    layer.weight.data, layer.bias.data = gamma.clone(), beta.clone()
    change = F.linear(F.relu(F.linear(layer(x) if norm_first else x, W_1.T, b_1)), W_2.T, b_2)
    return (x + change if norm_first else layer(x + change)).detach()


def sublayer_inputs() -> list[tuple]:
    """Both orders; 3 tokens of 4 features with 5 hidden units, and square ones, 4 tokens of 4 features."""
    shapes = [(3, 4, 5, False), (3, 4, 5, True), (4, 4, 4, False), (4, 4, 4, True)]
    return [
        (
            3 * ramp(n, d, step=0.7) + ramp(n, 1),
            2 * ramp(d, hidden, step=0.9),
            ramp(hidden, step=1.3),
            2 * ramp(hidden, d, step=1.1),
            ramp(d, step=0.5),
            1.5 + ramp(d, step=0.8),
            ramp(d, step=1.7),
            norm_first,
        )
        for n, d, hidden, norm_first in shapes
    ]


def other_norm(how):
    """The sub-layer with another norm, ``how(x, gamma, beta)``."""

    def answer(x, W_1, b_1, W_2, b_2, gamma, beta, norm_first):
        if norm_first:
            return x + ffn(how(x, gamma, beta), W_1, b_1, W_2, b_2)
        return how(x + ffn(x, W_1, b_1, W_2, b_2), gamma, beta)

    return answer


def other_ffn(how):
    """The sub-layer with another network, ``how(x, W_1, b_1, W_2, b_2)``."""

    def answer(x, W_1, b_1, W_2, b_2, gamma, beta, norm_first):
        if norm_first:
            return x + how(norm(x, gamma, beta), W_1, b_1, W_2, b_2)
        return norm(x + how(x, W_1, b_1, W_2, b_2), gamma, beta)

    return answer


def over_tokens(x, gamma, beta):
    return gamma * (x - x.mean(0)) / torch.sqrt(x.var(0, correction=0) + 1e-5) + beta


def over_all(x, gamma, beta):
    return gamma * (x - x.mean()) / torch.sqrt(x.var(correction=0) + 1e-5) + beta


def unbiased(x, gamma, beta):
    return gamma * (x - x.mean(-1, keepdim=True)) / torch.sqrt(x.var(-1, keepdim=True) + 1e-5) + beta


def without_keepdim(x, gamma, beta):
    return gamma * (x - x.mean(-1)) / torch.sqrt(x.var(-1, correction=0) + 1e-5) + beta


def with_eps(eps):
    return lambda x, gamma, beta: F.layer_norm(x, (x.shape[-1],), gamma, beta, eps)


def by_variance(x, gamma, beta):
    return gamma * (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, correction=0) + 1e-5) + beta


SUBLAYER = Exercise(
    reference=sublayer,
    right=(sublayer_by_token, sublayer_with_modules),
    inputs=sublayer_inputs,
    praise="Both orders: (5.4) with the norm behind the sum, (5.5) with the norm in front of the network.",
    wrong=(
        Wrong(
            lambda x, a, b, c, d, e, f, first: sublayer(x, a, b, c, d, e, f, not first),
            "the two orders have changed places: norm_first=True is (5.5)",
        ),
        Wrong(
            lambda x, a, b, c, d, e, f, first: sublayer(x, a, b, c, d, e, f, False),
            "norm_first makes no difference in your answer: you always return (5.4)",
        ),
        Wrong(
            lambda x, a, b, c, d, e, f, first: sublayer(x, a, b, c, d, e, f, True),
            "norm_first makes no difference in your answer: you always return (5.5)",
        ),
        Wrong(
            lambda x, a, b, c, d, e, f, first: (
                ffn(norm(x, e, f), a, b, c, d) if first else norm(ffn(x, a, b, c, d), e, f)
            ),
            "x itself is missing: what the network returns is added to it",
        ),
        Wrong(
            lambda x, a, b, c, d, e, f, first: (
                norm(x, e, f) + ffn(norm(x, e, f), a, b, c, d)
                if first
                else norm(x + ffn(x, a, b, c, d), e, f)
            ),
            "with norm_first you add to the normalised x; in (5.5) the plain x runs through",
        ),
        Wrong(
            lambda x, a, b, c, d, e, f, first: (
                norm(x + ffn(norm(x, e, f), a, b, c, d), e, f)
                if first
                else norm(x + ffn(x, a, b, c, d), e, f)
            ),
            "with norm_first there is one norm, in front of the network; nothing stands behind the sum",
        ),
        Wrong(
            lambda x, a, b, c, d, e, f, first: (
                x + ffn(norm(x, e, f), a, b, c, d) if first else x + norm(ffn(x, a, b, c, d), e, f)
            ),
            "without norm_first the norm stands behind the sum, (5.4); you normalise only what is added",
        ),
        Wrong(
            lambda x, a, b, c, d, e, f, first: (
                x + ffn(norm(x, e, f), a, b, c, d)
                if first
                else norm(norm(x, e, f) + ffn(norm(x, e, f), a, b, c, d), e, f)
            ),
            "without norm_first the network sees x as it is; you normalise before and behind",
        ),
        Wrong(
            other_ffn(lambda x, a, b, c, d: (x @ a + b) @ c + d),
            "the ReLU is missing: max(0, .) stands between the two layers of (5.3)",
        ),
        Wrong(
            other_ffn(lambda x, a, b, c, d: ((x @ a + b).clamp(min=0) @ c + d).clamp(min=0)),
            "there is one ReLU in (5.3), between the layers; what is added may be negative",
        ),
        Wrong(
            other_ffn(lambda x, a, b, c, d: F.gelu(x @ a + b) @ c + d),
            "you use GELU; the paper's (5.3) has max(0, .)",
        ),
        Wrong(
            other_ffn(lambda x, a, b, c, d: (x @ a).clamp(min=0) @ c + d),
            "b_1 is missing: it belongs inside the ReLU",
        ),
        Wrong(
            other_ffn(lambda x, a, b, c, d: (x @ a + b).clamp(min=0) @ c),
            "b_2 is missing: it is added behind W_2",
        ),
        Wrong(
            other_ffn(lambda x, a, b, c, d: (x @ a).clamp(min=0) @ c),
            "both biases are missing",
        ),
        Wrong(
            other_norm(over_tokens),
            "you normalise each feature over the tokens; a layer norm treats each token by itself, over its features",
        ),
        Wrong(
            other_norm(over_all),
            "you take one mean over all tokens; a layer norm has one for each token",
        ),
        Wrong(
            other_norm(unbiased),
            "your variance divides by d - 1, which is what var() does unasked; (5.2) divides by d",
        ),
        Wrong(
            other_norm(by_variance),
            "you divide by the variance; (5.2) divides by its square root",
        ),
        Wrong(
            other_norm(lambda x, gamma, beta: F.layer_norm(x, (x.shape[-1],))),
            "gamma and beta are not used",
        ),
        Wrong(
            other_norm(lambda x, gamma, beta: F.layer_norm(x, (x.shape[-1],), gamma)),
            "beta is not used",
        ),
        Wrong(
            other_norm(lambda x, gamma, beta: x),
            "there is no norm in your answer",
        ),
        Wrong(
            lambda x, a, b, c, d, e, f, first: (
                x + ffn(norm(x, e, f), a, b, c, d)
                if first
                else norm(ffn(norm(x, e, f), a, b, c, d), e, f) + norm(x, e, f)
            ),
            "the norm of a sum is not the sum of two norms: first add, then normalise",
        ),
        Wrong(
            lambda x, a, b, c, d, e, f, first: (
                ffn(norm(x, e, f), a, b, c, d) if first else norm(x + ffn(x, a, b, c, d), e, f)
            ),
            "without norm_first all is right; with it x itself is missing: (5.5) adds to the plain x",
        ),
        Wrong(
            lambda x, a, b, c, d, e, f, first: (
                x + ffn(norm(x, e, f), a, b, c, d) if first else norm(ffn(x, a, b, c, d), e, f)
            ),
            "with norm_first all is right; without it x itself is missing: (5.4) normalises x + F(x)",
        ),
        Wrong(
            lambda x, a, b, c, d, e, f, first: ffn(x, a, b, c, d),
            "this is the network alone: x is to be added, and there is a norm in either order",
        ),
        Wrong(
            lambda x, a, b, c, d, e, f, first: norm(x + ffn(norm(x, e, f), a, b, c, d), e, f),
            "you normalise in front of the network and behind the sum; norm_first says which one of the two",
        ),
        Wrong(
            lambda x, a, b, c, d, e, f, first: (
                2 * x + ffn(norm(x, e, f), a, b, c, d) if first else norm(2 * x + ffn(x, a, b, c, d), e, f)
            ),
            "x is added twice",
        ),
        Wrong(
            other_ffn(lambda x, a, b, c, d: ((x @ a).clamp(min=0) + b) @ c + d),
            "b_1 is added before the ReLU, not behind it",
        ),
        Wrong(
            other_ffn(lambda x, a, b, c, d: (x @ a + b).clamp(max=0) @ c + d),
            "you keep what is negative: max(0, .) is clamp(min=0)",
        ),
        Wrong(
            other_ffn(lambda x, a, b, c, d: (x @ a + b).abs() @ c + d),
            "max(0, .) makes negative numbers 0; you turn their sign",
        ),
        Wrong(
            other_ffn(lambda x, a, b, c, d: max(0, x @ a + b) @ c + d),
            "max, if, and, or of Python want one truth value; for a whole tensor write .clamp(min=0)",
        ),
        Wrong(
            other_ffn(lambda x, a, b, c, d: (x @ a.T + b).clamp(min=0) @ c.T + d),
            "W_1 is (d, d_ff) already: x @ W_1, without a transpose (F.linear takes one by itself)",
        ),
        Wrong(
            other_ffn(lambda x, a, b, c, d: (x * a + b).clamp(min=0) * c + d),
            "* multiplies entry by entry; the products of (5.3) are those of matrices, @",
        ),
        Wrong(
            other_norm(without_keepdim),
            "keepdim=True is missing: each token's own mean is to be taken from each token",
        ),
        Wrong(
            other_norm(lambda x, gamma, beta: norm(x, beta, gamma)),
            "gamma and beta have changed places: gamma multiplies, beta is added",
        ),
        Wrong(
            other_norm(
                lambda x, gamma, beta: (
                    gamma * x / (x.var(-1, keepdim=True, correction=0) + 1e-5).sqrt() + beta
                )
            ),
            "the mean is not taken away in your norm",
        ),
        Wrong(
            other_norm(
                lambda x, gamma, beta: gamma * (x - mean(x)) / (mean((x - mean(x)) ** 2).sqrt() + 1e-5) + beta
            ),
            "nearly: epsilon is added to the variance, under the root",
        ),
        Wrong(
            other_norm(with_eps(0.0)),
            "nearly: epsilon is missing, 1e-5 under the root",
        ),
        Wrong(
            other_norm(with_eps(1e-6)),
            "nearly: your epsilon is 1e-6, and 1e-5 is asked for",
        ),
    ),
)


# 05.2 layer norm backward --------------------------------------------------------------------------------


def mean(a: Tensor) -> Tensor:
    return a.mean(-1, keepdim=True)


def parts(g: Tensor, x: Tensor, gamma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    rho = (mean((x - mean(x)) ** 2) + 1e-5).sqrt()
    return (x - mean(x)) / rho, gamma * g, rho


def layer_norm_backward(g: Tensor, x: Tensor, gamma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    x_hat, g_hat, rho = parts(g, x, gamma)
    dx = (g_hat - mean(g_hat) - x_hat * mean(g_hat * x_hat)) / rho
    return dx, (g * x_hat).sum(0), g.sum(0)


def backward_by_autograd(g, x, gamma):
    leaves = [x.clone().requires_grad_(), gamma.clone().requires_grad_(), torch.zeros_like(gamma)]
    leaves[2].requires_grad_()
    return torch.autograd.grad(F.layer_norm(leaves[0], (x.shape[1],), *leaves[1:]), leaves, g)


def backward_by_jacobians(g, x, gamma):
    x_hat, g_hat, rho = parts(g, x, gamma)
    d, rows = x.shape[1], []
    for i in range(len(x)):
        jacobian = (torch.eye(d).double() - 1 / d - torch.outer(x_hat[i], x_hat[i]) / d) / rho[i]
        rows.append(jacobian @ g_hat[i])
    return [torch.stack(rows), torch.einsum("nd,nd->d", g, x_hat), torch.einsum("nd->d", g)]


def dx_by(how):
    """The backward pass with another gradient of x, ``how(g, g_hat, x_hat, rho, gamma)``."""

    def answer(g, x, gamma):
        x_hat, g_hat, rho = parts(g, x, gamma)
        return how(g, g_hat, x_hat, rho, gamma), (g * x_hat).sum(0), g.sum(0)

    return answer


def with_others(how):
    """The backward pass with other gradients of gamma and beta, ``how(g, x, x_hat, g_hat, rho)``."""

    def answer(g, x, gamma):
        x_hat, g_hat, rho = parts(g, x, gamma)
        return layer_norm_backward(g, x, gamma)[0], *how(g, x, x_hat, g_hat, rho)

    return answer


def over_the_batch(g, x, gamma):
    rho = torch.sqrt(x.var(0, correction=0) + 1e-5)
    x_hat, g_hat = (x - x.mean(0)) / rho, gamma * g
    dx = (g_hat - g_hat.mean(0) - x_hat * (g_hat * x_hat).mean(0)) / rho
    return dx, (g * x_hat).sum(0), g.sum(0)


def with_unbiased(g, x, gamma):
    rho = torch.sqrt(x.var(-1, keepdim=True) + 1e-5)
    x_hat, g_hat = (x - mean(x)) / rho, gamma * g
    return (g_hat - mean(g_hat) - x_hat * mean(g_hat * x_hat)) / rho, (g * x_hat).sum(0), g.sum(0)


def with_eps_of(eps):
    def answer(g, x, gamma):
        rho = (mean((x - mean(x)) ** 2) + eps).sqrt()
        x_hat, g_hat = (x - mean(x)) / rho, gamma * g
        return (g_hat - mean(g_hat) - x_hat * mean(g_hat * x_hat)) / rho, (g * x_hat).sum(0), g.sum(0)

    return answer


def backward_without_keepdim(g, x, gamma):
    rho = (x.var(-1, correction=0) + 1e-5).sqrt()
    x_hat, g_hat = (x - x.mean(-1)) / rho, gamma * g
    dx = (g_hat - g_hat.mean(-1) - x_hat * (g_hat * x_hat).mean(-1)) / rho
    return dx, (g * x_hat).sum(0), g.sum(0)


def in_another_order(g, x, gamma):
    dx, dgamma, dbeta = layer_norm_backward(g, x, gamma)
    return dgamma, dbeta, dx


LAYER_NORM_BACKWARD = Exercise(
    reference=layer_norm_backward,
    right=(backward_by_autograd, backward_by_jacobians),
    inputs=lambda: [
        (ramp(3, 4, step=0.9), 2 * ramp(3, 4, step=0.7) + 1, 1.5 + ramp(4, step=1.1)),
        (ramp(4, 4, step=1.3), ramp(4, 4, step=0.5) + ramp(4, 1), ramp(4, step=0.6) - 0.4),
    ],
    praise="Of what arrives, the shift and the stretch of each token are taken out, as in (5.9).",
    wrong=(
        Wrong(
            dx_by(lambda g, g_hat, x_hat, rho, gamma: g_hat / rho),
            "the two means are missing: x also moves its own mean and standard deviation, (5.8)",
        ),
        Wrong(
            dx_by(lambda g, g_hat, x_hat, rho, gamma: (g_hat - mean(g_hat)) / rho),
            "the last term is missing or comes to 0 (a mean of products is not the product of the means): x also "
            "moves the standard deviation",
        ),
        Wrong(
            dx_by(lambda g, g_hat, x_hat, rho, gamma: (g_hat - x_hat * mean(g_hat * x_hat)) / rho),
            "the mean of g_hat is missing: x also moves the mean",
        ),
        Wrong(
            dx_by(lambda g, g_hat, x_hat, rho, gamma: (g - mean(g) - x_hat * mean(g * x_hat)) / rho),
            "gamma is missing in the gradient of x: what arrives at x_hat is gamma times g",
        ),
        Wrong(
            dx_by(lambda g, g_hat, x_hat, rho, gamma: gamma * (g - mean(g) - x_hat * mean(g * x_hat)) / rho),
            "you multiply by gamma at the end, as a batch norm may; here it differs by feature and goes inside the means",
        ),
        Wrong(
            dx_by(lambda g, g_hat, x_hat, rho, gamma: g_hat - mean(g_hat) - x_hat * mean(g_hat * x_hat)),
            "the division by rho is missing",
        ),
        Wrong(
            dx_by(
                lambda g, g_hat, x_hat, rho, gamma: (g_hat - mean(g_hat) - x_hat * mean(g_hat * x_hat)) * rho
            ),
            "you multiply by rho; (5.9) divides by it",
        ),
        Wrong(
            dx_by(
                lambda g, g_hat, x_hat, rho, gamma: (
                    (g_hat - mean(g_hat) - x_hat * mean(g_hat * x_hat)) / rho**2
                )
            ),
            "you divide by the variance; (5.9) divides by its square root, rho",
        ),
        Wrong(
            dx_by(
                lambda g, g_hat, x_hat, rho, gamma: (
                    (g_hat - g_hat.sum(-1, keepdim=True) - x_hat * (g_hat * x_hat).sum(-1, keepdim=True))
                    / rho
                )
            ),
            "the bars in (5.9) are means over the features, and you take sums",
        ),
        Wrong(
            dx_by(lambda g, g_hat, x_hat, rho, gamma: (g_hat - mean(g_hat) - mean(g_hat * x_hat)) / rho),
            "the last mean is to be multiplied by x_hat",
        ),
        Wrong(
            dx_by(
                lambda g, g_hat, x_hat, rho, gamma: (g_hat + mean(g_hat) + x_hat * mean(g_hat * x_hat)) / rho
            ),
            "the two means are taken away, and you add them",
        ),
        Wrong(
            dx_by(
                lambda g, g_hat, x_hat, rho, gamma: (
                    (g_hat - g_hat.mean() - x_hat * (g_hat * x_hat).mean()) / rho
                )
            ),
            "you take one mean over everything; each token has its own, over its features",
        ),
        Wrong(
            dx_by(
                lambda g, g_hat, x_hat, rho, gamma: (
                    gamma * (g_hat - mean(g_hat) - x_hat * mean(g_hat * x_hat)) / rho
                )
            ),
            "gamma is applied twice: it is in g_hat already",
        ),
        Wrong(
            lambda g, x, gamma: dx_by(
                lambda _, g_hat, x_hat, rho, gamma: (g_hat - mean(g_hat) - x * mean(g_hat * x)) / rho
            )(g, x, gamma),
            "x_hat stands in the last term of (5.9), and you have x",
        ),
        Wrong(
            dx_by(
                lambda g, g_hat, x_hat, rho, gamma: (
                    (g_hat - mean(g_hat) - x_hat * mean(g_hat * x_hat)) / (rho + 1e-5)
                )
            ),
            "epsilon is in rho already; do not add it a second time",
        ),
        Wrong(
            backward_without_keepdim,
            "keepdim=True is missing: each token's own mean is to be taken from each token",
        ),
        Wrong(
            with_eps_of(0.0),
            "nearly: epsilon is missing in rho, 1e-5 under the root",
        ),
        Wrong(
            with_eps_of(1e-6),
            "nearly: your epsilon is 1e-6, and 1e-5 is asked for",
        ),
        Wrong(
            with_others(lambda g, x, x_hat, g_hat, rho: ((g * x_hat).sum(), g.sum())),
            "gamma and beta have one number for each feature: add up over the tokens alone, axis 0",
        ),
        Wrong(
            with_others(
                lambda g, x, x_hat, g_hat, rho: ((g * x_hat).sum(0, keepdim=True), g.sum(0, keepdim=True))
            ),
            "gamma and beta are (d,), and so are their gradients; here keepdim=True is one axis too many",
        ),
        Wrong(
            with_others(lambda g, x, x_hat, g_hat, rho: (g.T @ x_hat, g.sum(0))),
            "gamma multiplies entry by entry, so its gradient sums g * x_hat; @ mixes the features",
        ),
        Wrong(
            over_the_batch,
            "you average over the tokens, as a batch norm does; here the means run over the features of one token",
        ),
        Wrong(
            with_unbiased,
            "your rho comes from the variance that divides by d - 1; (5.2) divides by d",
        ),
        Wrong(
            with_others(lambda g, x, x_hat, g_hat, rho: ((g * x).sum(0), g.sum(0))),
            "gamma was multiplied by x_hat and not by x, so its gradient sums g times x_hat",
        ),
        Wrong(
            with_others(lambda g, x, x_hat, g_hat, rho: ((g_hat * x_hat).sum(0), g.sum(0))),
            "the gradient of gamma has no gamma in it: it sums g times x_hat",
        ),
        Wrong(
            with_others(lambda g, x, x_hat, g_hat, rho: ((g * x_hat).mean(0), g.mean(0))),
            "gamma and beta are shared by all tokens, so their gradients are sums over the tokens, not means",
        ),
        Wrong(
            with_others(lambda g, x, x_hat, g_hat, rho: (g * x_hat, g)),
            "gamma and beta are shared by all tokens: add up over axis 0",
        ),
        Wrong(
            with_others(lambda g, x, x_hat, g_hat, rho: ((g * x_hat).sum(0), g_hat.sum(0))),
            "the gradient of beta is the sum of g itself",
        ),
        Wrong(
            with_others(lambda g, x, x_hat, g_hat, rho: ((g * x_hat).sum(-1), g.sum(-1))),
            "you sum over the features; gamma and beta have one number for each feature, so sum over the tokens",
        ),
        Wrong(
            with_others(lambda g, x, x_hat, g_hat, rho: (g.sum(0), (g * x_hat).sum(0))),
            "the gradients of gamma and beta have changed places",
        ),
        Wrong(in_another_order, "return the gradients in the order x, gamma, beta"),
        Wrong(
            lambda g, x, gamma: layer_norm_backward(g, x, gamma)[0],
            "you return the gradient of x alone; those of gamma and beta are asked for too",
        ),
    ),
)


# 05.3 the learning rate ----------------------------------------------------------------------------------


def learning_rate(step: int, width: int, warmup: int) -> float:
    return width**-0.5 * min(step**-0.5, step * warmup**-1.5)


def rate_in_two_parts(step, width, warmup):
    peak = 1 / math.sqrt(width * warmup)
    return peak * step / warmup if step < warmup else peak * math.sqrt(warmup / step)


def rate_with_torch(step, width, warmup):
    both = torch.tensor([step**-0.5, step * warmup**-1.5], dtype=torch.float64)
    return both.min() / width**0.5


LEARNING_RATE = Exercise(
    reference=learning_rate,
    right=(rate_in_two_parts, rate_with_torch),
    inputs=lambda: [(1, 4, 4), (3, 4, 4), (4, 4, 4), (9, 4, 4), (100, 16, 25), (5, 16, 25)],
    praise="A line up to the warm-up's end, then the root of the step, and the two meet there.",
    wrong=(
        Wrong(
            lambda step, width, warmup: width**-0.5 * max(step**-0.5, step * warmup**-1.5),
            "you take the larger of the two; (5.12) takes the smaller",
        ),
        Wrong(
            lambda step, width, warmup: min(step**-0.5, step * warmup**-1.5),
            "the factor with the width is missing",
        ),
        Wrong(
            lambda step, width, warmup: width**0.5 * min(step**-0.5, step * warmup**-1.5),
            "you multiply by the root of the width; (5.12) divides by it",
        ),
        Wrong(
            lambda step, width, warmup: min(step**-0.5, step * warmup**-1.5) / width,
            "you divide by the width; (5.12) divides by its root",
        ),
        Wrong(
            lambda step, width, warmup: width**-0.5 * step**-0.5,
            "the warm-up is missing: this is largest at the first step",
        ),
        Wrong(
            lambda step, width, warmup: width**-0.5 * step * warmup**-1.5,
            "this rises for ever: behind the warm-up the rate falls with the root of the step",
        ),
        Wrong(
            lambda step, width, warmup: min(width**-0.5 * step**-0.5, step * warmup**-1.5),
            "mind the bracket: the width divides both of the two",
        ),
        Wrong(
            lambda step, width, warmup: min(step**-0.5, width**-0.5 * step * warmup**-1.5),
            "mind the bracket: the width divides the first of the two as well",
        ),
        Wrong(
            lambda step, width, warmup: width**-0.5 * min(step**-0.5, step * warmup**-0.5),
            "the power of the warm-up is -3/2; with -1/2 the two parts do not meet at its end",
        ),
        Wrong(
            lambda step, width, warmup: width**-0.5 * min(step**-0.5, step / warmup),
            "step / warmup rises to 1; to meet the other part it must rise to 1 / root of the warm-up, so divide by warmup^(3/2)",
        ),
        Wrong(
            lambda step, width, warmup: width**-0.5 * min(1 / step, step * warmup**-1.5),
            "behind the warm-up the rate falls with the root of the step, not with the step itself",
        ),
        Wrong(
            lambda step, width, warmup: learning_rate(step + 1, width, warmup),
            "your rate is one step ahead: the first step is number 1 already",
        ),
        Wrong(
            lambda step, width, warmup: (width * warmup) ** -0.5 * min(1, step / warmup),
            "the warm-up is right, but behind it the rate should fall",
        ),
        Wrong(
            lambda step, width, warmup: width**-0.5 * (step**-0.5 + step * warmup**-1.5),
            "(5.12) takes the smaller of the two, and you add them",
        ),
        Wrong(
            lambda step, width, warmup: width**-1 / 2 * min(step**-1 / 2, step * warmup**-3 / 2),
            "** goes before /: width**-1/2 is half of 1 / width; write width**-0.5",
        ),
        Wrong(
            lambda step, width, warmup: width**0.5 * min(step**0.5, step * warmup**1.5),
            "the minus signs are missing in the powers",
        ),
        Wrong(
            lambda step, width, warmup: warmup**-0.5 * min(step**-0.5, step * width**-1.5),
            "width and warmup have changed places",
        ),
        Wrong(
            lambda step, width, warmup: width**-0.5 * min(step**-0.5, step // warmup**1.5),
            "// rounds down to a whole number; divide with /",
        ),
        Wrong(
            lambda step, width, warmup: width**-0.5 * min(step**-0.5, (step * warmup) ** -1.5),
            "mind the bracket: the power -3/2 belongs to the warm-up alone, the step is not in it",
        ),
        Wrong(
            lambda step, width, warmup: (width * warmup) ** -0.5,
            "this is the peak (5.13) at every step; before and behind it the rate is lower",
        ),
        Wrong(
            lambda step, width, warmup: (width * warmup) ** -0.5 * min(step / warmup, warmup / step),
            "the warm-up is right; behind it the rate falls with the root of the step, not with the step",
        ),
    ),
)


# 05.4 bug gallery ----------------------------------------------------------------------------------------


def mended_norm(x: Tensor, gamma: Tensor, beta: Tensor, eps: float) -> Tensor:
    distance = x - x.mean(-1, keepdim=True)
    return gamma * distance / (distance.square().mean(-1, keepdim=True) + eps).sqrt() + beta


def mended_with_var(x, gamma, beta, eps):
    variance = x.var(-1, keepdim=True, correction=0)
    return gamma * (x - x.mean(-1, keepdim=True)) * torch.rsqrt(variance + eps) + beta


def mended_with_torch(x, gamma, beta, eps):
    return F.layer_norm(x, x.shape[-1:], gamma, beta, eps)


def mended_with_std(x, gamma, beta, eps):
    rho = (x.std(-1, keepdim=True, unbiased=False) ** 2 + eps) ** 0.5
    return gamma * ((x - x.mean(-1, keepdim=True)) / rho) + beta


def wrong_norm(size):
    """gamma (x - mean) / size(x, eps) + beta"""
    return lambda x, gamma, beta, eps: gamma * (x - x.mean(-1, keepdim=True)) / size(x, eps) + beta


MENDED_NORM = Exercise(
    reference=mended_norm,
    right=(mended_with_var, mended_with_torch, mended_with_std),
    inputs=lambda: [
        (2 * ramp(3, 4, step=0.7) + 1, 1.5 + ramp(4, step=1.1), ramp(4, step=0.6), 0.1),
        (ramp(2, 3, 5, step=0.9), ramp(5, step=0.8), ramp(5, step=1.3), 0.5),
        (torch.full((1, 4), 3.0).double(), torch.ones(4).double(), ramp(4), 1e-5),
    ],
    praise="Now a row (1, 0, 0, 0) comes out as 1.732 and three times -0.577, as from nn.LayerNorm.",
    wrong=(
        Wrong(
            wrong_norm(lambda x, eps: x.std(-1, keepdim=True) + eps),
            "this is the published one: std() divides by d - 1, and eps stands outside the root",
        ),
        Wrong(
            wrong_norm(lambda x, eps: x.std(-1, keepdim=True, correction=0) + eps),
            "the variance is right now; eps belongs under the root, (5.2)",
        ),
        Wrong(
            wrong_norm(lambda x, eps: (x.var(-1, keepdim=True) + eps).sqrt()),
            "eps is right now; the variance still divides by d - 1",
        ),
        Wrong(
            wrong_norm(lambda x, eps: x.var(-1, keepdim=True, correction=0) + eps),
            "divide by the root of the variance, not by the variance",
        ),
        Wrong(
            wrong_norm(lambda x, eps: (x.var(-1, keepdim=True, correction=0) + eps**2).sqrt()),
            "eps is added to the variance as it is, not squared",
        ),
        Wrong(
            wrong_norm(lambda x, eps: x.std(-1, keepdim=True, correction=0)),
            "eps is missing: a token whose features are all equal gives NaN",
        ),
        Wrong(
            wrong_norm(lambda x, eps: x.var(-1, keepdim=True, correction=0).sqrt() + eps**0.5),
            "the root of a sum is not the sum of the roots: eps is added to the variance first",
        ),
        Wrong(
            wrong_norm(lambda x, eps: (x.square().mean(-1, keepdim=True) + eps).sqrt()),
            "this divides by the root mean square; the variance is taken around the mean",
        ),
        Wrong(
            lambda x, gamma, beta, eps: (
                x / (x.var(-1, keepdim=True, correction=0) + eps).sqrt() * gamma + beta
            ),
            "the mean is no longer taken away",
        ),
        Wrong(
            lambda x, gamma, beta, eps: gamma * (mended_norm(x, gamma, beta, eps) - beta) + beta,
            "gamma is applied twice",
        ),
        Wrong(
            lambda x, gamma, beta, eps: F.layer_norm(x, x.shape[-1:], eps=eps),
            "gamma and beta have been lost",
        ),
        Wrong(
            lambda x, gamma, beta, eps: F.layer_norm(x, x.shape[-1:], gamma, beta),
            "eps is an argument, and F.layer_norm takes 1e-5 unless it is told",
        ),
        Wrong(
            lambda x, gamma, beta, eps: (
                gamma
                * (
                    (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, correction=0) + eps).sqrt()
                    + beta
                )
            ),
            "beta is added behind gamma, not before it",
        ),
        Wrong(
            lambda x, gamma, beta, eps: (
                gamma * (x - x.mean(0)) / (x.var(0, correction=0) + eps).sqrt() + beta
            ),
            "you normalise over the first axis; a layer norm treats each token by itself",
        ),
        Wrong(
            lambda x, gamma, beta, eps: (
                gamma * (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True, correction=0) + eps).sqrt()
                + beta
            ),
            "axis 1 is the last one only if x has two axes; x is (..., d), so say -1",
        ),
        Wrong(
            lambda x, gamma, beta, eps: gamma * (x - x.mean()) / (x.var(correction=0) + eps).sqrt() + beta,
            "you take one mean and one variance of all numbers; each token has its own",
        ),
        Wrong(
            lambda x, gamma, beta, eps: (
                gamma * (x - x.mean(-1)) / (x.var(-1, correction=0) + eps).sqrt() + beta
            ),
            "keepdim=True is missing: each token's own mean is to be taken from each token",
        ),
        Wrong(
            wrong_norm(lambda x, eps: 1 / (x.var(-1, keepdim=True, correction=0) + eps).sqrt()),
            "you multiply by the root; (5.2) divides by it",
        ),
        Wrong(
            wrong_norm(lambda x, eps: ((x - mean(x)).square().sum(-1, keepdim=True) + eps).sqrt()),
            "the variance is the mean of the squares, and you take their sum",
        ),
        Wrong(
            wrong_norm(lambda x, eps: x.var(-1, keepdim=True, correction=0).clamp(min=eps).sqrt()),
            "eps is added to the variance; it is no lower bound",
        ),
        Wrong(
            lambda x, gamma, beta, eps: mended_norm(x, beta, gamma, eps),
            "gamma and beta have changed places: gamma multiplies, beta is added",
        ),
    ),
)


# 05.5 one step of a beam ---------------------------------------------------------------------------------


def beam_step(live: Tensor, log_p: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    scores, place = (live[:, None] + log_p).flatten().topk(len(live))
    return scores, place // log_p.shape[1], place % log_p.shape[1]


def beam_by_sorting(live, log_p):
    candidates = [
        (live[k].item() + log_p[k, c].item(), k, c) for k in range(len(live)) for c in range(log_p.shape[1])
    ]
    best = sorted(candidates, reverse=True)[: len(live)]
    scores, parents, tokens = zip(*best, strict=True)
    return torch.tensor(scores, dtype=live.dtype), torch.tensor(parents), torch.tensor(tokens)


def beam_with_unravel(live, log_p):
    total = live.unsqueeze(1) + log_p
    scores, order = total.reshape(-1).sort(descending=True)
    parents, tokens = torch.unravel_index(order[: live.numel()], log_p.shape)
    return scores[: live.numel()], parents, tokens


def beam_inputs() -> list[tuple]:
    """Three prefixes and five tokens; two and two; the best continuations are not one to a prefix."""
    return [
        (torch.tensor([-0.5, -0.9, -3.0]).double(), (2 * ramp(3, 5, step=0.9)).log_softmax(1)),
        (torch.tensor([-2.0, -1.0]).double(), (3 * ramp(2, 2, step=1.4)).log_softmax(1)),
        (torch.tensor([-1.0, -1.1, -1.3, -0.2]).double(), (2 * ramp(4, 3, step=2.1)).log_softmax(1)),
    ]


def of_places(place, live, log_p):
    total = (live[:, None] + log_p).flatten()
    return total[place], place // log_p.shape[1], place % log_p.shape[1]


BEAM_STEP = Exercise(
    reference=beam_step,
    right=(beam_by_sorting, beam_with_unravel),
    inputs=beam_inputs,
    praise="All continuations of all prefixes compete, and each winner knows its parent.",
    wrong=(
        Wrong(
            lambda live, log_p: (
                live + log_p.amax(1),
                torch.arange(len(live)),
                log_p.argmax(1),
            ),
            "you continue each prefix greedily; all continuations of all prefixes compete with each other",
        ),
        Wrong(
            lambda live, log_p: (
                (live + log_p.amax(1)).sort(descending=True)[0],
                (live + log_p.amax(1)).argsort(descending=True),
                log_p.argmax(1)[(live + log_p.amax(1)).argsort(descending=True)],
            ),
            "you take the best continuation of each prefix and sort; one prefix may have several of the winners",
        ),
        Wrong(
            lambda live, log_p: (
                log_p.flatten().topk(len(live))[0],
                log_p.flatten().topk(len(live))[1] // log_p.shape[1],
                log_p.flatten().topk(len(live))[1] % log_p.shape[1],
            ),
            "the scores of the prefixes are missing: a token's log-probability is added to its prefix's",
        ),
        Wrong(
            lambda live, log_p: of_places((live[:, None] * log_p).flatten().topk(len(live))[1], live, log_p),
            "log-probabilities are added, not multiplied",
        ),
        Wrong(
            lambda live, log_p: (
                (live[:, None] * log_p).flatten().topk(len(live))[0],
                (live[:, None] * log_p).flatten().topk(len(live))[1] // log_p.shape[1],
                (live[:, None] * log_p).flatten().topk(len(live))[1] % log_p.shape[1],
            ),
            "the logarithm of a product is a sum: add the log-probabilities",
        ),
        Wrong(
            lambda live, log_p: (
                beam_step(live, log_p)[0],
                beam_step(live, log_p)[2],
                beam_step(live, log_p)[1],
            ),
            "parents and tokens have changed places",
        ),
        Wrong(
            lambda live, log_p: (
                (live[:, None] + log_p).flatten().topk(len(live))[0],
                (live[:, None] + log_p).flatten().topk(len(live))[1] // len(live),
                (live[:, None] + log_p).flatten().topk(len(live))[1] % len(live),
            ),
            "a row of the table has as many places as the vocabulary, so divide by log_p.shape[1]",
        ),
        Wrong(
            lambda live, log_p: (
                (live[:, None] + log_p).flatten().topk(len(live))[0],
                (live[:, None] + log_p).flatten().topk(len(live))[1],
                (live[:, None] + log_p).flatten().topk(len(live))[1] % log_p.shape[1],
            ),
            "the second result should be rows of the table: divide the flat place by the vocabulary's size",
        ),
        Wrong(
            lambda live, log_p: (
                (live[:, None] + log_p).flatten().topk(len(live))[0],
                (live[:, None] + log_p).flatten().topk(len(live))[1] // log_p.shape[1],
                (live[:, None] + log_p).flatten().topk(len(live))[1],
            ),
            "the third result should be tokens: take the remainder of the flat place",
        ),
        Wrong(
            lambda live, log_p: beam_step(live, log_p)[:2],
            "three results are asked for: scores, parents, tokens",
        ),
        Wrong(
            lambda live, log_p: beam_step(live, log_p)[0],
            "you return the scores alone; without parents and tokens nobody can go on",
        ),
        Wrong(
            lambda live, log_p: (beam_step(live, log_p)[0].exp(), *beam_step(live, log_p)[1:]),
            "you return probabilities; the scores stay logarithms, so that they can be added up further",
        ),
        Wrong(
            lambda live, log_p: of_places(
                (live[:, None] + log_p).flatten().topk(len(live), largest=False)[1], live, log_p
            ),
            "you keep the worst continuations",
        ),
        Wrong(
            lambda live, log_p: of_places(
                (live[:, None] + log_p).flatten().topk(len(live))[1].flip(0), live, log_p
            ),
            "the order is turned round: the best comes first",
        ),
        Wrong(
            lambda live, log_p: of_places((live[:, None] + log_p).flatten().argmax()[None], live, log_p),
            "you keep one continuation; the beam stays as wide as it was, len(live)",
        ),
        Wrong(
            lambda live, log_p: of_places(
                (live[:, None] + log_p).flatten().topk(min(log_p.shape[1], log_p.numel()))[1], live, log_p
            ),
            "you keep as many as there are tokens; the beam stays as wide as it was, len(live)",
        ),
        Wrong(
            lambda live, log_p: (
                (live + log_p).flatten().topk(len(live))[0],
                (live + log_p).flatten().topk(len(live))[1] // log_p.shape[1],
                (live + log_p).flatten().topk(len(live))[1] % log_p.shape[1],
            ),
            "live has one number for each row of the table: make it a column with live[:, None]",
        ),
        Wrong(
            lambda live, log_p: (
                beam_step(live, log_p)[0],
                (live[:, None] + log_p).flatten().topk(len(live))[1] / log_p.shape[1],
                beam_step(live, log_p)[2],
            ),
            "rows have whole numbers: divide with //",
        ),
        Wrong(
            lambda live, log_p: (
                log_p[beam_step(live, log_p)[1], beam_step(live, log_p)[2]],
                *beam_step(live, log_p)[1:],
            ),
            "the choice is right; the scores are of whole prefixes, with what they had before",
        ),
        Wrong(
            lambda live, log_p: (
                beam_step(live, log_p)[0] - (live[:, None] + log_p).logsumexp((0, 1)),
                *beam_step(live, log_p)[1:],
            ),
            "the choice is right; the scores are plain sums, and need not be normalised among each other",
        ),
        Wrong(
            lambda live, log_p: (*beam_step(live, log_p)[1:], beam_step(live, log_p)[0]),
            "the scores come first, then parents, then tokens",
        ),
        Wrong(
            lambda live, log_p: (live[:, None] + log_p).flatten().topk(len(live)),
            "topk gives scores and places in the flat table; make the places rows and columns",
        ),
    ),
)


EXERCISES = {
    "05.a": choice(
        "b",
        {
            "a": "without a mask every token may be attended to by every other",
            "c": "that is a recurrent network, which passes it on step by step; attention looks at any place directly",
            "d": "one attention compares all pairs of places at once",
            "e": "there are a hundred pairs of places, but one attention serves them all",
        },
        "One attention reaches from any place to any other.",
    ),
    "05.b": choice(
        "b",
        {
            "a": "the branch gives nothing, but x itself goes straight into y",
            "c": "a constant F has the slope 0: its way back adds nothing",
            "d": "nothing is halved in a sum: each summand gets the whole gradient",
            "e": "whatever the constant is, its slope is 0",
        },
        "Along the identity it comes back as it is.",
    ),
    "05.c": choice(
        "c",
        {
            "a": "the mean, 2, is taken away from both: what is left lies on both sides of 0",
            "b": "the standard deviation is 1 here, not 2: the distances from the mean are -1 and 1",
            "d": "those sum to 1, as a softmax's would; here the mean is to be 0",
            "e": "their mean is 2 and not 0",
        },
        "The mean is 2 and the standard deviation 1.",
    ),
    "05.1": SUBLAYER,
    "05.2": LAYER_NORM_BACKWARD,
    "05.3": LEARNING_RATE,
    "05.4": MENDED_NORM,
    "05.5": BEAM_STEP,
}
