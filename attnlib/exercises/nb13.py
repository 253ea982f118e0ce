"""The exercises of 13_global_attention."""

import torch
from torch import Tensor
from torch.nn import functional as F

from attnlib.exercises.checker import Exercise, Wrong, choice, ramp

# 13.1 the channel gate -----------------------------------------------------------------------------------


def logits(x: Tensor, W_1: Tensor, b_1: Tensor, W_2: Tensor, b_2: Tensor) -> Tensor:
    return F.relu(x.movedim(1, 3) @ W_1.T + b_1) @ W_2.T + b_2  # b h w c


def channel_gate(x: Tensor, W_1: Tensor, b_1: Tensor, W_2: Tensor, b_2: Tensor) -> Tensor:
    return logits(x, W_1, b_1, W_2, b_2).sigmoid().movedim(3, 1)


def channel_gate_convolutions(x: Tensor, W_1: Tensor, b_1: Tensor, W_2: Tensor, b_2: Tensor) -> Tensor:
    hidden = F.relu(F.conv2d(x, W_1[:, :, None, None], b_1))
    return F.conv2d(hidden, W_2[:, :, None, None], b_2).sigmoid()


def channel_gate_einsum(x: Tensor, W_1: Tensor, b_1: Tensor, W_2: Tensor, b_2: Tensor) -> Tensor:
    hidden = (torch.einsum("kc,bchw->bkhw", W_1, x) + b_1[:, None, None]).clamp(min=0)
    return 1 / (1 + torch.exp(-(torch.einsum("ck,bkhw->bchw", W_2, hidden) + b_2[:, None, None])))


def channel_gate_rows(x: Tensor, W_1: Tensor, b_1: Tensor, W_2: Tensor, b_2: Tensor) -> Tensor:
    b, c, h, w = x.shape
    rows = x.permute(0, 2, 3, 1).reshape(-1, c)
    gates = torch.sigmoid(F.linear(F.relu(F.linear(rows, W_1, b_1)), W_2, b_2))
    return gates.reshape(b, h, w, c).permute(0, 3, 1, 2)


def gate_inputs() -> list[tuple]:
    """Maps of two sizes, the second with as many channels as rows and columns, so that a lost axis runs."""
    return [
        (1.5 * ramp(2, 4, 3, 5, step=1.3), ramp(2, 4, step=0.8), 0.5 * ramp(2), ramp(4, 2), 0.5 * ramp(4)),
        (
            1.5 * ramp(2, 4, 4, 4, step=0.9),
            ramp(2, 4, step=1.7),
            0.5 * ramp(2, step=2.0),
            ramp(4, 2, step=1.1),
            0.5 * ramp(4, step=1.4),
        ),
    ]


def of_logits(f):
    """A wrong answer that goes on otherwise from the right logits (b, c, h, w)."""
    return lambda x, W_1, b_1, W_2, b_2: f(logits(x, W_1, b_1, W_2, b_2).movedim(3, 1))


def of_pooled(pool):
    """SE: the gate of pooled channels, at every place."""
    return lambda x, W_1, b_1, W_2, b_2: channel_gate(pool(x).expand_as(x), W_1, b_1, W_2, b_2)


def on_axis(axis):
    """The two layers on another axis of x."""
    return lambda x, W_1, b_1, W_2, b_2: (
        F.linear(F.relu(F.linear(x.movedim(axis, 3), W_1, b_1)), W_2, b_2).sigmoid().movedim(3, axis)
    )


def wrong_way_back(x, W_1, b_1, W_2, b_2):
    return logits(x, W_1, b_1, W_2, b_2).sigmoid().reshape(x.shape)


def wrong_way_there(x, W_1, b_1, W_2, b_2):
    b, c, h, w = x.shape
    rows = x.reshape(b, h, w, c)
    return F.linear(F.relu(F.linear(rows, W_1, b_1)), W_2, b_2).sigmoid().movedim(3, 1)


