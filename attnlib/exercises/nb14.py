"""The exercises of 14_non_local."""

import torch
from torch import Tensor
from torch.nn import functional as F

from attnlib.exercises.checker import Exercise, Wrong, choice, ramp


def rows(x: Tensor) -> Tensor:
    """(b, c, h, w) -> one row a place: (b, hw, c)."""
    return x.flatten(2).mT


def maps(rows: Tensor, x: Tensor) -> Tensor:
    """(b, hw, c) -> a map of x's height and width: (b, c, h, w)."""
    return rows.mT.unflatten(2, x.shape[2:])


# 14.1 the block ------------------------------------------------------------------------------------------


def attention_map(x: Tensor, W_theta: Tensor, W_phi: Tensor) -> Tensor:
    return (rows(x) @ W_theta.T @ (rows(x) @ W_phi.T).mT).softmax(-1)


def non_local(x: Tensor, W_theta: Tensor, W_phi: Tensor, W_g: Tensor, W_z: Tensor) -> Tensor:
    y = attention_map(x, W_theta, W_phi) @ (rows(x) @ W_g.T)
    return x + maps(y @ W_z.T, x)


def non_local_einsum(x: Tensor, W_theta: Tensor, W_phi: Tensor, W_g: Tensor, W_z: Tensor) -> Tensor:
    columns = x.reshape(*x.shape[:2], -1)
    q, k, v = (torch.einsum("dc,bcn->bdn", W, columns) for W in (W_theta, W_phi, W_g))
    p = torch.softmax(torch.einsum("bdn,bdm->bnm", q, k), dim=2)
    return x + torch.einsum("bnm,bdm,cd->bcn", p, v, W_z).reshape(x.shape)


def non_local_by_convolutions(x: Tensor, W_theta: Tensor, W_phi: Tensor, W_g: Tensor, W_z: Tensor) -> Tensor:
    q, k, v = (rows(F.conv2d(x, W[:, :, None, None])) for W in (W_theta, W_phi, W_g))
    y = F.scaled_dot_product_attention(q, k, v, scale=1.0)
    return x + F.conv2d(maps(y, x), W_z[:, :, None, None])


def non_local_inputs() -> list[tuple]:
    """Maps of two sizes that are not square; the weights are far from even."""
    return [
        (2 * ramp(2, 4, 2, 3), ramp(2, 4), ramp(2, 4, step=0.9), ramp(2, 4, step=1.3), ramp(4, 2, step=0.5)),
        (2 * ramp(1, 6, 3, 2), ramp(3, 6), ramp(3, 6, step=0.8), ramp(3, 6, step=1.1), ramp(6, 3, step=0.6)),
    ]


def with_weights(weights):
    """A wrong block whose weights come from ``weights(q, k)`` and that is right in all else."""

    def block(x, W_theta, W_phi, W_g, W_z):
        p = weights(rows(x) @ W_theta.T, rows(x) @ W_phi.T)
        return x + maps(p @ (rows(x) @ W_g.T) @ W_z.T, x)

    return block


def channel_attention(x, W_theta, W_phi, W_g, W_z):
    q, k, v = ((rows(x) @ W.T).mT for W in (W_theta, W_phi, W_g))
    return x + maps(((q @ k.mT).softmax(-1) @ v).mT @ W_z.T, x)


def by_reshape(there_and_back: bool):
    """A wrong block that reads (b, c, h, w) as (b, n, c) without a transpose, on the way in or both ways."""

    def block(x, W_theta, W_phi, W_g, W_z):
        X = x.reshape(len(x), -1, x.shape[1])
        y = (X @ W_theta.T @ (X @ W_phi.T).mT).softmax(-1) @ (X @ W_g.T) @ W_z.T
        return x + (y.reshape(x.shape) if there_and_back else maps(y, x))

    return block


