"""The exercises of 07_attention_on_feature_maps."""

import torch
from torch import Tensor
from torch.nn import functional as F

from attnlib.exercises.checker import Exercise, Wrong, choice, ramp

# 07.1 the joint gate -------------------------------------------------------------------------------------


def joint_gate(x: Tensor, W: Tensor) -> Tensor:
    return torch.sigmoid(torch.einsum("ck,bkhw->bchw", W, x))


def joint_gate_convolution(x: Tensor, W: Tensor) -> Tensor:
    return torch.sigmoid(F.conv2d(x, W[:, :, None, None]))


def joint_gate_matmul(x: Tensor, W: Tensor) -> Tensor:
    return (W @ x.flatten(2)).sigmoid().view_as(x)


def joint_gate_by_place(x: Tensor, W: Tensor) -> Tensor:
    gate = torch.empty_like(x)
    for i in range(x.shape[2]):
        for j in range(x.shape[3]):
            gate[:, :, i, j] = torch.sigmoid(x[:, :, i, j] @ W.T)
    return gate


JOINT = Exercise(
    reference=joint_gate,
    right=(joint_gate_convolution, joint_gate_matmul, joint_gate_by_place),
    inputs=lambda: [(2 * ramp(2, 4, 3, 5), 1.5 * ramp(4, 4)), (ramp(3, 6, 2, 2) + 0.5, ramp(6, 6, step=0.9))],
    praise="One number for each channel and place, as in (7.4).",
    wrong=(
        Wrong(
            lambda x, W: joint_gate(x, W.T),
            "your W is transposed: row c of W holds what channel c's score takes from each channel k",
        ),
        Wrong(
            lambda x, W: torch.einsum("ck,bkhw->bchw", W, x),
            "those are the scores; some are negative or above 1: the sigmoid of (7.4) is missing",
        ),
        Wrong(
            lambda x, W: torch.einsum("ck,bkhw->bchw", W, x).softmax(1),
            "your gates sum to 1 over the channels: that is a softmax; each number has a sigmoid of its own",
        ),
        Wrong(
            lambda x, W: torch.einsum("ck,bkhw->bchw", W, x).flatten(2).softmax(2).view_as(x),
            "your gates sum to 1 over the places: that is a softmax; each number has a sigmoid of its own",
        ),
        Wrong(
            lambda x, W: torch.einsum("ck,bkhw->bchw", W, torch.sigmoid(x)),
            "the sigmoid comes last, behind W; you take it of x",
        ),
        Wrong(
            lambda x, W: torch.tanh(torch.einsum("ck,bkhw->bchw", W, x)),
            "a tanh runs from -1 to 1; the gate of (7.4) is a sigmoid",
        ),
        Wrong(
            lambda x, W: torch.einsum("ck,bkhw->bchw", W, x).relu().sigmoid(),
            "none of your gates is below 1/2: a ReLU stands in front of the sigmoid, and (7.4) has none",
        ),
        Wrong(
            lambda x, W: torch.sigmoid(torch.einsum("ck,bkhw->bchw", W, x) / x.shape[1]),
            "you average over the channels k; (7.4) sums them",
        ),
        Wrong(
            lambda x, W: joint_gate(x.mean((2, 3), keepdim=True), W),
            "you average over the places first; that is a channel gate, and the joint gate pools nothing",
        ),
        Wrong(
            lambda x, W: joint_gate(x.mean((2, 3), keepdim=True).expand_as(x), W),
            "the shape is right, but all places of a channel get one gate: leave out the mean over the places",
        ),
        Wrong(
            lambda x, W: joint_gate(x.mean(1, keepdim=True).expand_as(x), W),
            "you average over the channels first; the joint gate pools nothing",
        ),
        Wrong(
            lambda x, W: joint_gate(x.mean(0, keepdim=True).expand_as(x), W),
            "all images get the same gates: you average over the batch",
        ),
        Wrong(
            lambda x, W: torch.sigmoid(W.diagonal()[:, None, None] * x),
            "you use the diagonal of W only, so each channel hears itself alone; sum over all channels k",
        ),
        Wrong(
            lambda x, W: torch.sigmoid(W.sum(1)[:, None, None] * x),
            "you sum the weights first and multiply x_c by the sum; each weight has a channel x_k of its own",
        ),
        Wrong(
            lambda x, W: torch.sigmoid(torch.einsum("ck,bkhw->bhw", W, x)),
            "you sum over both channel indices; c stays: one gate for each channel",
        ),
        Wrong(
            lambda x, W: torch.einsum("ck,bkhw->bhwc", W, x).sigmoid(),
            "the numbers are right and the axes are not: the channels belong behind the batch, (b, c, h, w)",
        ),
        Wrong(
            lambda x, W: x * joint_gate(x, W),
            "you return the rescaled features; this exercise asks for the gate alone",
        ),
        Wrong(lambda x, W: 1 + joint_gate(x, W), "your gate lies between 1 and 2; nothing is added in (7.4)"),
        Wrong(
            lambda x, W: torch.sigmoid(W @ x),
            "`W @ x` multiplies along the last two axes, rows and columns; the sum runs over the channels",
        ),
        Wrong(
            lambda x, W: torch.sigmoid(x @ W),
            "`x @ W` multiplies along the last axis, the columns; the sum runs over the channels",
        ),
        Wrong(
            lambda x, W: 1 / (1 + torch.einsum("ck,bkhw->bchw", W, x).exp()),
            "the sign of the exponent is turned round: the sigmoid is 1/(1 + exp(-v))",
        ),
        Wrong(
            lambda x, W: joint_gate(x, W).sigmoid(),
            "two sigmoids in a row: all your gates lie between 0.5 and 0.74; (7.4) has one",
        ),
        Wrong(
            lambda x, W: torch.einsum("ck,bkhw->bchw", W, x).softmax(3),
            "your gates sum to 1 over the columns: that is a softmax; each number has a sigmoid of its own",
        ),
        Wrong(
            lambda x, W: torch.einsum("ck,bkhw->bchw", W, x).clamp(0, 1),
            "you cut the scores off at 0 and 1; the gate of (7.4) is a sigmoid, which never gets there",
        ),
        Wrong(
            lambda x, W: torch.sigmoid(x),
            "W is not used: each score is a weighted sum over all channels of its place",
        ),
        Wrong(
            lambda x, W: (x.flatten(2).mT @ W.T).sigmoid().reshape(x.shape),
            "your last axis is the channels when you reshape, so the numbers land in wrong places; transpose back first",
        ),
        Wrong(
            lambda x, W: (W @ x.flatten(2)).sigmoid(),
            "the numbers are right, but the places still form one axis: give them back their rows and columns",
        ),
        Wrong(
            lambda x, W: torch.sigmoid(torch.einsum("ck,bkhw->bc", W, x)),
            "h and w are missing behind the arrow, so the places are summed; the joint gate keeps them",
        ),
        Wrong(
            lambda x, W: torch.sigmoid(torch.einsum("ck,khw->chw", W, x[0])),
            "that is the first image alone; give the gates of the whole batch",
        ),
        Wrong(
            lambda x, W: torch.sigmoid(F.conv2d(x, W)),
            "a convolution's kernel has four axes, outputs, inputs and its two sides: use `W[:, :, None, None]`",
        ),
    ),
)


