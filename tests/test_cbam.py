"""CBAM and BAM against their equations, written out."""

import re

import pytest
import torch
from by_hand import assert_same, batch_norm, convolution, drawn, randomised

from attnlib.feature_map import BAM, CBAM, ChannelAttention

B, C, H, W = 3, 6, 4, 5


def mlp(layer_1, layer_2, z):
    hidden = (z @ layer_1.weight.T + (0 if layer_1.bias is None else layer_1.bias)).clamp(min=0)
    return hidden @ layer_2.weight.T + (0 if layer_2.bias is None else layer_2.bias)


def channel_gate(module, x):
    flat = x.flatten(2)
    v = mlp(module.W_1, module.W_2, flat.sum(2) / flat.shape[2])
    v = v + mlp(module.W_1, module.W_2, flat.sort(2).values[:, :, -1])
    return (1 / (1 + torch.exp(-v)))[:, :, None, None]


def spatial_gate(module, x, train, norm):
    pooled = torch.stack([x.sort(1).values[:, -1], x.sum(1) / x.shape[1]], 1)
    v = convolution(pooled, module.conv.weight, module.conv.bias)
    return 1 / (1 + torch.exp(-(batch_norm(v, module.norm, train) if norm else v)))


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("order", ["channel-spatial", "spatial-channel"])
@pytest.mark.parametrize("options", [{}, {"bias": False, "norm": False, "kernel_size": 3}])
def test_cbam(train, order, options):
    module = randomised(CBAM(C, reduction=2, order=order, **options), train)
    norm = options.get("norm", True)

    def oracle(x):
        if order == "spatial-channel":
            x = x * spatial_gate(module.spatial, x, train, norm)
            return x * channel_gate(module.channel, x)
        x = x * channel_gate(module.channel, x)
        return x * spatial_gate(module.spatial, x, train, norm)

    x = drawn(B, C, H, W)
    assert_same(module, oracle, x)
    module.eval()
    m_c, m_s = module.weights(x)
    assert (m_c.shape, m_s.shape) == ((B, C, 1, 1), (B, 1, H, W))
    torch.testing.assert_close(module(x), x * m_c * m_s)


def test_the_two_orders_are_different_functions():
    one = randomised(CBAM(C, reduction=2))
    other = CBAM(C, reduction=2, order="spatial-channel").double().eval()
    other.load_state_dict(one.state_dict())
    x = drawn(B, C, H, W)
    assert (one(x) - other(x)).abs().max() > 1e-3


def test_the_pooled_vectors_are_added_not_joined():
    """Exchanging mean and maximum changes nothing; with a joined layer it would."""
    module = randomised(ChannelAttention(C, reduction=2))
    x = torch.zeros(1, C, 1, 2, dtype=torch.float64)
    x[0, :, 0, 0] = drawn(C).abs()  # mean a/2, maximum a
    flat = x.flatten(2)
    a, b = mlp(module.W_1, module.W_2, flat.mean(2)), mlp(module.W_1, module.W_2, flat.amax(2))
    torch.testing.assert_close(module.weights(x)[:, :, 0, 0], torch.sigmoid(a + b))


def test_by_hand():
    """Means 1 and 0, maxima 2 and 0; both layers the identity: logits 3 and 0; spatial gate 1/2."""
    module = CBAM(2, reduction=1, bias=False)
    module.channel.W_1.weight.data = module.channel.W_2.weight.data = torch.eye(2)
    x = torch.tensor([[[2.0, 0.0]], [[0.0, 0.0]]])[None]
    m_c, m_s = module.weights(x)
    torch.testing.assert_close(m_c[0, :, 0, 0], torch.tensor([3.0, 0.0]).sigmoid())
    assert (m_s == 0.5).all()


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("combine", ["add", "multiply"])
@pytest.mark.parametrize("dilation", [1, 4])
def test_bam(train, combine, dilation):
    module = randomised(BAM(C, reduction=3, combine=combine, dilation=dilation), train)

    def oracle(x):
        layers = module.channel
        z = x.mean((2, 3)) @ layers[0].weight.T + layers[0].bias
        m_c = batch_norm(z, layers[1], train).clamp(min=0) @ layers[3].weight.T + layers[3].bias
        y = x
        for i in (0, 3, 6):
            conv = module.spatial[i]
            y = convolution(y, conv.weight, conv.bias, dilation=1 if i == 0 else dilation)
            y = batch_norm(y, module.spatial[i + 1], train).clamp(min=0)
        m_s = convolution(y, module.spatial[9].weight, module.spatial[9].bias)
        m_c = m_c[:, :, None, None]
        return x * (1 + torch.sigmoid(m_c + m_s if combine == "add" else m_c * m_s))

    assert_same(module, oracle, drawn(B, C, H, W))
    gate = module.eval().weights(drawn(B, C, H, W))
    assert gate.min() > 1
    assert gate.max() < 2


@pytest.mark.parametrize(("channels", "count"), [(64, 1173), (128, 4457), (256, 17361), (512, 68513)])
def test_parameters_of_bam(channels, count):
    assert sum(p.numel() for p in BAM(channels).parameters()) == count


def test_parameters_of_cbam():
    assert sum(p.numel() for p in CBAM(64).parameters()) == 2 * 64 * 4 + 4 + 64 + 98 + 2
    assert sum(p.numel() for p in CBAM(64, bias=False, norm=False).parameters()) == 2 * 64 * 4 + 98


@pytest.mark.no_shape_hook
@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: CBAM(30), "channels=30 is not divisible by reduction=16; use 15 or 10"),
        (
            lambda: CBAM(32, order="channel"),
            "order='channel' is not one of 'channel-spatial', 'spatial-channel'; did you mean "
            "'spatial-channel'?",
        ),
        (
            lambda: CBAM(32, kernel_size=4),
            "kernel_size=4 is even, so its window would have no middle; use 3 or 5",
        ),
        (lambda: BAM(30), "channels=30 is not divisible by reduction=16; use 15 or 10"),
        (lambda: BAM(32, dilation=0), "dilation=0 should be a whole number of at least 1"),
        (
            lambda: BAM(32, combine="adds"),
            "combine='adds' is not one of 'add', 'multiply'; did you mean 'add'?",
        ),
        (lambda: ChannelAttention(30), "channels=30 is not divisible by reduction=16; use 15 or 10"),
    ],
)
def test_wrong_arguments(call, text):
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        call()


@pytest.mark.no_shape_hook
def test_bam_cannot_train_on_a_single_image():
    with pytest.raises(ValueError, match="more than 1 value"):
        BAM(32).train()(torch.zeros(1, 32, 4, 4))
    with pytest.raises(ValueError, match=r"^this module was built for channels=32, the input"):
        BAM(32)(torch.zeros(2, 30, 4, 4))
