"""The exercises of 11_cbam."""

import torch
from torch import Tensor
from torch.nn import functional as F

from attnlib.exercises.checker import Exercise, Wrong, choice, ramp

# 11.1 the channel gate -----------------------------------------------------------------------------------


def mlp(z: Tensor, W_1: Tensor, W_2: Tensor) -> Tensor:
    return F.relu(z @ W_1.T) @ W_2.T


def pools(x: Tensor) -> tuple[Tensor, Tensor]:
    return x.mean((2, 3)), x.amax((2, 3))


def channel_gate(x: Tensor, W_1: Tensor, W_2: Tensor) -> Tensor:
    return torch.sigmoid(sum(mlp(z, W_1, W_2) for z in pools(x)))


def channel_gate_stacked(x: Tensor, W_1: Tensor, W_2: Tensor) -> Tensor:
    flat = x.flatten(2)
    both = torch.stack([flat.mean(2), flat.max(2).values])  # 2 b c
    return torch.einsum("pbk,ck->bc", F.relu(torch.einsum("pbc,kc->pbk", both, W_1)), W_2).sigmoid()


def channel_gate_hidden_added(x: Tensor, W_1: Tensor, W_2: Tensor) -> Tensor:
    z, m = x.mean(3).mean(2), F.adaptive_max_pool2d(x, 1).flatten(1)
    hidden = (z @ W_1.T).clamp(min=0) + (m @ W_1.T).clamp(min=0)
    return 1 / (1 + torch.exp(-(hidden @ W_2.T)))


def gate_inputs() -> list[tuple]:
    """Maps of two sizes; some hidden units are shut for the mean and open for the maximum."""
    maps = [(2, 4, 3, 5, 1.3), (3, 6, 2, 2, 0.8)]
    first, second = (
        2 * ramp(b, c, h, w, step=step) + 0.5 * ramp(b, c, step=1.9)[:, :, None, None]
        for b, c, h, w, step in maps
    )
    return [
        (first, 0.8 * ramp(2, 4, step=1.3), ramp(4, 2, step=0.9)),
        (second, 0.8 * ramp(3, 6, step=2.4), ramp(6, 3, step=1.3)),
    ]


def of_pools(f):
    """A wrong answer that does something else with the two logits."""
    return lambda x, W_1, W_2: f(*(mlp(z, W_1, W_2) for z in pools(x)))


def of_hidden(f):
    """A wrong answer that does something else with the two hidden layers, before their ReLU."""
    return lambda x, W_1, W_2: (f(*(z @ W_1.T for z in pools(x))) @ W_2.T).sigmoid()


