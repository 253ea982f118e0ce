"""Weights with other code's names: each source as a small module, its weights loaded, and both compared."""

import re

import pytest
import torch
from by_hand import drawn, randomised
from torch import nn

from attnlib.feature_map import (
    CBAM,
    EfficientChannelAttention,
    EfficientMultiScaleAttention,
    NonLocal,
    NormalizationAttention,
    SqueezeExcitation,
    load_reference_weights,
)

B, C, H, W = 3, 8, 4, 5


class LinearSE(nn.Module):
    def __init__(self, bias=False):
        super().__init__()
        self.fc = nn.Sequential(
            nn.Linear(C, C // 4, bias=bias), nn.ReLU(), nn.Linear(C // 4, C, bias=bias), nn.Sigmoid()
        )

    def forward(self, x):
        return x * self.fc(x.mean((2, 3)))[:, :, None, None]


class ConvolutionalSE(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Conv2d(C, C // 4, 1), nn.Conv2d(C // 4, C, 1)

    def forward(self, x):
        return x * self.fc2(self.fc1(x.mean((2, 3), keepdim=True)).relu()).sigmoid()


class ECA(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(1, 1, 5, padding=2, bias=False)

    def forward(self, x):
        y = self.conv(x.mean((2, 3), keepdim=True).squeeze(-1).transpose(-1, -2))
        return x * y.transpose(-1, -2).unsqueeze(-1).sigmoid()


class Flatten(nn.Module):
    def forward(self, x):
        return x.flatten(1)


class ReferenceCBAM(nn.Module):
    def __init__(self):
        super().__init__()
        self.ChannelGate, self.SpatialGate = nn.Module(), nn.Module()
        self.ChannelGate.mlp = nn.Sequential(Flatten(), nn.Linear(C, C // 4), nn.ReLU(), nn.Linear(C // 4, C))
        self.SpatialGate.spatial = nn.Module()
        self.SpatialGate.spatial.conv = nn.Conv2d(2, 1, 7, padding=3, bias=False)
        self.SpatialGate.spatial.bn = nn.BatchNorm2d(1, eps=1e-5, momentum=0.01)

    def forward(self, x):
        mlp, spatial = self.ChannelGate.mlp, self.SpatialGate.spatial
        total = mlp(x.mean((2, 3), keepdim=True)) + mlp(x.amax((2, 3), keepdim=True))
        x = x * total.sigmoid()[:, :, None, None]
        pooled = torch.cat([x.max(1, keepdim=True)[0], x.mean(1, keepdim=True)], 1)
        return x * spatial.bn(spatial.conv(pooled)).sigmoid()


class NAM(nn.Module):
    def __init__(self):
        super().__init__()
        self.bn2 = nn.BatchNorm2d(C)

    def forward(self, x):
        weight = self.bn2.weight.data.abs() / self.bn2.weight.data.abs().sum()
        return x * (weight[:, None, None] * self.bn2(x)).sigmoid()


class EMA(nn.Module):
    def __init__(self):
        super().__init__()
        d = C // 2
        self.gn, self.conv1x1, self.conv3x3 = (
            nn.GroupNorm(d, d),
            nn.Conv2d(d, d, 1),
            nn.Conv2d(d, d, 3, padding=1),
        )

    def forward(self, x):
        b, _, h, w = x.shape
        g = x.reshape(b * 2, -1, h, w)
        x_h, x_w = g.mean(3, keepdim=True), g.mean(2, keepdim=True).permute(0, 1, 3, 2)
        x_h, x_w = self.conv1x1(torch.cat([x_h, x_w], 2)).split([h, w], 2)
        x1, x2 = self.gn(g * x_h.sigmoid() * x_w.permute(0, 1, 3, 2).sigmoid()), self.conv3x3(g)
        a1, a2 = (t.mean((2, 3)).softmax(1)[:, None] for t in (x1, x2))
        y = (a1 @ x2.flatten(2) + a2 @ x1.flatten(2)).reshape(b * 2, 1, h, w)
        return (g * y.sigmoid()).reshape(x.shape)


class LibraryNonLocal(nn.Module):
    """With the scale of its channels, as that library has it."""

    def __init__(self):
        super().__init__()
        self.t, self.p, self.g = (nn.Conv2d(C, 4, 1) for _ in range(3))
        self.z, self.norm = nn.Conv2d(4, C, 1), nn.BatchNorm2d(C)

    def forward(self, x):
        t, p, g = (conv(x).flatten(2).transpose(1, 2) for conv in (self.t, self.p, self.g))
        y = (
            ((t @ p.transpose(1, 2) * C**-0.5).softmax(2) @ g)
            .transpose(1, 2)
            .reshape(len(x), 4, *x.shape[2:])
        )
        return self.norm(self.z(y)) + x


CASES = {
    "SE, linear": (LinearSE, lambda: SqueezeExcitation(C, reduction=4, bias=False)),
    "SE, linear with biases": (lambda: LinearSE(bias=True), lambda: SqueezeExcitation(C, reduction=4)),
    "SE, convolutions": (ConvolutionalSE, lambda: SqueezeExcitation(C, reduction=4)),
    "ECA": (ECA, lambda: EfficientChannelAttention(C, kernel_size=5)),
    "CBAM": (ReferenceCBAM, lambda: CBAM(C, reduction=4)),
    "NAM": (NAM, lambda: NormalizationAttention(C)),
    "EMA": (EMA, lambda: EfficientMultiScaleAttention(C, groups=2)),
    "non-local": (LibraryNonLocal, lambda: NonLocal(C, scale=C**-0.5)),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("train", [False, True])
def test_outputs_and_gradients_are_those_of_the_source(name, train):
    build_source, build_ours = CASES[name]
    source, ours = randomised(build_source(), train), build_ours().double().train(train)
    load_reference_weights(ours, source.state_dict())
    x, upstream, gradients = drawn(B, C, H, W), drawn(B, C, H, W, seed=5), []
    for module in (source, ours):
        leaf = x.clone().requires_grad_()
        output = module(leaf)
        output.backward(upstream)
        gradients.append(
            (output.detach(), leaf.grad, sorted(p.grad.square().sum() for p in module.parameters()))
        )
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(b, a)
    for name, buffer in ours.named_buffers():
        source_buffer = dict(zip(names_of(ours), source.buffers(), strict=True))[name]
        torch.testing.assert_close(buffer, source_buffer)


def names_of(module):
    return [name for name, _ in module.named_buffers()]


def test_a_counter_of_batches_may_be_absent():
    weights = {name: w for name, w in NAM().state_dict().items() if "num_batches" not in name}
    load_reference_weights(NormalizationAttention(C), weights)


@pytest.mark.no_shape_hook
@pytest.mark.parametrize(
    ("module", "weights", "text"),
    [
        (
            SqueezeExcitation(C, reduction=4),
            LinearSE().state_dict(),
            "the weights do not fit this SqueezeExcitation: missing fc.0.bias, fc.2.bias; left over none; "
            "build it with the options of the other network",
        ),
        (
            SqueezeExcitation(C, reduction=4, bias=False),
            LinearSE(bias=True).state_dict() | {"extra": torch.zeros(1)},
            "the weights do not fit this SqueezeExcitation: missing none; left over extra, fc.0.bias, "
            "fc.2.bias; build it with the options of the other network",
        ),
        (
            SqueezeExcitation(C, reduction=2, bias=False),
            LinearSE().state_dict(),
            "fc.0.weight has shape (2, 8), this SqueezeExcitation needs (4, 8); build it with the sizes of "
            "the other network",
        ),
        (
            nn.Linear(2, 2),
            {},
            "no other code's names are known for Linear, only for CBAM, EfficientChannelAttention, "
            "EfficientMultiScaleAttention, NonLocal, NormalizationAttention, SqueezeExcitation",
        ),
    ],
)
def test_what_does_not_fit_is_named_and_nothing_is_copied(module, weights, text):
    before = {name: w.clone() for name, w in module.state_dict().items()}
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        load_reference_weights(module, weights)
    assert all(torch.equal(w, before[name]) for name, w in module.state_dict().items())