# 07.2 the gradient through a gate ------------------------------------------------------------------------


def parts(g: Tensor, x: Tensor, w: Tensor) -> tuple[Tensor, Tensor, int]:
    """s (b, c, 1, 1), dL/dz of the same shape, and the number of places."""
    v = w[:, None, None] * x.mean((2, 3), keepdim=True)
    s = v.sigmoid()
    ds = (g * x).sum((2, 3), keepdim=True)
    return s, ds * s * (1 - s) * w[:, None, None], x.shape[2] * x.shape[3]


def gate_backward(g: Tensor, x: Tensor, w: Tensor) -> Tensor:
    s, dz, n = parts(g, x, w)
    return s * g + dz / n


def gate_backward_autograd(g: Tensor, x: Tensor, w: Tensor) -> Tensor:
    x = x.detach().clone().requires_grad_()
    y = x * torch.sigmoid(w[:, None, None] * x.mean((2, 3), keepdim=True))
    return torch.autograd.grad(y, x, g)[0]


def gate_backward_mean(g: Tensor, x: Tensor, w: Tensor) -> Tensor:
    s = torch.sigmoid(torch.einsum("c,bc->bc", w, x.mean((2, 3))))
    through = torch.einsum("bchw,bchw->bc", g, x) / x[0, 0].numel() * w * s * (1 - s)
    return torch.einsum("bc,bchw->bchw", s, g) + through[:, :, None, None].expand_as(x)