def viewed_both_ways(x, W_1, b_1, W_2, b_2):
    b, c, h, w = x.shape
    rows = x.reshape(b, h * w, c)
    return F.linear(F.relu(F.linear(rows, W_1, b_1)), W_2, b_2).sigmoid().reshape(x.shape)


def with_parts(change):
    """The right function of other layers."""
    return lambda x, *layers: channel_gate(x, *change(*layers))


GATE = Exercise(
    reference=channel_gate,
    right=(channel_gate_convolutions, channel_gate_einsum, channel_gate_rows),
    inputs=gate_inputs,
    praise="Your gate equals equation (13.5), with a number for each channel at each place.",
    wrong=(
        Wrong(
            of_pooled(lambda x: x.mean((2, 3), keepdim=True)),
            "all places get the same gate: you take the mean first, and that is SE; here nothing is pooled",
        ),
        Wrong(
            lambda x, W_1, b_1, W_2, b_2: (F.relu(x.mean((2, 3)) @ W_1.T + b_1) @ W_2.T + b_2).sigmoid()[
                :, :, None, None
            ],
            "you return one gate for each channel, (b, c, 1, 1), from its mean: that is SE; GAM pools nothing",
        ),
        Wrong(
            lambda x, W_1, b_1, W_2, b_2: (F.relu(x.mean((2, 3)) @ W_1.T + b_1) @ W_2.T + b_2).sigmoid(),
            "that is the gate of 08, (b, c), from the means; GAM pools nothing, and its gate has the shape of x",
        ),
        Wrong(
            of_pooled(lambda x: x.amax((2, 3), keepdim=True)),
            "all places get the same gate: you take the maximum over the places first; here nothing is pooled",
        ),
        Wrong(
            wrong_way_back,
            "the gates are right but lie in the wrong places: reshape does not move an axis; use movedim(3, 1)",
        ),
        Wrong(
            wrong_way_there,
            "reshape cuts the row of numbers anew and mixes channels with places; move the axis with movedim(1, 3)",
        ),
        Wrong(
            viewed_both_ways,
            "you reshape there and back, so your columns of c numbers are runs of neighbouring places; use movedim",
        ),
        Wrong(
            lambda x, W_1, b_1, W_2, b_2: logits(x, W_1, b_1, W_2, b_2).sigmoid(),
            "your gates are (b, h, w, c); at the end the channels have to go back to axis 1: movedim(3, 1)",
        ),
        Wrong(
            lambda x, W_1, b_1, W_2, b_2: logits(x, W_1, b_1, W_2, b_2).sigmoid().transpose(1, 3),
            "rows and columns have changed places: transpose(1, 3) swaps two axes; movedim(3, 1) keeps the others' order",
        ),
        Wrong(
            on_axis(3),
            "your layers work on the columns of the map, the last axis; the channels have to be moved there first",
        ),
        Wrong(
            on_axis(2), "your layers work on the rows of the map; they should work on the channels, axis 1"
        ),
        Wrong(
            of_logits(lambda v: v),
            "some of your gates are negative or above 1: the sigmoid at the end of (13.5) is missing",
        ),
        Wrong(
            of_logits(lambda v: v.softmax(1)),
            "your gates sum to 1 over the channels: that is a softmax; each number has a sigmoid of its own",
        ),
        Wrong(
            of_logits(lambda v: v.flatten(2).softmax(2).view_as(v)),
            "your gates sum to 1 over the places: that is a softmax; each number has a sigmoid of its own",
        ),
        Wrong(
            of_logits(lambda v: F.relu(v).sigmoid()),
            "none of your gates is below 1/2: a second ReLU stands in front of the sigmoid",
        ),
        Wrong(
            of_logits(torch.tanh), "a tanh runs from -1 to 1; the gate of (13.5) is a sigmoid, from 0 to 1"
        ),
        Wrong(
            lambda x, W_1, b_1, W_2, b_2: (
                ((x.movedim(1, 3) @ W_1.T + b_1) @ W_2.T + b_2).sigmoid().movedim(3, 1)
            ),
            "the ReLU between the two layers is missing; without it they are one linear layer of low rank",
        ),
        Wrong(
            lambda x, W_1, b_1, W_2, b_2: (
                ((x.movedim(1, 3) @ W_1.T + b_1).sigmoid() @ W_2.T + b_2).sigmoid().movedim(3, 1)
            ),
            "there is a sigmoid behind the first layer too; that one has a ReLU",
        ),
        Wrong(
            with_parts(lambda W_1, b_1, W_2, b_2: (W_1, 0 * b_1, W_2, 0 * b_2)),
            "both biases are missing: (13.5) adds b_1 before the ReLU and b_2 before the sigmoid",
        ),
        Wrong(
            with_parts(lambda W_1, b_1, W_2, b_2: (W_1, 0 * b_1, W_2, b_2)),
            "the bias b_1 of the first layer is missing",
        ),
        Wrong(
            with_parts(lambda W_1, b_1, W_2, b_2: (W_1, b_1, W_2, 0 * b_2)),
            "the bias b_2 of the second layer is missing",
        ),
        Wrong(
            lambda x, W_1, b_1, W_2, b_2: (
                ((F.relu(x.movedim(1, 3) @ W_1.T) + b_1) @ W_2.T + b_2).sigmoid().movedim(3, 1)
            ),
            "you add b_1 behind the ReLU; it belongs in front of it",
        ),
        Wrong(
            lambda x, W_1, b_1, W_2, b_2: (
                (F.relu(x.movedim(1, 3) @ W_2 + b_1) @ W_1 + b_2).sigmoid().movedim(3, 1)
            ),
            "W_1 comes first, then W_2, each transposed: rows @ W_1.T; you have them the other way round",
        ),
        Wrong(
            lambda x, W_1, b_1, W_2, b_2: (
                (F.relu(x.movedim(1, 3) @ W_1 + b_1) @ W_2 + b_2).sigmoid().movedim(3, 1)
            ),
            "W_1 has shape (c/r, c): to multiply every row with it write @ W_1.T, and W_2.T likewise",
        ),
        Wrong(
            lambda x, W_1, b_1, W_2, b_2: channel_gate(
                x.mean(0, keepdim=True).expand_as(x), W_1, b_1, W_2, b_2
            ),
            "all images get the same gates: you average over the batch; each image has its own",
        ),
        Wrong(
            of_pooled(lambda x: x.sum((2, 3), keepdim=True)),
            "all places get the same gate: you sum over the places first; here nothing is pooled",
        ),
        Wrong(
            lambda *given: channel_gate(*given).mean((2, 3), keepdim=True).expand_as(given[0]),
            "each place has its gate, but then you average the gates over the places; leave them apart",
        ),
        Wrong(
            lambda *given: channel_gate(*given).mean(0),
            "your gates are (c, h, w): you average over the batch at the end; each image has its own",
        ),
        Wrong(
            lambda *given: channel_gate(*given).flatten(2),
            "the gates are right, but as (b, c, h*w): give them the shape of x again, with view_as(x)",
        ),
        Wrong(
            lambda *given: channel_gate(*given).movedim(1, 3).flatten(0, 2),
            "your gates are one row a place, (b*h*w, c); bring them back to (b, c, h, w): unflatten, then movedim(3, 1)",
        ),
        Wrong(
            lambda x, W_1, b_1, W_2, b_2: logits(x, W_1, b_1, W_2, b_2).sigmoid().movedim(1, 3),
            "at the end you use movedim(1, 3) again; the way back is movedim(3, 1)",
        ),
        Wrong(
            lambda x, W_1, b_1, W_2, b_2: (
                (F.relu(x.movedim(3, 1) @ W_1.T + b_1) @ W_2.T + b_2).sigmoid().movedim(3, 1)
            ),
            "movedim(3, 1) brings the last axis forward; the way there is movedim(1, 3), channels to the back",
        ),
        Wrong(
            lambda x, W_1, b_1, W_2, b_2: (W_2 @ F.relu(W_1 @ x + b_1) + b_2).sigmoid(),
            "W_1 @ x multiplies along the rows of the map; move the channels to the back and write @ W_1.T",
        ),
        Wrong(
            lambda x, W_1, b_1, W_2, b_2: F.relu(x.movedim(1, 3) @ W_1.T + b_1).movedim(3, 1),
            "you return the c/r hidden channels; the second layer and the sigmoid are missing",
        ),
        Wrong(
            of_logits(F.relu),
            "you end in a second ReLU; there a sigmoid belongs, so that every gate lies between 0 and 1",
        ),
        Wrong(
            lambda x, W_1, b_1, W_2, b_2: channel_gate(x, W_1, b_1, W_2, 0 * b_2) + b_2[:, None, None],
            "you add b_2 behind the sigmoid; it belongs in front of it",
        ),
        Wrong(
            lambda x, W_1, b_1, W_2, b_2: x * channel_gate(x, W_1, b_1, W_2, b_2),
            "you return the rescaled features; this exercise asks for the gates alone",
        ),
    ),
)


