"""The exercises of 10_spatial_attention."""

import torch
from torch import Tensor
from torch.nn import functional as F

from attnlib.exercises.checker import Exercise, Wrong, choice, ramp

# 10.1 the gate -------------------------------------------------------------------------------------------


def convolve(pooled: Tensor, K: Tensor) -> Tensor:
    return F.conv2d(pooled, K, padding=K.shape[-1] // 2)


def pool(x: Tensor) -> Tensor:
    return torch.cat([x.amax(1, keepdim=True), x.mean(1, keepdim=True)], 1)


def spatial_gate(x: Tensor, K: Tensor) -> Tensor:
    return torch.sigmoid(convolve(pool(x), K))


def spatial_gate_by_halves(x: Tensor, K: Tensor) -> Tensor:
    v = convolve(x.max(1, keepdim=True).values, K[:, :1]) + convolve(x.mean(1, keepdim=True), K[:, 1:])
    return 1 / (1 + torch.exp(-v))


def spatial_gate_by_windows(x: Tensor, K: Tensor) -> Tensor:
    b, _, h, w = x.shape
    k = K.shape[-1]
    windows = F.unfold(torch.stack([x.amax(1), x.sum(1) / x.shape[1]], 1), k, padding=k // 2)
    return (K.reshape(1, -1) @ windows).view(b, 1, h, w).sigmoid()


def gate_inputs() -> list[tuple]:
    """Maps of two sizes, neither square, without ties; windows of 3 and of 5."""
    return [
        (ramp(2, 4, 5, 6) + 0.2, 0.7 * ramp(1, 2, 3, 3, step=0.9)),
        (1.5 * ramp(3, 3, 4, 7, step=0.53), 0.5 * ramp(1, 2, 5, 5, step=1.3)),
    ]


GATE = Exercise(
    reference=spatial_gate,
    right=(spatial_gate_by_halves, spatial_gate_by_windows),
    inputs=gate_inputs,
    praise="One gate for each place, equal to (10.4) with windows of 3 and of 5.",
    wrong=(
        Wrong(
            lambda x, K: torch.sigmoid(convolve(pool(x).flip(1), K)),
            "your two maps stand in the other order: the kernel's first half belongs to the maximum",
        ),
        Wrong(
            lambda x, K: torch.sigmoid(F.conv2d(pool(x), K)),
            "your gate is smaller than the map: pad with k // 2 zeros on each side",
        ),
        Wrong(
            lambda x, K: torch.sigmoid(F.conv2d(pool(x), K, padding=1)),
            "a padding of 1 fits a window of 3 only; for a window of k it is k // 2",
        ),
        Wrong(
            lambda x, K: torch.sigmoid(F.conv2d(pool(x), K, padding=K.shape[-1] - 1)),
            "your gate is larger than the map: on each side k // 2 zeros are enough",
        ),
        Wrong(
            lambda x, K: convolve(pool(x), K),
            "some of your gates are negative or above 1: the sigmoid of (10.4) is missing",
        ),
        Wrong(
            lambda x, K: torch.sigmoid(F.relu(convolve(pool(x), K))),
            "none of your gates is below 1/2: a ReLU stands in front of the sigmoid",
        ),
        Wrong(
            lambda x, K: convolve(pool(x), K).flatten(2).softmax(2).view(len(x), 1, *x.shape[2:]),
            "your gates sum to 1 over the places: that is a softmax; here each place has a sigmoid of its own",
        ),
        Wrong(
            lambda x, K: torch.sigmoid(
                convolve(torch.cat([x.amax(1, keepdim=True), x.sum(1, keepdim=True)], 1), K)
            ),
            "your second map grows with the number of channels: it is their mean, not their sum; see (10.3)",
        ),
        Wrong(
            lambda x, K: torch.sigmoid(
                convolve(torch.cat([x.abs().amax(1, keepdim=True), x.mean(1, keepdim=True)], 1), K)
            ),
            "you take the largest absolute value; (10.3) asks for the largest value, with its sign",
        ),
        Wrong(
            lambda x, K: torch.sigmoid(
                convolve(torch.cat([x.amin(1, keepdim=True), x.mean(1, keepdim=True)], 1), K)
            ),
            "you take the smallest channel at each place; (10.3) asks for the largest",
        ),
        Wrong(
            lambda x, K: torch.sigmoid(convolve(pool(x)[:, :1].expand(-1, 2, -1, -1), K)),
            "both of your maps are the maximum; the second should be the mean",
        ),
        Wrong(
            lambda x, K: torch.sigmoid(convolve(pool(x)[:, 1:].expand(-1, 2, -1, -1), K)),
            "both of your maps are the mean; the first should be the maximum",
        ),
        Wrong(
            lambda x, K: torch.sigmoid(
                convolve(
                    torch.cat([x.max(1, keepdim=True).indices.to(x.dtype), x.mean(1, keepdim=True)], 1), K
                )
            ),
            "your first map holds which channel is largest, not how large it is: amax, or max(...).values",
        ),
        Wrong(
            lambda x, K: torch.sigmoid(convolve(pool(x), K.flip(2, 3))),
            "your kernel is turned by half a turn; conv2d does not turn it, and neither does (10.4)",
        ),
        Wrong(
            lambda x, K: torch.sigmoid(convolve(pool(x), K.transpose(2, 3))),
            "rows and columns of your kernel have changed places",
        ),
        Wrong(
            lambda x, K: torch.sigmoid(
                F.conv2d(torch.cat([x.amax((2, 3), keepdim=True), x.mean((2, 3), keepdim=True)], 1), K)
            ),
            "you pool over the places, which leaves 2c numbers and no map; pool over the channels, axis 1",
        ),
        Wrong(
            lambda x, K: torch.sigmoid(convolve(torch.cat([x.amax(1), x.mean(1)], 1), K)),
            "pooling has dropped axis 1, so cat lays the maps on top of each other; pass keepdim=True, or stack",
        ),
        Wrong(
            lambda x, K: spatial_gate(x.mean(0, keepdim=True), K).expand(len(x), -1, -1, -1),
            "all images get the same gate: you pool over the batch too",
        ),
        Wrong(
            lambda x, K: x * spatial_gate(x, K),
            "you return the rescaled features; this exercise asks for the gate alone, (b, 1, h, w)",
        ),
        Wrong(
            lambda x, K: spatial_gate(x, K)[:, 0],
            "the numbers are right; keep the axis of the channels, of length 1, so that x * gate broadcasts",
        ),
        Wrong(
            lambda x, K: spatial_gate(x, K).expand_as(x),
            "the numbers are right; one map is enough: (b, 1, h, w), and the product with x repeats it",
        ),
        Wrong(
            lambda x, K: torch.tanh(convolve(pool(x), K)),
            "a tanh runs from -1 to 1; a gate of (10.4) is a sigmoid, between 0 and 1",
        ),
        Wrong(
            lambda x, K: convolve(pool(x).sigmoid(), K),
            "the sigmoid stands in front of the convolution; it belongs behind it",
        ),
        Wrong(
            lambda x, K: torch.sigmoid(convolve(torch.stack([x.amax(2), x.mean(2)], 1), K)),
            "you pool over the rows, axis 2; the channels are axis 1",
        ),
        Wrong(
            lambda x, K: torch.sigmoid(convolve(torch.stack([x.amax(-1), x.mean(-1)], 1), K)),
            "you pool over the columns, the last axis; the channels are axis 1",
        ),
        Wrong(
            lambda x, K: torch.sigmoid(convolve(pool(x)[:, :1], K[:, :1])),
            "the mean has no part in your gate: the kernel's second half belongs to it",
        ),
        Wrong(
            lambda x, K: torch.sigmoid(convolve(pool(x)[:, 1:], K[:, 1:])),
            "the maximum has no part in your gate: the kernel's first half belongs to it",
        ),
        Wrong(
            lambda x, K: sum(torch.sigmoid(convolve(pool(x)[:, [a]], K[:, [a]])) for a in (0, 1)),
            "each of your halves has a sigmoid of its own; add the two scores first, then one sigmoid",
        ),
        Wrong(
            lambda x, K: torch.sigmoid(F.conv2d(F.pad(pool(x), [K.shape[-1] // 2] * 4, mode="replicate"), K)),
            "you repeat the numbers at the edge; what lies beyond the edge counts as 0",
        ),
        Wrong(
            lambda x, K: 1 - spatial_gate(x, K),
            "that is 1 minus the gate: check the sign inside of your sigmoid",
        ),
        Wrong(
            lambda x, K: spatial_gate(x, K).sigmoid(),
            "your score goes through two sigmoids; (10.4) has one",
        ),
        Wrong(
            lambda x, K: torch.sigmoid(F.conv2d(pool(x), K, padding=K.shape[-1])),
            "your gate is larger than the map: a padding of k is too much, k // 2 is enough",
        ),
        Wrong(
            lambda x, K: torch.sigmoid(F.conv2d(pool(x), K, padding=3)),
            "a padding of 3 fits a window of 7 only; for a window of k it is k // 2",
        ),
        Wrong(
            lambda x, K: torch.cat([x.max(1, keepdim=True), x.mean(1, keepdim=True)], 1),
            "max along an axis gives two things, values and indices: take .values, or use amax",
        ),
        Wrong(
            lambda x, K: convolve(torch.stack([x.amax(1, keepdim=True), x.mean(1, keepdim=True)], 1), K),
            "stack makes a new axis, and keepdim has kept one already: use cat, or leave keepdim out",
        ),
        Wrong(
            lambda x, K: convolve(torch.cat([x.amax(1, keepdim=True), x.mean(1, keepdim=True)], 0), K),
            "you join the two maps along the batch; the convolution wants them as two channels: axis 1",
        ),
        Wrong(
            lambda x, K: convolve(x, K),
            "you convolve x itself; the kernel has two channels, one for each of the two pooled maps",
        ),
    ),
)


# 10.2 back through the pooling ---------------------------------------------------------------------------


def pool_backward(grad_pooled: Tensor, x: Tensor) -> Tensor:
    winner = x == x.amax(1, keepdim=True)
    return grad_pooled[:, :1] * winner + grad_pooled[:, 1:] / x.shape[1]


def pool_backward_scatter(grad_pooled: Tensor, x: Tensor) -> Tensor:
    grad = (grad_pooled[:, 1:] / x.shape[1]).repeat(1, x.shape[1], 1, 1)
    return grad.scatter_add(1, x.argmax(1, keepdim=True), grad_pooled[:, :1])


def pool_backward_autograd(grad_pooled: Tensor, x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    return torch.autograd.grad(pool(x), x, grad_pooled)[0]


def is_largest(x: Tensor) -> Tensor:
    return x == x.amax(1, keepdim=True)


POOLING = Exercise(
    reference=pool_backward,
    right=(pool_backward_scatter, pool_backward_autograd),
    inputs=lambda: [
        (ramp(2, 2, 3, 4, step=0.61), ramp(2, 5, 3, 4)),
        (ramp(1, 2, 2, 5), ramp(1, 3, 2, 5, step=0.83)),
    ],
    praise="The winner takes the whole of the maximum's gradient, and everybody a share of the mean's.",
    wrong=(
        Wrong(
            lambda g, x: g[:, :1] * is_largest(x) + g[:, 1:],
            "the mean divides by the number of channels, so each channel gets 1/c of its gradient",
        ),
        Wrong(
            lambda g, x: g[:, :1] + g[:, 1:] / x.shape[1],
            "you give the maximum's gradient to every channel; only the winner of a place moves its maximum",
        ),
        Wrong(
            lambda g, x: g[:, :1] + g[:, 1:] + 0 * x,
            "you give both gradients to every channel in full; the first belongs to the winner, the second is shared",
        ),
        Wrong(
            lambda g, x: (g[:, :1] + g[:, 1:]) / x.shape[1] + 0 * x,
            "you share out the maximum's gradient as if it were a mean; it belongs to the winner alone",
        ),
        Wrong(
            lambda g, x: g[:, :1] * is_largest(x) + g[:, 1:] / (x.shape[2] * x.shape[3]),
            "you divide by the number of places; the mean of (10.3) runs over the channels",
        ),
        Wrong(
            lambda g, x: pool_backward(g.flip(1), x),
            "the two gradients have changed places: item 0 is the maximum's, item 1 the mean's",
        ),
        Wrong(
            lambda g, x: g[:, :1] * is_largest(x),
            "the way through the mean is missing: every channel has a share of 1/c in it",
        ),
        Wrong(
            lambda g, x: g[:, 1:] / x.shape[1] + 0 * x,
            "the way through the maximum is missing: the channel that won gets its gradient",
        ),
        Wrong(
            lambda g, x: g[:, :1] * is_largest(x) + g[:, 1:] / x.shape[1] * ~is_largest(x),
            "the winner has a share in the mean as well; add both, and do not choose between them",
        ),
        Wrong(
            lambda g, x: g[:, :1] * is_largest(x.abs()) + g[:, 1:] / x.shape[1],
            "your winner has the largest absolute value; the maximum goes by the value with its sign",
        ),
        Wrong(
            lambda g, x: g[:, :1] * (x == x.amax((2, 3), keepdim=True)) + g[:, 1:] / x.shape[1],
            "your winner is a place of each channel; it should be a channel of each place: amax over axis 1",
        ),
        Wrong(
            lambda g, x: g[:, :1] * (x == x.amax((1, 2, 3), keepdim=True)) + g[:, 1:] / x.shape[1],
            "you have one winner for the whole image; every place has its own",
        ),
        Wrong(
            lambda g, x: g[:, :1] * (x == x.amax(0, keepdim=True)) + g[:, 1:] / x.shape[1],
            "your winner is an image of the batch; look for the largest channel: axis 1",
        ),
        Wrong(
            lambda g, x: g[:, :1] * (x == x.amin(1, keepdim=True)) + g[:, 1:] / x.shape[1],
            "your winner is the smallest channel",
        ),
        Wrong(
            lambda g, x: g[:, :1] * is_largest(x) * x + g[:, 1:] / x.shape[1],
            "you multiply by the winner's value; the slope of a maximum is 1 for the winner, whatever its value",
        ),
        Wrong(
            lambda g, x: g[:, :1] * is_largest(x) + g[:, 1:] * x / x.shape[1],
            "you multiply the mean's gradient by x; the mean has the slope 1/c for each channel, whatever its value",
        ),
        Wrong(
            lambda g, x: g[:, :1] * x.softmax(1) + g[:, 1:] / x.shape[1],
            "a softmax shares the gradient among the channels; the maximum gives all of it to one",
        ),
        Wrong(
            lambda g, x: pool_backward(g, x) / 2,
            "the two ways add up; there is nothing to halve",
        ),
        Wrong(
            lambda g, x: pool_backward(g, x).sum(1, keepdim=True),
            "you sum over the channels at the end; the gradient has the shape of x",
        ),
        Wrong(
            lambda g, x: torch.cat([g[:, :1] * is_largest(x), g[:, 1:] / x.shape[1] + 0 * x], 1),
            "you return the two ways one behind the other; both end at the same x, so they are added",
        ),
        Wrong(
            lambda g, x: g[:, :1] * is_largest(x) + g[:, 1:] / x.shape[0],
            "you divide by the number of images: x.shape[0]; the channels are x.shape[1]",
        ),
        Wrong(
            lambda g, x: g[:, :1] * is_largest(x) + g[:, 1:] // x.shape[1],
            "// rounds down to a whole number; the mean's share needs the plain /",
        ),
        Wrong(
            lambda g, x: g[:, :1] * is_largest(x) + g[:, 1:] / x.numel(),
            "you divide by how many numbers x has; the mean of a place runs over its c channels only",
        ),
        Wrong(
            lambda g, x: (g[:, :1] * is_largest(x) + g[:, 1:]) / x.shape[1],
            "only the mean's gradient is divided by c; your bracket divides the maximum's too",
        ),
        Wrong(
            lambda g, x: g[:, :1] * is_largest(x) - g[:, 1:] / x.shape[1],
            "the two ways are added, not subtracted",
        ),
        Wrong(
            lambda g, x: g[:, :1] * ~is_largest(x) + g[:, 1:] / x.shape[1],
            "you give the maximum's gradient to all but the winner",
        ),
        Wrong(
            lambda g, x: g[:, :1] * (x > 0) + g[:, 1:] / x.shape[1],
            "x > 0 is the rule of a ReLU; the winner of a place is where x equals its maximum",
        ),
        Wrong(
            lambda g, x: g[:, :1] * x.argmax(1, keepdim=True) + g[:, 1:] / x.shape[1],
            "argmax gives the winner's number, not a 1 at its place; compare x with its maximum",
        ),
        Wrong(
            lambda g, x: g[:, :1] * (x == x.amax(1)) + g[:, 1:] / x.shape[1],
            "amax has dropped axis 1, so it no longer lines up with x; pass keepdim=True",
        ),
        Wrong(
            lambda g, x: g[:, 0] * is_largest(x) + g[:, 1] / x.shape[1],
            "g[:, 0] drops the axis of the channels; keep it with the slices [:, :1] and [:, 1:]",
        ),
    ),
)


# 10.3 energy in the box ----------------------------------------------------------------------------------


def box_mask(boxes: Tensor, h: int, w: int, *, end: int = 0) -> Tensor:
    x0, y0, x1, y1 = (boxes[:, i, None, None] for i in range(4))
    rows, columns = torch.arange(h)[:, None], torch.arange(w)
    return (rows >= y0) & (rows < y1 + end) & (columns >= x0) & (columns < x1 + end)


def energy_in_box(maps: Tensor, boxes: Tensor) -> Tensor:
    shares = []
    for m, (x0, y0, x1, y1) in zip(maps, boxes.tolist(), strict=True):
        shares.append(m[y0:y1, x0:x1].sum() / m.sum())
    return torch.stack(shares)


def energy_by_masks(maps: Tensor, boxes: Tensor) -> Tensor:
    return (maps * box_mask(boxes, *maps.shape[1:])).sum((1, 2)) / maps.sum((1, 2))


def energy_by_shares(maps: Tensor, boxes: Tensor) -> Tensor:
    shares = maps / maps.sum((1, 2), keepdim=True)
    return torch.einsum("nhw,nhw->n", shares, box_mask(boxes, *maps.shape[1:]).to(maps.dtype))


def by_box(f):
    """A wrong answer that treats one map and its four numbers at a time."""
    return lambda maps, boxes: torch.stack(
        [torch.as_tensor(f(m, *box), dtype=m.dtype) for m, box in zip(maps, boxes.tolist(), strict=True)]
    )


ENERGY = Exercise(
    reference=energy_in_box,
    right=(energy_by_masks, energy_by_shares),
    inputs=lambda: [
        (ramp(3, 8, 9).abs() + 0.1, torch.tensor([[1, 2, 6, 4], [3, 4, 5, 7], [2, 1, 7, 3]])),
        (ramp(2, 9, 7, step=0.71).abs() + 0.2, torch.tensor([[2, 3, 4, 5], [1, 2, 3, 5]])),
        (
            ramp(2, 6, 8, step=0.29).abs() + 0.1,
            torch.tensor([[1, 0, 5, 2], [2, 1, 4, 5]]),
        ),  # with the maximum
    ],
    praise="A share between 0 and 1 for each image, whatever the scale of its map.",
    wrong=(
        Wrong(
            by_box(lambda m, x0, y0, x1, y1: m[x0:x1, y0:y1].sum() / m.sum()),
            "you use x for the rows; a box is x0, y0, x1, y1, and rows are y: m[y0:y1, x0:x1]",
        ),
        Wrong(
            by_box(lambda m, x0, y0, x1, y1: m[y0 : y1 + 1, x0 : x1 + 1].sum() / m.sum()),
            "your boxes are one row and one column too large: y1 and x1 are left out, as in Python's slices",
        ),
        Wrong(
            by_box(lambda m, x0, y0, x1, y1: m[y0 + 1 : y1, x0 + 1 : x1].sum() / m.sum()),
            "your boxes begin one row and one column late: y0 and x0 belong to the box",
        ),
        Wrong(
            by_box(lambda m, x0, y0, x1, y1: m[y0 : y0 + y1, x0 : x0 + x1].sum() / m.sum()),
            "you read the last two numbers as height and width; they are where the box ends",
        ),
        Wrong(
            by_box(lambda m, x0, y0, x1, y1: m[y0:y1].sum() / m.sum()),
            "you take whole rows; cut the columns to the box too: m[y0:y1, x0:x1]",
        ),
        Wrong(
            by_box(lambda m, x0, y0, x1, y1: m[:, x0:x1].sum() / m.sum()),
            "you take whole columns; cut the rows to the box too: m[y0:y1, x0:x1]",
        ),
        Wrong(
            by_box(lambda m, x0, y0, x1, y1: m[y0:y1, x0:x1].sum()),
            "that is the sum in the box; divide it by the sum of the whole map",
        ),
        Wrong(
            by_box(lambda m, x0, y0, x1, y1: m[y0:y1, x0:x1].mean()),
            "that is the mean in the box; the score is the box's share of the map's sum",
        ),
        Wrong(
            by_box(lambda m, x0, y0, x1, y1: m[y0:y1, x0:x1].mean() / m.mean()),
            "you divide one mean by another, which may exceed 1; divide one sum by the other",
        ),
        Wrong(
            by_box(lambda m, x0, y0, x1, y1: m[y0:y1, x0:x1].sum() / m.numel()),
            "you divide by the number of places; divide by the map's sum",
        ),
        Wrong(
            by_box(lambda m, x0, y0, x1, y1: m[y0:y1, x0:x1].sum() / m.max()),
            "you divide by the largest value; divide by the map's sum",
        ),
        Wrong(
            by_box(lambda m, x0, y0, x1, y1: m[y0:y1, x0:x1].sum() / (m.sum() - m[y0:y1, x0:x1].sum())),
            "you divide by what lies outside of the box; divide by the whole map's sum",
        ),
        Wrong(
            by_box(lambda m, x0, y0, x1, y1: 1 - m[y0:y1, x0:x1].sum() / m.sum()),
            "that is the share outside of the box",
        ),
        Wrong(
            by_box(lambda m, x0, y0, x1, y1: m[y0:y1, x0:x1].square().sum() / m.square().sum()),
            "you square the map; the score's name says energy, but it is the map's own sum that is shared",
        ),
        Wrong(
            by_box(lambda m, x0, y0, x1, y1: (y1 - y0) * (x1 - x0) / m.numel()),
            "that is the box's share of the area, which a flat map would score; yours does not look at the map",
        ),
        Wrong(
            by_box(lambda m, x0, y0, x1, y1: bool(m[y0:y1, x0:x1].max() == m.max())),
            "that is the pointing game: whether the largest value lies in the box",
        ),
        Wrong(
            lambda maps, boxes: energy_by_masks(maps, boxes).mean(),
            "you average over the images; return one share for each",
        ),
        Wrong(
            lambda maps, boxes: (maps * box_mask(boxes, *maps.shape[1:])).sum((1, 2)) / maps.sum(),
            "you divide by the sum over all images; each map has a sum of its own",
        ),
        Wrong(
            lambda maps, boxes: energy_by_masks(maps, boxes[:1].expand_as(boxes)),
            "you use the first box for every image",
        ),
        Wrong(
            lambda maps, boxes: energy_by_masks(maps, boxes).tolist(),
            "the numbers are right; return them as one tensor, with torch.stack",
        ),
        Wrong(
            lambda maps, boxes: energy_by_masks(maps.flatten(1).softmax(1).view_as(maps), boxes),
            "you put a softmax on the map first; it is not negative already, so divide by its sum",
        ),
        Wrong(
            by_box(lambda m, x0, y0, x1, y1: m[y0:y1, x0:x1].sum() // m.sum()),
            "// rounds every share down to 0; divide with the plain /",
        ),
        Wrong(
            by_box(lambda m, x0, y0, x1, y1: m[y0:y1][x0:x1].sum() / m.sum()),
            "m[y0:y1][x0:x1] cuts the rows twice; rows and columns go into one bracket: m[y0:y1, x0:x1]",
        ),
        Wrong(
            by_box(lambda m, x0, x1, y0, y1: m[y0:y1, x0:x1].sum() / m.sum()),
            "you read a box as x0, x1, y0, y1; the order is x0, y0, x1, y1",
        ),
        Wrong(
            by_box(lambda m, x0, y0, x1, y1: m[len(m) - y1 : len(m) - y0, x0:x1].sum() / m.sum()),
            "you count the rows from the bottom; row 0 is the topmost",
        ),
        Wrong(
            by_box(lambda m, x0, y0, x1, y1: m[y0:y1, x0 : x1 + 1].sum() / m.sum()),
            "your boxes are one column too wide: x1 is left out, as in Python's slices",
        ),
        Wrong(
            by_box(lambda m, x0, y0, x1, y1: m[y0 : y1 + 1, x0:x1].sum() / m.sum()),
            "your boxes are one row too high: y1 is left out, as in Python's slices",
        ),
        Wrong(
            lambda maps, boxes: 100 * energy_by_masks(maps, boxes),
            "those are percent; return shares between 0 and 1",
        ),
        Wrong(
            lambda maps, boxes: energy_by_masks(maps, boxes)[0],
            "you return the first image's share only; does the return stand inside of the loop?",
        ),
        Wrong(
            lambda maps, boxes: energy_by_masks(maps, boxes)[-1],
            "you return the last image's share only; collect them in a list, and stack it",
        ),
        Wrong(
            lambda maps, boxes: energy_by_masks(maps, boxes)[:, None],
            "the numbers are right; one axis is enough: (n,), not (n, 1)",
        ),
    ),
)


# 10.4 mend a published recipe ----------------------------------------------------------------------------


def mended(x: Tensor, K: Tensor) -> Tensor:
    return x * spatial_gate(x, K)


def mended_by_hand(x: Tensor, K: Tensor) -> Tensor:
    return torch.einsum("bchw,bhw->bchw", x, spatial_gate_by_halves(x, K)[:, 0])


def mended_by_windows(x: Tensor, K: Tensor) -> Tensor:
    return x - x * (1 - spatial_gate_by_windows(x, K))


def global_recipe(x: Tensor, K: Tensor) -> Tensor:
    pooled = torch.stack([x.amax((2, 3)), x.mean((2, 3))], 1)[..., None]
    return x * torch.sigmoid(convolve(pooled, K)).transpose(1, 2)


MEND = Exercise(
    reference=mended,
    right=(mended_by_hand, mended_by_windows),
    inputs=gate_inputs,
    praise="Pooled over the channels, so that a map over the places is left to convolve.",
    wrong=(
        Wrong(
            global_recipe,
            "that is the recipe as it stands: all places of a channel still get the same gate; pool over axis 1",
        ),
        Wrong(
            lambda x, K: (
                x
                * torch.sigmoid(convolve(torch.stack([x.amax(1), x.mean(1)], 1), K)).mean(
                    (2, 3), keepdim=True
                )
            ),
            "you pool over the channels, and then average the gate over the places: keep it as a map",
        ),
        Wrong(
            lambda x, K: spatial_gate(x, K),
            "you return the gate, (b, 1, h, w); multiply x by it",
        ),
        Wrong(
            lambda x, K: spatial_gate(x, K).expand_as(x),
            "you return the gate, repeated for every channel; multiply x by it",
        ),
        Wrong(
            lambda x, K: x + x * spatial_gate(x, K),
            "the pooling is mended, but an x was added; the block returns x times the gate",
        ),
        Wrong(
            lambda x, K: x * (1 - spatial_gate(x, K)),
            "your gate is open where it should be shut: multiply by the gate, not by 1 minus it",
        ),
        Wrong(
            lambda x, K: x * convolve(pool(x), K),
            "the pooling is mended, but the sigmoid has gone: your gates are unbounded",
        ),
        Wrong(
            lambda x, K: x * torch.sigmoid(convolve(pool(x).flip(1), K)),
            "the pooling is mended, but mean and maximum have changed places",
        ),
        Wrong(
            lambda x, K: x * torch.sigmoid(convolve(pool(x)[:, :1].expand(-1, 2, -1, -1), K)),
            "both of your maps are the maximum over the channels; the second should be the mean",
        ),
        Wrong(
            lambda x, K: (
                x
                * torch.sigmoid(convolve(torch.cat([x.amax(1, keepdim=True), x.sum(1, keepdim=True)], 1), K))
            ),
            "your second map is a sum over the channels; the recipe has a mean",
        ),
        Wrong(
            lambda x, K: x * convolve(pool(x), K).flatten(2).softmax(2).view(len(x), 1, *x.shape[2:]),
            "your gates sum to 1 over the places: the sigmoid was right, only the pooling was wrong",
        ),
        Wrong(
            lambda x, K: global_recipe(x, K) * spatial_gate(x, K),
            "the spatial gate is right, but the old gate over channels is still there as well",
        ),
        Wrong(
            lambda x, K: (
                x
                * torch.sigmoid(
                    convolve(torch.stack([x.amax((1, 2, 3)), x.mean((1, 2, 3))], 1)[..., None, None], K)
                )
            ),
            "now you pool over channels and places: the whole image gets one gate; pool over axis 1 only",
        ),
        Wrong(
            lambda x, K: (
                x
                * torch.sigmoid(
                    convolve(
                        torch.cat([x.amax((1, 2), keepdim=True), x.mean((1, 2), keepdim=True)], 1).expand(
                            -1, -1, x.shape[2], -1
                        ),
                        K,
                    )
                )
            ),
            "you pool over the channels and the rows; a place has a row and a column, so keep both",
        ),
        Wrong(lambda x, K: x, "now the gate is gone altogether; mend its pooling, and keep the rest"),
        Wrong(
            lambda x, K: x * torch.sigmoid(F.conv2d(pool(x), K)),
            "the pooling is mended; the convolution has lost its padding of K.shape[-1] // 2",
        ),
        Wrong(
            lambda x, K: convolve(torch.stack([x.amax(1), x.mean(1)], 1)[..., None], K),
            "pooled over axis 1 there are rows and columns already: the [..., None] has to go, and the transpose",
        ),
        Wrong(
            lambda x, K: x * spatial_gate(x, K).transpose(1, 2),
            "the gate is right before you turn it: (b, 1, h, w) fits x as it is, so the transpose has to go",
        ),
        Wrong(
            lambda x, K: convolve(torch.stack([x.amax(1, keepdim=True), x.mean(1, keepdim=True)], 1), K),
            "keepdim has kept an axis, and stack makes another: leave keepdim out, or join with cat",
        ),
        Wrong(
            lambda x, K: x * torch.sigmoid(convolve(torch.stack([x.amax(2), x.mean(2)], 1), K)),
            "your gate's rows are channels, not rows of x: pool over axis 1, and nothing has to be turned",
        ),
        Wrong(
            lambda x, K: x * torch.sigmoid(convolve(torch.stack([x.amax(3), x.mean(3)], 1), K)),
            "you pool over the columns, axis 3; the channels are axis 1",
        ),
        Wrong(
            lambda x, K: x + spatial_gate(x, K),
            "the pooling is mended, but the gate is added; (10.5) multiplies by it",
        ),
    ),
)


# 10.5 the point-wise gate backward -----------------------------------------------------------------------


def mix(W: Tensor, x: Tensor) -> Tensor:
    return torch.einsum("dc,bchw->bdhw", W, x)


def point_gate(x: Tensor, W: Tensor, b: Tensor) -> Tensor:
    return (mix(W, x) + b[:, None, None]).sigmoid()


def pointwise_backward(grad_y: Tensor, x: Tensor, W: Tensor, b: Tensor) -> Tensor:
    M = point_gate(x, W, b)
    return grad_y * M + mix(W.T, grad_y * x * M * (1 - M))


def pointwise_backward_conv(grad_y: Tensor, x: Tensor, W: Tensor, b: Tensor) -> Tensor:
    M = F.conv2d(x, W[:, :, None, None], b).sigmoid()
    through_gate = F.conv_transpose2d(grad_y * x * M * (1 - M), W[:, :, None, None])
    return grad_y * M + through_gate


def pointwise_backward_autograd(grad_y: Tensor, x: Tensor, W: Tensor, b: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    return torch.autograd.grad(x * point_gate(x, W, b), x, grad_y)[0]


def slope(x: Tensor, W: Tensor, b: Tensor) -> Tensor:
    M = point_gate(x, W, b)
    return M * (1 - M)


POINTWISE = Exercise(
    reference=pointwise_backward,
    right=(pointwise_backward_conv, pointwise_backward_autograd),
    inputs=lambda: [
        (ramp(2, 3, 2, 4), ramp(2, 3, 2, 4, step=0.8), ramp(3, 3, step=1.1), ramp(3, step=0.5)),
        (ramp(1, 4, 3, 3), 2 * ramp(1, 4, 3, 3, step=0.6), ramp(4, 4, step=0.9), ramp(4, step=2.1)),
    ],
    praise="Two ways back, added; nothing leaves its own place, because nothing came from another.",
    wrong=(
        Wrong(
            lambda g, x, W, b: g * point_gate(x, W, b),
            "that is the direct way only: x also moves the gate",
        ),
        Wrong(
            lambda g, x, W, b: mix(W.T, g * x * slope(x, W, b)),
            "that is the way through the gate only: x is also what the gate multiplies",
        ),
        Wrong(
            lambda g, x, W, b: g * point_gate(x, W, b) + mix(W, g * x * slope(x, W, b)),
            "on the way back the matrix is transposed: channel c collects from every gate d, with the weight W[d, c]",
        ),
        Wrong(
            lambda g, x, W, b: g * point_gate(x, W, b) + mix(W.T, g * x),
            "the slope of the sigmoid, M (1 - M), is missing on the way through the gate",
        ),
        Wrong(
            lambda g, x, W, b: g * point_gate(x, W, b) + mix(W.T, g * x * point_gate(x, W, b)),
            "on the way through the gate you multiply by the gate itself; the chain rule asks for its slope M (1 - M)",
        ),
        Wrong(
            lambda g, x, W, b: g * point_gate(x, W, b) + mix(W.T, g * slope(x, W, b)),
            "the product rule: the gradient of the gate is grad_y times x; the x is missing",
        ),
        Wrong(
            lambda g, x, W, b: g * point_gate(x, W, b) + mix(W.T, x * slope(x, W, b)),
            "grad_y is missing on the way through the gate",
        ),
        Wrong(
            lambda g, x, W, b: g + mix(W.T, g * x * slope(x, W, b)),
            "the direct way is scaled by the gate: grad_y times M",
        ),
        Wrong(
            lambda g, x, W, b: point_gate(x, W, b) + mix(W.T, x * slope(x, W, b)),
            "you never use grad_y: that is the gradient for an upstream gradient of ones",
        ),
        Wrong(
            lambda g, x, W, b: g * point_gate(x, W, b) - mix(W.T, g * x * slope(x, W, b)),
            "the two ways are added, not subtracted",
        ),
        Wrong(
            lambda g, x, W, b: g * point_gate(x, W, b) + g * x * slope(x, W, b),
            "the step from the gate's input back to x is missing: multiply by W transposed at each place",
        ),
        Wrong(
            lambda g, x, W, b: g * point_gate(x, W, b) + mix(W.T, g * x * slope(x, W, 0 * b)),
            "your slope has forgotten the bias: M is the sigmoid of W x + b in both places",
        ),
        Wrong(
            lambda g, x, W, b: pointwise_backward(g, x, W, 0 * b),
            "you left out the bias: the gate is the sigmoid of W x + b",
        ),
        Wrong(
            lambda g, x, W, b: g * point_gate(x, W, b) + mix(W.T, g * x) / 4,
            "the slope is 1/4 only where the gate is 1/2; elsewhere it is M (1 - M)",
        ),
        Wrong(
            lambda g, x, W, b: g * point_gate(x, W, b) + mix(W.T, g * x * x.sigmoid() * (1 - x.sigmoid())),
            "you take the sigmoid's slope at x; it belongs at W x + b",
        ),
        Wrong(
            lambda g, x, W, b: g * point_gate(x, W, b) + g * x * slope(x, W, b) * W.diagonal()[:, None, None],
            "you use the diagonal of W only: each gate listens to all channels of its place",
        ),
        Wrong(
            lambda g, x, W, b: (
                g * point_gate(x, W, b) + mix(W.T, (g * x * slope(x, W, b)).sum((2, 3), keepdim=True))
            ),
            "you sum over the places, as SE's gate needs; here every place has a gate of its own",
        ),
        Wrong(
            lambda g, x, W, b: (
                g * point_gate(x, W, b) + mix(W.T, (g * x).sum(1, keepdim=True) * slope(x, W, b))
            ),
            "you sum over the channels, as CBAM's gate needs; here every channel has a gate of its own",
        ),
        Wrong(
            lambda g, x, W, b: g * mix(W, x).add(b[:, None, None]) + mix(W.T, g * x),
            "both sigmoids are missing: the gate is the sigmoid of W x + b",
        ),
        Wrong(
            lambda g, x, W, b: pointwise_backward(g, x, W, b).sum(0, keepdim=True),
            "you sum over the images; each image has a gradient of its own, only the weights' are summed",
        ),
        Wrong(
            lambda g, x, W, b: pointwise_backward(g, x, W.T, b),
            "you transpose W on both ways: it is transposed on the way back only",
        ),
        Wrong(
            lambda g, x, W, b: g * point_gate(x, W.T, b) + mix(W.T, g * x * slope(x, W.T, b)),
            "your gate takes W transposed; forward, gate d takes channel c with the weight W[d, c]",
        ),
        Wrong(
            lambda g, x, W, b: g * point_gate(x, W, b) + mix(W.T, g * x * (1 - point_gate(x, W, b))),
            "the sigmoid's slope is M (1 - M); you have only the second factor",
        ),
        Wrong(
            lambda g, x, W, b: g * point_gate(x, W, b) + mix(W.T, g * x * (1 - point_gate(x, W, b) ** 2)),
            "1 - M^2 is the slope of a tanh; that of a sigmoid is M (1 - M)",
        ),
        Wrong(
            lambda g, x, W, b: g * point_gate(x, W, b) + mix(W.T, g * point_gate(x, W, b) * slope(x, W, b)),
            "the gate's gradient is grad_y times what the gate multiplies: x, not M",
        ),
        Wrong(
            lambda g, x, W, b: g * point_gate(x, W, b) + x * mix(W.T, g * slope(x, W, b)),
            "x belongs in front of the matrix: each gate d multiplies its own x_d, and then W transposed collects",
        ),
        Wrong(
            lambda g, x, W, b: g * x,
            "that is the gradient of the gate M, as in (10.9); go on through the sigmoid and the matrix to x",
        ),
        Wrong(
            lambda g, x, W, b: pointwise_backward(g, x, W, b) / len(x),
            "you divide by the number of images; any mean over the batch is in grad_y already",
        ),
        Wrong(
            lambda g, x, W, b: mix(W, x) + b,
            "b stands along the last axis, the columns; b[:, None, None] gives one number to each channel",
        ),
    ),
)


EXERCISES = {
    "10.a": choice(
        "c",
        {
            "a": "that pools over the places: 2 x 16 numbers; here the channels are pooled and the places kept",
            "b": "64 would be the places of one image; there are two",
            "d": "nothing is left out if all are kept: 2 x 16 x 8 x 8 is the size of the map itself",
            "e": "that pools over the batch as well; the images are not mixed",
        },
        "One number for each image and place: 2 x 8 x 8.",
    ),
    "10.b": choice(
        "e",
        {
            "a": "that is the direct way only: t also moves the sigmoid that multiplies it",
            "b": "that is the way through the sigmoid only: t is also what is multiplied",
            "c": "that is the slope of the sigmoid alone, without the t in front of it",
            "d": "by the product rule the two ways are added, not multiplied",
        },
        "What is used twice gets two gradients, and they add up.",
    ),
    "10.c": choice(
        "b",
        {
            "a": "7 is what the last layer sees of the map below it; each of those places sees 5 pixels itself",
            "c": "12 would be 5 + 7; neighbouring windows overlap, so a layer of size k adds k - 1",
            "d": "35 would be 5 x 7; the windows overlap, so the 7 x 7 layer adds 6 only",
            "e": "the layers before have widened the window already; 7 - 1 pixels are added to 5",
        },
        "5 + (7 - 1) = 11 pixels.",
    ),
    "10.1": GATE,
    "10.2": POOLING,
    "10.3": ENERGY,
    "10.4": MEND,
    "10.5": POINTWISE,
}