BLOCK = Exercise(
    reference=non_local,
    right=(non_local_einsum, non_local_by_convolutions),
    inputs=non_local_inputs,
    praise="Your block equals equation (14.3) on maps of two sizes.",
    wrong=(
        Wrong(
            lambda x, *W: non_local(x, *W) - x,
            "the residual is missing: (14.2) adds what was gathered to what the place had",
        ),
        Wrong(
            lambda x, *W: non_local(x, *W) + x,
            "x is added twice; (14.2) adds it once",
        ),
        Wrong(
            lambda x, *W: x * (non_local(x, *W) - x),
            "you multiply x by what was gathered; a non-local block is no gate, it adds",
        ),
        Wrong(
            with_weights(lambda q, k: (q @ k.mT).softmax(1)),
            "your softmax runs over the queries; the weights of one place, a row of P, sum to 1 over the keys",
        ),
        Wrong(
            with_weights(lambda q, k: (q @ k.mT).softmax(0)),
            "your softmax runs over the images of the batch; it belongs over the keys, the last axis",
        ),
        Wrong(
            with_weights(lambda q, k: (q @ k.mT).flatten(1).softmax(1).view(len(q), q.shape[1], -1)),
            "one softmax over all pairs makes the whole matrix sum to 1; each row needs one of its own",
        ),
        Wrong(
            with_weights(lambda q, k: q @ k.mT),
            "the scores are used as weights as they are; the softmax over the keys is missing",
        ),
        Wrong(
            with_weights(lambda q, k: q @ k.mT / k.shape[1]),
            "that is the dot form, divided by the number of places; (14.3) asks for the softmax",
        ),
        Wrong(
            with_weights(lambda q, k: (q @ k.mT / q.shape[2] ** 0.5).softmax(-1)),
            "you scale the scores by 1 over the root of the width, as self-attention does; (14.3) has no scale",
        ),
        Wrong(
            with_weights(lambda q, k: (k @ q.mT).softmax(-1)),
            "theta and phi have changed places: row i of the scores is theta of place i with phi of every place",
        ),
        Wrong(
            with_weights(lambda q, k: (q @ k.mT).softmax(-1).mT),
            "your weights are transposed after the softmax, so that a column sums to 1; drop that transpose",
        ),
        Wrong(
            with_weights(lambda q, k: (q @ q.mT).softmax(-1)),
            "you compare theta with theta; the keys come from W_phi",
        ),
        Wrong(
            with_weights(lambda q, k: (k @ k.mT).softmax(-1)),
            "you compare phi with phi; the queries come from W_theta",
        ),
        Wrong(
            with_weights(lambda q, k: (-(q @ k.mT)).softmax(-1)),
            "your scores have a minus sign, so the least similar place weighs most",
        ),
        Wrong(
            with_weights(lambda q, k: (-torch.cdist(q, k).square() / 2).softmax(-1)),
            "that is the Euclidean form; (14.3) compares by the dot product",
        ),
        Wrong(
            channel_attention,
            "your weights compare channels with channels: put the places in rows before you multiply",
        ),
        Wrong(
            lambda x, W_theta, W_phi, W_g, W_z: (
                x + (attention_map(x, W_theta, W_phi) @ (rows(x) @ W_g.T) @ W_z.T).reshape(x.shape)
            ),
            "you reshape (b, n, c) to (b, c, h, w) without a transpose, which scrambles channels and places: .mT first",
        ),
        Wrong(
            lambda x, W_theta, W_phi, W_g, W_z: x + maps(attention_map(x, W_theta, W_phi) @ rows(x), x),
            "you average x itself; the values are W_g x, and W_z leads back to c channels",
        ),
        Wrong(
            lambda x, W_theta, W_phi, W_g, W_z: (
                x + maps(attention_map(x, W_theta, W_phi) @ (rows(x) @ W_phi.T) @ W_z.T, x)
            ),
            "you average the keys; the values come from W_g",
        ),
        Wrong(
            lambda x, W_theta, W_phi, W_g, W_z: x + maps(rows(x) @ W_g.T @ W_z.T, x),
            "nothing is averaged: every place keeps its own value; multiply by the weights",
        ),
        Wrong(
            lambda x, W_theta, W_phi, W_g, W_z: attention_map(x, W_theta, W_phi),
            "you return the weights P; the block returns features of x's shape",
        ),
        Wrong(
            lambda x, W_theta, W_phi, W_g, W_z: attention_map(x, W_theta, W_phi) @ (rows(x) @ W_g.T),
            "you return y, with `inner` numbers a place; W_z, the way back to (b, c, h, w) and x are missing",
        ),
        Wrong(
            lambda x, W_theta, W_phi, W_g, W_z: rows(non_local(x, W_theta, W_phi, W_g, W_z)),
            "the numbers are right; bring the rows back to the shape of x, (b, c, h, w)",
        ),
        Wrong(
            lambda x, W_theta, W_phi, W_g, W_z: rows(x) @ W_theta,
            "W_theta has shape (inner, c): to multiply every row with it, write X @ W_theta.T",
        ),
        Wrong(
            lambda x, W_theta, W_phi, W_g, W_z: attention_map(x, W_theta, W_phi) @ (rows(x) @ W_g.T) @ W_z,
            "up to y it is right; W_z has shape (c, inner), so write y @ W_z.T",
        ),
        Wrong(
            by_reshape(False),
            "x.reshape to (b, n, c) scrambles channels and places on the way in: flatten(2) first, then .mT",
        ),
        Wrong(
            by_reshape(True),
            "both reshapes scramble channels and places: transpose with .mT on the way in and on the way back",
        ),
        Wrong(
            with_weights(lambda q, k: (q @ k.mT).softmax(-1) / k.shape[1]),
            "you divide by the number of places after the softmax; its rows sum to 1 already",
        ),
        Wrong(
            lambda x, W_theta, *W: non_local(x, W_theta / x.shape[1] ** 0.5, *W),
            "you divide the scores by the root of c; (14.3) has no scale",
        ),
        Wrong(
            with_weights(lambda q, k: (q @ k.mT).sigmoid()),
            "a sigmoid judges each pair alone; the softmax shares 1 out over the keys",
        ),
        Wrong(
            with_weights(lambda q, k: (q @ k.mT).exp()),
            "the exponentials are not divided by their sum over the keys yet",
        ),
        Wrong(
            lambda x, W_theta, W_phi, W_g, W_z: (
                x + maps(attention_map(x, W_theta, W_phi) @ (rows(x) @ W_theta.T) @ W_z.T, x)
            ),
            "you average the queries; the values come from W_g",
        ),
        Wrong(
            lambda x, W_theta, W_phi, W_g, W_z: (
                x + maps(attention_map(x, W_theta, W_phi) @ (rows(x) @ W_g.T) @ W_g, x)
            ),
            "you lead back to c channels with W_g; that is the task of W_z",
        ),
        Wrong(
            lambda x, *W: (non_local(x, *W), attention_map(x, *W[:2])),
            "the features are right; return them alone, without the weights",
        ),
        Wrong(
            lambda x, W_theta, W_phi, W_g, W_z: maps(attention_map(x, W_theta, W_phi) @ (rows(x) @ W_g.T), x),
            "you return y as a map of `inner` channels; W_z, the way back to c channels, and x are missing",
        ),
        Wrong(
            lambda x, W_theta, W_phi, W_g, W_z: rows(non_local(x, W_theta, W_phi, W_g, W_z) - x),
            "what was gathered is right; bring it back to (b, c, h, w), and add x",
        ),
    ),
)


