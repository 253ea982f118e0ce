"""The exercises of 09_efficient_channel_attention."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from attnlib.exercises.checker import Exercise, Wrong, choice, ramp

# 09.1 the band -------------------------------------------------------------------------------------------


def band(kernel: Tensor, channels: int) -> Tensor:
    M, R = kernel.new_zeros(channels, channels), len(kernel) // 2
    for c in range(channels):
        for m in range(max(0, c - R), min(channels, c + R + 1)):
            M[c, m] = kernel[m - c + R]
    return M


def band_by_diagonals(kernel: Tensor, channels: int) -> Tensor:
    R = len(kernel) // 2
    ones = torch.ones(channels, channels, dtype=kernel.dtype)
    parts = [w * (ones.triu(t) - ones.triu(t + 1)) for t, w in enumerate(kernel, start=-R)]
    return sum(parts)


def band_by_convolution(kernel: Tensor, channels: int) -> Tensor:
    one_hot = torch.eye(channels, dtype=kernel.dtype)[:, None]
    return F.conv1d(one_hot, kernel[None, None], padding=len(kernel) // 2)[:, 0].T


def band_by_look_up(kernel: Tensor, channels: int) -> Tensor:
    c = torch.arange(channels)
    at = c[None, :] - c[:, None] + len(kernel) // 2
    inside = (at >= 0) & (at < len(kernel))
    return torch.where(inside, kernel[at.clamp(0, len(kernel) - 1)], 0.0)


def ring(kernel: Tensor, channels: int) -> Tensor:
    M, R = kernel.new_zeros(channels, channels), len(kernel) // 2
    for c in range(channels):
        for t, w in enumerate(kernel):
            M[c, (c + t - R) % channels] += w
    return M


def shifted_band(kernel: Tensor, channels: int, shift: int) -> Tensor:
    R, M = len(kernel) // 2, kernel.new_zeros(channels, channels)
    for c in range(channels):
        for t, w in enumerate(kernel):
            if 0 <= c + t - R + shift < channels:
                M[c, c + t - R + shift] = w
    return M


def band_with_repeated_ends(kernel: Tensor, channels: int) -> Tensor:
    R, M = len(kernel) // 2, kernel.new_zeros(channels, channels)
    for c in range(channels):
        for t, w in enumerate(kernel):
            M[c, min(max(c + t - R, 0), channels - 1)] += w
    return M


def wrapped_at_the_left(kernel: Tensor, channels: int) -> Tensor:
    M, R = kernel.new_zeros(channels, channels), len(kernel) // 2
    for c in range(channels):
        for m in range(c - R, min(channels, c + R + 1)):
            M[c, m] = kernel[m - c + R]
    return M


def band_one_short(kernel: Tensor, channels: int) -> Tensor:
    M, R = kernel.new_zeros(channels, channels), len(kernel) // 2
    for c in range(channels):
        for m in range(max(0, c - R), min(channels, c + R)):
            M[c, m] = kernel[m - c + R]
    return M


def band_without_the_last_channel(kernel: Tensor, channels: int) -> Tensor:
    M, R = kernel.new_zeros(channels, channels), len(kernel) // 2
    for c in range(channels):
        for m in range(max(0, c - R), min(channels - 1, c + R + 1)):
            M[c, m] = kernel[m - c + R]
    return M


def band_without_offset(kernel: Tensor, channels: int) -> Tensor:
    M, R = kernel.new_zeros(channels, channels), len(kernel) // 2
    for c in range(channels):
        for m in range(max(0, c - R), min(channels, c + R + 1)):
            M[c, m] = kernel[m - c]
    return M


def band_of_reach_one(kernel: Tensor, channels: int) -> Tensor:
    M, R = kernel.new_zeros(channels, channels), 1
    for c in range(channels):
        for m in range(max(0, c - R), min(channels, c + R + 1)):
            M[c, m] = kernel[m - c + R]
    return M


def all_wrapped(kernel: Tensor, channels: int) -> Tensor:
    M, R = kernel.new_zeros(channels, channels), len(kernel) // 2
    for c in range(channels):
        for m in range(c - R, c + R + 1):
            M[c, m] = kernel[m - c + R]
    return M


BAND = Exercise(
    reference=band,
    right=(band_by_diagonals, band_by_convolution, band_by_look_up),
    inputs=lambda: [(ramp(3, step=0.9), 6), (ramp(5), 7), (ramp(7, step=0.8), 9), (ramp(1), 3)],
    praise="Your matrix is (9.2) for kernels of 1, 3, 5 and 7 weights.",
    wrong=(
        Wrong(
            lambda w, C: band(w, C).T,
            "your band is the transpose of the right one: row c belongs to the gate of channel c, and w_1 stands "
            "to the right of the diagonal",
        ),
        Wrong(ring, "your band goes round the corner; beyond the first and the last channel there are zeros"),
        Wrong(
            lambda w, C: ring(w, C).T,
            "your band goes round the corner, and it is transposed: there are zeros beyond the ends, and w_1 stands to the right of the diagonal",
        ),
        Wrong(
            lambda w, C: shifted_band(w, C, len(w) // 2),
            "your band begins at the diagonal; it should be centred on it: the middle weight multiplies the channel itself",
        ),
        Wrong(
            lambda w, C: shifted_band(w, C, -(len(w) // 2)),
            "your band ends at the diagonal; it should be centred on it: the middle weight multiplies the channel itself",
        ),
        Wrong(
            lambda w, C: shifted_band(w, C, 1),
            "your band is one place too far to the right: kernel[R] is the weight of the channel itself",
        ),
        Wrong(
            lambda w, C: shifted_band(w, C, -1),
            "your band is one place too far to the left: kernel[R] is the weight of the channel itself",
        ),
        Wrong(
            lambda w, C: band(w, C)[len(w) // 2 : C - len(w) // 2],
            "the rows at both ends are missing: with zero padding every channel has a gate, so M is C x C",
        ),
        Wrong(
            lambda w, C: F.pad(band(w, C), (len(w) // 2, len(w) // 2)),
            "you keep the columns of the padding; they multiply zeros, so M has C columns only",
        ),
        Wrong(
            band_with_repeated_ends,
            "at the ends you repeat the first and the last channel; ECA pads with zeros",
        ),
        Wrong(
            lambda w, C: w[len(w) // 2] * torch.eye(C, dtype=w.dtype),
            "you fill the diagonal only; the neighbours' weights belong on the diagonals beside it",
        ),
        Wrong(lambda w, C: band(w, C).triu(), "you fill the upper half only; a window reaches to both sides"),
        Wrong(lambda w, C: band(w, C).tril(), "you fill the lower half only; a window reaches to both sides"),
        Wrong(
            lambda w, C: (band(w, C) != 0).to(w.dtype),
            "the places are right; write the weights there, not ones",
        ),
        Wrong(
            lambda w, C: band(w, C) / band(w, C).sum(1, keepdim=True),
            "your rows sum to 1: nothing is normalised here, the weights go in as they are",
        ),
        Wrong(
            lambda w, C: band(torch.cat([w[: len(w) // 2 + 1], w[: len(w) // 2].flip(0)]), C),
            "you use the left part of the kernel on both sides; it has k weights, and w_(-1) and w_1 may differ",
        ),
        Wrong(
            lambda w, C: w.expand(C, len(w)),
            "you repeat the kernel in every row; row c of M has the kernel's middle in column c, and is C wide",
        ),
        Wrong(
            lambda w, C: torch.stack([F.pad(w, (0, C - len(w)))] * C),
            "all your rows are the same; the kernel moves one column to the right from row to row",
        ),
        Wrong(
            wrapped_at_the_left,
            "in the first rows m becomes negative, and M[c, -1] is the last column; begin at max(0, c - R)",
        ),
        Wrong(
            all_wrapped,
            "your m leaves the matrix on both sides, where M[c, -1] is the last column and M[c, C] an error; stay "
            "between 0 and C - 1",
        ),
        Wrong(
            band_one_short,
            "the last weight of every row is missing: a range stops before its end, so it ends at c + R + 1",
        ),
        Wrong(
            band_without_the_last_channel,
            "the last column is empty: a range stops before its end, so its bound is C, not C - 1",
        ),
        Wrong(
            band_without_offset,
            "kernel[m - c] counts from the end where m < c; w_t stands at kernel[t + R], so add R",
        ),
        Wrong(
            band_of_reach_one,
            "your R is fixed at 1; the kernel's length gives it: R = (k - 1)/2",
        ),
    ),
)


# 09.2 the kernel rule ------------------------------------------------------------------------------------


def kernel_rule(channels: int, gamma, b) -> int:
    t = (math.log2(channels) + b) / gamma
    return 2 * int(t / 2) + 1


def kernel_by_bump(channels: int, gamma, b) -> int:
    k = int((math.log2(channels) + b) / gamma)
    return k if k % 2 else k + 1


def kernel_by_search(channels: int, gamma, b) -> int:
    t = (math.log2(channels) + b) / gamma
    return min(range(1, 101, 2), key=lambda k: (abs(k - t), -k))


def kernel_by_bit(channels: int, gamma, b) -> int:
    return math.floor(math.log2(channels) / gamma + b / gamma) | 1


def odd(n: int) -> int:
    return n if n % 2 else n + 1


def t_of(channels: int, gamma, b) -> float:
    return (math.log2(channels) + b) / gamma


NOT_AN_INT = (
    "the numbers are right, but a kernel size is a whole number: one of 5.0 is refused by Conv1d; return an "
    "int, for instance int(k)"
)

RULE = Exercise(
    reference=kernel_rule,
    right=(kernel_by_bump, kernel_by_search, kernel_by_bit),
    inputs=lambda: (
        [(C, 2, 1) for C in (2, 4, 7, 8, 16, 31, 32, 64, 127, 128, 256, 300, 512, 2048)]
        + [(64, 1, 0), (8, 3, 6), (256, 3, 2), (40, 1.5, 0.5), (1024, 2, 2)]
    ),
    praise="Nearest odd, and ties go up: right at 8, 128 and 2048 too.",
    whole=NOT_AN_INT,
    wrong=(
        Wrong(lambda C, gamma, b: t_of(C, gamma, b) // 2 * 2 + 1, NOT_AN_INT),
        Wrong(
            lambda C, gamma, b: int(t_of(C, gamma, b)),
            "you return even numbers, 2 for 16 channels for example: truncation is the first half of the rule, "
            "the nearest odd number the whole",
        ),
        Wrong(
            lambda C, gamma, b: round(t_of(C, gamma, b)),
            "you round to the nearest whole number; the kernel must be odd",
        ),
        Wrong(
            lambda C, gamma, b: odd(round(t_of(C, gamma, b))),
            "you round before you make it odd: t = 3.5 then becomes 4 and 5, although 3 is nearer",
        ),
        Wrong(
            lambda C, gamma, b: odd(math.ceil(t_of(C, gamma, b))),
            "you round up before you make it odd: t = 3.5 then becomes 4 and 5, although 3 is nearer",
        ),
        Wrong(
            lambda C, gamma, b: int(t_of(C, gamma, b)) + 1,
            "you add 1 always; only an even result needs it",
        ),
        Wrong(
            lambda C, gamma, b: math.ceil(t_of(C, gamma, b)),
            "you return the next whole number above t; the kernel must be odd",
        ),
        Wrong(
            lambda C, gamma, b: min(range(1, 101, 2), key=lambda k: (abs(k - t_of(C, gamma, b)), k)),
            "right but for the ties: at 8, 128 and 2048 channels t is even, two odd numbers are equally near, "
            "and the authors' code takes the larger one, see (9.7)",
        ),
        Wrong(
            lambda C, gamma, b: int(t_of(C, gamma, b)) - (int(t_of(C, gamma, b)) % 2 == 0),
            "you go down from an even number; between an even number and the next one the odd one above is nearer",
        ),
        Wrong(
            lambda C, gamma, b: odd(int((math.log(C) + b) / gamma)),
            "you take the natural logarithm; the rule counts doublings: log2",
        ),
        Wrong(
            lambda C, gamma, b: odd(int((math.log10(C) + b) / gamma)),
            "you take the logarithm to base 10; the rule counts doublings: log2",
        ),
        Wrong(
            lambda C, gamma, b: odd(int(math.log2(C) / gamma + b)),
            "gamma divides b too: t = (log2 C + b) / gamma, see (9.6)",
        ),
        Wrong(
            lambda C, gamma, b: odd(int((math.log2(C) - b) / gamma)),
            "the sign of b: C = 2^(gamma k - b) gives gamma k = log2 C + b, see (9.6)",
        ),
        Wrong(
            lambda C, gamma, b: odd(int(math.log2(C) / gamma)),
            "b is missing: t = (log2 C + b) / gamma, see (9.6)",
        ),
        Wrong(
            lambda C, gamma, b: odd(int(math.log2(C) + b)),
            "gamma is missing: t = (log2 C + b) / gamma, see (9.6)",
        ),
        Wrong(
            lambda C, gamma, b: odd(int((math.log2(C) + 1) / 2)),
            "right for gamma = 2 and b = 1; use the arguments, other values are asked for too",
        ),
        Wrong(
            lambda C, gamma, b: odd(int((C + b) / gamma)),
            "the logarithm is missing: the rule is exponential in k, C = 2^(gamma k - b)",
        ),
        Wrong(
            lambda C, gamma, b: odd(int((math.log2(C) + b) * gamma)),
            "you multiply by gamma; solving C = 2^(gamma k - b) for k divides by it",
        ),
        Wrong(
            lambda C, gamma, b: max(3, kernel_rule(C, gamma, b)),
            "you never return 1; some copies do that, the rule itself gives 1 for 4 channels",
        ),
        Wrong(
            lambda C, gamma, b: t_of(C, gamma, b),
            "that is t, before rounding; a kernel has a whole and odd number of weights",
        ),
        Wrong(
            lambda C, gamma, b: 2 * round(t_of(C, gamma, b) / 2) + 1,
            "close: with t between two even numbers 2m and 2m + 2 the odd number is 2m + 1, so truncate t/2, do not round it",
        ),
        Wrong(
            lambda C, gamma, b: 2 * round((t_of(C, gamma, b) - 1) / 2) + 1,
            "a good idea, but at a tie Python rounds a half to the even side, so 8 channels get 1 and 128 get 5; ties "
            "go up, see (9.7)",
        ),
        Wrong(
            lambda C, gamma, b: odd(int(math.log2(C) + b / gamma)),
            "brackets are missing: gamma divides log2 C and b, the whole sum",
        ),
        Wrong(
            lambda C, gamma, b: int(t_of(C, gamma, b)) + int(t_of(C, gamma, b)) % 2,
            "the parity is the wrong way round: n % 2 is 1 for an odd n, and an odd n stays as it is",
        ),
        Wrong(
            lambda C, gamma, b: 2 * int(t_of(C, gamma, b) / 2),
            "your numbers are all even: the odd one between 2i and 2i + 2 is 2i + 1",
        ),
        Wrong(
            lambda C, gamma, b: 2 * int(t_of(C, gamma, b)) + 1,
            "the half is missing: t/2 is truncated, not t, see (9.7)",
        ),
    ),
)


# 09.3 the kernel's gradient ------------------------------------------------------------------------------


def kernel_gradient(grad_v: Tensor, z: Tensor, k: int) -> Tensor:
    R, C = k // 2, z.shape[1]
    padded = F.pad(z, (R, R))
    return torch.stack([(grad_v * padded[:, t : t + C]).sum() for t in range(k)])


def kernel_gradient_autograd(grad_v: Tensor, z: Tensor, k: int) -> Tensor:
    w = torch.zeros(1, 1, k, dtype=z.dtype, requires_grad=True)
    F.conv1d(z[:, None], w, padding=k // 2)[:, 0].backward(grad_v)
    return w.grad[0, 0]


def kernel_gradient_by_diagonals(grad_v: Tensor, z: Tensor, k: int) -> Tensor:
    outer = grad_v.T @ z
    return torch.stack([outer.diagonal(t).sum() for t in range(-(k // 2), k // 2 + 1)])


def kernel_gradient_by_loops(grad_v: Tensor, z: Tensor, k: int) -> Tensor:
    grad, R, C = z.new_zeros(k), k // 2, z.shape[1]
    for t in range(-R, R + 1):
        for c in range(C):
            if 0 <= c + t < C:
                grad[t + R] += grad_v[:, c] @ z[:, c + t]
    return grad


def rolled(grad_v: Tensor, z: Tensor, k: int) -> Tensor:
    return torch.stack([(grad_v * z.roll(-t, 1)).sum() for t in range(-(k // 2), k // 2 + 1)])


GRADIENT = Exercise(
    reference=kernel_gradient,
    right=(kernel_gradient_autograd, kernel_gradient_by_diagonals, kernel_gradient_by_loops),
    inputs=lambda: [
        (ramp(2, 5), ramp(2, 5, step=0.8), 3),
        (ramp(3, 7, step=0.6), ramp(3, 7), 5),
        (ramp(1, 4, step=1.1), ramp(1, 4, step=0.5), 1),
    ],
    praise="k numbers, each a sum over all channels and all images: that is (9.9).",
    wrong=(
        Wrong(
            lambda g, z, k: kernel_gradient(g, z, k).flip(0),
            "your gradient is the wrong way round: w_t multiplies the neighbour on the side of t, z_(c+t), see (9.9)",
        ),
        Wrong(
            lambda g, z, k: rolled(g, z, k),
            "your shift goes round the corner (a roll does); beyond the ends z is zero, so pad instead",
        ),
        Wrong(
            lambda g, z, k: rolled(g, z, k).flip(0),
            "your shift goes round the corner, and to the wrong side: pad with zeros, and let t count to the right",
        ),
        Wrong(
            lambda g, z, k: kernel_gradient(g, z, k) / len(z),
            "you average over the images; they share the kernel, so their parts add up",
        ),
        Wrong(
            lambda g, z, k: kernel_gradient(g, z, k) / z.shape[1],
            "you average over the channels; the kernel serves all of them, so their parts add up",
        ),
        Wrong(
            lambda g, z, k: kernel_gradient(g, z, k) / z.numel(),
            "you take a mean over images and channels; they share the kernel, so their parts add up",
        ),
        Wrong(
            lambda g, z, k: torch.stack(
                [(g * F.pad(z, (k // 2, k // 2))[:, t : t + z.shape[1]]).sum(1) for t in range(k)],
                1,
            ),
            "you have a gradient for each image; the images share the kernel, so add them up",
        ),
        Wrong(
            lambda g, z, k: torch.stack(
                [(g * F.pad(z, (k // 2, k // 2))[:, t : t + z.shape[1]]).sum(0) for t in range(k)]
            ),
            "you have a gradient for each channel; the channels share the kernel, so add them up",
        ),
        Wrong(
            lambda g, z, k: (g * z).sum().expand(k).clone(),
            "all your numbers are the same: for w_t the means must be shifted by t against grad_v",
        ),
        Wrong(
            lambda g, z, k: kernel_gradient(g[:1], z[:1], k),
            "you use the first image only; add up over the batch",
        ),
        Wrong(
            lambda g, z, k: kernel_gradient(torch.ones_like(g), z, k),
            "you sum the means; each is weighted by grad_v of the channel whose gate used it, see (9.9)",
        ),
        Wrong(
            lambda g, z, k: torch.stack([g[:, : z.shape[1] - t].mul(z[:, t:]).sum() for t in range(k)]),
            "your shifts run from 0 to k - 1; the window is centred, so they run from -(k-1)/2 to (k-1)/2",
        ),
        Wrong(
            lambda g, z, k: g.T @ z,
            "that is the gradient of a full matrix; in the band the entries of one diagonal share one weight: add them up",
        ),
        Wrong(
            lambda g, z, k: kernel_gradient(g.sigmoid() * (1 - g.sigmoid()), z, k),
            "grad_v has come through the sigmoid already; its slope is not needed any more",
        ),
        Wrong(
            lambda g, z, k: kernel_gradient(g, z, k)[None, None],
            "the numbers are right; the exercise asks for shape (k,)",
        ),
        Wrong(
            lambda g, z, k: -kernel_gradient(g, z, k),
            "the sign: the gradient itself is asked for, not the step that goes down",
        ),
        Wrong(
            lambda g, z, k: (
                torch.stack(
                    [(g * F.pad(z, (k // 2, k // 2))[:, t : t + z.shape[1]]).mean() for t in range(k)]
                )
                .sum()
                .expand(k)
                .clone()
            ),
            "all your numbers are the same, and they are means: shift by t, and sum",
        ),
        Wrong(
            lambda g, z, k: torch.stack(
                [
                    (g[:, k // 2 : z.shape[1] - k // 2] * z[:, i : i + z.shape[1] - k + 1]).sum()
                    for i in range(k)
                ]
            ),
            "you leave out the channels near the ends; they have gates too, with zeros for what lies beyond",
        ),
        Wrong(
            lambda g, z, k: torch.stack(
                [
                    (g * F.pad(z, (k // 2, k // 2), mode="replicate")[:, i : i + z.shape[1]]).sum()
                    for i in range(k)
                ]
            ),
            "you repeat the end channels beyond the ends; there are zeros",
        ),
        Wrong(
            lambda g, z, k: torch.stack(
                [(g * F.pad(z, (k - 1, 0))[:, i : i + z.shape[1]]).sum() for i in range(k)]
            ),
            "all your zeros stand in front, so the shifts run from -(k-1) to 0; half of them belong behind",
        ),
        Wrong(
            lambda g, z, k: kernel_gradient(g, z, k).sum(),
            "you have added up the k numbers too; each weight has a gradient of its own",
        ),
        Wrong(
            lambda g, z, k: torch.stack([(g.T @ z).diagonal(t).sum() for t in range(-(k // 2), k // 2)]),
            "w_R is missing: a range stops before its end, and there are k shifts, from -R to R",
        ),
        Wrong(
            lambda g, z, k: kernel_gradient(g * z.sigmoid() * (1 - z.sigmoid()), z, k),
            "a slope of the sigmoid has got in; grad_v has come through the sigmoid already",
        ),
        Wrong(
            lambda g, z, k: kernel_gradient(g, g, k),
            "you multiply grad_v with itself, shifted; its partner is z",
        ),
    ),
)


# 09.4 mend a published mistake ---------------------------------------------------------------------------


def eca_forward(x: Tensor, kernel: Tensor) -> Tensor:
    v = F.conv1d(x.mean((2, 3))[:, None], kernel[None, None], padding=len(kernel) // 2)
    return x * torch.sigmoid(v).transpose(1, 2)[..., None]


def eca_by_band(x: Tensor, kernel: Tensor) -> Tensor:
    return x * torch.sigmoid(x.mean((2, 3)) @ band(kernel, x.shape[1]).T)[:, :, None, None]


def eca_einsum(x: Tensor, kernel: Tensor) -> Tensor:
    k, C = len(kernel), x.shape[1]
    windows = F.pad(x.mean((2, 3)), (k // 2, k // 2)).unfold(1, k, 1)
    return torch.einsum("bchw,bc->bchw", x, 1 / (1 + torch.exp(-windows @ kernel))[:, :C])


def eca_as_released(x: Tensor, kernel: Tensor) -> Tensor:
    y = x.mean((2, 3), keepdim=True).squeeze(-1).transpose(-1, -2)
    y = F.conv1d(y, kernel[None, None], padding=(len(kernel) - 1) // 2)
    return x * y.transpose(-1, -2).unsqueeze(-1).sigmoid().expand_as(x)


def gate_of(x: Tensor, kernel: Tensor) -> Tensor:
    return torch.sigmoid(x.mean((2, 3)) @ band(kernel, x.shape[1]).T)


def logits_of(x: Tensor, kernel: Tensor) -> Tensor:
    return x.mean((2, 3)) @ band(kernel, x.shape[1]).T


def twice_transposed(x: Tensor, kernel: Tensor) -> Tensor:
    y = x.mean((2, 3), keepdim=True).squeeze(-1).transpose(-1, -2)
    y = F.conv1d(y.transpose(-1, -2), kernel[None, None], padding=(len(kernel) - 1) // 2)
    return x * torch.sigmoid(y.transpose(-1, -2).unsqueeze(-1))


def rows_gated(x: Tensor, kernel: Tensor) -> Tensor:
    return x * gate_of(x, kernel)[:, None, :, None]


def columns_gated(x: Tensor, kernel: Tensor) -> Tensor:
    return x * gate_of(x, kernel)[:, None, None, :]


def each_channel_alone(x: Tensor, kernel: Tensor) -> Tensor:
    return x * torch.sigmoid(x.mean((2, 3)) * kernel[len(kernel) // 2])[:, :, None, None]


MEND = Exercise(
    reference=eca_forward,
    right=(eca_by_band, eca_einsum, eca_as_released),
    inputs=lambda: [
        (ramp(2, 4, 4, 4) + ramp(4)[:, None, None], 2 * ramp(3, step=0.9)),
        (2 * ramp(3, 6, 6, 6, step=0.8) + ramp(6, step=1.1)[:, None, None], ramp(5)),
    ],
    praise="The batch stays first, the one layer of the convolution second, and the channels run last.",
    wrong=(
        Wrong(
            twice_transposed,
            "the convolution still gets (b, c, 1): it takes the c channels for its own input layers, wants one, "
            "and refuses; one of the two transposes in front of it has to go",
        ),
        Wrong(
            rows_gated,
            "it runs because height equals the number of channels here, but you gate rows: behind the convolution "
            "the gate is (b, 1, c), and the channels must go back to the second place",
        ),
        Wrong(
            columns_gated,
            "it runs because width equals the number of channels here, but you gate columns: the gate must be "
            "(b, c, 1, 1)",
        ),
        Wrong(
            each_channel_alone,
            "each of your gates sees its own channel only: the kernel moves over an axis of length 1; it should "
            "move over the channels",
        ),
        Wrong(
            lambda x, w: eca_forward(x, w.flip(0)),
            "your kernel is turned round; a convolution layer of PyTorch does not flip it, see (9.1)",
        ),
        Wrong(
            lambda x, w: x * torch.sigmoid(x.mean((2, 3)) @ ring(w, x.shape[1]).T)[:, :, None, None],
            "your padding goes round the corner; the published code pads with zeros",
        ),
        Wrong(
            lambda x, w: x * logits_of(x, w)[:, :, None, None],
            "the sigmoid has got lost: your gates may be negative or above 1",
        ),
        Wrong(
            lambda x, w: x * logits_of(x, w).softmax(1)[:, :, None, None],
            "your gates sum to 1 over the channels: that is a softmax; ECA has a sigmoid",
        ),
        Wrong(
            lambda x, w: eca_forward(x, w) + x,
            "an x was added; the block returns x times the gate",
        ),
        Wrong(gate_of, "you return the gate, (b, c); give it two more axes and multiply x by it"),
        Wrong(
            lambda x, w: gate_of(x, w)[:, :, None, None],
            "you return the gate, (b, c, 1, 1); multiply x by it",
        ),
        Wrong(
            lambda x, w: gate_of(x, w)[:, :, None, None].expand_as(x),
            "you return the gate; the block returns the features, rescaled",
        ),
        Wrong(
            lambda x, w: x * torch.sigmoid(x.sum((2, 3)) @ band(w, x.shape[1]).T)[:, :, None, None],
            "your gate grows with the size of the map: the squeeze is the mean over the pixels, not their sum",
        ),
        Wrong(
            lambda x, w: x * torch.sigmoid(x.amax((2, 3)) @ band(w, x.shape[1]).T)[:, :, None, None],
            "you squeeze by the maximum; ECA squeezes by the mean",
        ),
        Wrong(
            lambda x, w: x * torch.sigmoid(band(w, len(x)) @ x.mean((2, 3)))[:, :, None, None],
            "your kernel runs over the images of the batch, so one image changes the gates of another",
        ),
        Wrong(
            lambda x, w: x * gate_of(x, w).mean(1)[:, None, None, None],
            "all channels of an image get the same gate; keep one for each channel",
        ),
        Wrong(
            lambda x, w: x * gate_of(x, w).mean(0)[:, None, None],
            "all images get the same gates; each image has gates of its own",
        ),
        Wrong(lambda x, w: x, "now the gate is gone altogether; compute it, and multiply x by it"),
        Wrong(
            lambda x, w: x * torch.sigmoid(x.mean((2, 3)))[:, :, None, None],
            "the convolution is gone: your gate is the sigmoid of the mean itself",
        ),
        Wrong(
            lambda x, w: x * gate_of(x, w).sigmoid()[:, :, None, None],
            "the sigmoid is taken twice, so all your gates lie above one half; once is enough",
        ),
        Wrong(
            lambda x, w: (
                x * F.conv1d(x.mean((2, 3))[:, None], w[None, None]).sigmoid().transpose(1, 2)[..., None]
            ),
            "the padding has got lost, so there are fewer gates than channels; (k - 1)/2 zeros belong at each end",
        ),
        Wrong(
            lambda x, w: (
                x
                * F.conv1d(x.mean((2, 3))[:, None], w[None, None], padding=len(w) - 1)
                .sigmoid()
                .transpose(1, 2)[..., None]
            ),
            "you pad k - 1 zeros at each end, so there are more gates than channels; (k - 1)/2 are enough",
        ),
    ),
)


# 09.5 the view over channels in depth --------------------------------------------------------------------


def channels_seen(c: int, channels: int, kernels: list[int]) -> int:
    reach = sum((k - 1) // 2 for k in kernels)
    return min(channels - 1, c + reach) - max(0, c - reach) + 1


def channels_seen_step_by_step(c: int, channels: int, kernels: list[int]) -> int:
    seen = {c}
    for k in kernels:
        seen = {m for s in seen for m in range(s - k // 2, s + k // 2 + 1) if 0 <= m < channels}
    return len(seen)


def channels_seen_by_matrices(c: int, channels: int, kernels: list[int]) -> int:
    row = torch.eye(channels)[c]
    for k in kernels:
        row = ((row @ band(torch.ones(k), channels)) > 0).float()
    return int(row.sum())


SEEN = Exercise(
    reference=channels_seen,
    right=(channels_seen_step_by_step, channels_seen_by_matrices),
    inputs=lambda: [
        (8, 16, [3]),
        (0, 16, [3, 3]),
        (15, 16, [5, 3, 1]),
        (3, 64, [5, 5, 5]),
        (20, 64, [3, 5, 7]),
        (60, 64, [7, 7]),
        (4, 9, [9, 9]),
        (5, 32, [1, 1, 1, 1]),
        (7, 12, []),
    ],
    praise="Each block adds its reach to both sides, until the ends of the channels stop it.",
    wrong=(
        Wrong(
            lambda c, C, ks: 1 + sum(k - 1 for k in ks),
            "right in the middle; near an end, part of the window lies outside of the channels and sees nothing",
        ),
        Wrong(
            lambda c, C, ks: min(C, 1 + sum(k - 1 for k in ks)),
            "you stop at C, but a window that is cut off at one end does not grow at the other",
        ),
        Wrong(
            lambda c, C, ks: sum(ks),
            "you add the kernels up; neighbouring windows overlap, so each further block adds k - 1",
        ),
        Wrong(
            lambda c, C, ks: min(C, sum(ks)),
            "you add the kernels up, to C at most; windows overlap, so each block adds k - 1, and an end cuts on its own side only",
        ),
        Wrong(
            lambda c, C, ks: math.prod(ks),
            "you multiply the kernels; a window of windows grows by k - 1, it is not k times as wide",
        ),
        Wrong(
            lambda c, C, ks: min(C, math.prod(ks)),
            "you multiply the kernels; a window of windows grows by k - 1 with each block",
        ),
        Wrong(
            lambda c, C, ks: channels_seen(c, C, ks) - 1,
            "one short: the channel itself is seen too",
        ),
        Wrong(
            lambda c, C, ks: channels_seen(c, C, ks) + 1,
            "one too many: from first to last, both included, there are last - first + 1 channels",
        ),
        Wrong(
            lambda c, C, ks: channels_seen(c, C, ks[-1:]),
            "that is what the last block sees of its own input; follow the windows back through the blocks before it",
        ),
        Wrong(
            lambda c, C, ks: channels_seen(c, C, ks[:1]),
            "that is the first block alone; the others widen the window",
        ),
        Wrong(
            lambda c, C, ks: channels_seen(c, C, [max(ks, default=1)]),
            "you take the widest kernel; the reaches of all blocks add up",
        ),
        Wrong(
            lambda c, C, ks: min(C, c + sum(k // 2 for k in ks)) - max(0, c - sum(k // 2 for k in ks)) + 1,
            "the last channel is C - 1, not C: at the right end you count one that does not exist",
        ),
        Wrong(
            lambda c, C, ks: C if ks else 1,
            "that would be so if a dense layer stood between the blocks; the gates alone pass on their neighbours only",
        ),
        Wrong(
            lambda c, C, ks: C,
            "SE sees all channels; a stack of ECA blocks sees a window",
        ),
        Wrong(
            lambda c, C, ks: min(C - 1, c + sum(k - 1 for k in ks)) - max(0, c - sum(k - 1 for k in ks)) + 1,
            "a kernel of k weights reaches (k - 1)/2 to each side, not k - 1",
        ),
        Wrong(
            lambda c, C, ks: (
                min(C - 1, c + sum(k // 2 + 1 for k in ks)) - max(0, c - sum(k // 2 + 1 for k in ks)) + 1
            ),
            "a kernel of k weights reaches (k - 1)/2 to each side, not (k + 1)/2",
        ),
        Wrong(
            lambda c, C, ks: min(C - 1, c + sum(k // 2 for k in ks)) - c + 1,
            "you count to the right only; a window reaches to both sides",
        ),
        Wrong(
            lambda c, C, ks: c - max(0, c - sum(k // 2 for k in ks)) + 1,
            "you count to the left only; a window reaches to both sides",
        ),
        Wrong(
            lambda c, C, ks: min(C, c + sum(k // 2 for k in ks)) - max(0, c - sum(k // 2 for k in ks)),
            "a range stops before its end: the channel c + reach is seen too, so the range ends at c + reach + 1",
        ),
        Wrong(
            lambda c, C, ks: (
                min(C - 1, c + sum(k // 2 for k in ks)) - max(1, c - sum(k // 2 for k in ks)) + 1
            ),
            "channels are numbered from 0, so the first that can be seen is 0, not 1",
        ),
        Wrong(
            lambda c, C, ks: 2 * min(sum(k // 2 for k in ks), c, C - 1 - c) + 1,
            "a window that is cut off at one end still reaches as far as before at the other; cut each side on its own",
        ),
        Wrong(
            lambda c, C, ks: min(C - 1, c + sum(k // 2 for k in ks)) - (c - sum(k // 2 for k in ks)) + 1,
            "you mind the right end only; at the left there is nothing below channel 0",
        ),
        Wrong(
            lambda c, C, ks: c + sum(k // 2 for k in ks) - max(0, c - sum(k // 2 for k in ks)) + 1,
            "you mind the left end only; at the right there is nothing above channel C - 1",
        ),
        Wrong(
            lambda c, C, ks: list(
                range(max(0, c - sum(k // 2 for k in ks)), min(C, c + sum(k // 2 for k in ks) + 1))
            ),
            "these are the right channels; the exercise asks how many they are",
        ),
        Wrong(
            lambda c, C, ks: (max(0, c - sum(k // 2 for k in ks)), min(C - 1, c + sum(k // 2 for k in ks))),
            "these are the first and the last channel; count from one to the other, both included",
        ),
    ),
)


EXERCISES = {
    "09.a": choice(
        "c",
        {
            "a": "60 would be without padding; two zeros at each end give four places back",
            "b": "the length shrinks by k - 1 = 4 and grows by the padding, 2 at each end: count both",
            "d": "both ends are padded, but the window takes 4 away again",
            "e": "a stride of 1 does not shorten anything",
        },
        "Length + 2 x 2 - 5 + 1: an odd kernel with (k-1)/2 zeros at each end keeps the length.",
    ),
    "09.b": choice(
        "b",
        {
            "a": "the product is 64 x 64, but all that passes through it has passed through 4 numbers",
            "c": "rank does not add up; a product has at most the rank of its narrowest factor",
            "d": "rank does not multiply; a product has at most the rank of its narrowest factor",
            "e": "1 would be a hidden layer with one unit",
        },
        "Whatever goes through 4 numbers has 4 degrees of freedom at most.",
    ),
    "09.c": choice(
        "a",
        {
            "b": "that is the kernel (0, 0, 1): the weights lie on the window as they are written, from left to right",
            "c": "the middle weight is 0, so the number at the place itself does not count",
            "d": "with padding nothing is lost at the left: a zero comes in",
            "e": "the window does not go round the corner; a zero comes in",
        },
        "PyTorch does not flip the kernel: its first weight takes the left neighbour.",
    ),
    "09.1": BAND,
    "09.2": RULE,
    "09.3": GRADIENT,
    "09.4": MEND,
    "09.5": SEEN,
}