GATE = Exercise(
    reference=channel_gate,
    right=(channel_gate_stacked, channel_gate_hidden_added),
    inputs=gate_inputs,
    praise="Your gate equals equation (11.1) on maps of two sizes.",
    wrong=(
        Wrong(
            of_pools(lambda a, b: a.sigmoid()),
            "you use the means alone: that is the gate of 08; (11.1) passes the maxima through the same layers and adds",
        ),
        Wrong(
            of_pools(lambda a, b: b.sigmoid()),
            "you use the maxima alone; (11.1) adds what the same layers say about the means",
        ),
        Wrong(
            of_pools(lambda a, b: (2 * a).sigmoid()),
            "you pass the means through the layers twice; one of the two vectors should be the maxima",
        ),
        Wrong(
            of_pools(lambda a, b: (2 * b).sigmoid()),
            "you pass the maxima through the layers twice; one of the two vectors should be the means",
        ),
        Wrong(
            of_pools(lambda a, b: ((a + b) / 2).sigmoid()),
            "you average the two results; (11.1) adds them",
        ),
        Wrong(
            of_pools(lambda a, b: a.sigmoid() + b.sigmoid()),
            "you take two sigmoids and add them, so a gate may reach 2; add first, then take one sigmoid",
        ),
        Wrong(
            of_pools(lambda a, b: (a.sigmoid() + b.sigmoid()) / 2),
            "you take two sigmoids and average them; add the two results first, then take one sigmoid",
        ),
        Wrong(
            of_pools(lambda a, b: a.sigmoid() * b.sigmoid()),
            "you multiply two gates; (11.1) adds in front of a single sigmoid",
        ),
        Wrong(
            of_pools(lambda a, b: torch.maximum(a, b).sigmoid()),
            "you keep the larger of the two results; (11.1) adds them",
        ),
        Wrong(
            of_pools(lambda a, b: (b - a).sigmoid()),
            "you subtract the means' result from the maxima's; (11.1) adds",
        ),
        Wrong(
            of_pools(lambda a, b: a + b),
            "some of your gates are negative or above 1: the sigmoid at the end is missing",
        ),
        Wrong(
            of_pools(lambda a, b: (a + b).softmax(1)),
            "your gates sum to 1 over the channels: that is a softmax; each channel has a sigmoid of its own",
        ),
        Wrong(
            of_pools(lambda a, b: (a + b).sigmoid().softmax(1)),
            "your gates sum to 1: a softmax has crept in behind the sigmoid",
        ),
        Wrong(
            of_pools(lambda a, b: F.relu(a + b).sigmoid()),
            "none of your gates is below 1/2: a second ReLU stands in front of the sigmoid",
        ),
        Wrong(
            of_pools(lambda a, b: (a + b).tanh()),
            "a tanh runs from -1 to 1; the gate of (11.1) is a sigmoid, between 0 and 1",
        ),
        Wrong(
            lambda x, W_1, W_2: mlp(sum(pools(x)), W_1, W_2).sigmoid(),
            "you add the two vectors before the layers: the ReLU then sees the sum; each goes through the layers alone",
        ),
        Wrong(
            lambda x, W_1, W_2: mlp(sum(pools(x)) / 2, W_1, W_2).sigmoid(),
            "you average the two vectors before the layers; each goes through the layers alone, and then they are added",
        ),
        Wrong(
            lambda x, W_1, W_2: sum(z @ W_1.T @ W_2.T for z in pools(x)).sigmoid(),
            "the ReLU between the two layers is missing",
        ),
        Wrong(
            lambda x, W_1, W_2: (mlp(x.sum((2, 3)), W_1, W_2) + mlp(pools(x)[1], W_1, W_2)).sigmoid(),
            "your first vector is the sum over the pixels; it should be their mean",
        ),
        Wrong(
            lambda x, W_1, W_2: (mlp(pools(x)[0], W_1, W_2) + mlp(x.abs().amax((2, 3)), W_1, W_2)).sigmoid(),
            "you take the maximum of the absolute values; the maximum of (11.1) keeps the sign",
        ),
        Wrong(
            lambda x, W_1, W_2: (mlp(pools(x)[0], W_1, W_2) + mlp(x.amin((2, 3)), W_1, W_2)).sigmoid(),
            "your second vector holds the minima; it should hold the maxima",
        ),
        Wrong(
            lambda x, W_1, W_2: (
                mlp(pools(x)[0], W_1, W_2) + mlp(x.amax((0, 2, 3)).expand(len(x), -1), W_1, W_2)
            ).sigmoid(),
            "your maxima run over the batch too; each image has maxima of its own",
        ),
        Wrong(
            lambda x, W_1, W_2: (
                mlp(x.mean((0, 2, 3)).expand(len(x), -1), W_1, W_2) + mlp(pools(x)[1], W_1, W_2)
            ).sigmoid(),
            "your means run over the batch too; each image has means of its own",
        ),
        Wrong(
            lambda x, W_1, W_2: sum(mlp(z, W_1, W_2) for z in (x.mean(1), x.amax(1))).sigmoid(),
            "you pool over the channels, axis 1; that is the spatial gate's pooling, here it is axes (2, 3)",
        ),
        Wrong(
            lambda x, W_1, W_2: mlp(torch.cat(pools(x), 1), W_1, W_2).sigmoid(),
            "you join the two vectors; W_1 takes c numbers, so it is applied to each of them, and the results are added",
        ),
        Wrong(
            lambda x, W_1, W_2: sum(F.relu(z @ W_1) @ W_2 for z in pools(x)).sigmoid(),
            "W_1 has shape (c/r, c): to multiply every row with it, write z @ W_1.T, and W_2.T likewise",
        ),
        Wrong(
            lambda x, W_1, W_2: sum(F.relu(z @ W_1.T) @ W_2 for z in pools(x)).sigmoid(),
            "the first layer is right; the second needs the transpose too: a @ W_2.T",
        ),
        Wrong(
            lambda x, W_1, W_2: x * channel_gate(x, W_1, W_2)[:, :, None, None],
            "you return the rescaled features; this exercise asks for the gate alone, of shape (b, c)",
        ),
        Wrong(
            lambda x, W_1, W_2: channel_gate(x, W_1, W_2)[:, :, None, None],
            "the numbers are right; drop the last two axes: the exercise asks for shape (b, c)",
        ),
        Wrong(
            lambda x, W_1, W_2: (mlp(x.mean((2, 3)), W_1, W_2) + mlp(x.max((2, 3)), W_1, W_2)).sigmoid(),
            "x.max takes one axis only; x.amax((2, 3)) takes both",
        ),
        Wrong(
            lambda x, W_1, W_2: (mlp(pools(x)[0], W_1, W_2) + mlp(x.flatten(2).max(2), W_1, W_2)).sigmoid(),
            "max along an axis returns a pair, the values and where they stand; write .values behind it, or take amax",
        ),
        Wrong(
            lambda x, W_1, W_2: (
                mlp(pools(x)[0], W_1, W_2) + mlp(x.max().expand(x.shape[:2]), W_1, W_2)
            ).sigmoid(),
            "your maximum is that of all numbers together; each channel of each image has one of its own",
        ),
        Wrong(
            lambda x, W_1, W_2: (
                mlp(x.mean().expand(x.shape[:2]), W_1, W_2) + mlp(pools(x)[1], W_1, W_2)
            ).sigmoid(),
            "your mean is that of all numbers together; each channel of each image has one of its own",
        ),
        Wrong(
            lambda x, W_1, W_2: sum((z @ W_1.T).sigmoid() @ W_2.T for z in pools(x)).sigmoid(),
            "a sigmoid stands between the two layers; there it is a ReLU, the sigmoid comes at the end only",
        ),
        Wrong(
            of_hidden(lambda a, b: F.relu(a) + b),
            "the ReLU is missing on the way of the maxima; each of the two vectors goes through it",
        ),
        Wrong(
            of_hidden(lambda a, b: a + F.relu(b)),
            "the ReLU is missing on the way of the means; each of the two vectors goes through it",
        ),
        Wrong(
            of_hidden(lambda a, b: F.relu(a) * F.relu(b)),
            "you multiply the two hidden layers; (11.5) adds them",
        ),
        Wrong(
            of_hidden(lambda a, b: torch.maximum(F.relu(a), F.relu(b))),
            "you keep the larger of the two hidden layers; (11.5) adds them",
        ),
        Wrong(
            lambda x, W_1, W_2: sum(F.relu(z @ W_1.T @ W_2.T) for z in pools(x)).sigmoid(),
            "your ReLU stands behind the second layer; it belongs between the two",
        ),
        Wrong(
            of_pools(lambda a, b: (F.relu(a) + F.relu(b)).sigmoid()),
            "none of your gates is below 1/2: there is a ReLU behind the second layer as well; one between the layers is all",
        ),
        Wrong(
            lambda x, W_1, W_2: sum(F.relu(z) @ W_1.T @ W_2.T for z in pools(x)).sigmoid(),
            "your ReLU stands in front of the first layer; it belongs between the two",
        ),
        Wrong(
            of_pools(lambda a, b: a.sigmoid() + b),
            "the sigmoid takes the first term only; put a bracket around the sum",
        ),
        Wrong(
            of_pools(lambda a, b: (a + b).sigmoid().sigmoid()),
            "there are two sigmoids, one behind the other, so no gate is below 1/2; one is enough",
        ),
        Wrong(
            lambda x, W_1, W_2: sum(F.relu(z @ W_1.T) for z in pools(x)).sigmoid(),
            "the second layer is missing: you return the hidden units, c/r of them for each image",
        ),
        Wrong(
            of_pools(lambda a, b: (a.sigmoid(), b.sigmoid())),
            "you return two gates, one for each vector; (11.1) adds in front of the sigmoid, and one gate comes out",
        ),
        Wrong(
            of_pools(lambda a, b: 1 + (a + b).sigmoid()),
            "a 1 was added: your gates lie between 1 and 2; CBAM's gate is the sigmoid alone",
        ),
    ),
)


# 11.2 the order ------------------------------------------------------------------------------------------