GRADIENT = Exercise(
    reference=gate_backward,
    right=(gate_backward_autograd, gate_backward_mean),
    inputs=lambda: [
        (ramp(2, 3, 2, 4), ramp(2, 3, 2, 4, step=0.8) + ramp(3)[:, None, None], 2 * ramp(3, step=1.1)),
        (ramp(1, 5, 3, 3, step=0.5), ramp(1, 5, 3, 3) + 0.4, 3 * ramp(5, step=0.7)),
    ],
    praise="Both ways back are there: along the features, and through the gate.",
    wrong=(
        Wrong(
            lambda g, x, w: parts(g, x, w)[0] * g,
            "that is the direct part alone; x also moves its own gate, see (7.9)",
        ),
        Wrong(
            lambda g, x, w: (parts(g, x, w)[1] / parts(g, x, w)[2]).expand_as(x),
            "that is the part through the gate; the direct part, s times g, is missing",
        ),
        Wrong(
            lambda g, x, w: parts(g, x, w)[0] * g + parts(g, x, w)[1],
            "each place has the share 1/N in the mean z; divide the part through the gate by N",
        ),
        Wrong(
            lambda g, x, w: parts(g, x, w)[0] * g - parts(g, x, w)[1] / parts(g, x, w)[2],
            "the two parts add up; you subtract one",
        ),
        Wrong(
            lambda g, x, w: g + parts(g, x, w)[1] / parts(g, x, w)[2],
            "in the direct part g is multiplied by the gate s",
        ),
        Wrong(
            lambda g, x, w: parts(g, x, w)[0] * (g + parts(g, x, w)[1] / parts(g, x, w)[2]),
            "only the direct part is multiplied by s, and the sum is over g times x (not g times y); you multiply both",
        ),
        Wrong(
            lambda g, x, w: parts(g, x, w)[0] * g + parts(g, x, w)[1] / w[:, None, None] / parts(g, x, w)[2],
            "the score is w z, so on the way back from v to z the gradient is multiplied by w",
        ),
        Wrong(
            lambda g, x, w: parts(g, x, w)[0] * g + _through(g, x, w, lambda s: 1.0),
            "the slope of the sigmoid is missing: s(1 - s), between v and s",
        ),
        Wrong(
            lambda g, x, w: parts(g, x, w)[0] * g + _through(g, x, w, lambda s: s),
            "the slope of the sigmoid is s(1 - s), not s",
        ),
        Wrong(
            lambda g, x, w: parts(g, x, w)[0] * g + _through(g, x, w, lambda s: 1 - s),
            "the slope of the sigmoid is s(1 - s), not 1 - s",
        ),
        Wrong(
            lambda g, x, w: parts(g, x, w)[0] * g + _through(g, x, w, lambda s: 1 - s**2),
            "1 - s² is the slope of a tanh; that of the sigmoid is s(1 - s)",
        ),
        Wrong(
            lambda g, x, w: parts(g, x, w)[0] * g + _through(g, torch.ones_like(x), w, _slope(x, w)),
            "the product rule: the gradient of s is g times x, summed over the places; you sum g alone",
        ),
        Wrong(
            lambda g, x, w: parts(g, x, w)[0] * g + _through(torch.ones_like(g), x, w, _slope(x, w)),
            "the gradient of s is g times x, summed over the places; you sum x alone, and g has no say",
        ),
        Wrong(
            lambda g, x, w: parts(g, x, w)[0] * g + parts(g, x, w)[1] / parts(g, x, w)[2] ** 2,
            "you divide by N twice: the places' gradients add up in s (a sum), and 1/N comes in once, at z",
        ),
        Wrong(
            lambda g, x, w: (
                parts(g, x, w)[0] * g + g * x * w[:, None, None] * _slope(x, w)(None) / parts(g, x, w)[2]
            ),
            "all places share one gate, so g times x must be summed over the places before it goes on",
        ),
        Wrong(
            lambda g, x, w: (
                parts(g, x, w)[0] * g + (parts(g, x, w)[1] / parts(g, x, w)[2]).sum(1, keepdim=True)
            ),
            "you sum over the channels; here the gate of a channel hears that channel alone",
        ),
        Wrong(
            lambda g, x, w: parts(g, x, w)[0] * g + x * parts(g, x, w)[1] / parts(g, x, w)[2],
            "the part through the gate is the same for every place; you multiply it by x once more",
        ),
        Wrong(
            lambda g, x, w: parts(g, x, w)[0] * x + parts(g, x, w)[1] / parts(g, x, w)[2],
            "the direct part is s times g, the gradient that arrives; you have s times x, the output",
        ),
        Wrong(
            lambda g, x, w: parts(g, x, w)[0] * g + parts(g, x, w)[1] / x.shape[2],
            "you divide by the number of rows; the mean runs over all N places, rows times columns",
        ),
        Wrong(
            lambda g, x, w: parts(g, x, w)[0] * g + parts(g, x, w)[1] / x.shape[3],
            "you divide by the number of columns; the mean runs over all N places, rows times columns",
        ),
        Wrong(
            lambda g, x, w: parts(g, x, w)[0] * g + parts(g, x, w)[1] / x[0].numel(),
            "you divide by C N; each mean runs over the N places of one channel",
        ),
        Wrong(
            lambda g, x, w: parts(g, x, w)[0] * g + parts(g, x, w)[1] / x.numel(),
            "you divide by the count of all numbers, images and channels too; the mean runs over the N places",
        ),
        Wrong(
            lambda g, x, w: (
                parts(g, x, w)[0] * g + (parts(g, x, w)[1] / parts(g, x, w)[2]).sum(0, keepdim=True)
            ),
            "you sum over the batch; that is for the gradient of w, and x has one for each image",
        ),
        Wrong(
            lambda g, x, w: parts(g, x, w)[0] * g + g * x * w[:, None, None] * _slope(x, w)(None),
            "the gate is one number for all places: sum g times x over them, and divide by N for the mean",
        ),
        Wrong(
            lambda g, x, w: (
                parts(g, x, w)[0] * g
                + _through(g, x, w, _slope(x, w)) / w[:, None, None] * x.mean((2, 3), keepdim=True)
            ),
            "from v back to z the factor is w; with z in its place you are on the way to the gradient of w",
        ),
        Wrong(
            lambda g, x, w: (
                parts(g, x, w)[0] * g + _through(g.sum((2, 3), keepdim=True).expand_as(g), x, w, _slope(x, w))
            ),
            "you sum g and x each by itself; multiply them at each place first, and then sum",
        ),
        Wrong(
            lambda g, x, w: (parts(g, x, w)[0] * g, (parts(g, x, w)[1] / parts(g, x, w)[2])),
            "both parts are right; add them up instead of returning a pair",
        ),
        Wrong(
            lambda g, x, w: parts(g, x, w)[0] * g * x,
            "that is g times the output; write both parts of (7.9)",
        ),
    ),
)


