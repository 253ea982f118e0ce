"""The exercises of 19_capstone."""

import torch
from torch import Tensor

from attnlib.exercises.checker import Exercise, Wrong, choice, ramp

EPS = 1e-5

# 19.1 the backward pass ------------------------------------------------------------------------------------


def spread(x: Tensor, axes=(2, 3), eps: float = EPS, correction: int = 0) -> Tensor:
    return (x.var(axes, correction=correction, keepdim=True) + eps).sqrt()


def contrast_backward(grad_y: Tensor, x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    d = x - x.mean((2, 3), keepdim=True)
    z = (d.square().mean((2, 3), keepdim=True) + EPS).sqrt()
    s = torch.sigmoid(w[:, None, None] * z + b[:, None, None])
    dv = (grad_y * x).sum((2, 3), keepdim=True) * s * (1 - s)
    return s * grad_y + dv * w[:, None, None] * d / (x.shape[2] * x.shape[3] * z)


def contrast_backward_by_autograd(grad_y: Tensor, x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    y = x * torch.sigmoid(w[:, None, None] * spread(x) + b[:, None, None])
    return torch.autograd.grad(y, x, grad_y)[0]


def contrast_backward_by_channel(grad_y: Tensor, x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    dx = torch.zeros_like(x)
    for i in range(x.shape[0]):
        for c in range(x.shape[1]):
            d = x[i, c] - x[i, c].mean()
            z = (d.square().mean() + EPS) ** 0.5
            s = 1 / (1 + torch.exp(-(w[c] * z + b[c])))
            ds = (grad_y[i, c] * x[i, c]).sum()
            dx[i, c] = s * grad_y[i, c] + ds * s * (1 - s) * w[c] / z * d / d.numel()
    return dx


def backward_with(
    *,
    direct=lambda g, x, s: s * g,
    upstream=lambda g, x: (g * x).sum((2, 3), keepdim=True),
    slope=lambda s: s * (1 - s),
    weight=lambda w, z: w,
    away=lambda x: x - x.mean((2, 3), keepdim=True),
    share=lambda n, z: n * z,
    squeeze=spread,
    score=lambda w, z, b: w * z + b,
):
    """The backward pass with one of its parts changed."""

    def backward(grad_y, x, w, b):
        w, b, z = w[:, None, None], b[:, None, None], squeeze(x)
        s = torch.sigmoid(score(w, z, b))
        through = upstream(grad_y, x) * slope(s) * weight(w, z) * away(x)
        return direct(grad_y, x, s) + through / share(x.shape[2] * x.shape[3], z)

    return backward


def root_mean_square(x: Tensor) -> Tensor:
    return (x.square().mean((2, 3), keepdim=True) + EPS).sqrt()


def without_new_axes(grad_y: Tensor, x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    d, z = x - x.mean((2, 3), keepdim=True), spread(x)
    s = torch.sigmoid(w * z + b)
    dv = (grad_y * x).sum((2, 3), keepdim=True) * s * (1 - s)
    return s * grad_y + dv * w * d / (x.shape[2] * x.shape[3] * z)


def all_three_gradients(grad_y: Tensor, x: Tensor, w: Tensor, b: Tensor) -> tuple[Tensor, ...]:
    z = spread(x)
    s = torch.sigmoid(w[:, None, None] * z + b[:, None, None])
    dv = (grad_y * x).sum((2, 3), keepdim=True) * s * (1 - s)
    return contrast_backward(grad_y, x, w, b), (dv * z).sum((0, 2, 3)), dv.sum((0, 2, 3))


def zeros_of(g: Tensor, x: Tensor, s: Tensor) -> Tensor:
    return torch.zeros_like(g)


BACKWARD = Exercise(
    reference=contrast_backward,
    right=(contrast_backward_by_autograd, contrast_backward_by_channel, backward_with()),
    inputs=lambda: [
        (
            ramp(2, 3, 2, 4, step=0.8),
            2 * ramp(2, 3, 2, 4) + ramp(3)[:, None, None],
            2 * ramp(3, step=1.1),
            ramp(3),
        ),
        (ramp(1, 4, 3, 3), 3 * ramp(1, 4, 3, 3, step=0.6), ramp(4, step=0.9), -ramp(4)),
    ],
    praise="Both ways are there, and a pixel at its channel's mean has no part in the second one.",
    wrong=(
        Wrong(
            lambda grad_y, x, w, b: grad_y * torch.sigmoid(w[:, None, None] * spread(x) + b[:, None, None]),
            "that is the direct way alone; x also moves its gate, through the deviation (19.3)",
        ),
        Wrong(
            backward_with(direct=zeros_of),
            "that is the way through the gate alone; y = s x also holds x itself, which adds s times grad_y",
        ),
        Wrong(
            backward_with(direct=lambda g, x, s: g),
            "the direct way goes through the product with the gate: multiply grad_y by s",
        ),
        Wrong(
            backward_with(direct=lambda g, x, s: s * x),
            "you have s times x in the direct way; what arrives from above is grad_y",
        ),
        Wrong(
            backward_with(away=lambda x: torch.ones_like(x), share=lambda n, z: n),
            "your second term is the same for every pixel: that is the gate of the mean; a deviation moves with the "
            "pixel's distance from the mean, (19.3)",
        ),
        Wrong(
            backward_with(away=lambda x: x),
            "take the pixel's distance from the mean of its channel, not the pixel itself, in (19.3)",
        ),
        Wrong(
            backward_with(away=lambda x: x.mean((2, 3), keepdim=True) - x),
            "your second term has the wrong sign: the distance is x minus the mean",
        ),
        Wrong(
            backward_with(away=lambda x: (x - x.mean((2, 3), keepdim=True)).abs()),
            "a pixel below the mean raises the deviation by going down: keep the sign of the distance",
        ),
        Wrong(
            backward_with(share=lambda n, z: z),
            "each pixel has a share of 1/N in the variance; your second term lacks the division by N",
        ),
        Wrong(
            backward_with(share=lambda n, z: n),
            "that is the slope for half the variance; its root brings a division by z, see (19.3)",
        ),
        Wrong(
            backward_with(share=lambda n, z: n / 2),
            "that is the slope of the variance; go on through the root, whose slope is 1/(2z)",
        ),
        Wrong(
            backward_with(share=lambda n, z: n * z / 2),
            "your second term is twice too large: the 2 of the square and the 2 of the root cancel",
        ),
        Wrong(
            backward_with(share=lambda n, z: 2 * n * z),
            "your second term is half of what it should be: the square brings a factor of 2 of its own",
        ),
        Wrong(
            backward_with(share=lambda n, z: n * z * z),
            "you divide by the variance; (19.3) divides by the deviation, once",
        ),
        Wrong(
            backward_with(share=lambda n, z: (n - 1) * z),
            "you divide by N - 1; this deviation is made with N, see (19.1)",
        ),
        Wrong(
            backward_with(slope=lambda s: s),
            "the slope of a sigmoid is s (1 - s); you have s alone",
        ),
        Wrong(
            backward_with(slope=lambda s: 1),
            "the sigmoid's slope s (1 - s) is missing in the second term",
        ),
        Wrong(
            backward_with(weight=lambda w, z: 1),
            "between the score and z stands the weight w: the second term lacks it",
        ),
        Wrong(
            backward_with(weight=lambda w, z: z),
            "z is what w gets; what z gets is w",
        ),
        Wrong(
            backward_with(upstream=lambda g, x: g.sum((2, 3), keepdim=True)),
            "the gate multiplies x, so its gradient is the sum of grad_y times x, not of grad_y",
        ),
        Wrong(
            backward_with(upstream=lambda g, x: (g * x).mean((2, 3), keepdim=True)),
            "all pixels used the same gate, so their gradients add up: a sum, not a mean",
        ),
        Wrong(
            backward_with(upstream=lambda g, x: g * x),
            "you keep a gradient of the gate at each pixel; one gate serves all, so sum over the pixels first",
        ),
        Wrong(
            backward_with(upstream=lambda g, x: (g * x).sum((0, 2, 3), keepdim=True)),
            "you sum the gate's gradient over the images too; each image has gates of its own",
        ),
        Wrong(
            backward_with(squeeze=lambda x: x.var((2, 3), correction=0, keepdim=True) + EPS),
            "your z is the variance; (19.1) takes its root",
        ),
        Wrong(
            backward_with(squeeze=lambda x: spread(x, correction=1)),
            "your z divides by N - 1, as torch.std does unless you say correction=0",
        ),
        Wrong(
            backward_with(squeeze=lambda x: spread(x, eps=0.0)),
            "only the 1e-5 below the root is missing in your z; without it a constant channel gives 0/0",
        ),
        Wrong(
            backward_with(squeeze=lambda x: spread(x, eps=0.0) + EPS),
            "only the place of your 1e-5 is wrong: (19.1) adds it below the root",
        ),
        Wrong(
            backward_with(squeeze=root_mean_square),
            "your z squares the pixels themselves; (19.1) squares their distances from the mean",
        ),
        Wrong(
            backward_with(
                squeeze=lambda x: spread(x, (0, 2, 3)), away=lambda x: x - x.mean((0, 2, 3), keepdim=True)
            ),
            "your mean and deviation run over the batch too; each image has its own",
        ),
        Wrong(
            backward_with(score=lambda w, z, b: w * z),
            "your gate lacks the bias b: s is the sigmoid of w z + b",
        ),
        Wrong(
            backward_with(score=lambda w, z, b: z + b),
            "your gate lacks the weight w: s is the sigmoid of w z + b",
        ),
        Wrong(
            backward_with(
                upstream=lambda g, x: (g * (x - x.mean((2, 3), keepdim=True))).sum((2, 3), keepdim=True)
            ),
            "the gate multiplies x itself, not its distance from the mean: its gradient is the sum of grad_y times x",
        ),
        Wrong(
            backward_with(away=lambda x: (x - x.mean((2, 3), keepdim=True)) * x.shape[3]),
            "N is the number of pixels, rows times columns; you divide by the rows alone",
        ),
        Wrong(
            backward_with(away=lambda x: (x - x.mean((2, 3), keepdim=True)) / (x.shape[0] * x.shape[1])),
            "you divide by all numbers in x; N counts the pixels of one channel of one image",
        ),
        Wrong(
            all_three_gradients,
            "you return three gradients; only the one for x is asked for here, (19.4) has the others",
        ),
        Wrong(
            without_new_axes,
            "the shapes do not meet: write w[:, None, None] and b[:, None, None], and keepdim=True in each sum and mean",
        ),
    ),
)


# 19.2 the price --------------------------------------------------------------------------------------------


def own_gate_cost(channels: int, statistics: int, bias: bool) -> tuple[int, int]:
    return channels * (statistics + bias), channels * statistics


def own_gate_cost_by_channel(channels: int, statistics: int, bias: bool) -> tuple[int, int]:
    parameters = sum(statistics + (1 if bias else 0) for _ in range(channels))
    return parameters, sum(statistics for _ in range(channels))


def own_gate_cost_as_list(channels: int, statistics: int, bias: bool) -> list[int]:
    weights = channels * statistics
    return [weights + channels if bias else weights, weights]


PRICE = Exercise(
    reference=own_gate_cost,
    right=(own_gate_cost_by_channel, own_gate_cost_as_list),
    inputs=lambda: [(16, 1, True), (64, 2, False), (24, 3, True)],
    praise="Exact, and the size of the map is not in it.",
    wrong=(
        Wrong(
            lambda c, k, bias: (c * k, c * k),
            "your weights and MACs are right; with bias=True each channel has one number more",
        ),
        Wrong(
            lambda c, k, bias: (c * (k + 1), c * k),
            "you add the biases always; with bias=False there are none",
        ),
        Wrong(
            lambda c, k, bias: (c * (k + bias), c * (k + bias)),
            "biases are added, not multiplied: by the custom of the field they are no MACs",
        ),
        Wrong(
            lambda c, k, bias: (c * k + k * bias, c * k),
            "a bias belongs to a score, and there is one score for each channel, not for each statistic",
        ),
        Wrong(
            lambda c, k, bias: (2 * c * k if bias else c * k, c * k),
            "one bias for each score: c of them, however many statistics it hears",
        ),
        Wrong(
            lambda c, k, bias: (c * k + 1 * bias, c * k),
            "you count one bias for all channels; each channel has its own",
        ),
        Wrong(
            lambda c, k, bias: (c * c * k + c * bias, c * c * k),
            "that is a dense layer, in which every channel hears all channels; here each hears its own numbers only",
        ),
        Wrong(
            lambda c, k, bias: (c * (k + bias), 2 * c * k),
            "a multiplication and the addition behind it are one MAC; you count two",
        ),
        Wrong(
            lambda c, k, bias: (c * (k + bias), c),
            "your parameters are right; a score that hears k numbers takes k multiplications",
        ),
        Wrong(
            lambda c, k, bias: (c * (k + bias), k),
            "your parameters are right; the MACs of all channels add up",
        ),
        Wrong(
            lambda c, k, bias: (k + bias, k),
            "that is a single channel; there are c of them",
        ),
        Wrong(
            lambda c, k, bias: (c * k, c * (k + bias)),
            "you have the two the wrong way round: the parameters come first and hold the biases",
        ),
        Wrong(
            lambda c, k, bias: c * (k + bias),
            "return two numbers, the parameters and the MACs",
        ),
        Wrong(
            lambda c, k, bias: c * k,
            "that is one number; return two, the parameters and the MACs",
        ),
        Wrong(
            lambda c, k, bias: (c * k + c if bias else 0, c * k),
            "without biases you return 0 parameters: put brackets around (channels if bias else 0)",
        ),
        Wrong(
            lambda c, k, bias: (c * (1 + bias), c),
            "that is the gate of (19.6), with one number for each channel; here a score hears several",
        ),
        Wrong(
            lambda c, k, bias: (2 * c, c),
            "that is (19.6) as it stands; here the statistics are several, and a bias is not always there",
        ),
        Wrong(
            lambda c, k, bias: (c * (k + bias), c * (k + 1)),
            "your parameters are right; adding a bias is no multiplication and so no MAC",
        ),
        Wrong(
            lambda c, k, bias: (c * (k + 1), c * (k + 1)),
            "you count a bias always, and as a MAC too; it is a parameter if bias is True, and never a MAC",
        ),
        Wrong(
            lambda c, k, bias: (c * (k + bias), c * c * k),
            "your parameters are right; no score hears another channel's numbers, so the MACs have a single c",
        ),
    ),
)


# 19.3 bug gallery ------------------------------------------------------------------------------------------


def mended(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    z = (x.var((2, 3), correction=0, keepdim=True) + EPS).sqrt()
    return x * torch.sigmoid(w[:, None, None] * z + b[:, None, None])


def mended_by_squares(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    flat = x.flatten(2)
    z = (flat.square().mean(2) - flat.mean(2).square() + EPS).sqrt()
    return torch.einsum("bchw,bc->bchw", x, torch.sigmoid(w * z + b))


def mended_by_image(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    images = []
    for image in x:
        z = (image.flatten(1).var(1, unbiased=False) + EPS).sqrt()
        images.append(image * (w * z + b).sigmoid()[:, None, None])
    return torch.stack(images)


def mend_with(squeeze, gate=torch.sigmoid):
    return lambda x, w, b: x * gate(w[:, None, None] * squeeze(x) + b[:, None, None])


def batch_of_maps() -> Tensor:
    """Three images of three channels; one channel of one image is constant, as behind a dead ReLU."""
    x = torch.tensor([1.0, 3.0, 0.4]).double()[:, None, None, None] * ramp(3, 3, 2, 4, step=0.7)
    x = x + ramp(3)[:, None, None]
    x[0, 0] = 0.25
    return x


LEAK = Exercise(
    reference=mended,
    right=(mended_by_squares, mended_by_image),
    inputs=lambda: [
        (batch_of_maps(), 40 * ramp(3), ramp(3)),
        (2 * ramp(2, 5, 3, 3, step=0.6), ramp(5, step=0.9), -ramp(5)),
    ],
    praise="Each image is now described by its own pixels, and by nothing else.",
    wrong=(
        Wrong(
            mend_with(lambda x: spread(x, (0, 2, 3))),
            "the deviation still runs over axis 0, the batch: an image's gate depends on its neighbours",
        ),
        Wrong(
            mend_with(lambda x: spread(x, (1, 2, 3))),
            "the batch is gone, but now all channels of an image share one deviation; keep axis 1 too",
        ),
        Wrong(
            mend_with(lambda x: spread(x, 1)),
            "you take the deviation over the channels at each pixel; (19.1) takes it over the pixels",
        ),
        Wrong(
            mend_with(lambda x: spread(x, 2)),
            "you take the deviation along the columns only; the pixels are the axes 2 and 3",
        ),
        Wrong(
            mend_with(lambda x: spread(x, 3)),
            "you take the deviation along the rows only; the pixels are the axes 2 and 3",
        ),
        Wrong(
            mend_with(lambda x: spread(x, 0)),
            "you take the deviation over the images alone; that is the leak and nothing else",
        ),
        Wrong(
            mend_with(lambda x: spread(x).mean(0, keepdim=True)),
            "each image has its deviation, and then you average them over the batch: that is the leak again",
        ),
        Wrong(
            mend_with(lambda x: spread(x[:1])),
            "you take the deviation of the first image for all of them; each image has its own",
        ),
        Wrong(
            mend_with(lambda x: spread(x, correction=1)),
            "the leak is mended; torch.var divides by N - 1 unless you say correction=0, which fails on one pixel",
        ),
        Wrong(
            mend_with(lambda x: spread(x, eps=0.0)),
            "the leak is mended, but you dropped the 1e-5 below the root, and a constant channel needs it",
        ),
        Wrong(
            mend_with(lambda x: spread(x, eps=0.0) + EPS),
            "the 1e-5 belongs below the root: added behind it, the slope at a constant channel is still infinite",
        ),
        Wrong(
            mend_with(lambda x: x.var((2, 3), correction=0, keepdim=True) + EPS),
            "the leak is mended, but the root is gone: that is the variance",
        ),
        Wrong(
            mend_with(lambda x: x.mean((2, 3), keepdim=True)),
            "the leak is mended by describing a channel by its mean; keep the deviation",
        ),
        Wrong(
            mend_with(spread, gate=lambda v: v),
            "the leak is mended, but the sigmoid is gone",
        ),
        Wrong(
            mend_with(spread, gate=lambda v: torch.softmax(v, 1)),
            "a softmax over the channels is not needed here; leave the sigmoid as it was",
        ),
        Wrong(
            lambda x, w, b: torch.sigmoid(w[:, None, None] * spread(x) + b[:, None, None]),
            "you return the gate; the features are x times the gate",
        ),
        Wrong(
            lambda x, w, b: x * torch.sigmoid(w[:, None, None] * spread(x)),
            "the leak is mended, but the bias b is gone",
        ),
        Wrong(
            lambda x, w, b: x * torch.sigmoid(spread(x) + b[:, None, None]),
            "the leak is mended, but the weight w is gone",
        ),
        Wrong(
            mend_with(lambda x: spread(x).flatten(1)),
            "the shapes do not meet: leave keepdim=True, w[:, None, None] and b[:, None, None] as in the original",
        ),
        Wrong(
            mend_with(lambda x: spread(x, eps=0.0, correction=1)),
            "the leak is mended; torch.std divides by N - 1 and has no 1e-5 below its root, so keep the var of the "
            "original",
        ),
        Wrong(
            mend_with(root_mean_square),
            "the leak is mended, but you square the pixels themselves, not their distances from the mean",
        ),
        Wrong(
            mend_with(lambda x: (x - x.mean((2, 3), keepdim=True)).abs().mean((2, 3), keepdim=True)),
            "the leak is mended, but that is the mean distance; the deviation squares, averages and takes the root",
        ),
        Wrong(
            mend_with(lambda x: spread(x, (0, 1, 2, 3))),
            "one deviation for everything: now images and channels hear each other",
        ),
        Wrong(
            mend_with(lambda x: spread(x, eps=1e-6)),
            "the leak is mended, but your epsilon is 1e-6; leave the 1e-5 as it was",
        ),
        Wrong(
            lambda x, w, b: x + mended(x, w, b),
            "you add x to the gated features; the product alone goes out",
        ),
        Wrong(
            lambda x, w, b: x,
            "without its gate no image hears another, but nothing is left of the mechanism",
        ),
    ),
)

EXERCISES = {
    "19.a": choice(
        "c",
        {
            "a": "the maximum differs: a single peak is higher than a plain of the same mean",
            "b": "the deviation differs: a single peak lies far from the mean and a plain does not",
            "d": "a convolution looks at windows, and a window on the peak differs from one on the plain",
            "e": "one of the five cannot: what a descriptor has averaged away, no score brings back",
        },
        "What a descriptor has averaged away, no score brings back.",
    ),
    "19.b": choice(
        "b",
        {
            "a": "that is what a division by N - 1 gives; here the mean of the squares is taken, over all N",
            "c": "2 is how far the two lie apart; each is 1 away from their mean",
            "d": "the squares are 1 and 1; their mean is 1, and so is its root",
            "e": "their mean is 2 and both differ from it, so the deviation is not 0",
        },
        "Both are 1 away from their mean.",
    ),
    "19.c": choice(
        "d",
        {
            "a": "the plain network would need a gate of 1; the sigmoid of 0 is 1/2",
            "b": "a gate of 0 would need a score of minus infinity; this one is 0",
            "c": "the gate does not look at the image yet: its weight is 0, so its score is 0 for every image",
            "e": "the sigmoid of 0 is a fixed number; nothing here is drawn at random",
        },
        "So the control with halved features is exactly where this mechanism starts.",
    ),
    "19.1": BACKWARD,
    "19.2": PRICE,
    "19.3": LEAK,
}
