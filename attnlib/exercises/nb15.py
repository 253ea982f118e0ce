"""The exercises of 15_efficient_multi_scale."""

import torch
from torch import Tensor
from torch.nn import functional as F

from attnlib.exercises.checker import Exercise, Wrong, choice, ramp

# 15.1 groups and strips ----------------------------------------------------------------------------------


def strips(x: Tensor, groups: int) -> Tensor:
    b, c, h, w = x.shape
    X = x.reshape(b * groups, c // groups, h, w)
    return torch.cat([X.mean(3), X.mean(2)], 2)


def strips_of_the_whole(x: Tensor, groups: int) -> Tensor:
    joined = torch.cat([x.mean(3), x.mean(2)], -1)
    return joined.view(x.shape[0] * groups, x.shape[1] // groups, -1)


def strips_by_loop(x: Tensor, groups: int) -> Tensor:
    images = [part for image in x for part in image.chunk(groups)]
    return torch.stack(
        [torch.cat([part.sum(2) / part.shape[2], part.sum(1) / part.shape[1]], 1) for part in images]
    )


def folded(x: Tensor, groups: int) -> Tensor:
    return x.reshape(len(x) * groups, -1, *x.shape[2:])


STRIPS = Exercise(
    reference=strips,
    right=(strips_of_the_whole, strips_by_loop),
    inputs=lambda: [(ramp(2, 6, 3, 4), 2), (ramp(3, 4, 4, 4), 2), (ramp(1, 8, 2, 5), 4)],
    praise="Your strips equal (15.1) for every group of every image.",
    wrong=(
        Wrong(
            lambda x, groups: torch.cat([folded(x, groups).mean(2), folded(x, groups).mean(3)], 2),
            "the two strips have changed places: the h row means come first, and a row's mean runs over the last axis",
        ),
        Wrong(
            lambda x, groups: torch.cat([folded(x, groups).mean(3), folded(x, groups).mean(2)], 1),
            "you join along the channels; the strips lie end to end along their length, the last axis",
        ),
        Wrong(
            lambda x, groups: torch.cat([folded(x, groups).mean(3), folded(x, groups).mean(2)]),
            "torch.cat joins along the batch unless you say otherwise; the strips lie end to end along the last axis",
        ),
        Wrong(
            lambda x, groups: torch.cat([folded(x, groups).sum(3), folded(x, groups).sum(2)], 2),
            "those are sums; (15.1) divides by the number of places, so take means",
        ),
        Wrong(
            lambda x, groups: torch.cat([folded(x, groups).amax(3), folded(x, groups).amax(2)], 2),
            "those are maxima; the strips of (15.1) are means",
        ),
        Wrong(
            lambda x, groups: torch.cat([x.mean(3), x.mean(2)], 2),
            "the strips are right, and the groups are still side by side: fold them into the batch, to (b groups, d, h + w)",
        ),
        Wrong(
            lambda x, groups: strips(x.unflatten(1, (-1, groups)).transpose(1, 2).flatten(1, 2), groups),
            "your groups take every groups-th channel; the channels of a group are neighbours, 0 to d - 1 for the first",
        ),
        Wrong(
            lambda x, groups: strips(x.unflatten(1, (groups, -1)).transpose(0, 1).flatten(0, 1), 1),
            "your groups come before the images; group after group of the first image comes first, so reshape without a transpose",
        ),
        Wrong(
            lambda x, groups: strips(x, x.shape[1] // groups),
            "you have made d groups of `groups` channels; there are `groups` groups, each of c / groups channels",
        ),
        Wrong(
            lambda x, groups: strips(x, groups).unflatten(0, (-1, groups)),
            "groups and images are still two axes; the course wants one batch of b groups, so flatten them",
        ),
        Wrong(
            lambda x, groups: strips(x, groups)[..., None],
            "the numbers are right, with one axis of size 1 too many: return (b groups, d, h + w)",
        ),
        Wrong(
            lambda x, groups: strips(x, groups).mT,
            "your strips lie across: channels are axis 1 and the h + w numbers are the last axis",
        ),
        Wrong(
            lambda x, groups: (folded(x, groups).mean(3), folded(x, groups).mean(2)),
            "you return the two strips side by side; join them with torch.cat along the last axis",
        ),
        Wrong(
            lambda x, groups: folded(x, groups).mean(3),
            "only the row means are there; the column means come behind them",
        ),
        Wrong(
            lambda x, groups: folded(x, groups).mean(2),
            "only the column means are there; the row means come before them",
        ),
        Wrong(
            lambda x, groups: folded(x, groups),
            "the groups are folded; now take the row means and the column means of each, and join them",
        ),
        Wrong(
            lambda x, groups: torch.cat(
                [folded(x, groups).mean(1).mean(2), folded(x, groups).mean(1).mean(1)], 1
            ),
            "you average over the channels as well; every channel keeps strips of its own",
        ),
        Wrong(
            lambda x, groups: torch.cat([folded(x, groups).mean(2), folded(x, groups).mean(1)], 1),
            "your axes are one too low: axis 1 are the channels, 2 the rows and 3 the columns; take means over 3 and over 2",
        ),
        Wrong(
            lambda x, groups: folded(x, groups).mean((2, 3)),
            "that is one mean a channel; average the rows and the columns each by itself",
        ),
        Wrong(
            lambda x, groups: torch.cat(
                [folded(x, groups).mean(3, keepdim=True), folded(x, groups).mean(2, keepdim=True)], 2
            ),
            "with keepdim=True the two strips still lie across each other, and cannot be joined; leave it out",
        ),
        Wrong(
            lambda x, groups: torch.cat([x.reshape(len(x) * groups, x.shape[1] / groups).mean(3)], 2),
            "c / groups is a float in Python; a shape needs whole numbers, so write c // groups",
        ),
    ),
)


# 15.2 the first softmax ----------------------------------------------------------------------------------


def first_softmax(gamma: Tensor, beta: Tensor) -> Tensor:
    return beta.softmax(0)


def first_softmax_from_exponentials(gamma: Tensor, beta: Tensor) -> Tensor:
    grown = torch.exp(beta)
    return grown / grown.sum()


def first_softmax_of_some_map(gamma: Tensor, beta: Tensor) -> Tensor:
    """Norm any map at all and pool it: the long way."""
    normed = F.group_norm(ramp(1, len(beta), 3, 5), len(beta), gamma, beta)
    return normed.mean((0, 2, 3)).softmax(0)


FIRST = Exercise(
    reference=first_softmax,
    right=(first_softmax_from_exponentials, first_softmax_of_some_map),
    inputs=lambda: [
        (ramp(3), 2 * ramp(3, step=0.9)),
        (ramp(5, step=0.7), 3 * ramp(5, step=1.3)),
        (ramp(1), ramp(1, step=2.0)),
    ],
    praise="The map is not among your arguments, and nothing is missing: that is the whole of (15.8).",
    wrong=(
        Wrong(
            lambda gamma, beta: torch.full_like(beta, 1 / len(beta)),
            "that is right for a new module, where beta is 0; once beta has been learnt, the shares differ",
        ),
        Wrong(
            lambda gamma, beta: beta,
            "those are the means m_1; a_1 is their softmax",
        ),
        Wrong(
            lambda gamma, beta: gamma.softmax(0),
            "gamma says how far a channel varies about its mean; the mean itself is the other parameter",
        ),
        Wrong(
            lambda gamma, beta: (gamma * beta).softmax(0),
            "gamma multiplies only the normed map, whose mean is 0; the shift beta is added afterwards, by itself",
        ),
        Wrong(
            lambda gamma, beta: (gamma + beta).softmax(0),
            "you take the normed map's mean for 1; the distances from a mean sum to 0, so gamma drops out",
        ),
        Wrong(
            lambda gamma, beta: beta.sigmoid(),
            "a_1 is a softmax over the channels, whose entries sum to 1; that is a sigmoid of each",
        ),
        Wrong(
            lambda gamma, beta: beta.log_softmax(0),
            "that is the logarithm of the shares; the softmax itself is wanted",
        ),
        Wrong(
            lambda gamma, beta: (-beta).softmax(0),
            "your sign is reversed: the channel with the largest beta has the largest share",
        ),
        Wrong(
            lambda gamma, beta: (beta / len(beta) ** 0.5).softmax(0),
            "nothing is scaled here; (15.5) takes the softmax of the means as they are",
        ),
        Wrong(
            lambda gamma, beta: beta / beta.sum(),
            "you divide by the sum without the exponential; with negative numbers that makes no shares",
        ),
        Wrong(
            lambda gamma, beta: (beta / gamma).softmax(0),
            "beta is added behind gamma, so it is not divided by it: the mean of a normed channel is beta itself",
        ),
        Wrong(
            lambda gamma, beta: torch.exp(beta),
            "the exponentials still have to be divided by their sum",
        ),
        Wrong(
            lambda gamma, beta: beta.softmax(0)[None],
            "the shares are right, with one axis too many: return the d numbers",
        ),
        Wrong(
            lambda gamma, beta: torch.zeros_like(beta),
            "0 is the mean of the normed map before scale and shift; the shift beta moves it, and then comes the softmax",
        ),
        Wrong(
            lambda gamma, beta: torch.ones_like(beta),
            "all ones are right only for one channel a group; the shares of d channels sum to 1",
        ),
        Wrong(
            lambda gamma, beta: torch.full((len(beta),), 1 / len(beta)),
            "equal shares are right for a new module, where beta is 0; learnt shares differ, and come in beta's dtype",
        ),
        Wrong(
            lambda gamma, beta: gamma * beta.softmax(0),
            "gamma has no part in it: it multiplied a mean of 0 before the softmax",
        ),
        Wrong(
            lambda gamma, beta: torch.stack([gamma, beta]).softmax(0),
            "your softmax weighs gamma against beta; it runs over the d channels of beta alone",
        ),
        Wrong(
            lambda gamma, beta: beta.softmax(1),
            "beta has a single axis, its d channels: the softmax runs over axis 0",
        ),
        Wrong(
            lambda gamma, beta: beta.softmax(0).max(),
            "you return the largest share; all d of them are wanted",
        ),
    ),
)


# 15.3 the one-channel kernel -----------------------------------------------------------------------------


def one_kernel(W_3: Tensor, b_3: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    return torch.einsum("c,ckab->kab", a, W_3)[None], (a @ b_3)[None]


def one_kernel_by_sum(W_3: Tensor, b_3: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    column = a[:, None, None, None]
    return (column * W_3).sum(0, keepdim=True), (a * b_3).sum(0, keepdim=True)


def one_kernel_by_matrix(W_3: Tensor, b_3: Tensor, a: Tensor) -> list[Tensor]:
    kernel = (a @ W_3.flatten(1)).view(1, *W_3.shape[1:])
    return [kernel, torch.stack([a.dot(b_3)])]


KERNEL = Exercise(
    reference=one_kernel,
    right=(one_kernel_by_sum, one_kernel_by_matrix),
    inputs=lambda: [
        (ramp(3, 3, 3, 3), ramp(3, step=0.8), ramp(3, step=1.7).softmax(0)),
        (ramp(2, 2, 3, 3, step=0.9), ramp(2, step=1.1), ramp(2).softmax(0)),
    ],
    praise="One output channel does the work of d; see (15.14).",
    wrong=(
        Wrong(
            lambda W_3, b_3, a: (torch.einsum("k,ckab->cab", a, W_3)[None], (a @ b_3)[None]),
            "you sum over the input channels, axis 1; a_1 weighs what the convolution puts out, which is axis 0 of W_3",
        ),
        Wrong(
            lambda W_3, b_3, a: (W_3.sum(0, keepdim=True), b_3.sum(0, keepdim=True)),
            "the output channels are added, but not weighed: multiply each by its share in a_1",
        ),
        Wrong(
            lambda W_3, b_3, a: (W_3.mean(0, keepdim=True), b_3.mean(0, keepdim=True)),
            "you give every output channel the share 1/d, which is right only while beta is 0; use a_1",
        ),
        Wrong(
            lambda W_3, b_3, a: (one_kernel(W_3, b_3, a)[0], b_3.sum(0, keepdim=True)),
            "the kernel is right; the biases are weighed by a_1 as well",
        ),
        Wrong(
            lambda W_3, b_3, a: (one_kernel(W_3, b_3, a)[0], b_3.mean(0, keepdim=True)),
            "the kernel is right; the biases are weighed by a_1, not averaged",
        ),
        Wrong(
            lambda W_3, b_3, a: (one_kernel(W_3, b_3, a)[0], b_3),
            "the kernel is right; with one output channel there is one bias, the sum of a_1 times b_3",
        ),
        Wrong(
            lambda W_3, b_3, a: (one_kernel(W_3, b_3, a)[0], b_3[:1]),
            "the kernel is right; the one bias is the sum of a_1 times b_3, not the first of them",
        ),
        Wrong(
            lambda W_3, b_3, a: (one_kernel(W_3, b_3, a)[0], torch.zeros_like(b_3[:1])),
            "the kernel is right; the biases are lost: they add the constant a_1 times b_3",
        ),
        Wrong(
            lambda W_3, b_3, a: (one_kernel(W_3, b_3, a)[0], a * b_3),
            "the kernel is right; the d products of the biases still have to be added",
        ),
        Wrong(
            lambda W_3, b_3, a: (one_kernel(W_3, b_3, a)[0], a @ b_3),
            "the numbers are right; a convolution wants its biases as a vector, so give the one bias an axis: shape (1,)",
        ),
        Wrong(
            lambda W_3, b_3, a: (one_kernel(W_3, b_3, a)[0][0], one_kernel(W_3, b_3, a)[1]),
            "the numbers are right; the kernel needs an axis for its one output channel: shape (1, d, 3, 3)",
        ),
        Wrong(
            lambda W_3, b_3, a: (one_kernel(W_3, b_3, a)[0].mT, one_kernel(W_3, b_3, a)[1]),
            "rows and columns of the window have changed places",
        ),
        Wrong(
            lambda W_3, b_3, a: (one_kernel(W_3, b_3, a)[0].transpose(0, 1), one_kernel(W_3, b_3, a)[1]),
            "your kernel has d output channels and one input channel; it is the other way round",
        ),
        Wrong(
            lambda W_3, b_3, a: (a[:, None, None, None] * W_3, one_kernel(W_3, b_3, a)[1]),
            "the output channels are weighed, but not added up: sum over axis 0",
        ),
        Wrong(
            lambda W_3, b_3, a: (a * W_3, a * b_3),
            "a broadcasts along the last axis, the columns of the window; to weigh axis 0, write a[:, None, None, None]",
        ),
        Wrong(
            lambda W_3, b_3, a: ((a[:, None, None] * W_3).sum(0, keepdim=True), (a @ b_3)[None]),
            "a[:, None, None] meets axis 1, the input channels; one None more, and a weighs the output channels",
        ),
        Wrong(
            lambda W_3, b_3, a: ((a[None, :, None, None] * W_3).sum(1, keepdim=True), (a @ b_3)[None]),
            "you weigh and sum the input channels, axis 1; what a_1 weighs are the outputs, axis 0",
        ),
        Wrong(
            lambda W_3, b_3, a: ((a[:, None, None, None] * W_3).sum(1, keepdim=True), (a @ b_3)[None]),
            "the output channels are weighed; sum over them too, axis 0, and not over the inputs",
        ),
        Wrong(
            lambda W_3, b_3, a: ((a @ W_3)[None], (a @ b_3)[None]),
            "a @ W_3 sums over the window's rows; flatten W_3 behind its first axis, or use an einsum",
        ),
        Wrong(
            lambda W_3, b_3, a: (one_kernel(W_3, b_3, a)[0] / len(a), one_kernel(W_3, b_3, a)[1]),
            "your kernel is a mean of the weighed outputs; the shares sum to 1 already, so take their sum",
        ),
        Wrong(
            lambda W_3, b_3, a: (one_kernel(W_3, b_3, a)[0], one_kernel(W_3, b_3, a)[1] / len(a)),
            "the kernel is right; the weighed biases are added, not averaged",
        ),
        Wrong(
            lambda W_3, b_3, a: (one_kernel(W_3, b_3, a)[0][0], one_kernel(W_3, b_3, a)[1][0]),
            "the numbers are right; keep the axis of the one output channel in both: shapes (1, d, 3, 3) and (1,)",
        ),
        Wrong(
            lambda W_3, b_3, a: (one_kernel(W_3, b_3, a)[0].flip(2, 3), one_kernel(W_3, b_3, a)[1]),
            "you turn the window round; F.conv2d uses it as it is, as (15.4) does",
        ),
        Wrong(
            lambda W_3, b_3, a: one_kernel(W_3, b_3, a.softmax(0)),
            "a_1 is a softmax already; you take a second one",
        ),
        Wrong(
            lambda W_3, b_3, a: one_kernel(W_3, b_3, a / len(a)),
            "you divide by d once more; the shares a_1 sum to 1 as they are",
        ),
        Wrong(
            lambda W_3, b_3, a: one_kernel(W_3, b_3, a)[0],
            "the kernel is right; return the bias as well: the pair (kernel, bias)",
        ),
        Wrong(
            lambda W_3, b_3, a: one_kernel(W_3, b_3, a)[::-1],
            "kernel and bias have changed places in what you return",
        ),
    ),
)


# 15.4 nine window sums -----------------------------------------------------------------------------------


def window_sums(X: Tensor) -> Tensor:
    kept = torch.tensor([1, 0, 1], dtype=X.dtype)
    rows = torch.stack([X[:, :, -1], X[:, :, 0], X[:, :, 0]], 2) * kept[:, None]
    columns = torch.stack([X[..., -1], X[..., 0], X[..., 0]], 3) * kept
    total = X.sum((2, 3))[..., None, None]
    return total - rows.sum(3)[..., None] - columns.sum(2)[:, :, None] + rows[..., [-1, 0, 0]] * kept


def window_sums_of_padded(X: Tensor) -> Tensor:
    h, w = X.shape[2:]
    bordered = F.pad(X, (1, 1, 1, 1))
    rows = [
        torch.stack([bordered[:, :, a : a + h, b : b + w].sum((2, 3)) for b in range(3)], 2) for a in range(3)
    ]
    return torch.stack(rows, 2)


def window_sums_by_subtraction(X: Tensor) -> Tensor:
    total = X.sum((2, 3))[:, :, None, None].repeat(1, 1, 3, 3)
    first, last = X[:, :, 0].sum(2)[..., None], X[:, :, -1].sum(2)[..., None]
    total[:, :, 0] -= last
    total[:, :, 2] -= first
    total[:, :, :, 0] -= X[:, :, :, -1].sum(2)[..., None]
    total[:, :, :, 2] -= X[:, :, :, 0].sum(2)[..., None]
    for a, row in ((0, -1), (2, 0)):
        for b, column in ((0, -1), (2, 0)):
            total[:, :, a, b] += X[:, :, row, column]
    return total


def window_sums_by_slices(X: Tensor) -> Tensor:
    cuts = (slice(None, -1), slice(None), slice(1, None))
    sums = [X[:, :, rows, columns].sum((2, 3)) for rows in cuts for columns in cuts]
    return torch.stack(sums, 2).unflatten(2, (3, 3))


def without_corners(X: Tensor) -> Tensor:
    """Borders subtracted, the corner that was subtracted twice not put back."""
    total = window_sums(X)
    for a, row in ((0, -1), (2, 0)):
        for b, column in ((0, -1), (2, 0)):
            total[:, :, a, b] -= X[:, :, row, column]
    return total


def wrong_corners(X: Tensor) -> Tensor:
    total = without_corners(X)
    for a, row in ((0, 0), (2, -1)):
        for b, column in ((0, 0), (2, -1)):
            total[:, :, a, b] += X[:, :, row, column]
    return total


def mean_of_pieces(X: Tensor) -> Tensor:
    cuts = (slice(None, -1), slice(None), slice(1, None))
    means = [X[:, :, rows, columns].mean((2, 3)) for rows in cuts for columns in cuts]
    return torch.stack(means, 2).unflatten(2, (3, 3))


def cut_like(rows: tuple, columns: tuple):
    def sums(X):
        parts = [X[:, :, r, c].sum((2, 3)) for r in rows for c in columns]
        return torch.stack(parts, 2).unflatten(2, (3, 3))

    return sums


ALL, FRONT, BACK = slice(None), slice(None, -1), slice(1, None)

SUMS = Exercise(
    reference=window_sums,
    right=(window_sums_of_padded, window_sums_by_subtraction, window_sums_by_slices),
    inputs=lambda: [(ramp(2, 3, 4, 5),), (ramp(1, 2, 3, 3, step=0.8),), (ramp(3, 1, 2, 6, step=1.3),)],
    praise="Nine numbers a channel, and the mean of the convolution follows from them by (15.15).",
    wrong=(
        Wrong(
            cut_like((BACK, ALL, FRONT), (BACK, ALL, FRONT)),
            "first and last have changed places: the window's upper row, a = 0, never reaches the map's last row, so that one is left out",
        ),
        Wrong(
            cut_like((BACK, ALL, FRONT), (FRONT, ALL, BACK)),
            "first and last row have changed places: a = 0 looks one row up, so it never reaches the map's last row",
        ),
        Wrong(
            cut_like((FRONT, ALL, BACK), (BACK, ALL, FRONT)),
            "first and last column have changed places: b = 0 looks one column to the left, so it never reaches the last column",
        ),
        Wrong(
            without_corners,
            "the four corners of your table are off: a corner pixel lies in the border row and in the border column, so you subtract it twice; add it back",
        ),
        Wrong(
            wrong_corners,
            "you add the wrong corner pixel back: where the last row and the last column are left out, it is the last pixel of both",
        ),
        Wrong(
            cut_like((FRONT, ALL, BACK), (ALL, ALL, ALL)),
            "the columns are all still in: b = 0 leaves out the last column and b = 2 the first",
        ),
        Wrong(
            cut_like((ALL, ALL, ALL), (FRONT, ALL, BACK)),
            "the rows are all still in: a = 0 leaves out the last row and a = 2 the first",
        ),
        Wrong(
            cut_like((ALL, ALL, ALL), (ALL, ALL, ALL)),
            "all nine are the total; the border is padded with zeros, so a window that sticks out loses a row or a column",
        ),
        Wrong(
            lambda X: window_sums(X).mT,
            "your table lies across: the first of its two axes is the row a of the window",
        ),
        Wrong(
            lambda X: window_sums(X) / X[0, 0].numel(),
            "those are means; the sums are wanted, and the division by HW comes in (15.15)",
        ),
        Wrong(
            lambda X: window_sums(X).flatten(2),
            "the nine numbers are right; return them as a 3 x 3 table, (n, d, 3, 3)",
        ),
        Wrong(
            lambda X: window_sums(X).sum(1, keepdim=True),
            "you add the channels up; every channel needs nine sums of its own, since W_3 weighs each differently",
        ),
        Wrong(
            lambda X: window_sums(X).sum(0, keepdim=True),
            "you add the images up; every image has its own nine sums",
        ),
        Wrong(
            lambda X: X.sum((2, 3)),
            "that is the total, the middle one of the nine; the other eight leave out a border",
        ),
        Wrong(
            cut_like(
                (slice(None, -2), slice(1, -1), slice(2, None)),
                (slice(None, -2), slice(1, -1), slice(2, None)),
            ),
            "those are the windows of a convolution without padding; with a border of zeros the middle one, a = b = 1, sees every pixel",
        ),
        Wrong(
            mean_of_pieces,
            "you take the mean of each piece; T is a sum, and (15.15) divides all nine by the same HW",
        ),
        Wrong(
            lambda X: window_sums_by_slices(X).flatten(2).permute(2, 0, 1).reshape(*X.shape[:2], 3, 3),
            "the nine sums got mixed up with images and channels: stack them along axis 2, and unflatten that axis",
        ),
        Wrong(
            lambda X: window_sums(X).permute(2, 3, 0, 1),
            "the nine sums are right; images and channels come first: (n, d, 3, 3)",
        ),
        Wrong(
            cut_like((FRONT, ALL, slice(1, -1)), (FRONT, ALL, slice(1, -1))),
            "for the last offset you leave out the first row and the last one; slice(1, None) keeps the last",
        ),
        Wrong(
            lambda X: F.adaptive_avg_pool2d(X, 3),
            "that cuts the map into nine parts; the nine windows of T overlap, each is nearly the whole map",
        ),
        Wrong(
            lambda X: F.unfold(X, 3, padding=1).unflatten(1, (X.shape[1], 3, 3)),
            "those are all the windows; sum over the places, the last axis",
        ),
        Wrong(
            lambda X: F.conv2d(
                X, torch.ones(X.shape[1], 1, 3, 3, dtype=X.dtype), padding=1, groups=X.shape[1]
            ),
            "you sum within each window and keep the places; (15.15) needs it the other way: sum over the places, for each of the nine offsets",
        ),
    ),
)


# 15.5 bug gallery: give the first softmax something to see -----------------------------------------------


def cross(a_1: Tensor, x_1: Tensor, x_2: Tensor) -> Tensor:
    a_2 = x_2.mean((2, 3)).softmax(1)
    A = torch.einsum("nd,ndhw->nhw", a_1, x_2) + torch.einsum("nd,ndhw->nhw", a_2, x_1)
    return A.sigmoid()


def normed(t: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    return F.group_norm(t, t.shape[1], gamma, beta)


def seeing_gate(t: Tensor, x_2: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    return cross(t.mean((2, 3)).softmax(1), normed(t, gamma, beta), x_2)


def seeing_gate_by_matrices(t: Tensor, x_2: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    center = t - t.mean((2, 3), keepdim=True)
    x_1 = gamma[:, None, None] * center / (center.square().mean((2, 3), keepdim=True) + 1e-5).sqrt()
    x_1 = (x_1 + beta[:, None, None]).flatten(2)
    a_1, a_2 = (m.flatten(2).mean(2).softmax(1)[:, None] for m in (t, x_2))
    return torch.sigmoid(a_1 @ x_2.flatten(2) + a_2 @ x_1).view(len(t), *t.shape[2:])


def seeing_gate_by_sum(t: Tensor, x_2: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    a_1, a_2 = (m.mean((2, 3), keepdim=True).softmax(1) for m in (t, x_2))
    return torch.sigmoid((a_1 * x_2 + a_2 * normed(t, gamma, beta)).sum(1))


def gate_with(a_1):
    """A wrong gate whose first softmax is ``a_1(t, x_1, x_2, gamma, beta)`` and that is right in all else."""

    def gate(t, x_2, gamma, beta):
        x_1 = normed(t, gamma, beta)
        return cross(a_1(t, x_1, x_2, gamma, beta), x_1, x_2)

    return gate


SEEING = Exercise(
    reference=seeing_gate,
    right=(seeing_gate_by_matrices, seeing_gate_by_sum),
    inputs=lambda: [
        (2 * ramp(2, 3, 2, 4), 2 * ramp(2, 3, 2, 4, step=0.8), 1 + ramp(3, step=0.5) / 2, ramp(3, step=1.1)),
        (3 * ramp(1, 2, 3, 3, step=1.3), ramp(1, 2, 3, 3, step=0.6), 1 + ramp(2) / 2, 2 * ramp(2, step=0.9)),
    ],
    praise="Now both softmaxes see the image. Whether that helps is another question: part 10 measured it.",
    wrong=(
        Wrong(
            gate_with(lambda t, x_1, x_2, gamma, beta: x_1.mean((2, 3)).softmax(1)),
            "that is the published form: behind the norm the mean is beta, by (15.8); pool t, before the norm",
        ),
        Wrong(
            gate_with(lambda t, x_1, x_2, gamma, beta: torch.full_like(t[:, :, 0, 0], 1 / t.shape[1])),
            "equal shares see the image no more than softmax(beta) does; pool t, before the norm",
        ),
        Wrong(
            lambda t, x_2, gamma, beta: cross(t.mean((2, 3)).softmax(1), t, x_2),
            "you have taken the norm out altogether; t is pooled before it, and the far branch still goes through it",
        ),
        Wrong(
            lambda t, x_2, gamma, beta: cross(
                (gamma * t.mean((2, 3)) + beta).softmax(1),
                gamma[:, None, None] * t + beta[:, None, None],
                x_2,
            ),
            "you have kept scale and shift and dropped the norm itself; only what is pooled should change",
        ),
        Wrong(
            gate_with(lambda t, x_1, x_2, gamma, beta: (gamma * t.mean((2, 3)) + beta).softmax(1)),
            "you pool t and then scale and shift the means; the smallest change is the softmax of the means of t alone",
        ),
        Wrong(
            gate_with(lambda t, x_1, x_2, gamma, beta: t.mean((2, 3))),
            "you weigh with the means themselves; the softmax over the channels is still needed",
        ),
        Wrong(
            gate_with(lambda t, x_1, x_2, gamma, beta: t.mean((2, 3)).sigmoid()),
            "a sigmoid of each mean is no set of shares; keep the softmax over the channels",
        ),
        Wrong(
            gate_with(lambda t, x_1, x_2, gamma, beta: t.amax((2, 3)).softmax(1)),
            "you pool by the maximum; that sees the image too, but the change asked for is to pool the mean of t",
        ),
        Wrong(
            gate_with(lambda t, x_1, x_2, gamma, beta: t.sum((2, 3)).softmax(1)),
            "you pool by a sum; (15.5) takes the mean over the places",
        ),
        Wrong(
            gate_with(lambda t, x_1, x_2, gamma, beta: x_1.amax((2, 3)).softmax(1)),
            "the maximum behind the norm does see the image, but how strong a channel is has been normed away; pool the mean of t",
        ),
        Wrong(
            gate_with(lambda t, x_1, x_2, gamma, beta: x_2.mean((2, 3)).softmax(1)),
            "both softmaxes now come from the near branch; a_1 is the far branch's, so pool t",
        ),
        Wrong(
            gate_with(lambda t, x_1, x_2, gamma, beta: t.mean((2, 3)).softmax(0)),
            "your softmax runs over the batch; the shares are those of the d channels, axis 1",
        ),
        Wrong(
            lambda t, x_2, gamma, beta: torch.einsum(
                "nd,ndhw->nhw", t.mean((2, 3)).softmax(1), x_2
            ).sigmoid(),
            "the second product is missing: a_2 weighs the far branch, and the two maps are added",
        ),
        Wrong(
            lambda t, x_2, gamma, beta: torch.sigmoid(
                torch.einsum("nd,ndhw->nhw", t.mean((2, 3)).softmax(1), normed(t, gamma, beta))
                + torch.einsum("nd,ndhw->nhw", x_2.mean((2, 3)).softmax(1), x_2)
            ),
            "each branch weighs itself; in (15.6) the shares of one branch weigh the other",
        ),
        Wrong(
            lambda t, x_2, gamma, beta: torch.sigmoid(
                torch.einsum("nd,ndhw->nhw", beta.softmax(0).expand(t.shape[:2]), x_2)
                + torch.einsum("nd,ndhw->nhw", t.mean((2, 3)).softmax(1), normed(t, gamma, beta))
            ),
            "you have changed the second softmax; a_1, the first, is the one that cannot see",
        ),
        Wrong(
            lambda t, x_2, gamma, beta: torch.sigmoid(
                torch.einsum("nd,ndhw->nhw", t.mean((2, 3)).softmax(1), x_2 + normed(t, gamma, beta))
            ),
            "both softmaxes now look at t; the second one saw the image already, so leave a_2 as it was",
        ),
        Wrong(
            lambda t, x_2, gamma, beta: cross(t.mean((2, 3)).softmax(1), F.group_norm(t, t.shape[1]), x_2),
            "gamma and beta are lost; the norm stays as it is, with its scale and shift",
        ),
        Wrong(
            gate_with(lambda t, x_1, x_2, gamma, beta: t.mean((2, 3)).softmax(1).softmax(1)),
            "you take the softmax twice; t has to be pooled, and one softmax follows",
        ),
        Wrong(
            gate_with(lambda t, x_1, x_2, gamma, beta: t.var((2, 3)).softmax(1)),
            "you pool by the variance; that sees the image too, but the change asked for is to pool the mean of t",
        ),
        Wrong(
            lambda t, x_2, gamma, beta: torch.logit(seeing_gate(t, x_2, gamma, beta)),
            "you return A; the gate is its sigmoid",
        ),
        Wrong(
            lambda t, x_2, gamma, beta: seeing_gate(t, x_2, gamma, beta)[:, None],
            "the gate is right, with one axis too many: return (n, h, w)",
        ),
        Wrong(
            lambda t, x_2, gamma, beta: seeing_gate(t, x_2, gamma, beta)[:, None] * t,
            "you return a gated map; the gate itself is asked for, (n, h, w)",
        ),
        Wrong(
            lambda t, x_2, gamma, beta: cross(
                t.mean((2, 3)).softmax(1), F.group_norm(t, 1, gamma, beta), x_2
            ),
            "your norm takes all channels together; GroupNorm(d, d) norms each by itself",
        ),
        Wrong(
            lambda t, x_2, gamma, beta: cross(
                t.mean((2, 3)).softmax(1), F.batch_norm(t, None, None, gamma, beta, training=True), x_2
            ),
            "that is a batch norm, which takes all images together; the norm stays as it is, one channel of one image",
        ),
    ),
)


# recall --------------------------------------------------------------------------------------------------

EXERCISES = {
    "15.a": choice(
        "a",
        {
            "b": "0 is the mean before the multiplication and the shift; what does adding 5 to each number do to it?",
            "c": "you multiply 5 by the mean 5 of the old numbers; they were shifted to the mean 0 first",
            "d": "you multiply 3 by 5; the factor 3 meets a mean of 0, and 5 is added afterwards",
            "e": "it would, without the first step; but that one takes their own mean away, whatever it was",
        },
        "The factor meets a mean of 0, and the shift moves it to 5, for any three numbers; part 4 lives on this.",
    ),
    "15.b": choice(
        "b",
        {
            "a": "the shares sum to 1, also when there is a single one",
            "c": "a softmax takes the exponential and divides by the sum of all of them; here the sum has one term",
            "d": "a sigmoid is the softmax over two numbers of which one is 0; here there is only one number",
            "e": "it is defined: its exponential divided by the sum, which is that exponential itself",
        },
        "One number gets the whole of it, whatever it is; a softmax over one channel is a constant.",
    ),
    "15.c": choice(
        "c",
        {
            "a": "that is one channel in and one out; here each of 8 outputs looks at each of 8 inputs",
            "b": "that is one output channel; there are 8 of them",
            "d": "you forgot the window: each pair of channels has 9 weights",
            "e": "that counts 9 channels somewhere; it is 9 weights for each pair of 8 and 8",
        },
        "9 weights for each of 8 x 8 pairs of channels; part 8 shows how few of them are needed.",
    ),
    "15.1": STRIPS,
    "15.2": FIRST,
    "15.3": KERNEL,
    "15.4": SUMS,
    "15.5": SEEING,
}
