"""The exercises of 08_squeeze_and_excitation."""

import torch
from torch import Tensor
from torch.nn import functional as F

from attnlib.exercises.checker import Exercise, Wrong, choice, ramp

# 08.1 the gate -------------------------------------------------------------------------------------------


def se_gate(x: Tensor, W_1: Tensor, W_2: Tensor) -> Tensor:
    z = x.mean((2, 3))
    return torch.sigmoid(F.relu(z @ W_1.T) @ W_2.T)


def se_gate_einsum(x: Tensor, W_1: Tensor, W_2: Tensor) -> Tensor:
    z = torch.einsum("bchw->bc", x) / (x.shape[2] * x.shape[3])
    a = torch.einsum("bc,kc->bk", z, W_1).clamp(min=0)
    return 1 / (1 + torch.exp(-torch.einsum("bk,ck->bc", a, W_2)))


def se_gate_by_image(x: Tensor, W_1: Tensor, W_2: Tensor) -> Tensor:
    return torch.stack([(W_2 @ (W_1 @ image.flatten(1).mean(1)).clamp(min=0)).sigmoid() for image in x])


def gate_inputs() -> list[tuple]:
    """Maps of two sizes; some hidden units are shut, and the gates lie between 0.1 and 0.9."""
    return [
        (ramp(2, 4, 3, 5) + ramp(4)[:, None, None], 0.6 * ramp(2, 4), ramp(4, 2, step=0.9)),
        (2 * ramp(3, 6, 2, 2), 0.7 * ramp(3, 6, step=0.8), ramp(6, 3, step=1.3)),
    ]


GATE = Exercise(
    reference=se_gate,
    right=(se_gate_einsum, se_gate_by_image),
    inputs=gate_inputs,
    praise="Your gate equals equation (8.5) on maps of two sizes.",
    wrong=(
        Wrong(
            lambda x, W_1, W_2: torch.sigmoid(F.relu(x.sum((2, 3)) @ W_1.T) @ W_2.T),
            "your z grows with the size of the map: the squeeze (8.2) is the mean over the pixels, not their sum",
        ),
        Wrong(
            lambda x, W_1, W_2: torch.sigmoid(F.relu(x.amax((2, 3)) @ W_1.T) @ W_2.T),
            "you squeeze by the maximum; that variant exists, but (8.2) asks for the mean",
        ),
        Wrong(
            lambda x, W_1, W_2: torch.sigmoid(x.mean((2, 3)) @ W_1.T @ W_2.T),
            "the ReLU between the two layers is missing; without it they are one linear layer of low rank",
        ),
        Wrong(
            lambda x, W_1, W_2: torch.softmax(F.relu(x.mean((2, 3)) @ W_1.T) @ W_2.T, 1),
            "your gates sum to 1 over the channels: that is a softmax; (8.3) gives each channel its own sigmoid",
        ),
        Wrong(
            lambda x, W_1, W_2: se_gate(x, W_1, W_2).softmax(1),
            "your gates sum to 1 over the channels: a softmax has crept in after the sigmoid; see (8.15)",
        ),
        Wrong(
            lambda x, W_1, W_2: F.relu(x.mean((2, 3)) @ W_1.T) @ W_2.T,
            "some of your gates are negative or above 1: the sigmoid at the end of (8.3) is missing",
        ),
        Wrong(
            lambda x, W_1, W_2: torch.sigmoid(F.relu(F.relu(x.mean((2, 3)) @ W_1.T) @ W_2.T)),
            "none of your gates is below 1/2: a second ReLU stands in front of the sigmoid",
        ),
        Wrong(
            lambda x, W_1, W_2: torch.sigmoid(torch.sigmoid(x.mean((2, 3)) @ W_1.T) @ W_2.T),
            "there is a sigmoid behind the first layer too; that one has a ReLU",
        ),
        Wrong(
            lambda x, W_1, W_2: F.relu(torch.sigmoid(x.mean((2, 3)) @ W_1.T) @ W_2.T),
            "ReLU and sigmoid have changed places: the ReLU belongs behind W_1, the sigmoid behind W_2",
        ),
        Wrong(
            lambda x, W_1, W_2: se_gate(x.mean(0, keepdim=True).expand_as(x), W_1, W_2),
            "all images get the same gate: you average over the batch too; each image has a z of its own",
        ),
        Wrong(
            lambda x, W_1, W_2: torch.tanh(F.relu(x.mean((2, 3)) @ W_1.T) @ W_2.T),
            "a tanh runs from -1 to 1; a gate of (8.3) is a sigmoid, between 0 and 1",
        ),
        Wrong(
            lambda x, W_1, W_2: torch.sigmoid(F.relu(x.mean((2, 3)) @ W_2) @ W_1),
            "W_1 comes first, then W_2; you have them the other way round",
        ),
        Wrong(
            lambda x, W_1, W_2: torch.sigmoid(F.relu(x.mean((2, 3)) @ W_1) @ W_2),
            "W_1 has shape (c/r, c): to multiply every row z with it, write z @ W_1.T, and W_2.T likewise",
        ),
        Wrong(
            lambda x, W_1, W_2: torch.sigmoid(F.relu(x.mean((2, 3)) @ W_1.T) @ W_2),
            "the first layer is right; the second needs the transpose too: a @ W_2.T",
        ),
        *(
            Wrong(
                lambda x, W_1, W_2, axes=axes: torch.sigmoid(F.relu(x.mean(axes) @ W_1.T) @ W_2.T),
                f"you average over {what}; z should be (b, c): average over the last two axes, (2, 3), and no others",
            )
            for axes, what in [
                (1, "the channels"),
                (2, "the rows only"),
                (3, "the columns only"),
                ((1, 2), "axes 1 and 2"),
            ]
        ),
        Wrong(
            lambda x, W_1, W_2: x * se_gate(x, W_1, W_2)[:, :, None, None],
            "you return the rescaled features; this exercise asks for the gate alone, of shape (b, c)",
        ),
        Wrong(
            lambda x, W_1, W_2: se_gate(x, W_1, W_2)[:, :, None, None],
            "the numbers are right; drop the last two axes: the exercise asks for shape (b, c)",
        ),
    ),
)