def _through(g: Tensor, x: Tensor, w: Tensor, slope) -> Tensor:
    """The part through the gate, with another slope of the sigmoid."""
    s = parts(g, x, w)[0]
    return (g * x).mean((2, 3), keepdim=True) * slope(s) * w[:, None, None]


def _slope(x: Tensor, w: Tensor):
    s = torch.sigmoid(w[:, None, None] * x.mean((2, 3), keepdim=True))
    return lambda _: s * (1 - s)


# 07.3 the signature --------------------------------------------------------------------------------------


def signature_of(J: Tensor) -> tuple[Tensor, Tensor]:
    channels, places = J.square().mean((1, 3)).sqrt(), J.square().mean((0, 2)).sqrt()
    return channels / channels.max(), places / places.max()


def signature_norm(J: Tensor) -> tuple[Tensor, Tensor]:
    channels, places = torch.linalg.vector_norm(J, dim=(1, 3)), torch.linalg.vector_norm(J, dim=(0, 2))
    return channels / channels.amax(), places / places.amax()


def signature_einsum(J: Tensor) -> list[Tensor]:
    squares = [torch.einsum("cpkq,cpkq->ck", J, J), torch.einsum("cpkq,cpkq->pq", J, J)]
    return [(s / s.max()) ** 0.5 for s in squares]