# 13.2 the price ------------------------------------------------------------------------------------------


def gam_parameters(channels: int, reduction: int, groups: int) -> int:
    hidden = channels // reduction
    layers = 2 * channels * hidden + hidden + channels
    convolutions = 2 * 49 * channels * hidden // groups + hidden + channels
    return layers + convolutions + 2 * (hidden + channels)


def gam_parameters_closed(channels: int, reduction: int, groups: int) -> float:
    return 2 * channels**2 / reduction * (1 + 49 / groups) + 4 * channels * (1 + 1 / reduction)


def gam_parameters_by_part(channels: int, reduction: int, groups: int) -> int:
    c, h = channels, channels // reduction
    total = 0
    for n_in, n_out in ((c, h), (h, c)):
        total += n_in * n_out + n_out
        total += 49 * (n_in // groups) * n_out + n_out
        total += 2 * n_out
    return total


def price(weights=lambda c, h, G: 2 * c * h + 98 * c * h // G, others=lambda c, h: 4 * (c + h)):
    """A wrong answer by its two parts: the weights, and biases and norms."""
    return lambda channels, reduction, groups: (
        weights(channels, channels // reduction, groups) + others(channels, channels // reduction)
    )


PRICE = Exercise(
    reference=gam_parameters,
    right=(gam_parameters_closed, gam_parameters_by_part),
    inputs=lambda: [(64, 16, 1), (256, 8, 4), (48, 4, 3)],
    praise="Exact, with and without groups.",
    wrong=(
        Wrong(
            price(lambda c, h, G: 2 * c * h + 98 * c * h),
            "you left the groups out: with G groups each output channel sees only 1/G of the inputs",
        ),
        Wrong(
            price(lambda c, h, G: (2 * c * h + 98 * c * h) // G),
            "you divide the two layers by G as well; only the 7x7 convolutions have groups",
        ),
        Wrong(
            price(lambda c, h, G: 2 * c * h + 98 * c * h // G**2),
            "you divide by G twice; with G groups a convolution has 1/G of the weights",
        ),
        Wrong(
            price(lambda c, h, G: 2 * c * h + 98 * c * h * G),
            "groups make a convolution cheaper: divide by G",
        ),
        Wrong(
            price(lambda c, h, G: 2 * c * h + 49 * c * h // G),
            "you count one 7x7 convolution; there is one from c to c/r and one back",
        ),
        Wrong(
            price(lambda c, h, G: c * h + 98 * c * h // G),
            "you count one of the two layers of the channel gate; there is one from c to c/r and one back",
        ),
        Wrong(
            price(lambda c, h, G: 2 * c * h + 14 * c * h // G),
            "a 7x7 window has 49 weights, not 7",
        ),
        Wrong(
            price(lambda c, h, G: 2 * c * h + 18 * c * h // G),
            "your windows have 9 weights; they are 7x7, so 49",
        ),
        Wrong(
            price(lambda c, h, G: 98 * c * h // G),
            "the weights of the channel gate's two layers are missing",
        ),
        Wrong(
            price(lambda c, h, G: 2 * c * h),
            "the weights of the two 7x7 convolutions are missing",
        ),
        Wrong(
            price(lambda c, h, G: 2 * c * c + 98 * c * c // G),
            "you have not divided by r: the hidden layers have c/r channels",
        ),
        Wrong(
            price(lambda c, h, G: 2 * h * h + 98 * h * h // G),
            "you square c/r; each layer joins c channels with c/r",
        ),
        Wrong(
            price(lambda c, h, G: 2 * c * h + 49 * (c * h // G + c * h)),
            "only one of your two convolutions has groups; both have",
        ),
        Wrong(
            price(others=lambda c, h: 0),
            "your weights are right; add the biases of all four layers and two numbers for each channel of a norm",
        ),
        Wrong(
            price(others=lambda c, h: 2 * (c + h)),
            "your weights are right, but of biases and norms you count only half: four layers have biases, and two norms have scales and shifts",
        ),
        Wrong(
            price(others=lambda c, h: 3 * (c + h)),
            "your weights are right, but of the other numbers a quarter is missing: each norm has a scale and a shift, and all four layers have biases",
        ),
        Wrong(
            price(others=lambda c, h: 2 * (c + h) + 4 * c),
            "you give c numbers to something that has c/r outputs: the first layer, the first convolution and the norm behind it",
        ),
        Wrong(
            price(lambda c, h, G: 2 * c * h * (1 + 49 // G)),
            "49 // groups drops what is left over, since 4 or 3 does not divide 49; multiply first, then divide",
        ),
        Wrong(
            price(lambda c, h, G: 2 * c * h, others=lambda c, h: c + h),
            "that is the channel gate alone, the price of SE; the spatial gate's convolutions and norms are missing",
        ),
        Wrong(
            price(lambda c, h, G: 98 * c * h // G, others=lambda c, h: 3 * (c + h)),
            "that is the spatial gate alone; the two layers of the channel gate are missing",
        ),
        Wrong(
            price(lambda c, h, G: 2 * c * h + 98 * h * h // G),
            "your convolutions go from c/r to c/r channels; one goes from c to c/r and one back to c",
        ),
        Wrong(
            lambda channels, reduction, groups: gam_parameters(channels, channels // reduction, groups),
            "you take r itself for the number of hidden channels; it is c/r",
        ),
        Wrong(
            price(others=lambda c, h: 3 * (c + h) + c),
            "one of your layers or norms with c/r outputs is left out: each of the four has c or c/r biases, each norm twice as many",
        ),
        Wrong(
            price(others=lambda c, h: 6 * (c + h) + 2),
            "that is the length of the state_dict: the norms' running means, variances and counters are in it, and are no parameters",
        ),
        Wrong(
            price(others=lambda c, h: 2 * (c + h) + 4),
            "a norm has a scale and a shift for each of its channels, not only two numbers in all",
        ),
        Wrong(
            price(others=lambda c, h: 6 * (c + h)),
            "you count the running means and variances of the norms too; they are no parameters",
        ),
        Wrong(
            price(others=lambda c, h: 8 * c),
            "the first layer and the first convolution have c/r outputs, and so c/r biases and a norm of c/r channels",
        ),
    ),
)


# 13.3 mend a published mistake ---------------------------------------------------------------------------


def shuffled(x: Tensor, groups: int) -> Tensor:
    """Channel i of group g goes to place i * groups + g."""
    return x.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2)


def mended(x: Tensor, K_1: Tensor, K_2: Tensor, groups: int) -> Tensor:
    hidden = F.relu(F.conv2d(x, K_1, padding=3, groups=groups))
    return torch.sigmoid(F.conv2d(shuffled(hidden, groups), K_2, padding=3, groups=groups))


def mended_before_the_relu(x: Tensor, K_1: Tensor, K_2: Tensor, groups: int) -> Tensor:
    hidden = shuffled(F.conv2d(x, K_1, padding=3, groups=groups), groups)
    return F.conv2d(hidden.clamp(min=0), K_2, padding=3, groups=groups).sigmoid()


def mended_by_index(x: Tensor, K_1: Tensor, K_2: Tensor, groups: int) -> Tensor:
    hidden = F.conv2d(x, K_1, padding=3, groups=groups).relu()
    order = torch.arange(hidden.shape[1]).view(groups, -1).T.flatten()
    return torch.sigmoid(F.conv2d(hidden[:, order], K_2, padding=3, groups=groups))


def mend_inputs() -> list[tuple]:
    """Two sizes in which neither the shuffle of the hidden channels nor that of the gate is undone by itself."""
    return [
        (ramp(2, 12, 3, 4), 0.2 * ramp(6, 6, 7, 7, step=0.9), 0.2 * ramp(12, 3, 7, 7, step=1.3), 2),
        (ramp(1, 18, 2, 3, step=0.7), 0.2 * ramp(9, 6, 7, 7, step=1.9), 0.2 * ramp(18, 3, 7, 7, step=0.6), 3),
    ]


def spatial(
    before=lambda x, G: x, between=lambda x, G: x, after=lambda x, G: x, end=torch.sigmoid, middle=F.relu
):
    """A wrong answer by what it does before, between and behind the two convolutions."""

    def answer(x, K_1, K_2, groups):
        hidden = middle(F.conv2d(before(x, groups), K_1, padding=3, groups=groups))
        gate = end(F.conv2d(between(hidden, groups), K_2, padding=3, groups=groups))
        return after(gate, groups)

    return answer


def inverse(x: Tensor, groups: int) -> Tensor:
    return shuffled(x, x.shape[1] // groups)


MEND = Exercise(
    reference=mended,
    right=(mended_before_the_relu, mended_by_index),
    inputs=mend_inputs,
    praise="Shuffled in the middle, each group hears the others, and each gate stays with its own channel.",
    wrong=(
        Wrong(
            spatial(after=shuffled),
            "that is the popular code, unchanged: the finished gate is still shuffled, so gates multiply the wrong channels",
        ),
        Wrong(
            spatial(),
            "without any shuffle each gate is at its channel, but the groups never hear of each other, see (13.14)",
        ),
        Wrong(
            spatial(between=shuffled, after=shuffled),
            "the shuffle in the middle is right, but the finished gate is shuffled as well; take that one away",
        ),
        Wrong(
            spatial(before=shuffled, after=shuffled),
            "you shuffle in front of the first convolution and behind the second; what mixes the groups is a shuffle between them",
        ),
        Wrong(
            spatial(before=shuffled, after=inverse),
            "you shuffle in front of the first convolution and undo it behind the second; the groups still never mix",
        ),
        Wrong(
            spatial(before=shuffled),
            "you shuffle in front of the first convolution: that only deals the channels into other groups, which then never mix",
        ),
        Wrong(
            spatial(between=inverse),
            "your shuffle is the inverse one: with G groups, channel i of group g goes to place i * G + g",
        ),
        Wrong(
            spatial(after=inverse),
            "you still reorder the finished gate; each gate has to stay with its channel",
        ),
        Wrong(
            spatial(between=shuffled, after=inverse),
            "the shuffle in the middle need not be undone: K_2 puts out the channels in their own order",
        ),
        Wrong(
            lambda x, K_1, K_2, groups: F.conv2d(F.relu(F.conv2d(x, K_1, padding=3)), K_2, padding=3),
            "the kernels are those of grouped convolutions: leave groups=groups in the first; only the shuffle is in the wrong place",
        ),
        Wrong(
            lambda x, K_1, K_2, groups: F.conv2d(
                F.relu(F.conv2d(x, K_1, padding=3, groups=groups)), K_2, padding=3
            ),
            "the kernels are those of grouped convolutions: leave groups=groups in the second; only the shuffle is in the wrong place",
        ),
        Wrong(
            spatial(before=shuffled, between=shuffled),
            "the shuffle in the middle is right; you shuffle x as well, and then the groups hear other channels: take that one away",
        ),
        Wrong(
            spatial(between=lambda x, G: shuffled(shuffled(x, G), G)),
            "you shuffle the hidden channels twice; once is what (13.13) asks for",
        ),
        Wrong(
            spatial(between=shuffled, end=lambda v: F.relu(v).sigmoid()),
            "none of your gates is below 1/2: a second ReLU stands in front of the sigmoid",
        ),
        Wrong(
            lambda x, K_1, K_2, groups: x * spatial(after=shuffled)(x, K_1, K_2, groups),
            "you return x times the gate, and the finished gate is still shuffled; return the gate, with the shuffle in the middle",
        ),
        Wrong(
            spatial(between=lambda x, G: x.flip(1)),
            "you turn the order of the hidden channels round: the groups then change places, but do not mix",
        ),
        Wrong(
            spatial(between=lambda x, G: x.roll(1, 1)),
            "you move the hidden channels on by one, so each group hears only one neighbour; use shuffle",
        ),
        Wrong(
            spatial(between=shuffled, end=lambda v: v),
            "the shuffle is where it belongs; but the sigmoid at the end got lost",
        ),
        Wrong(
            spatial(between=shuffled, middle=lambda v: v),
            "the shuffle is where it belongs; but the ReLU between the convolutions got lost",
        ),
        Wrong(
            lambda x, K_1, K_2, groups: x * mended(x, K_1, K_2, groups),
            "the gate is right; return it alone, not its product with x",
        ),
        Wrong(
            lambda x, K_1, K_2, groups: F.relu(F.conv2d(x, K_1, padding=3, groups=groups)),
            "you return the hidden channels; the second convolution and the sigmoid are missing",
        ),
    ),
)


# 13.4 who hears whom -------------------------------------------------------------------------------------


def hears(hidden: int, groups: int) -> Tensor:
    old = torch.arange(hidden) // (hidden // groups)  # the group that each hidden channel comes from
    new = old.view(groups, -1).T.flatten().view(groups, -1)  # row q: the old groups of what group q is given
    return torch.stack([(new == g).any(1) for g in range(groups)], 1)


def hears_by_loops(hidden: int, groups: int) -> Tensor:
    per_group, table = hidden // groups, torch.zeros(groups, groups, dtype=torch.bool)
    for g in range(groups):
        for i in range(per_group):
            table[(i * groups + g) // per_group, g] = True
    return table


def hears_by_remainder(hidden: int, groups: int) -> Tensor:
    table = torch.zeros(groups, groups, dtype=torch.bool)
    place = torch.arange(hidden)
    table[place // (hidden // groups), place % groups] = True
    return table


def heard_counts(hidden: int, groups: int, start: int = 0) -> Tensor:
    table = torch.zeros(groups, groups, dtype=torch.int64)
    for n in range(start, hidden):
        table[n // (hidden // groups), n % groups] += 1
    return table


def by_number(entry):
    """The table filled by a learner's own rule for the row and the column of place n."""

    def answer(hidden: int, groups: int) -> Tensor:
        table = torch.zeros(groups, groups, dtype=torch.bool)
        for n in range(hidden):
            table[entry(n, hidden, groups)] = True
        return table

    return answer


HEARS = Exercise(
    reference=hears,
    right=(hears_by_loops, hears_by_remainder),
    inputs=lambda: [(8, 2), (16, 4), (8, 4), (12, 4), (4, 4), (12, 3), (5, 1)],
    praise="So a shuffle mixes all groups only where each holds at least as many hidden channels as there are groups.",
    wrong=(
        Wrong(
            lambda hidden, groups: torch.eye(groups, dtype=torch.bool),
            "that is the table without a shuffle: each group hears itself alone",
        ),
        Wrong(
            lambda hidden, groups: torch.ones(groups, groups, dtype=torch.bool),
            "that is true only where each group holds at least as many channels as there are groups; try hidden = 8, groups = 4",
        ),
        Wrong(
            lambda hidden, groups: hears(hidden, groups).T,
            "rows and columns have changed places (or your shuffle is the inverse one): row q is the group that hears, column g the one that is heard",
        ),
        Wrong(
            lambda hidden, groups: ~hears(hidden, groups),
            "yours is the table of what is not heard",
        ),
        Wrong(
            lambda hidden, groups: hears(hidden, groups).any(1),
            "you return one entry for each group; the table has a row for each listener and a column for each speaker",
        ),
        Wrong(
            lambda hidden, groups: hears(hidden, groups).sum(1),
            "you count how many groups each one hears; the exercise asks which",
        ),
        Wrong(
            lambda hidden, groups: hears(hidden, groups).int(),
            "the entries are right as 0 and 1; return truth values, such as table > 0",
        ),
        Wrong(
            lambda hidden, groups: hears(hidden, groups).double(),
            "the entries are right as 0.0 and 1.0; return truth values, such as table > 0",
        ),
        Wrong(
            lambda hidden, groups: (
                torch.arange(hidden).view(groups, -1).T.flatten().view(groups, -1)[:, :, None] % groups
                == torch.arange(groups)
            ).any(1),
            "before the shuffle, channel k belongs to group k // (hidden / groups), not to group k % groups",
        ),
        Wrong(
            lambda hidden, groups: heard_counts(hidden, groups),
            "you count the channels that each group hears of each other; return truth values, such as table > 0",
        ),
        Wrong(
            lambda hidden, groups: heard_counts(hidden, groups, start=1) > 0,
            "your loop begins at 1 and leaves out channel 0; write range(hidden)",
        ),
        Wrong(
            by_number(lambda n, hidden, groups: (n // groups, n % groups)),
            "a group holds hidden // groups channels, so place n lies in group n // (hidden // groups), not n // groups",
        ),
        Wrong(
            by_number(lambda n, hidden, groups: (n // (hidden // groups), n % (hidden // groups))),
            "behind the shuffle, place n holds a channel of the old group n % groups, not n % (hidden // groups)",
        ),
        Wrong(
            lambda hidden, groups: torch.arange(groups).expand(groups, -1) < hidden // groups,
            "the number of groups heard is right, but not all groups hear the first ones: row q begins where row q - 1 ended",
        ),
        Wrong(
            lambda hidden, groups: min(groups, hidden // groups),
            "that is how many groups each one hears, (13.14); the exercise asks which, as a table",
        ),
        Wrong(
            lambda hidden, groups: hears(hidden, groups).tolist(),
            "the entries are right as nested lists; return a tensor",
        ),
    ),
)


EXERCISES = {
    "13.a": choice(
        "c",
        {
            "a": "the weights are right, 4 x 16; but each is used once at every one of the 64 places",
            "b": "the MACs are right; the weights are shared by all places, so there are only 4 x 16",
            "d": "a layer from 16 to 4 channels joins each input with each output: a product, not a sum",
            "e": "576 would be the weights of a 3 x 3 convolution; each of the 64 weights here is used at all 64 places",
        },
        "64 weights, each used at 64 places.",
    ),
    "13.b": choice(
        "b",
        {
            "a": "that is without groups; with 4 of them an output sees only the inputs of its own group",
            "c": "4 is the number of groups; each of them holds 64/4 channels",
            "d": "that is a depthwise convolution, with as many groups as channels",
            "e": "it is the other way round: an output sees its own group and none of the others",
        },
        "64/4: the groups are separate convolutions.",
    ),
    "13.c": choice(
        "d",
        {
            "a": "its pooled maps are shuffled too, and then its window holds other neighbours",
            "b": "a point-wise gate moves along with its place: it is shuffled as the map is",
            "c": "its windows hold other neighbours after the shuffle, so its gate changes",
            "e": "one of them hears nothing but means over all places, and a mean has no order",
        },
        "Means do not know where; that is what pooling throws away.",
    ),
    "13.1": GATE,
    "13.2": PRICE,
    "13.3": MEND,
    "13.4": HEARS,
}
