"""Efficient channel attention against loops in plain Python, and its kernel-size rule against a search."""

import math
import re

import pytest
import torch

from attnlib.feature_map import EfficientChannelAttention, eca_kernel_size

B, C, H, W = 3, 7, 2, 5


def sigmoid(t):
    return 1 / (1 + math.exp(-t))


def oracle(image, kernel, bias, upstream, ring):
    """Gate, output and gradients (of x, kernel, bias) of one image, from the equations, in plain floats."""
    c, h, w, reach = len(image), len(image[0]), len(image[0][0]), len(kernel) // 2
    z = [sum(sum(row) for row in channel) / (h * w) for channel in image]

    def neighbour(i, t):
        j = i + t
        return j % c if ring else (j if 0 <= j < c else None)

    pairs = [(i, t, neighbour(i, t)) for i in range(c) for t in range(-reach, reach + 1)]
    pairs = [(i, t, j) for i, t, j in pairs if j is not None]
    v = [bias] * c
    for i, t, j in pairs:
        v[i] += kernel[t + reach] * z[j]
    s = [sigmoid(value) for value in v]
    y = [[[s[i] * value for value in row] for row in image[i]] for i in range(c)]
    dv = [
        s[i] * (1 - s[i]) * sum(upstream[i][a][b] * image[i][a][b] for a in range(h) for b in range(w))
        for i in range(c)
    ]
    dkernel, dz = [0.0] * len(kernel), [0.0] * c
    for i, t, j in pairs:
        dkernel[t + reach] += dv[i] * z[j]
        dz[j] += dv[i] * kernel[t + reach]
    dx = [[[s[i] * g + dz[i] / (h * w) for g in row] for row in upstream[i]] for i in range(c)]
    return s, y, dx, dkernel, sum(dv)


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("padding", ["zeros", "circular"])
@pytest.mark.parametrize("train", [False, True])
def test_loops(k, bias, padding, train):
    generator = torch.Generator().manual_seed(k)

    def drawn(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    module = EfficientChannelAttention(C, kernel_size=k, bias=bias, padding=padding).double().train(train)
    for p in module.parameters():
        p.data = drawn(*p.shape)
    x, upstream = drawn(B, C, H, W).requires_grad_(), drawn(B, C, H, W)
    names = ["x", *(name for name, _ in module.named_parameters())]
    found = torch.autograd.grad(module(x), [x, *module.parameters()], upstream)
    found = dict(zip(names, found, strict=True))
    kernel = module.conv.weight.flatten().tolist()
    offset = module.conv.bias.item() if bias else 0.0
    expected = [
        oracle(x[n].tolist(), kernel, offset, upstream[n].tolist(), padding == "circular") for n in range(B)
    ]

    def column(index):
        return torch.tensor([row[index] for row in expected], dtype=torch.float64)

    torch.testing.assert_close(module.weights(x)[:, :, 0, 0], column(0))
    torch.testing.assert_close(module(x), column(1))
    torch.testing.assert_close(found["x"], column(2))
    torch.testing.assert_close(found["conv.weight"].flatten(), column(3).sum(0))
    if bias:
        torch.testing.assert_close(found["conv.bias"], column(4).sum(0, keepdim=True))


@pytest.mark.parametrize(
    ("channels", "k", "padding"), [(3, 9, "zeros"), (2, 5, "circular"), (1, 3, "circular")]
)
def test_kernels_wider_than_the_channels(channels, k, padding):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(1, channels, H, W, generator=generator)
    module = EfficientChannelAttention(channels, kernel_size=k, padding=padding)
    kernel = torch.randn(1, 1, k, generator=generator)
    module.conv.weight.data = kernel
    gates, *_ = oracle(x[0].tolist(), kernel.flatten().tolist(), 0.0, x[0].tolist(), padding == "circular")
    torch.testing.assert_close(module.weights(x)[0, :, 0, 0], torch.tensor(gates))


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("padding", ["zeros", "circular"])
def test_a_gate_sees_a_band_of_channels(k, padding):
    module = EfficientChannelAttention(C, kernel_size=k, padding=padding)
    module.conv.weight.data.fill_(0.3)
    jacobian = torch.autograd.functional.jacobian(
        lambda x: module.weights(x)[0, :, 0, 0], torch.rand(1, C, 1, 1)
    )
    i = torch.arange(C)
    distance = (i[:, None] - i).abs()
    if padding == "circular":
        distance = torch.minimum(distance, C - distance)
    assert torch.equal(jacobian[:, 0, :, 0, 0] != 0, distance <= k // 2)


def test_by_hand():
    """Means (2, 1, -1, 1) and the kernel (1, 1, -1): v = (2 - 1, 2 + 1 + 1, 1 - 1 - 1, -1 + 1)."""
    x = torch.tensor([2.0, 1.0, -1.0, 1.0])[None, :, None, None]
    module = EfficientChannelAttention(4, kernel_size=3)
    module.conv.weight.data = torch.tensor([[[1.0, 1.0, -1.0]]])
    expected = torch.sigmoid(torch.tensor([1.0, 4.0, -1.0, 0.0]))
    torch.testing.assert_close(module.weights(x)[0, :, 0, 0], expected)
    ring = EfficientChannelAttention(4, kernel_size=3, padding="circular")
    ring.load_state_dict(module.state_dict())
    torch.testing.assert_close(
        ring.weights(x)[0, :, 0, 0], torch.sigmoid(torch.tensor([2.0, 4.0, -1.0, -2.0]))
    )


def test_the_order_of_the_channels_counts_unless_the_kernel_is_one():
    generator = torch.Generator().manual_seed(0)
    x, order = torch.randn(2, C, H, W, generator=generator), torch.tensor([3, 0, 6, 1, 5, 2, 4])
    for k in (1, 3):
        module = EfficientChannelAttention(C, kernel_size=k)
        module.conv.weight.data = torch.randn(1, 1, k, generator=generator)
        follows = torch.allclose(module.weights(x[:, order]), module.weights(x)[:, order])
        assert follows == (k == 1)


def test_the_rule_is_the_nearest_odd_number_with_ties_up():
    ties = []
    for c in range(1, 4097):
        t = (math.log2(c) + 1) / 2
        distances = {k: abs(k - t) for k in range(1, 15, 2)}
        nearest = [k for k, distance in distances.items() if distance == min(distances.values())]
        assert eca_kernel_size(c) == max(nearest)
        truncated = int(abs(t))
        assert eca_kernel_size(c) == (truncated if truncated % 2 else truncated + 1)
        ties += [c] if len(nearest) > 1 else []
    assert ties == [8, 128, 2048]


@pytest.mark.parametrize(
    ("channels", "k"),
    [(1, 1), (7, 1), (8, 3), (16, 3), (64, 3), (96, 3), (128, 5), (320, 5), (1024, 5), (2048, 7)],
)
def test_the_rule_at_some_numbers_of_channels(channels, k):
    assert eca_kernel_size(channels) == k
    assert EfficientChannelAttention(channels).conv.weight.numel() == k


def test_gamma_and_b():
    assert eca_kernel_size(64, gamma=1.0) == 7
    assert eca_kernel_size(64, gamma=1.0, b=2.0) == 9
    assert eca_kernel_size(64, gamma=3.0, b=-3.0) == 1
    assert EfficientChannelAttention(64, gamma=1.0, b=2.0).conv.weight.numel() == 9


def test_eighty_parameters():
    channels, blocks = (256, 512, 1024, 2048), (3, 4, 6, 3)
    released = zip(blocks, channels, (3, 5, 5, 7), strict=True)
    sizes = [n * EfficientChannelAttention(c, kernel_size=k).conv.weight.numel() for n, c, k in released]
    assert sum(sizes) == 80
    assert sum(n * eca_kernel_size(c) for n, c in zip(blocks, channels, strict=True)) == 86


def test_defaults():
    module = EfficientChannelAttention(64)
    assert [name for name, _ in module.named_parameters()] == ["conv.weight"]
    assert module.conv.padding_mode == "zeros"


@pytest.mark.no_shape_hook
@pytest.mark.parametrize(
    ("channels", "options", "text"),
    [
        (0, {}, "channels=0 should be a whole number of at least 1"),
        (0, {"kernel_size": 3}, "channels=0 should be a whole number of at least 1"),
        (8, {"kernel_size": 4}, "kernel_size=4 is even, so its window would have no middle; use 3 or 5"),
        (8, {"kernel_size": 0}, "kernel_size=0 should be a whole number of at least 1"),
        (8, {"gamma": 0}, "gamma=0 should be above 0"),
        (8, {"gamma": -2.0}, "gamma=-2.0 should be above 0"),
        (8, {"kernel_size": 3.0}, "kernel_size=3.0 should be a whole number of at least 1"),
        (2, {"b": -2}, "b=-2 makes log2(channels=2) + b negative; use a larger b"),
        (8, {"padding": "zero"}, "padding='zero' is not one of 'zeros', 'circular'; did you mean 'zeros'?"),
        (
            2,
            {"kernel_size": 7, "padding": "circular"},
            "kernel_size=7 reaches more than once round a ring of channels=2; use kernel_size=5 or less",
        ),
    ],
)
def test_wrong_arguments(channels, options, text):
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        EfficientChannelAttention(channels, **options)


@pytest.mark.no_shape_hook
@pytest.mark.parametrize("method", ["weights", "forward"])
def test_wrong_inputs(method):
    with pytest.raises(ValueError, match=r"^this module was built for channels=7, the input of shape \(2, 5"):
        getattr(EfficientChannelAttention(C), method)(torch.zeros(2, 5, 3, 3))