def _scaled(channels: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    return channels / channels.max(), places / places.max()


def _raw(J: Tensor) -> tuple[Tensor, Tensor]:
    return J.square().mean((1, 3)).sqrt(), J.square().mean((0, 2)).sqrt()


SIGNATURE = Exercise(
    reference=signature_of,
    right=(signature_norm, signature_einsum),
    inputs=lambda: [
        (ramp(3, 4, 3, 4) * (1 + ramp(3, 1, 3, 1, step=0.6)),),
        (ramp(2, 6, 2, 6, step=0.8) - 0.2,),
    ],
    praise="That is (7.13): two matrices that say who listens to whom.",
    wrong=(
        Wrong(
            lambda J: _scaled(J.mean((1, 3)), J.mean((0, 2))),
            "you average the slopes themselves, so those of opposite sign cancel; square them first, as in (7.13)",
        ),
        Wrong(
            lambda J: _scaled(J.mean((1, 3)).abs(), J.mean((0, 2)).abs()),
            "you take the absolute value of the mean; slopes of opposite sign have cancelled by then",
        ),
        Wrong(
            lambda J: _scaled(J.abs().mean((1, 3)), J.abs().mean((0, 2))),
            "you average absolute values; a fair choice, but (7.13) is the root of the mean square",
        ),
        Wrong(
            lambda J: _scaled(J.abs().amax((1, 3)), J.abs().amax((0, 2))),
            "you take the largest slope; (7.13) is the root of the mean square",
        ),
        Wrong(
            lambda J: _scaled(J.square().mean((1, 3)), J.square().mean((0, 2))),
            "the square root of (7.13) is missing: your weak dependences look weaker than they are",
        ),
        Wrong(_raw, "the largest entry of each matrix should be 1: divide each by its own maximum"),
        Wrong(
            lambda J: signature_of(J)[::-1],
            "your two matrices have changed places: the one over channels comes first",
        ),
        Wrong(
            lambda J: tuple(part.T for part in signature_of(J)),
            "your matrices are transposed: the row is who listens, the column is who is changed",
        ),
        Wrong(lambda J: signature_of(J)[0], "that is the matrix over channels; return both, as a pair"),
        Wrong(lambda J: signature_of(J)[1], "that is the matrix over places; return both, as a pair"),
        Wrong(
            lambda J: tuple(part / torch.stack([p.max() for p in _raw(J)]).max() for part in _raw(J)),
            "you divide both by one maximum; each matrix has its own",
        ),
        Wrong(
            lambda J: tuple(part / part.amax(1, keepdim=True) for part in _raw(J)),
            "you scale each row to 1 on its own; then a deaf channel looks as keen as the others",
        ),
        Wrong(
            lambda J: tuple(part / part.sum() for part in _raw(J)),
            "your matrices sum to 1; divide by the maximum instead",
        ),
        Wrong(
            lambda J: tuple(part / part.sum(1, keepdim=True) for part in _raw(J)),
            "your rows sum to 1; a signature is no attention map: divide the whole matrix by its maximum",
        ),
        Wrong(
            lambda J: _scaled(J.square().mean((2, 3)).sqrt(), J.square().mean((0, 1)).sqrt()),
            "you average over axes that belong together: leave the two channel axes, 0 and 2, for the first matrix",
        ),
        Wrong(
            lambda J: _scaled(J.square().mean((0, 2)).sqrt(), J.square().mean((0, 2)).sqrt()),
            "your two matrices are the same one; the first leaves the axes 0 and 2, the second 1 and 3",
        ),
        Wrong(
            lambda J: _scaled(J.std((1, 3)), J.std((0, 2))),
            "`std` subtracts the mean first; (7.13) is the root of the mean square",
        ),
        Wrong(
            lambda J: tuple(part**0.5 for part in signature_of(J)),
            "that is one square root too many: the figures draw roots, the signature does not hold them",
        ),
        Wrong(
            lambda J: (J.square().sum((1, 3)).sqrt(), J.square().sum((0, 2)).sqrt()),
            "that is the root of the sum; once each matrix is divided by its maximum, sum and mean are the same",
        ),
        Wrong(
            lambda J: (J.square().mean((1, 3)), J.square().mean((0, 2))),
            "two steps are missing: the square root, and the division by the largest entry",
        ),
        Wrong(
            lambda J: (signature_of(J)[0], _raw(J)[1]),
            "the matrix over channels is right; divide the one over places by its maximum too",
        ),
        Wrong(
            lambda J: (_raw(J)[0], signature_of(J)[1]),
            "the matrix over places is right; divide the one over channels by its maximum too",
        ),
        Wrong(
            lambda J: tuple(part / part.amax(0) for part in _raw(J)),
            "you divide each column by a maximum of its own; take one for the whole matrix, `.max()` without an axis",
        ),
        Wrong(
            lambda J: tuple(part / J.abs().max() for part in _raw(J)),
            "you divide by the largest slope in J; each matrix is divided by its own largest entry",
        ),
        Wrong(
            lambda J: (
                signature_of(J)[0][:, None, :, None],
                signature_of(J)[1][None, :, None, :],
            ),
            "the numbers are right; leave `keepdim` out, so that only the axes (c, c) and (n, n) remain",
        ),
        Wrong(
            lambda J: _scaled(J.square().mean((0, 1)).sqrt(), J.square().mean((2, 3)).sqrt()),
            "the axes of J are channel, place, channel, place: the places are 1 and 3, the channels 0 and 2",
        ),
    ),
)


# 07.4 mend a snippet -------------------------------------------------------------------------------------


def channel_gate(x: Tensor, w: Tensor) -> Tensor:
    return torch.sigmoid(w[:, None, None] * x.mean((2, 3), keepdim=True))


def mended(x: Tensor, w: Tensor) -> Tensor:
    return x * channel_gate(x, w)


def mended_einsum(x: Tensor, w: Tensor) -> Tensor:
    s = torch.sigmoid(x.mean((2, 3)) * w)
    return torch.einsum("bchw,bc->bchw", x, s)


def mended_by_image(x: Tensor, w: Tensor) -> Tensor:
    return torch.stack([image * (w * image.flatten(1).mean(1)).sigmoid()[:, None, None] for image in x])


MEND = Exercise(
    reference=mended,
    right=(mended_einsum, mended_by_image),
    inputs=lambda: [
        (ramp(3, 4, 2, 5) + ramp(3, 4)[:, :, None, None], 2 * ramp(4)),
        (ramp(2, 5, 3, 2, step=0.8) + 0.3, 3 * ramp(5, step=0.9)),
    ],
    praise="No image hears another any more, and each gate has its own sigmoid.",
    wrong=(
        Wrong(
            lambda x, w: x * channel_gate(x, w).softmax(0),
            "that is the snippet as it was: its softmax still runs over axis 0, the images of the batch",
        ),
        Wrong(
            lambda x, w: x * channel_gate(x, w).softmax(1),
            "now the softmax runs over the channels: the images are free, and the channels share out a sum of 1",
        ),
        Wrong(
            lambda x, w: x * (w[:, None, None] * x.mean((2, 3), keepdim=True)).softmax(0),
            "you took away the sigmoid and kept the softmax; it is the softmax that joins the images",
        ),
        Wrong(
            lambda x, w: x * (w[:, None, None] * x.mean((2, 3), keepdim=True)).softmax(1),
            "a softmax over the channels in place of both; the simplest gate of (7.2) is a sigmoid",
        ),
        Wrong(
            lambda x, w: x * w[:, None, None] * x.mean((2, 3), keepdim=True),
            "you took away both: the gate has no bounds now; keep the sigmoid",
        ),
        Wrong(
            lambda x, w: len(x) * x * channel_gate(x, w).softmax(0),
            "times the number of images, the gates average 1 over the batch, and they still depend on each other",
        ),
        Wrong(
            lambda x, w: x * channel_gate(x, w) / channel_gate(x, w).sum(0),
            "dividing by the sum over the batch still joins the images; take it away altogether",
        ),
        Wrong(
            lambda x, w: x * channel_gate(x, w) / channel_gate(x, w).sum(1, keepdim=True),
            "dividing by the sum over the channels is a softmax in another dress",
        ),
        Wrong(
            lambda x, w: x * channel_gate(x.mean(0, keepdim=True), w),
            "all images get one gate now: you average over the batch; average over the places only",
        ),
        Wrong(
            lambda x, w: x + x * channel_gate(x, w),
            "the softmax is gone, but x was added; the gate only multiplies",
        ),
        Wrong(channel_gate, "you return the gate; multiply x by it"),
        Wrong(
            lambda x, w: channel_gate(x, w).expand_as(x),
            "you return the gate in the shape of x; multiply x by it",
        ),
        Wrong(
            lambda x, w: x * channel_gate(x, w).flatten(1).softmax(1)[:, :, None, None].sigmoid(),
            "the softmax has moved in front of another sigmoid; take it away",
        ),
        Wrong(
            lambda x, w: x,
            "your gate is 1 everywhere, so it is gone (a softmax over an axis of one number does that too); keep the sigmoid",
        ),
        Wrong(
            lambda x, w: x * torch.sigmoid(w[:, None, None] * x.sum((2, 3), keepdim=True)),
            "the mean has become a sum, so the gates depend on the size of the map; the descriptor was right",
        ),
        Wrong(
            lambda x, w: x * torch.sigmoid(w[:, None, None] * x),
            "the mean over the places is gone; now it is a gate for each place",
        ),
        Wrong(
            lambda x, w: x * torch.sigmoid(x.mean((2, 3), keepdim=True)),
            "the weights w are gone; the score is w times the mean",
        ),
        Wrong(
            lambda x, w: x * torch.sigmoid(w[:, None, None] * x.mean(2, keepdim=True)),
            "you average over the rows alone; the channel gate of (7.2) averages over rows and columns",
        ),
        Wrong(
            lambda x, w: x * torch.sigmoid(w[:, None, None] * x.mean(3, keepdim=True)),
            "you average over the columns alone; the channel gate of (7.2) averages over rows and columns",
        ),
        Wrong(
            lambda x, w: x * torch.sigmoid(w[:, None, None] * x.mean(1, keepdim=True)),
            "you average over the channels; the mean of (7.2) runs over the places, and the channels stay apart",
        ),
        Wrong(
            lambda x, w: x * torch.sigmoid(w[:, None, None] * x.mean((1, 2, 3), keepdim=True)),
            "all channels get the mean of the whole image; each one has a mean of its own",
        ),
        Wrong(
            lambda x, w: x * torch.sigmoid(w[:, None, None] * x.mean()),
            "`x.mean()` runs over the batch too, so the images are still joined; give it the axes (2, 3)",
        ),
        Wrong(
            lambda x, w: x * torch.sigmoid(w[:, None, None] * x.amax((2, 3), keepdim=True)),
            "you take the maximum over the places; the descriptor of (7.2), the mean, was right",
        ),
        Wrong(
            lambda x, w: x * torch.sigmoid(x),
            "now each number gates itself: mean and weight are gone; take away the softmax and no more",
        ),
        Wrong(
            lambda x, w: x.shape[1] * x * channel_gate(x, w).softmax(1),
            "times the number of channels, the gates average 1, and they still share that out; no softmax is wanted",
        ),
        Wrong(
            lambda x, w: x * channel_gate(x, w) / len(x),
            "you divide by the number of images, so the batch size still sets the strength; leave the sigmoid alone",
        ),
        Wrong(
            lambda x, w: x * channel_gate(x, w) / channel_gate(x, w).amax(0),
            "dividing by the largest gate of the batch still joins the images; leave the sigmoid alone",
        ),
        Wrong(
            lambda x, w: (x * channel_gate(x, w), channel_gate(x, w)),
            "the features are right; return them alone, without the gate",
        ),
    ),
)


# 07.5 a row of one's own ---------------------------------------------------------------------------------


def row_gate(x: Tensor, W: Tensor) -> Tensor:
    z = x.mean(3, keepdim=True)
    return x * torch.sigmoid(F.conv2d(z, W[:, :, None, None]))


def row_gate_einsum(x: Tensor, W: Tensor) -> Tensor:
    s = torch.sigmoid(torch.einsum("ck,bkh->bch", W, x.mean(3)))
    return x * s[..., None]


def row_gate_by_row(x: Tensor, W: Tensor) -> Tensor:
    rows = [x[:, :, i] * (x[:, :, i].mean(2) @ W.T).sigmoid()[..., None] for i in range(x.shape[2])]
    return torch.stack(rows, 2)


def _rows(x: Tensor, W: Tensor) -> Tensor:
    return torch.einsum("ck,bkhw->bchw", W, x.mean(3, keepdim=True))


ROWS = Exercise(
    reference=row_gate,
    right=(row_gate_einsum, row_gate_by_row),
    inputs=lambda: [
        (2 * ramp(2, 4, 3, 5) + ramp(3, 1), 1.5 * ramp(4, 4)),
        (ramp(3, 5, 4, 2) + 0.5, 2 * ramp(5, 5, step=0.9)),
    ],
    praise="A gate that no row of the table had, and one line was enough.",
    wrong=(
        Wrong(
            lambda x, W: x * joint_gate(x.mean(2, keepdim=True), W),
            "you average over axis 2, the rows, so your gate is one for each column; average over axis 3",
        ),
        Wrong(
            lambda x, W: x * joint_gate(x.mean((2, 3), keepdim=True), W),
            "you average over all places, which leaves one gate for a channel; keep the rows",
        ),
        Wrong(lambda x, W: x * joint_gate(x, W), "you pool nothing: that is the joint gate of (7.4)"),
        Wrong(
            lambda x, W: x * joint_gate(x.mean(1, keepdim=True).expand_as(x), W),
            "you average over the channels; the descriptor keeps channels and rows",
        ),
        Wrong(
            lambda x, W: x * joint_gate(x.sum(3, keepdim=True), W),
            "you sum over the columns; with the mean the gate does not depend on the width of the map",
        ),
        Wrong(
            lambda x, W: x * joint_gate(x.amax(3, keepdim=True), W),
            "you take the maximum over the columns; the task asks for the mean",
        ),
        Wrong(
            lambda x, W: x * _rows(x, W.T).sigmoid(),
            "your W is transposed: row c of W holds what channel c's score takes from each channel k",
        ),
        Wrong(lambda x, W: x * _rows(x, W), "the sigmoid is missing; your gate has no bounds"),
        Wrong(
            lambda x, W: x * _rows(x, W).softmax(2),
            "your gates sum to 1 over the rows: a softmax; the gate is a sigmoid",
        ),
        Wrong(
            lambda x, W: x * _rows(x, W).softmax(1),
            "your gates sum to 1 over the channels: a softmax; the gate is a sigmoid",
        ),
        Wrong(
            lambda x, W: x * _rows(x, W).softmax(3),
            "a softmax over an axis of one number gives 1, always: your gate does nothing",
        ),
        Wrong(
            lambda x, W: x * torch.sigmoid(x.mean(3, keepdim=True)),
            "W is not used: each channel's score is a weighted sum over all channels",
        ),
        Wrong(
            lambda x, W: x * torch.sigmoid(W.diagonal()[:, None, None] * x.mean(3, keepdim=True)),
            "you use the diagonal of W only; each score is a weighted sum over all channels",
        ),
        Wrong(
            lambda x, W: _rows(x, W).sigmoid(),
            "you return the gate, (b, c, h, 1); multiply x by it",
        ),
        Wrong(
            lambda x, W: _rows(x, W).sigmoid().expand_as(x),
            "you return the gate in the shape of x; multiply x by it",
        ),
        Wrong(
            lambda x, W: x.mean(3, keepdim=True) * _rows(x, W).sigmoid(),
            "you rescale the means; the gate multiplies x itself",
        ),
        Wrong(lambda x, W: x + x * _rows(x, W).sigmoid(), "x was added; the gate only multiplies"),
        Wrong(
            lambda x, W: x * joint_gate(x.mean(3), W),
            "the mean has lost its axis; `keepdim=True` leaves an axis of one, which broadcasts against the columns",
        ),
        Wrong(
            lambda x, W: x * torch.sigmoid(torch.einsum("ck,bkh->bch", W, x.mean(3))),
            "give the gate a fourth axis: (b, c, h) must become (b, c, h, 1) before it multiplies x",
        ),
        Wrong(
            lambda x, W: x * joint_gate(x.mean((1, 3), keepdim=True).expand(-1, x.shape[1], -1, -1), W),
            "you average over the channels as well; the descriptor keeps channels and rows",
        ),
        Wrong(
            lambda x, W: x * joint_gate(x.mean((0, 3), keepdim=True), W),
            "you average over the batch as well, so that all images get the same gates",
        ),
        Wrong(
            lambda x, W: x * joint_gate(x, W).mean(3, keepdim=True),
            "you average the gates; the mean is the descriptor and comes first, in front of W and the sigmoid",
        ),
        Wrong(
            lambda x, W: (x * joint_gate(x, W)).mean(3, keepdim=True),
            "you average the output over the columns; the mean belongs to the descriptor, and the output keeps x's shape",
        ),
        Wrong(
            lambda x, W: x * joint_gate(x.mean(3, keepdim=True), W) * joint_gate(x.mean(2, keepdim=True), W),
            "that has a gate for the columns as well; here only the rows are asked for",
        ),
        Wrong(
            lambda x, W: x * _rows(x, W).tanh(),
            "a tanh runs from -1 to 1 and may turn signs round; the gate is a sigmoid",
        ),
        Wrong(
            lambda x, W: x * _rows(x, W).relu(),
            "a ReLU has no upper bound; the gate is a sigmoid",
        ),
        Wrong(
            lambda x, W: x * _rows(x.sigmoid(), W),
            "the sigmoid comes last, behind W; you take it of x",
        ),
        Wrong(
            lambda x, W: x * torch.einsum("ck,bkhw->bchw", W, x.mean(3, keepdim=True).sigmoid()),
            "the sigmoid comes last, behind W; you take it of the means",
        ),
        Wrong(
            lambda x, W: x * torch.sigmoid(W.sum(1)[:, None, None] * x.mean(3, keepdim=True)),
            "you sum the weights first and multiply z_c by the sum; each weight has a channel z_k of its own",
        ),
        Wrong(
            lambda x, W: (x * joint_gate(x.mean(3, keepdim=True), W), _rows(x, W).sigmoid()),
            "the features are right; return them alone, without the gate",
        ),
    ),
)


EXERCISES = {
    "07.a": choice(
        "d",
        {
            "a": "axis 1 is the channels; the images of axis 0 are not mixed",
            "b": "that is what a mean over the places leaves; axis 1 is the channels",
            "c": "keepdim=True leaves an axis of size 1 where the channels were",
            "e": "a mean over the channels leaves one number at each place",
        },
        "One number for each image and place.",
    ),
    "07.b": choice(
        "c",
        {
            "a": "the gate has an axis of one where x has 16 channels: it is repeated along that axis, without an error",
            "b": "broadcasting repeats along axes of size 1; the rows and columns of the gate are there and differ",
            "d": "the images have gates of their own: axis 0 of the gate has size 2",
            "e": "entries share a factor wherever the gate has an axis of size 1, and here it has one",
        },
        "An axis of size 1 is repeated: the same factor for all channels of a place.",
    ),
    "07.c": choice(
        "b",
        {
            "a": "1/4 is the slope of the sigmoid at 0, times t = 0 it gives nothing; the other part is the sigmoid itself",
            "c": "there are two parts: the sigmoid, 1/2 at t = 0, and t times its slope, which is 0 there",
            "d": "that would be the slope of t alone; it is multiplied by the sigmoid, which is 1/2",
            "e": "1/4 comes in times t, and t is 0",
        },
        "The product rule gives two parts, and at 0 only the direct one is left.",
    ),
    "07.d": choice(
        "a",
        {
            "b": "in (b) a channel hears all channels; here the score of channel c is w_c times its own mean",
            "c": "in (c) a place hears itself alone; here every place goes into the mean, with the same share",
            "d": "(d) is uneven over the places; in a mean each place has the same share 1/N",
            "e": "the places are right; but in (e) a channel hears all channels, and w_c meets its own mean alone",
        },
        "It hears its own channel, and every place alike.",
    ),
    "07.e": choice(
        "b",
        {
            "a": "in (a) all places count alike; the gate at p sees the 3 x 3 window around p",
            "c": "in (c) a place hears itself alone; the convolution looks at its neighbours as well",
            "d": "in (d) a place hears all places; beyond the 3 x 3 window the weight is zero",
            "e": "in (e) all places count alike; the gate at p sees a window, and the channels alike",
        },
        "It hears the mean of all channels, and its window.",
    ),
    "07.f": choice(
        "c",
        {
            "a": "(a) belongs to a mean over all places, and the joint gate pools nothing",
            "b": "in (b) a place hears its neighbours; the joint gate's matrix is applied at each place alone",
            "d": "in (d) a place hears all places; the joint gate's matrix is applied at each place alone",
            "e": "the channels are right; but (e) belongs to a mean over all places, and the joint gate pools nothing",
        },
        "All channels, and its own place alone.",
    ),
    "07.g": choice(
        "d",
        {
            "a": "(a) is flat over the places; a place that resembles p counts more, so the pattern is uneven",
            "b": "self-attention has no window: a place hears all places, near or far",
            "c": "a place does not hear itself alone: the average runs over all places",
            "e": "(e) is flat over the places; here a place counts more the more it resembles the one that asks",
        },
        "Everything hears everything, and how strongly depends on the map.",
    ),
    "07.1": JOINT,
    "07.2": GRADIENT,
    "07.3": SIGNATURE,
    "07.4": MEND,
    "07.5": ROWS,
}