# 08.2 the price ------------------------------------------------------------------------------------------


def se_parameters(channels: int, reduction: int, bias: bool) -> int:
    hidden = channels // reduction
    return 2 * channels * hidden + (hidden + channels if bias else 0)


def se_parameters_by_layer(channels: int, reduction: int, bias: bool) -> int:
    layers = [(channels, channels // reduction), (channels // reduction, channels)]
    return sum(n_in * n_out + bias * n_out for n_in, n_out in layers)


def se_parameters_closed(channels: int, reduction: int, bias: bool) -> float:
    return 2 * channels**2 / reduction + bias * channels * (1 + 1 / reduction)


PRICE = Exercise(
    reference=se_parameters,
    right=(se_parameters_by_layer, se_parameters_closed),
    inputs=lambda: [(64, 16, False), (256, 8, True), (48, 4, True)],
    praise="Exact, with and without biases.",
    wrong=(
        Wrong(
            lambda c, r, bias: c * c // r + (c // r + c) * bias,
            "you count one matrix; W_1 and W_2 have c²/r each",
        ),
        Wrong(
            lambda c, r, bias: 2 * c * c // r, "your weights are right; with bias=True add c/r and c biases"
        ),
        Wrong(
            lambda c, r, bias: 2 * c * c // r + 2 * c * bias,
            "the hidden layer has c/r units, so its layer has c/r biases, not c",
        ),
        Wrong(
            lambda c, r, bias: 2 * c * c // r + c * bias,
            "you count the biases of the second layer only; the first has c/r of its own",
        ),
        Wrong(
            lambda c, r, bias: 2 * c * c // r + c // r + c,
            "you add the biases always; with bias=False there are none",
        ),
        Wrong(
            lambda c, r, bias: 2 * c * c // r + c // r + c if bias else 0,
            "without biases you return 0: `a + b if bias else 0` is read as `(a + b) if bias else 0`; put brackets round the last part",
        ),
        Wrong(
            lambda c, r, bias: 2 * (c // r) ** 2 + (c // r + c) * bias,
            "you square the hidden width; each matrix joins c numbers with c/r, so it has c · c/r weights",
        ),
        Wrong(
            lambda c, r, bias: 2 * c * c // r + 2 * (c // r) * bias,
            "you give both layers c/r biases; the second layer has c outputs, and so c biases",
        ),
        Wrong(
            lambda c, r, bias: 2 * c * c // r + c // r * bias,
            "you count the biases of the first layer only; the second has c of its own",
        ),
        Wrong(
            lambda c, r, bias: 2 * c * c // r + (c // r + c) * (not bias),
            "you have it the wrong way round: the biases are there when bias is True",
        ),
        Wrong(
            lambda c, r, bias: 2 * c * c + (c // r + c) * bias,
            "your biases are right, but you have not divided the weights by r: the hidden layer is narrower",
        ),
        Wrong(
            lambda c, r, bias: 2 * c * c + 2 * c * bias,
            "you have not divided by r: the hidden layer is narrower",
        ),
    ),
)


# 08.4 another gate ---------------------------------------------------------------------------------------


def hard_gate_backward(grad_y: Tensor, x: Tensor, v: Tensor) -> Tensor:
    grad_s = (grad_y * x).sum((2, 3))
    return grad_s * (v.abs() < 3) / 6


def hard_gate_backward_where(grad_y: Tensor, x: Tensor, v: Tensor) -> Tensor:
    grad_s = torch.einsum("bchw,bchw->bc", grad_y, x)
    return torch.where((v > -3) & (v < 3), grad_s / 6, torch.zeros_like(v))


def hard_gate_backward_autograd(grad_y: Tensor, x: Tensor, v: Tensor) -> Tensor:
    v = v.clone().requires_grad_()
    (x * F.hardsigmoid(v)[:, :, None, None] * grad_y).sum().backward()
    return v.grad


def hard_gate_inputs() -> list[tuple]:
    return [
        (
            ramp(2, 3, 2, 4),
            ramp(2, 3, 2, 4, step=0.8),
            torch.tensor([[-4.0, -2.8, 0.5], [1.5, 2.7, 5.0]]).double(),
        ),
        (ramp(1, 5, 3, 3), ramp(1, 5, 3, 3, step=0.6), torch.tensor([[-3.5, -1.0, 0.0, 2.0, 3.5]]).double()),
    ]


HARD_GATE = Exercise(
    reference=hard_gate_backward,
    right=(hard_gate_backward_where, hard_gate_backward_autograd),
    inputs=hard_gate_inputs,
    praise="A gate that is shut or wide open learns nothing through v: that is the price of the straight line.",
    wrong=(
        Wrong(
            lambda grad_y, x, v: (grad_y * x).sum((2, 3)) / 6,
            "you use the slope 1/6 everywhere; outside of -3 < v < 3 the hard sigmoid is flat",
        ),
        Wrong(
            lambda grad_y, x, v: (grad_y * x).sum((2, 3)) * v.sigmoid() * (1 - v.sigmoid()),
            "that is the slope of the smooth sigmoid, (8.7); the hard one is a straight line between -3 and 3",
        ),
        Wrong(
            lambda grad_y, x, v: (grad_y * x).mean((2, 3)) * (v.abs() < 3) / 6,
            "every pixel used the gate, so the gradients of all pixels add up: a sum over h and w, not a mean",
        ),
        Wrong(
            lambda grad_y, x, v: grad_y.sum((2, 3)) * (v.abs() < 3) / 6,
            "the product rule: y = x s, so the gradient of s is grad_y times x, summed over the pixels; see (8.6)",
        ),
        Wrong(
            lambda grad_y, x, v: (grad_y * x).sum((2, 3)) * (v.abs() < 3),
            "the line rises by 1 over a width of 6, so its slope is 1/6",
        ),
        Wrong(
            lambda grad_y, x, v: (grad_y * x).sum((2, 3)) * ((v > 0) & (v < 3)) / 6,
            "the line starts at v = -3, not at 0: relu6(v + 3) is positive from there on",
        ),
        Wrong(
            lambda grad_y, x, v: (grad_y * x).sum((2, 3)),
            "that is the gradient of s; one step back to v is missing, through the slope of the gate",
        ),
        Wrong(
            lambda grad_y, x, v: (grad_y * x).sum((2, 3)) * ((v > 0) & (v < 6)) / 6,
            "relu6 is a straight line while v + 3 lies between 0 and 6: that is -3 < v < 3, not 0 < v < 6",
        ),
        Wrong(
            lambda grad_y, x, v: (grad_y * x).sum((2, 3)) * (v.abs() < 3) / 3,
            "your slope is 1/3; the line rises by 1 from v = -3 to v = 3, over a width of 6",
        ),
        Wrong(
            lambda grad_y, x, v: (grad_y * x).sum((2, 3)) * (v.abs() > 3) / 6,
            "your mask is the wrong way round: the gate moves where v lies between -3 and 3",
        ),
        Wrong(
            lambda grad_y, x, v: (grad_y * x).sum((2, 3)) * (v > -3) / 6,
            "you let the gradient through above v = 3 too; there the gate is wide open and flat",
        ),
        Wrong(
            lambda grad_y, x, v: (grad_y * x).sum((2, 3)) * (v < 3) / 6,
            "you let the gradient through below v = -3 too; there the gate is shut and flat",
        ),
        Wrong(
            lambda grad_y, x, v: (grad_y * x).sum((2, 3)) * F.hardsigmoid(v) * (1 - F.hardsigmoid(v)),
            "s(1 - s) is the slope of the smooth sigmoid; the hard one is a straight line, of the same slope everywhere on it",
        ),
        Wrong(
            lambda grad_y, x, v: grad_y * x * (v.abs() < 3)[:, :, None, None] / 6,
            "v is (b, c), and so is its gradient: every pixel used the same gate, so sum over h and w",
        ),
        Wrong(
            lambda grad_y, x, v: (grad_y * x).sum((2, 3)) * F.hardsigmoid(v),
            "you multiply by the gate itself; the chain rule asks for its slope",
        ),
    ),
)


# 08.3 mend a published mistake ---------------------------------------------------------------------------


def mended(x: Tensor, W_1: Tensor, W_2: Tensor) -> Tensor:
    return x * se_gate(x, W_1, W_2)[:, :, None, None]


def mended_in_place_of_softmax(x: Tensor, W_1: Tensor, W_2: Tensor) -> Tensor:
    b, c = x.shape[:2]
    w = torch.sigmoid(torch.relu(x.mean((2, 3)) @ W_1.T) @ W_2.T).view(b, c, 1, 1)
    return x * w.expand_as(x)


def mended_einsum(x: Tensor, W_1: Tensor, W_2: Tensor) -> Tensor:
    return torch.einsum("bchw,bc->bchw", x, se_gate_einsum(x, W_1, W_2))


def twice_normalised(x: Tensor, W_1: Tensor, W_2: Tensor) -> Tensor:
    return x * se_gate(x, W_1, W_2).softmax(1)[:, :, None, None]


MEND = Exercise(
    reference=mended,
    right=(mended_in_place_of_softmax, mended_einsum),
    inputs=gate_inputs,
    praise="The sigmoid alone: each channel is gated on its own, and an open gate leaves its channel as it is.",
    wrong=(
        Wrong(
            twice_normalised,
            "the weights of an image still sum to 1: the softmax after the sigmoid is still there",
        ),
        Wrong(
            lambda x, W_1, W_2: x * (F.relu(x.mean((2, 3)) @ W_1.T) @ W_2.T).softmax(1)[:, :, None, None],
            "you took away the sigmoid and kept the softmax; it is the softmax that makes the channels compete",
        ),
        Wrong(
            lambda x, W_1, W_2: x * (F.relu(x.mean((2, 3)) @ W_1.T) @ W_2.T)[:, :, None, None],
            "you took away both: the gate is now unbounded and may be negative; keep the sigmoid",
        ),
        Wrong(
            lambda x, W_1, W_2: twice_normalised(x, W_1, W_2) * x.shape[1],
            "multiplying by c repairs the average only: the gates still sum to a constant, so none can stay open alone",
        ),
        Wrong(
            lambda x, W_1, W_2: x + mended(x, W_1, W_2),
            "the softmax is gone, but an x was added; the block returns x times the gate",
        ),
        Wrong(
            lambda x, W_1, W_2: se_gate(x, W_1, W_2)[:, :, None, None].expand_as(x),
            "you return the gate; the block returns the features, rescaled",
        ),
        Wrong(
            lambda x, W_1, W_2: se_gate(x, W_1, W_2)[:, :, None, None],
            "you return the gate, (b, c, 1, 1); multiply x by it",
        ),
        Wrong(se_gate, "you return the gate, (b, c); give it two more axes and multiply x by it"),
        Wrong(
            lambda x, W_1, W_2: x, "now the gate is gone altogether; keep the sigmoid, and multiply x by it"
        ),
        Wrong(
            lambda x, W_1, W_2: (
                x * (se_gate(x, W_1, W_2) / se_gate(x, W_1, W_2).sum(1, keepdim=True))[:, :, None, None]
            ),
            "the gates of an image still sum to 1: dividing by the sum is a softmax in another dress",
        ),
        Wrong(
            lambda x, W_1, W_2: (
                x * (se_gate(x, W_1, W_2) / se_gate(x, W_1, W_2).amax(1, keepdim=True))[:, :, None, None]
            ),
            "you divide by the largest gate; nothing needs normalising, the sigmoid's values are the gates",
        ),
        Wrong(
            lambda x, W_1, W_2: x * se_gate(x, W_1, W_2).softmax(0)[:, :, None, None],
            "your softmax runs over the batch now, so one image changes the gates of another; it has to go",
        ),
    ),
)


EXERCISES = {
    "08.a": choice(
        "b",
        {
            "a": "an average over the pixels does not mix the images: each of the 2 keeps its own 16 means",
            "c": "that averages the channels away; global pooling averages the pixels and keeps the channels",
            "d": "one number an image would be the mean of everything; each channel is pooled on its own",
            "e": "nothing is left to average if all are kept: 2 x 16 x 8 x 8 is the size of the map itself",
        },
        "One mean for each image and channel.",
    ),
    "08.b": choice(
        "c",
        {
            "a": "that is the slope of the exponential; the sigmoid flattens out on both sides",
            "b": "1 - s alone does not vanish where s is near 0, and the sigmoid is flat there too",
            "d": "that is the slope of tanh, in terms of its own value",
            "e": "it is 1/4 only at v = 0, where s = 1/2; elsewhere it is smaller",
        },
        "It is largest at s = 1/2 and vanishes at both ends: a gate that is shut learns slowly.",
    ),
    "08.c": choice(
        "d",
        {
            "a": "that is what one layer sees; the second looks at a 3 x 3 window of such windows",
            "b": "the window grows by 2 pixels with each further 3 x 3 layer, not by 1",
            "c": "6 would be 3 + 3; neighbouring windows overlap, so the second layer adds 2",
            "e": "9 would be 3 x 3; the windows overlap, so the second layer adds 2 only",
        },
        "A layer of size k adds k - 1 pixels.",
    ),
    "08.1": GATE,
    "08.2": PRICE,
    "08.3": MEND,
    "08.4": HARD_GATE,
}