def spatial_gate(x: Tensor, kernel: Tensor) -> Tensor:
    pooled = torch.stack([x.amax(1), x.mean(1)], 1)
    return torch.sigmoid(F.conv2d(pooled, kernel, padding=kernel.shape[-1] // 2))


def over_places(gate: Tensor) -> Tensor:
    return gate[:, :, None, None]


def two_gates(x: Tensor, W_1: Tensor, W_2: Tensor, kernel: Tensor, order: str) -> Tensor:
    if order == "channel-spatial":
        x = x * channel_gate(x, W_1, W_2)[:, :, None, None]
        return x * spatial_gate(x, kernel)
    x = x * spatial_gate(x, kernel)
    return x * channel_gate(x, W_1, W_2)[:, :, None, None]


def two_gates_loop(x: Tensor, W_1: Tensor, W_2: Tensor, kernel: Tensor, order: str) -> Tensor:
    gates = {
        "channel": lambda t: over_places(channel_gate(t, W_1, W_2)),
        "spatial": lambda t: spatial_gate(t, kernel),
    }
    for name in order.split("-"):
        x = gates[name](x) * x
    return x


def two_gates_products(x: Tensor, W_1: Tensor, W_2: Tensor, kernel: Tensor, order: str) -> Tensor:
    if order == "spatial-channel":
        s = spatial_gate(x, kernel)
        return torch.einsum("bchw,bc,bhw->bchw", x, channel_gate(s * x, W_1, W_2), s[:, 0])
    c = channel_gate(x, W_1, W_2)
    left = torch.einsum("bchw,bc->bchw", x, c)
    return left * spatial_gate(left, kernel).expand_as(x)


def first_only(x, W_1, W_2, kernel, order):
    if order == "channel-spatial":
        return x * over_places(channel_gate(x, W_1, W_2))
    return x * spatial_gate(x, kernel)


def second_sees_gate(x, W_1, W_2, kernel, order):
    if order == "channel-spatial":
        c = over_places(channel_gate(x, W_1, W_2))
        return x * c * spatial_gate(c.expand_as(x), kernel)
    s = spatial_gate(x, kernel)
    return x * s * over_places(channel_gate(s.expand_as(x), W_1, W_2))


def second_alone(x, W_1, W_2, kernel, order):
    left = first_only(x, W_1, W_2, kernel, order)
    if order == "channel-spatial":
        return x * spatial_gate(left, kernel)
    return x * over_places(channel_gate(left, W_1, W_2))


def first_twice(x, W_1, W_2, kernel, order):
    return two_gates(x, W_1, W_2, kernel, order) * (
        over_places(channel_gate(x, W_1, W_2)) if order == "channel-spatial" else spatial_gate(x, kernel)
    )


def overwritten(x, W_1, W_2, kernel, order):
    if order == "channel-spatial":
        return spatial_gate(over_places(channel_gate(x, W_1, W_2)), kernel)
    c = W_1.shape[1]
    return over_places(channel_gate(spatial_gate(x, kernel).expand(-1, c, -1, -1), W_1, W_2))


def block_inputs() -> list[tuple]:
    """Two images with different gates, in both orders."""
    kernels = [0.5 * ramp(1, 2, 3, 3, step=0.7), 0.4 * ramp(1, 2, 5, 5, step=1.1)]
    maps = [(*gate_inputs()[0], kernels[0]), (*gate_inputs()[1], kernels[1])]
    return [(*arguments, order) for arguments in maps for order in ("channel-spatial", "spatial-channel")]


def in_order(channel_first, spatial_first):
    """A wrong answer from what it does in either order with x and the two gates."""

    def answer(x, W_1, W_2, kernel, order):
        do = channel_first if order == "channel-spatial" else spatial_first
        return do(x, lambda t: over_places(channel_gate(t, W_1, W_2)), lambda t: spatial_gate(t, kernel))

    return answer


OTHER = {"channel-spatial": "spatial-channel", "spatial-channel": "channel-spatial"}

ORDER = Exercise(
    reference=two_gates,
    right=(two_gates_loop, two_gates_products),
    inputs=block_inputs,
    praise="Both orders, and each second gate looks at what the first one leaves.",
    wrong=(
        Wrong(
            lambda x, W_1, W_2, kernel, order: (
                x * over_places(channel_gate(x, W_1, W_2)) * spatial_gate(x, kernel)
            ),
            "both your gates look at x; the second one should look at what the first one leaves, see (11.4)",
        ),
        Wrong(
            lambda x, W_1, W_2, kernel, order: two_gates(x, W_1, W_2, kernel, OTHER[order]),
            "you have the two orders the wrong way round: channel-spatial applies the channel gate first",
        ),
        Wrong(
            lambda x, W_1, W_2, kernel, order: two_gates(x, W_1, W_2, kernel, "channel-spatial"),
            "you apply the channel gate first in both orders; look at the argument `order`",
        ),
        Wrong(
            lambda x, W_1, W_2, kernel, order: two_gates(x, W_1, W_2, kernel, "spatial-channel"),
            "you apply the spatial gate first in both orders; look at the argument `order`",
        ),
        Wrong(first_only, "you stop after the first gate; the second one is missing"),
        Wrong(
            second_alone,
            "your second gate is right, but it multiplies x itself; it should multiply what the first one left",
        ),
        Wrong(
            second_sees_gate,
            "your second gate looks at the first gate; it should look at the features which that gate leaves",
        ),
        Wrong(first_twice, "the first gate multiplies twice; once is enough"),
        Wrong(
            overwritten,
            "x is overwritten by the first gate: multiply, x = x * gate, before you go on",
        ),
        Wrong(
            lambda x, W_1, W_2, kernel, order: x + two_gates(x, W_1, W_2, kernel, order),
            "an x was added; the block returns x times the two gates, nothing more",
        ),
        Wrong(
            lambda x, W_1, W_2, kernel, order: (
                x * (over_places(channel_gate(x, W_1, W_2)) + spatial_gate(x, kernel))
            ),
            "you add the two gates; they multiply, one after the other",
        ),
        Wrong(
            lambda x, W_1, W_2, kernel, order: (
                x * (over_places(channel_gate(x, W_1, W_2)) + spatial_gate(x, kernel)) / 2
            ),
            "you average the two gates; they multiply, one after the other",
        ),
        Wrong(
            lambda x, W_1, W_2, kernel, order: two_gates(x, W_1, W_2, kernel.flip(1), order),
            "mean and maximum over the channels have changed places: the kernel's first half belongs to the maxima",
        ),
        Wrong(
            lambda x, W_1, W_2, kernel, order: two_gates(x, W_1, W_2, kernel.flip(2, 3), order),
            "your kernel is turned by half a circle; F.conv2d takes it as it is",
        ),
        Wrong(
            lambda x, W_1, W_2, kernel, order: two_gates(x, W_1, W_2, kernel, order) / x,
            "you return the product of the gates; the block returns the features",
        ),
        Wrong(
            lambda x, W_1, W_2, kernel, order: x * channel_gate(x, W_1, W_2),
            "the channel gate has shape (b, c); write gate[:, :, None, None] so that it multiplies every pixel",
        ),
        Wrong(
            in_order(
                lambda x, c, s: x * c(x) * s(x * c(x)),
                lambda x, c, s: x * s(x) * c(x),
            ),
            "channel-spatial is right; in the other order the channel gate should look at what the spatial gate leaves",
        ),
        Wrong(
            in_order(
                lambda x, c, s: x * c(x) * s(x),
                lambda x, c, s: x * s(x) * c(x * s(x)),
            ),
            "spatial-channel is right; in the other order the spatial gate should look at what the channel gate leaves",
        ),
        Wrong(
            in_order(lambda x, c, s: x * s(x), lambda x, c, s: x * c(x)),
            "the first gate is lost: your second line starts again from x, not from what the first one left",
        ),
        Wrong(
            in_order(lambda x, c, s: s(x * c(x)), lambda x, c, s: c(x * s(x))),
            "you return the second gate alone; multiply what the first one left with it",
        ),
        Wrong(
            in_order(
                lambda x, c, s: (x + x * c(x)) * (1 + s(x + x * c(x))),
                lambda x, c, s: (x + x * s(x)) * (1 + c(x + x * s(x))),
            ),
            "you add x behind each gate, so nothing can be shut; each step is features times gate, nothing more",
        ),
        Wrong(
            in_order(
                lambda x, c, s: x * c(x) * (1 + s(x * c(x))),
                lambda x, c, s: x * s(x) * (1 + c(x * s(x))),
            ),
            "you add what the first gate left to what the second one makes of it; return the second product alone",
        ),
        Wrong(
            in_order(
                lambda x, c, s: x * c(x) * s(x * c(x)) ** 2,
                lambda x, c, s: x * s(x) * c(x * s(x)) ** 2,
            ),
            "the second gate multiplies twice; once is enough",
        ),
        Wrong(
            lambda x, W_1, W_2, kernel, order: two_gates(
                two_gates(x, W_1, W_2, kernel, order), W_1, W_2, kernel, OTHER[order]
            ),
            "you go through both orders, one behind the other: two gates are asked for, not four",
        ),
        Wrong(
            lambda x, W_1, W_2, kernel, order: (
                sum(two_gates(x, W_1, W_2, kernel, o) for o in ("channel-spatial", "spatial-channel")) / 2
            ),
            "you average the two orders; `order` says which one is wanted",
        ),
        Wrong(
            lambda x, W_1, W_2, kernel, order: (channel_gate(x, W_1, W_2), spatial_gate(x, kernel)),
            "you return the two gates; the block returns the features, and its second gate looks at what the first leaves",
        ),
    ),
)


# 11.3 the price ------------------------------------------------------------------------------------------


def cbam_cost(channels: int, reduction: int, kernel_size: int, height: int, width: int) -> tuple[int, int]:
    hidden = channels // reduction
    layers, conv = 2 * channels * hidden, 2 * kernel_size**2
    return layers + hidden + channels + conv + 2, 2 * layers + conv * height * width


def cbam_cost_by_layer(channels, reduction, kernel_size, height, width):
    first = (channels + 1) * (channels // reduction)
    second = (channels // reduction + 1) * channels
    per_place = 2 * kernel_size * kernel_size
    macs = 2 * sum(2 * [channels * (channels // reduction)]) + per_place * height * width
    return first + second + per_place + 2, macs


def cbam_cost_closed(channels, reduction, kernel_size, height, width):
    c, r, k = channels, reduction, kernel_size
    return [2 * c**2 / r + c / r + c + 2 * k**2 + 2, 4 * c**2 / r + 2 * k**2 * height * width]


def wrong_cost(parameters=lambda p, c, a, k: p, macs=lambda m, c, a, k, n: m):
    """A wrong answer in one of the two numbers; a is c/r, n the number of places."""

    def answer(channels, reduction, kernel_size, height, width):
        p, m = cbam_cost(channels, reduction, kernel_size, height, width)
        hidden = channels // reduction
        return (
            parameters(p, channels, hidden, kernel_size),
            macs(m, channels, hidden, kernel_size, height * width),
        )

    return answer


PRICE = Exercise(
    reference=cbam_cost,
    right=(cbam_cost_by_layer, cbam_cost_closed),
    inputs=lambda: [(64, 16, 7, 56, 56), (48, 4, 3, 5, 9), (256, 8, 7, 14, 10)],
    praise="Exact: shared weights count once, and multiply twice.",
    wrong=(
        Wrong(
            wrong_cost(parameters=lambda p, c, a, k: p + 2 * c * a + a + c),
            "your parameters count the two layers twice; the mean and the maximum share them",
        ),
        Wrong(
            wrong_cost(parameters=lambda p, c, a, k: p + 2 * c * a),
            "your parameters count the layers' weights twice; the mean and the maximum share them",
        ),
        Wrong(
            wrong_cost(parameters=lambda p, c, a, k: p + c * a),
            "your parameters are those of joining, 3c²/r; sharing has 2c²/r, see (11.6)",
        ),
        Wrong(
            wrong_cost(parameters=lambda p, c, a, k: p - a - c),
            "the biases of the two layers are missing: c/r and c",
        ),
        Wrong(
            wrong_cost(parameters=lambda p, c, a, k: p - a - c - 2),
            "the biases of the two layers are missing, and the batch norm's scale and shift",
        ),
        Wrong(
            wrong_cost(parameters=lambda p, c, a, k: p - c), "the second layer has c outputs, and so c biases"
        ),
        Wrong(
            wrong_cost(parameters=lambda p, c, a, k: p - a),
            "the first layer has c/r outputs, and so c/r biases",
        ),
        Wrong(
            wrong_cost(parameters=lambda p, c, a, k: p - a + c),
            "the first layer has c/r biases, one for each of its outputs, not c",
        ),
        Wrong(
            wrong_cost(parameters=lambda p, c, a, k: p - 2),
            "your count lacks 2: the batch norm behind the convolution has a scale and a shift",
        ),
        Wrong(
            wrong_cost(parameters=lambda p, c, a, k: p - 1),
            "your count lacks 1: the batch norm has a scale and a shift, and the convolution no bias",
        ),
        Wrong(
            wrong_cost(parameters=lambda p, c, a, k: p + 1),
            "the convolution has no bias here: the batch norm behind it has a shift of its own",
        ),
        Wrong(
            wrong_cost(parameters=lambda p, c, a, k: p - k**2, macs=lambda m, c, a, k, n: m - k**2 * n),
            "the convolution reads two maps, the maxima and the means: 2k² weights, not k²",
        ),
        Wrong(
            wrong_cost(parameters=lambda p, c, a, k: p - k**2),
            "your MACs are right; the convolution has 2k² weights, since it reads two maps",
        ),
        Wrong(
            wrong_cost(macs=lambda m, c, a, k, n: m - k**2 * n),
            "your parameters are right; the convolution uses 2k² weights at every place, not k²",
        ),
        Wrong(
            wrong_cost(macs=lambda m, c, a, k, n: m - 2 * c * a),
            "your parameters are right; but shared layers are used twice, so their MACs count twice",
        ),
        Wrong(
            wrong_cost(macs=lambda m, c, a, k, n: m - 2 * k**2 * (n - 1)),
            "your MACs count the convolution once; it is used at each of the h·w places",
        ),
        Wrong(
            wrong_cost(macs=lambda m, c, a, k, n: m - 2 * c * a - 2 * k**2 * (n - 1)),
            "you count every weight as used once; the layers are used twice and the convolution at every place",
        ),
        Wrong(
            wrong_cost(macs=lambda m, c, a, k, n: 4 * c * a * n + 2 * k**2 * n),
            "the two layers work on pooled vectors: their MACs do not grow with h·w",
        ),
        Wrong(
            wrong_cost(macs=lambda m, c, a, k, n: m + 2 * k**2 * n * (c - 1)),
            "the convolution does not see c channels, only the two pooled maps",
        ),
        Wrong(
            wrong_cost(macs=lambda m, c, a, k, n: m + 2 * (a + c)),
            "biases are added, not multiplied; by the custom of the course they are not in the MACs",
        ),
        Wrong(
            lambda *sizes: cbam_cost(*sizes)[::-1],
            "both numbers are right, in the wrong order: parameters first, then MACs",
        ),
        Wrong(
            lambda *sizes: cbam_cost(*sizes)[0],
            "that is the number of parameters; return the pair, with the MACs behind it",
        ),
        Wrong(
            wrong_cost(parameters=lambda p, c, a, k: p - 2 * k**2 - 2, macs=lambda m, c, a, k, n: 2 * c * a),
            "that is the price of SE in 08: the layers now work twice, and a convolution and its batch norm are added",
        ),
        Wrong(
            wrong_cost(macs=lambda m, c, a, k, n: 4 * c * a),
            "your parameters are right; the MACs of the convolution are missing, 2k² at each of the h·w places",
        ),
        Wrong(
            wrong_cost(parameters=lambda p, c, a, k: p - 2 * k**2 - 2),
            "your MACs are right; the parameters of the convolution and of its batch norm are missing",
        ),
        Wrong(
            wrong_cost(parameters=lambda p, c, a, k: p - 2 * k**2),
            "your MACs are right; the weights of the convolution are missing in the parameters",
        ),
        Wrong(
            wrong_cost(parameters=lambda p, c, a, k: p - c * a),
            "your parameters count one layer's weights; there are two layers, c·c/r weights each",
        ),
        Wrong(
            wrong_cost(parameters=lambda p, c, a, k: p - c * a, macs=lambda m, c, a, k, n: m - 2 * c * a),
            "you count one layer; there are two, c to c/r and back, with c·c/r weights each",
        ),
        Wrong(
            wrong_cost(parameters=lambda p, c, a, k: p + 2),
            "you count 2 too many: a batch norm's running mean and variance are not learnt, so they are no parameters",
        ),
        Wrong(
            wrong_cost(parameters=lambda p, c, a, k: p - 2 + 2 * c),
            "the batch norm stands behind the convolution, which puts out one channel: one scale and one shift",
        ),
        Wrong(
            wrong_cost(parameters=lambda p, c, a, k: p - 1 - a - c),
            "the two layers have biases and the convolution a batch norm in the place of a bias; you have it the other way round",
        ),
        Wrong(
            wrong_cost(parameters=lambda p, c, a, k: p + a + c),
            "your parameters count the biases twice; the two vectors share them with the layers",
        ),
        Wrong(
            wrong_cost(
                parameters=lambda p, c, a, k: p - 2 * k**2 + 2 * k,
                macs=lambda m, c, a, k, n: 4 * c * a + 2 * k * n,
            ),
            "a window has k times k weights, not k",
        ),
        Wrong(
            wrong_cost(
                parameters=lambda p, c, a, k: p + (c - 2) * k**2,
                macs=lambda m, c, a, k, n: 4 * c * a + c * k**2 * n,
            ),
            "the convolution reads the two pooled maps, not the c channels: 2k² weights",
        ),
        Wrong(
            wrong_cost(
                parameters=lambda p, c, a, k: p + 2 * k**2,
                macs=lambda m, c, a, k, n: 4 * c * a + 4 * k**2 * n,
            ),
            "the convolution reads two maps and puts out one: 2k² weights, not 4k²",
        ),
        Wrong(
            lambda channels, reduction, *sizes: cbam_cost(channels, channels // reduction, *sizes),
            "the hidden layer has c/r units; you give it r",
        ),
        Wrong(
            wrong_cost(macs=lambda m, c, a, k, n: m + c * n),
            "your MACs hold a product with a gate at every number of the map; by the custom of the course these are not counted",
        ),
        Wrong(
            wrong_cost(macs=lambda m, c, a, k, n: m + 2 * c * n),
            "your MACs hold the products with both gates; by the custom of the course these are not counted",
        ),
        Wrong(
            wrong_cost(macs=lambda m, c, a, k, n: 2 * m),
            "your MACs are doubled: one multiply-accumulate is a product and a sum together and counts once",
        ),
        Wrong(
            wrong_cost(macs=lambda m, c, a, k, n: m - c * a),
            "those are the MACs of joining, 3c²/r; here each vector goes through both layers: 4c²/r",
        ),
        Wrong(
            wrong_cost(parameters=lambda p, c, a, k: p + c * a, macs=lambda m, c, a, k, n: m - c * a),
            "that is the price of joining, see (11.6); here the two vectors share layers: 2c²/r weights, each used twice",
        ),
        Wrong(
            lambda *sizes: sum(cbam_cost(*sizes)),
            "you add the two numbers; return them as a pair",
        ),
        Wrong(
            lambda channels, reduction, k, height, width: (
                cbam_cost(channels, reduction, k, height, width)[0],
                4 * channels * (channels // reduction) + 2 * k**2 * (height - k + 1) * (width - k + 1),
            ),
            "the convolution has zeros around its map, so it is used at all h·w places, the border too",
        ),
    ),
)


# 11.4 mend a published mistake ---------------------------------------------------------------------------


def mended(x: Tensor, W_1: Tensor, W_2: Tensor, kernel: Tensor) -> Tensor:
    return two_gates(x, W_1, W_2, kernel, "channel-spatial")


def mended_in_a_line(x: Tensor, W_1: Tensor, W_2: Tensor, kernel: Tensor) -> Tensor:
    left = x * channel_gate_stacked(x, W_1, W_2)[..., None, None]
    pooled = torch.cat([left.max(1, keepdim=True).values, left.mean(1, keepdim=True)], 1)
    return left * F.conv2d(pooled, kernel, padding="same").sigmoid()


def mended_by_loop(x: Tensor, W_1: Tensor, W_2: Tensor, kernel: Tensor) -> Tensor:
    return two_gates_loop(x, W_1, W_2, kernel, "channel-spatial")


def block_of(gate, back=lambda x, left: left):
    """A channel gate made from the two pooled vectors, the right spatial gate, and what is done at the end."""

    def answer(x, W_1, W_2, kernel):
        v = gate(*(mlp(z, W_1, W_2) for z in pools(x)))
        left = x * over_places(v)
        return back(x, left * spatial_gate(left, kernel))

    return answer


def with_maxima(pool):
    """The residual is gone, but something else stands in the place of the maxima."""

    def answer(x, W_1, W_2, kernel):
        v = mlp(x.mean((2, 3)), W_1, W_2) + mlp(pool(x), W_1, W_2)
        left = x * over_places(v.sigmoid())
        return left * spatial_gate(left, kernel)

    return answer


MEND = Exercise(
    reference=mended,
    right=(mended_in_a_line, mended_by_loop),
    inputs=lambda: [arguments[:4] for arguments in block_inputs()[::2]],
    praise="Both are gone: the maxima have a say, and both gates together can shut.",
    wrong=(
        Wrong(
            block_of(lambda a, b: (2 * a).sigmoid(), lambda x, left: x + left),
            "nothing has changed yet: both mistakes are still there",
        ),
        Wrong(
            block_of(lambda a, b: (a + b).sigmoid(), lambda x, left: x + left),
            "the channel gate is right now; look at the last line, and at (11.4)",
        ),
        Wrong(
            block_of(lambda a, b: (2 * a).sigmoid()),
            "the last line is right now; but one of the two pooled vectors is not the one it is called",
        ),
        Wrong(
            block_of(lambda a, b: a.sigmoid()),
            "you took away one of the two terms; that is the gate of 08: the second one should see the maxima",
        ),
        Wrong(
            block_of(lambda a, b: (2 * b).sigmoid()),
            "now both vectors are the maxima; one of them should be the means",
        ),
        Wrong(
            block_of(lambda a, b: b.sigmoid()),
            "only the maxima are left in the channel gate; (11.1) adds what the layers say about the means",
        ),
        Wrong(
            block_of(lambda a, b: a.sigmoid(), lambda x, left: x + left),
            "you took away a term that belongs there, and the residual that does not is still there",
        ),
        Wrong(
            block_of(lambda a, b: a + b),
            "the sigmoid of the channel gate is lost: its values may now be negative or above 1",
        ),
        Wrong(
            block_of(lambda a, b: (a + b).sigmoid(), lambda x, left: (x + left) / 2),
            "halving the sum does not help: the gate still cannot go below 1/2; drop the x",
        ),
        Wrong(
            block_of(lambda a, b: ((a + b) / 2).sigmoid()),
            "you average the two results; (11.1) adds them",
        ),
        Wrong(
            lambda x, W_1, W_2, kernel: x * over_places(channel_gate(x, W_1, W_2)) * spatial_gate(x, kernel),
            "both mistakes are mended, but your spatial gate looks at x; it should look at what the channel gate leaves",
        ),
        Wrong(
            lambda x, W_1, W_2, kernel: two_gates(x, W_1, W_2, kernel, "spatial-channel"),
            "both mistakes are mended, but you changed the order: the channel gate comes first",
        ),
        Wrong(
            lambda x, W_1, W_2, kernel: x * over_places(channel_gate(x, W_1, W_2)),
            "you return what the channel gate leaves; the spatial gate is missing",
        ),
        Wrong(
            lambda x, W_1, W_2, kernel: two_gates(x, W_1, W_2, kernel.flip(1), "channel-spatial"),
            "both mistakes are mended, but the two maps of the spatial gate have changed places: maxima first",
        ),
        Wrong(
            lambda x, W_1, W_2, kernel: mended(x, W_1, W_2, kernel) / x,
            "you return the product of the gates; the block returns the features",
        ),
        Wrong(
            with_maxima(lambda x: x.max((2, 3))),
            "x.max takes one axis only; the maximum over both axes of places is x.amax((2, 3))",
        ),
        Wrong(
            with_maxima(lambda x: x.max().expand(x.shape[:2])),
            "your maximum is one number for all; each channel of each image has one of its own: x.amax((2, 3))",
        ),
        Wrong(
            with_maxima(lambda x: x.amax((0, 2, 3)).expand(x.shape[:2])),
            "your maxima run over the batch too; each image has its own",
        ),
        Wrong(
            with_maxima(lambda x: x.abs().amax((2, 3))),
            "the maximum keeps the sign; you take that of the absolute values",
        ),
        Wrong(
            with_maxima(lambda x: x.amin((2, 3))),
            "you pool by the minimum; the vector is called max_pool",
        ),
        Wrong(
            with_maxima(lambda x: x.sum((2, 3))),
            "the sum over the places is the mean once more, h·w times as large; the maximum is wanted",
        ),
        Wrong(
            block_of(lambda a, b: (a + b).sigmoid(), lambda x, left: left - x),
            "taking x away is no better than adding it; return out alone",
        ),
        Wrong(
            block_of(lambda a, b: (a + b).sigmoid(), lambda x, left: left * x),
            "now x multiplies once more, so the features are squared; return out alone",
        ),
        Wrong(
            block_of(lambda a, b: (a + b).sigmoid(), lambda x, left: F.relu(x + left)),
            "the channel gate is right now; but x is still added, and a ReLU came along",
        ),
        Wrong(
            block_of(lambda a, b: (a + b).sigmoid(), lambda x, left: F.relu(left)),
            "both mistakes are mended, but a ReLU was added at the end; (11.4) has none",
        ),
        Wrong(
            block_of(lambda a, b: a.sigmoid() * b.sigmoid()),
            "you made two gates and multiply them; (11.1) adds in front of one sigmoid",
        ),
        Wrong(
            block_of(lambda a, b: a.sigmoid() + b.sigmoid()),
            "you made two gates and add them, so they reach 2; (11.1) adds in front of one sigmoid",
        ),
        Wrong(
            lambda x, W_1, W_2, kernel: (
                x * over_places(channel_gate(x, W_1, W_2)) * spatial_gate(x, kernel) + x
            ),
            "the maximum is mended; but x is still added, and your spatial gate now looks at x, which it did not before",
        ),
        Wrong(
            lambda x, W_1, W_2, kernel: (
                (left := x * over_places(channel_gate(x, W_1, W_2))) + left * spatial_gate(left, kernel)
            ),
            "you add what the channel gate leaves in the place of x; nothing is to be added",
        ),
        Wrong(
            lambda x, W_1, W_2, kernel: x * spatial_gate(x * over_places(channel_gate(x, W_1, W_2)), kernel),
            "the spatial gate multiplies x in your version; it should multiply what the channel gate leaves",
        ),
        Wrong(
            lambda x, W_1, W_2, kernel: spatial_gate(x * over_places(channel_gate(x, W_1, W_2)), kernel),
            "you return the spatial gate alone; multiply out with it",
        ),
    ),
)


# 11.5 backward through two gates side by side ------------------------------------------------------------


def gates_backward(g: Tensor, x: Tensor, s: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
    grad_s = (g * x * p[:, None]).sum((2, 3))
    grad_p = (g * x * s[:, :, None, None]).sum(1)
    return grad_s * s * (1 - s), grad_p * p * (1 - p)


def gates_backward_einsum(g: Tensor, x: Tensor, s: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
    grad_s = torch.einsum("bchw,bchw,bhw->bc", g, x, p)
    grad_p = torch.einsum("bchw,bchw,bc->bhw", g, x, s)
    return grad_s * (s - s**2), grad_p * (p - p**2)


def gates_backward_autograd(g: Tensor, x: Tensor, s: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
    logits = [gate.logit().requires_grad_() for gate in (s, p)]
    y = x * logits[0].sigmoid()[:, :, None, None] * logits[1].sigmoid()[:, None]
    return torch.autograd.grad(y, logits, g)


def gates_inputs() -> list[tuple]:
    return [
        (ramp(2, 3, 4, 5), ramp(2, 3, 4, 5, step=0.8), ramp(2, 3).sigmoid(), (2 * ramp(2, 4, 5)).sigmoid()),
        (
            ramp(1, 5, 3, 2, step=0.6),
            ramp(1, 5, 3, 2, step=1.1),
            (2 * ramp(1, 5)).sigmoid(),
            ramp(1, 3, 2).sigmoid(),
        ),
    ]


def gates_by(
    s_term=lambda g, x, s, p: (g * x * p[:, None]).sum((2, 3)),
    p_term=lambda g, x, s, p: (g * x * s[:, :, None, None]).sum(1),
    slope=lambda t: t * (1 - t),
):
    """A wrong answer in one of the three steps."""
    return lambda g, x, s, p: (s_term(g, x, s, p) * slope(s), p_term(g, x, s, p) * slope(p))


def to_s(g, x, s, p):
    """The gradient for the channel gate itself."""
    return (g * x * p[:, None]).sum((2, 3))


def to_p(g, x, s, p):
    """The gradient for the gate over places itself."""
    return (g * x * s[:, :, None, None]).sum(1)


def without_p(g, x, s, p):
    return (g * x).sum((2, 3))


def without_s(g, x, s, p):
    return (g * x).sum(1)


BACKWARD = Exercise(
    reference=gates_backward,
    right=(gates_backward_einsum, gates_backward_autograd),
    inputs=gates_inputs,
    praise="Each gate's gradient is weighted by the other gate: where one is shut, the other learns nothing.",
    wrong=(
        Wrong(
            gates_by(s_term=without_p, p_term=without_s),
            "each gate multiplies the other: the gradient of s carries the factor p, and that of p the factor s",
        ),
        Wrong(
            gates_by(s_term=without_p),
            "your second gradient is right; the first lacks the other gate: y = x s p, so its slope in s is x p",
        ),
        Wrong(
            gates_by(p_term=without_s),
            "your first gradient is right; the second lacks the other gate: y = x s p, so its slope in p is x s",
        ),
        Wrong(
            gates_by(slope=torch.ones_like),
            "these are the gradients of the gates; one step back to the logits is missing, through the sigmoids",
        ),
        Wrong(
            gates_by(slope=lambda t: t),
            "you multiply by the gate itself; the slope of a sigmoid is its value times one minus its value",
        ),
        Wrong(gates_by(slope=lambda t: 1 - t), "the slope of a sigmoid is t(1 - t); the factor t is missing"),
        Wrong(
            gates_by(slope=lambda t: t.sigmoid() * (1 - t.sigmoid())),
            "s and p are gates already; taking another sigmoid of them gives the slope at the wrong place",
        ),
        Wrong(gates_by(slope=lambda t: 1 - t**2), "1 - t² is the slope of tanh; the gates are sigmoids"),
        Wrong(
            gates_by(s_term=lambda g, x, s, p: (g * x * p[:, None]).mean((2, 3))),
            "every place used the gate of its channel, so the gradients of all places add up: a sum, not a mean",
        ),
        Wrong(
            gates_by(p_term=lambda g, x, s, p: (g * x * s[:, :, None, None]).mean(1)),
            "every channel used the gate of its place, so the gradients of all channels add up: a sum, not a mean",
        ),
        Wrong(
            gates_by(
                s_term=lambda g, x, s, p: (g * x * p[:, None]).mean((2, 3)),
                p_term=lambda g, x, s, p: (g * x * s[:, :, None, None]).mean(1),
            ),
            "both gradients are means; every number that used a gate adds to its gradient, so sum",
        ),
        Wrong(
            gates_by(
                s_term=lambda g, x, s, p: (g * p[:, None]).sum((2, 3)),
                p_term=lambda g, x, s, p: (g * s[:, :, None, None]).sum(1),
            ),
            "the features are missing: y = x s p, so both slopes carry the factor x",
        ),
        Wrong(
            gates_by(
                s_term=lambda g, x, s, p: (g * x * p[:, None] * s[:, :, None, None]).sum((2, 3)),
                p_term=lambda g, x, s, p: (g * x * p[:, None] * s[:, :, None, None]).sum(1),
            ),
            "you keep both gates in both slopes; the one by which you differentiate drops out of the product",
        ),
        Wrong(
            lambda g, x, s, p: tuple(reversed(gates_backward(g, x, s, p))),
            "both are right, in the wrong order: first the channel logits (b, c), then the places' (b, h, w)",
        ),
        Wrong(
            lambda g, x, s, p: (gates_backward(g, x, s, p)[0], gates_backward(g, x, s, p)[1][:, None]),
            "the numbers are right; the second result should have shape (b, h, w), without an axis of channels",
        ),
        Wrong(
            lambda g, x, s, p: (
                gates_backward(g, x, s, p)[0][:, :, None, None],
                gates_backward(g, x, s, p)[1][:, None],
            ),
            "the numbers are right; the shapes asked for are (b, c) and (b, h, w)",
        ),
        Wrong(
            lambda g, x, s, p: gates_backward(g, x, s, p)[0],
            "that is the first of the two gradients; return the pair",
        ),
        Wrong(
            lambda g, x, s, p: (
                (g * x * p).sum((2, 3)) * s * (1 - s),
                (g * x * s).sum(1) * p * (1 - p),
            ),
            "the gates need more axes before they meet the map: s[:, :, None, None] and p[:, None]",
        ),
        Wrong(
            lambda g, x, s, p: (to_s(g, x, s, p), gates_backward(g, x, s, p)[1]),
            "your second gradient is right; the first is that of the gate: multiply by the sigmoid's slope, s (1 - s)",
        ),
        Wrong(
            lambda g, x, s, p: (gates_backward(g, x, s, p)[0], to_p(g, x, s, p)),
            "your first gradient is right; the second is that of the gate: multiply by the sigmoid's slope, p (1 - p)",
        ),
        Wrong(
            gates_by(slope=lambda t: t * (t - 1)),
            "your sign is turned round: the slope of a sigmoid is t(1 - t), which is never negative",
        ),
        Wrong(
            lambda g, x, s, p: gates_backward(torch.ones_like(g), x, s, p),
            "g is missing: what arrives from above multiplies everything",
        ),
        Wrong(
            lambda g, x, s, p: gates_backward(g, x**2, s, p),
            "x stands in your product twice; y = x s p holds it once",
        ),
        Wrong(
            gates_by(
                s_term=lambda g, x, s, p: (g * x * s[:, :, None, None]).sum((2, 3)),
                p_term=lambda g, x, s, p: (g * x * p[:, None]).sum(1),
            ),
            "each gradient carries its own gate; differentiate y = x s p by s and x p is left, the other gate",
        ),
        Wrong(
            gates_by(s_term=lambda g, x, s, p: (g * x).sum((2, 3)) * p.mean((1, 2))[:, None]),
            "your first gradient takes the mean of p; each place has its own p, so multiply before you add up",
        ),
        Wrong(
            gates_by(s_term=lambda g, x, s, p: (g * x).sum((2, 3)) * p.sum((1, 2))[:, None]),
            "your first gradient adds up g x and p apart; the sum runs over the products g x p",
        ),
        Wrong(
            gates_by(p_term=lambda g, x, s, p: (g * x).sum(1) * s.mean(1)[:, None, None]),
            "your second gradient takes the mean of s; each channel has its own s, so multiply before you add up",
        ),
        Wrong(
            gates_by(
                s_term=lambda g, x, s, p: to_s(g, x, s, p * (1 - p)),
                p_term=lambda g, x, s, p: to_p(g, x, s * (1 - s), p),
            ),
            "the other gate's slope has come in: it is the other gate itself that multiplies, the slope is your own gate's",
        ),
        Wrong(
            gates_by(p_term=lambda g, x, s, p: (g * x * s[:, :, None, None] * p[:, None]).sum(1)),
            "your first gradient is right; in the second p itself is left over: differentiating by p takes it away",
        ),
        Wrong(
            gates_by(s_term=lambda g, x, s, p: (g * x * s[:, :, None, None] * p[:, None]).sum((2, 3))),
            "your second gradient is right; in the first s itself is left over: differentiating by s takes it away",
        ),
        Wrong(
            lambda g, x, s, p: tuple(d.sum(0) for d in gates_backward(g, x, s, p)),
            "you add up over the images; each image has gates of its own, so the batch axis stays",
        ),
        Wrong(
            lambda g, x, s, p: (
                gates_backward(g, x, s, p)[0],
                to_p(g, x, s, p)[:, None] * p * (1 - p),
            ),
            "keepdim leaves an axis of 1 in your second gradient, and with p of (b, h, w) it grows to (b, b, h, w); drop it",
        ),
        Wrong(
            lambda g, x, s, p: gates_backward(g, x, s, p)[1],
            "that is the second of the two gradients; return the pair, the channels' first",
        ),
    ),
)


EXERCISES = {
    "11.a": choice(
        "b",
        {
            "a": "49 is one 7 x 7 window; there are two input channels, and each has a window of its own",
            "c": "14 would be one row of each window; a kernel has 7 rows",
            "d": "100 would be right with a scale and a shift of a batch norm behind it; the convolution alone has fewer",
            "e": "a convolution uses the same window at every place, so the size of the map does not matter",
        },
        "Two windows of 49, at every place the same.",
    ),
    "11.b": choice(
        "c",
        {
            "a": "a third each is the slope of the mean; the maximum does not move when a smaller number moves a little",
            "b": "only one number moves the maximum, and it moves it by its whole change",
            "d": "the slope is not the value: raise the 7 by a little, and the maximum rises by as much",
            "e": "the maximum has a slope wherever the largest number is alone; it has none only at a tie",
        },
        "The maximum listens to one number and to no other.",
    ),
    "11.c": choice(
        "a",
        {
            "b": "the mean does not know where a number stood, so neither does the gate",
            "c": "shuffling keeps every number, and so every mean; nothing shrinks",
            "d": "the same order for all channels or another for each: the means stay as they are either way",
            "e": "the places count for a convolution behind the gate, not for the gate",
        },
        "What a mean does not see, a gate made of means cannot tell.",
    ),
    "11.1": GATE,
    "11.2": ORDER,
    "11.3": PRICE,
    "11.4": MEND,
    "11.5": BACKWARD,
}