# 14.2 the price ------------------------------------------------------------------------------------------


def non_local_price(channels: int, height: int, width: int, pool: bool) -> tuple[int, int]:
    inner, n = channels // 2, height * width
    m = (height // 2) * (width // 2) if pool else n
    parameters = 4 * channels * inner + 3 * inner + channels + 2 * channels
    return parameters, 2 * (n + m) * channels * inner + 2 * n * m * inner


def non_local_price_closed(channels: int, height: int, width: int, pool: bool) -> tuple:
    n = height * width
    m = n // 4 if pool else n
    return 2 * channels**2 + 4.5 * channels, (n + m) * channels**2 + n * m * channels


def non_local_price_by_layer(channels: int, height: int, width: int, pool: bool) -> list[int]:
    c, d, n = channels, channels // 2, height * width
    m = n // 4 if pool else n
    layers = [(c, d, n), (c, d, m), (c, d, m), (d, c, n)]
    parameters = sum(i * o + o for i, o, _ in layers) + 2 * c
    return [parameters, sum(i * o * places for i, o, places in layers) + n * m * d + n * m * d]


def price_with(parameters=None, macs=None):
    """A wrong price: one of the two numbers, or both, by another formula of c, n and m."""

    def price(channels, height, width, pool):
        n = height * width
        m = n // 4 if pool else n
        right = non_local_price(channels, height, width, pool)
        return (
            parameters(channels, n, m) if parameters else right[0],
            macs(channels, n, m) if macs else right[1],
        )

    return price


PRICE = Exercise(
    reference=non_local_price,
    right=(non_local_price_closed, non_local_price_by_layer),
    inputs=lambda: [(64, 8, 8, False), (96, 6, 10, False), (64, 8, 12, True)],
    praise="Exact, with pooling and without.",
    wrong=(
        Wrong(
            price_with(parameters=lambda c, n, m: 2 * c**2),
            "your MACs are right; the parameters are the weights alone: add the biases of four convolutions and the 2c of the norm",
        ),
        Wrong(
            price_with(parameters=lambda c, n, m: 2 * c**2 + 2.5 * c),
            "your MACs are right; the batch norm's scale and shift, 2c, are missing from the parameters",
        ),
        Wrong(
            price_with(parameters=lambda c, n, m: 2 * c**2 + 2 * c),
            "your MACs are right; you count the norm but no biases: theta, phi and g have c/2 each, W_z has c",
        ),
        Wrong(
            price_with(parameters=lambda c, n, m: 2 * c**2 + 3 * c),
            "your MACs are right; theta, phi and g have biases too, c/2 each",
        ),
        Wrong(
            price_with(parameters=lambda c, n, m: 2 * c**2 + 4 * c),
            "your MACs are right; W_z puts out c channels, so it has c biases, not c/2",
        ),
        Wrong(
            price_with(parameters=lambda c, n, m: 1.5 * c**2 + 1.5 * c + 2 * c),
            "your MACs are right; you count theta, phi and g, and W_z with its c biases is missing from the parameters",
        ),
        Wrong(
            price_with(parameters=lambda c, n, m: 4 * c**2 + 6 * c),
            "your MACs are right; the convolutions inside have c/2 channels, so each has half of c squared weights",
        ),
        Wrong(
            price_with(macs=lambda c, n, m: (n + m) * c**2),
            "your parameters are right; the MACs of the pairs are missing: scores and averages take n m c/2 each",
        ),
        Wrong(
            price_with(macs=lambda c, n, m: (n + m) * c**2 + n * m * c // 2),
            "your parameters are right; you count the pairs once: scores take n m c/2, and the averages as many again",
        ),
        Wrong(
            price_with(macs=lambda c, n, m: (n + m) * c**2 + 2 * n * m * c),
            "your parameters are right; the pairs are compared in c/2 channels, not in c",
        ),
        Wrong(
            price_with(macs=lambda c, n, m: n * m * c),
            "your parameters are right; the four convolutions are missing from the MACs: each weight is used at every place",
        ),
        Wrong(
            price_with(macs=lambda c, n, m: 2 * c**2 + n * m * c),
            "your parameters are right; the convolutions run at every place, so their MACs grow with the map",
        ),
        Wrong(
            price_with(macs=lambda c, n, m: 2 * n * c**2 + n * m * c),
            "without pooling you are right; with it, phi and g run on a quarter of the places",
        ),
        Wrong(
            price_with(macs=lambda c, n, m: 2 * n * c**2 + n * n * c),
            "you take no notice of pool: with it there are h/2 times w/2 keys and values",
        ),
        Wrong(
            price_with(macs=lambda c, n, m: 2 * m * c**2 + m * m * c),
            "pooling thins out keys and values only: theta, W_z and the queries keep all the places",
        ),
        Wrong(
            price_with(
                macs=lambda c, n, m: (n + m) * c**2 + n * m * c if m == n else 1.5 * n * c**2 + n * n * c / 2
            ),
            "a 2 x 2 pooling leaves a quarter of the places, not half",
        ),
        Wrong(
            lambda c, h, w, pool: non_local_price(c, h, w, pool)[::-1],
            "the two numbers are right, in the wrong order: parameters first, then MACs",
        ),
        Wrong(
            lambda c, h, w, pool: non_local_price(c, h, w, pool)[0],
            "you return one number; the exercise asks for two, parameters and MACs",
        ),
        Wrong(
            price_with(
                parameters=lambda c, n, m: 2 * c**2,
                macs=lambda c, n, m: 2 * n * c**2 + n * n * c,
            ),
            "two things: count biases and norm among the parameters, and let pool thin out keys and values",
        ),
        Wrong(
            price_with(
                parameters=lambda c, n, m: 2 * c**2 + 2.5 * c,
                macs=lambda c, n, m: 2 * n * c**2 + n * n * c,
            ),
            "two things: the norm's 2c parameters are missing, and pool should thin out keys and values",
        ),
        Wrong(
            price_with(
                parameters=lambda c, n, m: 2 * c**2,
                macs=lambda c, n, m: (n + m) * c**2,
            ),
            "two things: biases and norm are missing from the parameters, and scores and averages from the MACs",
        ),
        Wrong(
            price_with(
                parameters=lambda c, n, m: 4 * c**2 + 6 * c,
                macs=lambda c, n, m: 2 * (n + m) * c**2 + 2 * n * m * c,
            ),
            "inside the block there are c/2 channels; both of your numbers have c there",
        ),
        Wrong(
            price_with(macs=lambda c, n, m: 2 * (n + m) * c**2 + 2 * n * m * c),
            "your parameters are right; a multiplication and its addition count as one MAC, or else you have c for c/2",
        ),
        Wrong(
            price_with(parameters=lambda c, n, m: 2 * c**2 + 3.5 * c),
            "your MACs are right; the norm has a shift as well as a scale for each of its c channels",
        ),
        Wrong(
            price_with(parameters=lambda c, n, m: 2 * c**2 + 6.5 * c),
            "your MACs are right; the norm's running mean and variance are not learnt, so they are no parameters",
        ),
        Wrong(
            price_with(
                macs=lambda c, n, m: (n + m) * c**2 + n * m * c + (n + m) * c // 2 + n * c // 2 + n * c
            ),
            "your parameters are right; adding a bias is no multiply-accumulate here",
        ),
        Wrong(
            price_with(macs=lambda c, n, m: (n + m) * c**2 + m * m * c),
            "with pooling the n queries stay, so there are n m pairs, not m m",
        ),
    ),
)


# 14.3 one round of expectation-maximisation --------------------------------------------------------------


def one_round(x: Tensor, mu: Tensor) -> tuple[Tensor, Tensor]:
    r = (x @ mu.T).softmax(1)
    means = r.T @ x / r.sum(0)[:, None]
    return r, means / means.norm(dim=1, keepdim=True)


def one_round_einsum(x: Tensor, mu: Tensor) -> tuple[Tensor, Tensor]:
    scores = torch.einsum("nc,kc->nk", x, mu).exp()
    r = scores / scores.sum(1, keepdim=True)
    sums = torch.einsum("nk,nc->kc", r, x)
    return r, F.normalize(sums, dim=1)  # a common factor does not change a direction


def one_round_by_basis(x: Tensor, mu: Tensor) -> list[Tensor]:
    r = F.softmax(torch.stack([mu @ row for row in x]), dim=-1)
    means = [(r[:, k, None] * x).sum(0) / r[:, k].sum() for k in range(len(mu))]
    return [r, torch.stack([mean / mean.square().sum().sqrt() for mean in means])]


def one_round_by_distances(x: Tensor, mu: Tensor) -> tuple[Tensor, Tensor]:
    """The same for bases of one length, by (14.5)."""
    r = (-torch.cdist(x, mu).square() / 2).softmax(1)
    return r, F.normalize(r.T @ x, dim=1)


def round_inputs() -> list[tuple]:
    return [
        (2 * ramp(7, 4), F.normalize(ramp(3, 4, step=0.9), dim=1)),
        (3 * ramp(6, 5, step=0.8), F.normalize(ramp(2, 5, step=1.1), dim=1)),
    ]


def other_bases(bases):
    """A wrong round whose responsibilities are right."""
    return lambda x, mu: (one_round(x, mu)[0], bases(x, mu, one_round(x, mu)[0]))


def other_shares(shares):
    """A wrong round whose M step is right, with wrong responsibilities."""

    def wrong(x, mu):
        r = shares(x, mu)
        return r, F.normalize(r.T @ x / r.sum(0)[:, None], dim=1)

    return wrong


ROUND = Exercise(
    reference=one_round,
    right=(one_round_einsum, one_round_by_basis, one_round_by_distances),
    inputs=round_inputs,
    praise="Equations (14.15) and (14.16): a soft k-means with dot products.",
    wrong=(
        Wrong(
            other_shares(lambda x, mu: (x @ mu.T).softmax(0)),
            "your softmax runs over the places; in the E step each place shares itself out over the bases, axis 1",
        ),
        Wrong(
            other_shares(lambda x, mu: x @ mu.T),
            "the scores are not shares yet: the softmax over the bases is missing from the E step",
        ),
        Wrong(
            other_shares(lambda x, mu: (x @ mu.T).sigmoid()),
            "a sigmoid lets a place belong to several bases in full; the E step has a softmax over the bases",
        ),
        Wrong(
            other_shares(lambda x, mu: (x @ mu.T / x.shape[1] ** 0.5).softmax(1)),
            "you scale the scores by 1 over the root of c; (14.15) has no scale",
        ),
        Wrong(
            other_shares(lambda x, mu: F.one_hot((x @ mu.T).argmax(1), len(mu)).to(x.dtype)),
            "you give each place to its best basis alone; (14.15) shares it out softly",
        ),
        Wrong(
            other_shares(lambda x, mu: (-(x @ mu.T)).softmax(1)),
            "your scores have a minus sign, so a place goes to the basis that fits it least",
        ),
        Wrong(
            other_bases(lambda x, mu, r: r.T @ x / r.sum(0)[:, None]),
            "the responsibilities and the means are right; divide each basis by its length at the end of the M step",
        ),
        Wrong(
            other_bases(lambda x, mu, r: r.T @ x),
            "your bases are sums; divide by the sum of the responsibilities, and then by the length",
        ),
        Wrong(
            other_bases(lambda x, mu, r: r.T @ x / len(x)),
            "you divide the sums by the number of places; each basis ends with length 1",
        ),
        Wrong(
            other_bases(lambda x, mu, r: F.normalize(r.T @ x / r.sum(0)[:, None], dim=0)),
            "you normalise over the bases; each basis, a row, gets length 1: dim=1",
        ),
        Wrong(
            other_bases(lambda x, mu, r: F.normalize(r.T @ x, p=1, dim=1)),
            "your rows have absolute values that sum to 1; the length is the root of the sum of squares",
        ),
        Wrong(
            other_bases(lambda x, mu, r: (r.T @ x).softmax(1)),
            "a softmax is no way to length 1; divide each row by its Euclidean length",
        ),
        Wrong(
            other_bases(lambda x, mu, r: F.normalize(mu + r.T @ x, dim=1)),
            "you add the old bases; the M step forgets them",
        ),
        Wrong(
            other_bases(lambda x, mu, r: F.normalize(0.9 * mu + 0.1 * F.normalize(r.T @ x, dim=1), dim=1)),
            "that is the moving average of update_bases; within a round the new bases replace the old",
        ),
        Wrong(
            other_bases(lambda x, mu, r: mu),
            "the bases have not moved: the M step is missing",
        ),
        Wrong(
            other_bases(lambda x, mu, r: F.normalize((x @ mu.T).softmax(0).T @ x, dim=1)),
            "the M step uses the responsibilities of the E step, normalised over the bases; yours come from another softmax",
        ),
        Wrong(
            lambda x, mu: one_round(x, mu)[::-1],
            "both are right, in the wrong order: responsibilities first, then bases",
        ),
        Wrong(
            lambda x, mu: one_round(x, mu)[0] @ one_round(x, mu)[1],
            "you return the rebuilt map r mu; the exercise asks for r and the new mu",
        ),
        Wrong(
            lambda x, mu: ((x @ one_round(x, mu)[1].T).softmax(1), one_round(x, mu)[1]),
            "you repeat the E step with the new bases; one round ends with the M step",
        ),
        Wrong(
            lambda x, mu: one_round(x, mu)[1],
            "you return the bases alone; the exercise asks for the responsibilities too",
        ),
        Wrong(
            lambda x, mu: (one_round(x, mu)[0].T, one_round(x, mu)[1]),
            "your responsibilities are (K, n); one row a place is wanted: (n, K)",
        ),
        Wrong(
            lambda x, mu: (one_round(x, mu)[0], one_round(x, mu)[1].T),
            "your bases are (c, K); one row a basis is wanted: (K, c)",
        ),
        Wrong(
            lambda x, mu: one_round(x, mu)[0],
            "you return the responsibilities alone; the exercise asks for the new bases too",
        ),
        Wrong(
            lambda x, mu: one_round(x, one_round(x, mu)[1]),
            "that is two rounds; the exercise asks for one",
        ),
        Wrong(
            lambda x, mu: one_round(x, one_round(x, one_round(x, mu)[1])[1]),
            "those are three rounds, the whole of the loop; the exercise asks for one",
        ),
        Wrong(
            lambda x, mu: one_round(F.normalize(x, dim=1), mu),
            "you give the places length 1; only the bases get it",
        ),
        Wrong(
            other_bases(lambda x, mu, r: (m := r.T @ x / r.sum(0)[:, None]) / m.norm()),
            "you divide all bases by one length, that of the whole table; each row has its own: dim=1, keepdim=True",
        ),
        Wrong(
            other_bases(
                lambda x, mu, r: (m := r.T @ x / r.sum(0)[:, None]) / m.square().sum(1, keepdim=True)
            ),
            "you divide by the squared length; take its root",
        ),
        Wrong(
            other_shares(lambda x, mu: (-torch.cdist(x, mu)).softmax(1)),
            "your score is the distance with a minus sign; by (14.5) half its square would do, or the dot product",
        ),
    ),
)


# 14.4 mend a published mistake ---------------------------------------------------------------------------


def mended(x: Tensor) -> Tensor:
    distance = torch.cdist(rows(x), rows(x))
    return x + maps((-distance.square() / 2).softmax(2) @ rows(x), x)


def mended_by_dot_products(x: Tensor) -> Tensor:
    pixels = rows(x)
    scores = pixels @ pixels.mT - pixels.square().sum(2)[:, None] / 2
    return x + maps(scores.softmax(2) @ pixels, x)


def mended_without_softmax(x: Tensor) -> Tensor:
    difference = rows(x)[:, :, None] - rows(x)[:, None]
    weights = torch.exp(-(difference**2).sum(-1) / 2)
    weights = weights / weights.sum(2, keepdim=True)
    return x + torch.einsum("bnm,bcm->bcn", weights, x.flatten(2)).view(x.shape)


def by_distance(weights, residual=1.0):
    """A block that weighs pixels by ``weights`` of their distances."""
    return lambda x: residual * x + maps(weights(torch.cdist(rows(x), rows(x))) @ rows(x), x)


MEND = Exercise(
    reference=mended,
    right=(mended_by_dot_products, mended_without_softmax),
    inputs=lambda: [(1.5 * ramp(2, 3, 2, 3),), (1.2 * ramp(1, 5, 3, 3, step=0.8),)],
    tolerance=1e-5,
    praise="Near places weigh most, and each place keeps what it had.",
    wrong=(
        Wrong(
            by_distance(lambda d: d / d.sum(2, keepdim=True), 0),
            "this is still the published form: the farthest pixel weighs most, and a pixel gives itself nothing",
        ),
        Wrong(
            by_distance(lambda d: d / d.sum(2, keepdim=True)),
            "the residual is there now; the weights still grow with the distance",
        ),
        Wrong(
            by_distance(lambda d: (-d.square() / 2).softmax(2), 0),
            "the weights are right; the residual is missing: add x, as (14.2) does",
        ),
        Wrong(
            by_distance(lambda d: (-d / 2).softmax(2)),
            "your score is half the distance with a minus sign; (14.4) has half its square",
        ),
        Wrong(
            by_distance(lambda d: (-d).softmax(2)),
            "your score is the distance with a minus sign; (14.4) has its square, halved",
        ),
        Wrong(
            by_distance(lambda d: (-d.square()).softmax(2)),
            "the factor 1/2 in front of the squared distance is missing",
        ),
        Wrong(
            by_distance(lambda d: (d.square() / 2).softmax(2)),
            "the minus sign is missing: with it a distant pixel gets a small weight, without it a large one",
        ),
        Wrong(
            by_distance(lambda d: d.softmax(2)),
            "a softmax of the distances themselves still favours the farthest pixel; the score needs a minus sign and a square",
        ),
        Wrong(
            by_distance(lambda d: torch.exp(-d.square() / 2)),
            "your weights do not sum to 1 over the keys; divide by their sum, or take the softmax of the scores",
        ),
        Wrong(
            by_distance(lambda d: -d.square() / 2),
            "these are the scores; a softmax over the keys makes weights of them",
        ),
        Wrong(
            by_distance(lambda d: (-d.square() / 2).softmax(1).mT.softmax(2)),
            "there are two softmaxes, one behind the other; one is enough",
        ),
        Wrong(
            lambda x: x + maps((-torch.cdist(rows(x), rows(x)).square() / 2).softmax(0) @ rows(x), x),
            "your softmax runs over the images of the batch; it belongs over the keys, the last axis",
        ),
        Wrong(
            by_distance(lambda d: (-d.square() / 2).softmax(1)),
            "your softmax runs over axis 1, the queries; the weights of one pixel sum to 1 over axis 2",
        ),
        Wrong(
            by_distance(lambda d: (1 / (1 + d)) / (1 / (1 + d)).sum(2, keepdim=True)),
            "one over one plus the distance also favours the near, but it is not the Gaussian of (14.4)",
        ),
        Wrong(
            by_distance(lambda d: (1 - d / d.amax(2, keepdim=True)).softmax(2)),
            "you turn the distances round by hand; take the Gaussian of (14.4)",
        ),
        Wrong(
            lambda x: x + maps((rows(x) @ rows(x).mT).softmax(2) @ rows(x), x),
            "that is the Gaussian form of the paper, by dot products; this exercise keeps the distance",
        ),
        Wrong(
            lambda x: (
                x + ((-torch.cdist(rows(x), rows(x)).square() / 2).softmax(2) @ rows(x)).reshape(x.shape)
            ),
            "the reshape without a transpose scrambles channels and places: keep the .mT",
        ),
        Wrong(
            lambda x: x * (mended(x) - x),
            "you multiply x by the averages; the residual of (14.2) is a sum",
        ),
        Wrong(
            lambda x: (mended(x)) / 2,
            "half of the sum is not the sum: (14.2) adds the averages to x",
        ),
        Wrong(
            lambda x: (-torch.cdist(rows(x), rows(x)).square() / 2).softmax(2),
            "you return the weights; the block returns features of x's shape",
        ),
        Wrong(
            lambda x: x,
            "you return x alone; the weighted averages are to be added to it",
        ),
        Wrong(
            lambda x: rows(mended(x)),
            "the numbers are right; bring the rows back to the shape of x with .mT.reshape(x.shape)",
        ),
        Wrong(
            by_distance(lambda d: d.square() / d.square().sum(2, keepdim=True)),
            "the square of the distance grows with it too; the score needs a minus sign and a softmax",
        ),
        Wrong(
            by_distance(lambda d: -d.square() / (-d.square()).sum(2, keepdim=True), 0),
            "a minus sign above and below the line cancels; the exponential of (14.4) is missing, and so is x",
        ),
        Wrong(
            by_distance(lambda d: (-d).softmax(2), 0),
            "near pixels weigh most now; two things are left: half the square in the score, and the residual",
        ),
        Wrong(
            by_distance(lambda d: (-d.square()).softmax(2), 0),
            "two things: the factor 1/2 in front of the squared distance, and the residual",
        ),
        Wrong(
            by_distance(lambda d: d.softmax(2), 0),
            "two things: the far pixels still weigh most, for the minus sign is missing, and so is the residual",
        ),
        Wrong(
            by_distance(lambda d: torch.exp(-d.square() / 2), 0),
            "two things: the weights are not divided by their sum over the keys, and the residual is missing",
        ),
        Wrong(
            by_distance(lambda d: (-d.square() / 2).softmax(1), 0),
            "two things: the softmax runs over the queries, and the residual is missing",
        ),
        Wrong(
            lambda x: maps((rows(x) @ rows(x).mT).softmax(2) @ rows(x), x),
            "two things: this exercise keeps the distance, not the dot product, and the residual is missing",
        ),
        Wrong(
            by_distance(lambda d: 1 - d / d.sum(2, keepdim=True)),
            "one minus the share favours the near, but these weights do not sum to 1; take the Gaussian of (14.4)",
        ),
        Wrong(
            by_distance(lambda d: (-d / d.sum(2, keepdim=True)).softmax(2)),
            "you kept the division of the distances by their sum; the score is minus half the squared distance alone",
        ),
    ),
)


# 14.5 near in the picture too ----------------------------------------------------------------------------


def places(x: Tensor) -> Tensor:
    """Row and column of each place, row by row: (hw, 2)."""
    i, j = torch.meshgrid(*(torch.arange(size, dtype=x.dtype) for size in x.shape[2:]), indexing="ij")
    return torch.stack([i.flatten(), j.flatten()], 1)


def of_features(x: Tensor) -> Tensor:
    return torch.cdist(rows(x), rows(x)).square()


def of_places(x: Tensor) -> Tensor:
    return torch.cdist(places(x), places(x)).square()


def averaged(scores: Tensor, x: Tensor) -> Tensor:
    return maps(scores.softmax(2) @ rows(x), x)


def bilateral(x: Tensor, sigma: float) -> Tensor:
    return averaged(-of_features(x) / 2 - of_places(x) / (2 * sigma**2), x)


def bilateral_by_concatenation(x: Tensor, sigma: float) -> Tensor:
    """The places are two more channels, divided by sigma."""
    more = more_rows(x, sigma)
    return averaged(more @ more.mT - more.square().sum(2)[:, None] / 2, x)


def bilateral_by_loops(x: Tensor, sigma: float) -> Tensor:
    h, w = x.shape[2:]
    result = torch.zeros_like(x)
    for i in range(h):
        for j in range(w):
            features = (x - x[:, :, i : i + 1, j : j + 1]).square().sum(1)
            down = (torch.arange(h, dtype=x.dtype) - i).square()[:, None]
            across = (torch.arange(w, dtype=x.dtype) - j).square()
            weights = torch.exp(-features / 2) * torch.exp(-(down + across) / (2 * sigma**2))
            weights = weights / weights.sum((1, 2), keepdim=True)
            result[:, :, i, j] = (weights[:, None] * x).sum((2, 3))
    return result


def bilateral_with(scores):
    return lambda x, sigma: averaged(scores(of_features(x), of_places(x), sigma), x)


def wrong_order(x: Tensor) -> Tensor:
    """Squared distances of places counted column by column."""
    i, j = torch.meshgrid(*(torch.arange(size, dtype=x.dtype) for size in x.shape[2:]), indexing="ij")
    places = torch.stack([i.T.flatten(), j.T.flatten()], 1)
    return torch.cdist(places, places).square()


def more_rows(x: Tensor, sigma: float) -> Tensor:
    """The features with row / sigma and column / sigma as two more channels: (b, hw, c + 2)."""
    return torch.cat([rows(x), (places(x) / sigma).expand(len(x), -1, -1)], 2)


def along(axis: int, x: Tensor) -> Tensor:
    return (places(x)[:, None, axis] - places(x)[:, axis]).square()


BILATERAL = Exercise(
    reference=bilateral,
    right=(bilateral_by_concatenation, bilateral_by_loops),
    inputs=lambda: [(1.5 * ramp(2, 3, 2, 4), 1.5), (ramp(1, 4, 4, 3, step=0.8), 0.8)],
    tolerance=1e-5,
    praise="Alike and near: this is the bilateral filter, and it is a non-local operation with two more channels.",
    wrong=(
        Wrong(
            bilateral_with(lambda f, p, s: -f / 2 + 0 * p),
            "the places do not count yet: their squared distance over 2 sigma squared is missing from the score",
        ),
        Wrong(
            bilateral_with(lambda f, p, s: -p / (2 * s**2) + 0 * f),
            "the features do not count: that is a plain Gaussian blur",
        ),
        Wrong(
            bilateral_with(lambda f, p, s: -f / 2 - p / 2),
            "sigma is not used: the places are measured in units of it",
        ),
        Wrong(
            bilateral_with(lambda f, p, s: -f / 2 - p / (2 * s)),
            "you divide the squared distance by 2 sigma; it is 2 sigma squared",
        ),
        Wrong(
            bilateral_with(lambda f, p, s: -f / 2 - p / s**2),
            "the factor 2 in front of sigma squared is missing",
        ),
        Wrong(
            bilateral_with(lambda f, p, s: -f / 2 - p * s**2 / 2),
            "you multiply by sigma squared; a larger sigma should let places further away count, so divide",
        ),
        Wrong(
            bilateral_with(lambda f, p, s: -f - p / (2 * s**2)),
            "the factor 1/2 in front of the features' squared distance is missing",
        ),
        Wrong(
            bilateral_with(lambda f, p, s: (-f / 2 - p / 2) / s**2),
            "sigma belongs to the places only; you divide the features' part by sigma squared too",
        ),
        Wrong(
            bilateral_with(lambda f, p, s: -f.sqrt() / 2 - p / (2 * s**2)),
            "the distance of the features has to be squared as well",
        ),
        Wrong(
            bilateral_with(lambda f, p, s: -f / 2 - p.sqrt() / (2 * s**2)),
            "the distance of the places has to be squared: di squared plus dj squared, without a root",
        ),
        Wrong(
            bilateral_with(lambda f, p, s: f / 2 + p / (2 * s**2)),
            "both minus signs are missing: the far and the unlike weigh most",
        ),
        Wrong(
            bilateral_with(lambda f, p, s: -f / 2 + p / (2 * s**2)),
            "the minus sign of the places is missing: far places weigh more than near ones",
        ),
        Wrong(
            bilateral_with(lambda f, p, s: f / 2 - p / (2 * s**2)),
            "the minus sign of the features is missing: unlike places weigh more than like ones",
        ),
        Wrong(
            lambda x, sigma: averaged(-of_features(x) / 2 - along(0, x) / (2 * sigma**2), x),
            "only the rows count in your distance of places; add the columns",
        ),
        Wrong(
            lambda x, sigma: averaged(-of_features(x) / 2 - along(1, x) / (2 * sigma**2), x),
            "only the columns count in your distance of places; add the rows",
        ),
        Wrong(
            lambda x, sigma: averaged(-of_features(x) / 2 - wrong_order(x) / (2 * sigma**2), x),
            "your places are counted column by column, and flatten(2) counts them row by row",
        ),
        Wrong(
            lambda x, sigma: x + bilateral(x, sigma),
            "the filter returns the averages; this one has no residual",
        ),
        Wrong(
            lambda x, sigma: maps((-of_features(x) / 2 - of_places(x) / (2 * sigma**2)).exp() @ rows(x), x),
            "your weights do not sum to 1: divide by their sum over the keys, or use the softmax",
        ),
        Wrong(
            lambda x, sigma: maps(
                (-of_features(x) / 2).softmax(2) * (-of_places(x) / (2 * sigma**2)).softmax(1) @ rows(x), x
            ),
            "a product of two softmaxes does not sum to 1; add the scores and take one softmax",
        ),
        Wrong(
            lambda x, sigma: maps(
                ((-of_features(x) / 2).softmax(2) + (-of_places(x) / (2 * sigma**2)).softmax(-1))
                / 2
                @ rows(x),
                x,
            ),
            "the average of two weightings lets a place in that is near or alike; the filter asks for near and alike",
        ),
        Wrong(
            lambda x, sigma: maps(
                (-of_features(x) / 2 - of_places(x) / (2 * sigma**2)).softmax(1) @ rows(x), x
            ),
            "your softmax runs over axis 1, the queries; it belongs over the keys",
        ),
        Wrong(
            lambda x, sigma: (
                (-of_features(x) / 2 - of_places(x) / (2 * sigma**2)).softmax(2) @ rows(x)
            ).reshape(x.shape),
            "the averages are (b, n, c): transpose them with .mT before you bring them to (b, c, h, w)",
        ),
        Wrong(
            lambda x, sigma: (-of_features(x) / 2 - of_places(x) / (2 * sigma**2)).softmax(2),
            "you return the weights; the exercise asks for the filtered map, of x's shape",
        ),
        Wrong(
            lambda x, sigma: rows(bilateral(x, sigma)),
            "the numbers are right; bring the rows back to the shape of x, (b, c, h, w)",
        ),
        Wrong(
            bilateral_with(lambda f, p, s: -f.sqrt() / 2 - p.sqrt() / (2 * s**2)),
            "both distances have to be squared, that of the features and that of the places",
        ),
        Wrong(
            lambda x, sigma: averaged(
                -of_features(x) / 2 - torch.cdist(places(x), places(x), p=1).square() / (2 * sigma**2), x
            ),
            "you add the steps down and across before you square; square each, then add",
        ),
        Wrong(
            lambda x, sigma: maps(
                (-of_features(x) / 2).softmax(2) * (-of_places(x) / (2 * sigma**2)).exp() @ rows(x), x
            ),
            "behind the second factor the weights no longer sum to 1; add the scores and take one softmax",
        ),
        Wrong(
            lambda x, sigma: averaged(-of_features(x) / 2 - of_places(x) / (2 * sigma**4), x),
            "sigma enters with its fourth power: divide the places by sigma, not by its square, or the squares by it once",
        ),
        Wrong(
            lambda x, sigma: averaged(more_rows(x, sigma) @ more_rows(x, sigma).mT, x),
            "these are dot products of features and places together; the distance has half the squared length of j to take off",
        ),
        Wrong(
            lambda x, sigma: (
                (-of_features(x) / 2 - of_places(x) / (2 * sigma**2)).softmax(2) @ more_rows(x, sigma)
            ),
            "you average the places too; they belong in the score, and the values are x alone",
        ),
        Wrong(
            lambda x, sigma: maps(
                (-of_features(x) / 2 - of_places(x) / (2 * sigma**2)).softmax(2) @ more_rows(x, sigma), x
            ),
            "your result has two channels too many: the places belong in the score, not among the values",
        ),
        Wrong(
            lambda x, sigma: averaged(
                -of_features(x) / 2
                - (numbers := torch.arange(x[0, 0].numel(), dtype=x.dtype)).sub(numbers[:, None]).square()
                / (2 * sigma**2),
                x,
            ),
            "you take the distance of the numbers of two places; row and column count apart",
        ),
    ),
)


EXERCISES = {
    "14.a": choice(
        "d",
        {
            "a": "each exponential grows by that factor, and so does the sum that it is divided by",
            "b": "shares sum to 1, whatever was added to the scores",
            "c": "the sum grows, but the exponentials above the line grow by the same factor",
            "e": "all scores grow together, so none gains on another",
        },
        "The factor stands above and below the line and cancels.",
    ),
    "14.b": choice(
        "b",
        {
            "a": "that is A B alone; the product with C costs as much again",
            "c": "you added the numbers of entries; each entry of a product costs one multiplication a summand",
            "d": "that is the price of A (B C), where B C comes first; here A B comes first",
            "e": "the two products come one after the other, so their prices add up",
        },
        "A (B C) gives the same numbers for 800.",
    ),
    "14.c": choice(
        "c",
        {
            "a": "rank 1 would mean that all rows are multiples of one row; here they are combinations of three",
            "b": "there are 50 rows, but all are combinations of the same three",
            "d": "no matrix with 16 columns has a higher rank, but this one has passed through a waist of 3",
            "e": "the two factors have rank 3 at most, but ranks of factors do not add up",
        },
        "Each row is a combination of the three rows of the second factor.",
    ),
    "14.1": BLOCK,
    "14.2": PRICE,
    "14.3": ROUND,
    "14.4": MEND,
    "14.5": BILATERAL,
}
