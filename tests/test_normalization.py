"""Normalization-based attention against batch norms written out in plain Python; its gradients two ways."""

import itertools
import math
import re

import pytest
import torch
from torch import nn

from attnlib.feature_map import NormalizationAttention, scale_penalty
from attnlib.feature_map.normalization import shares

B, C, H, W = 3, 4, 2, 5
EPS = 1e-5


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def built(train: bool, **options: object) -> NormalizationAttention:
    """A module with random scales, shifts and running statistics."""
    module = NormalizationAttention(C, **options).double().train(train)
    for i, norm in enumerate(n for n in (module.channel_norm, module.pixel_norm) if n is not None):
        n = norm.num_features
        norm.weight.data, norm.bias.data = drawn(n, seed=20 + i), drawn(n, seed=30 + i)
        norm.running_mean, norm.running_var = drawn(n, seed=40 + i), drawn(n, seed=50 + i).abs() + 0.5
    return module


def gate_by_loops(x, norm, train, absolute, group_of):
    """x as {(image, channel, row, column): number} -> gates; group_of says which places share a scale."""
    gamma, beta = norm.weight.tolist(), norm.bias.tolist()
    size = [abs(g) if absolute else g for g in gamma]
    groups = {}
    for place, value in x.items():
        groups.setdefault(group_of(place), []).append(value)
    gates = {}
    for place, value in x.items():
        i = group_of(place)
        if train:
            mean = sum(groups[i]) / len(groups[i])
            variance = sum((other - mean) ** 2 for other in groups[i]) / len(groups[i])
        else:
            mean, variance = norm.running_mean[i].item(), norm.running_var[i].item()
        normed = gamma[i] * (value - mean) / math.sqrt(variance + EPS) + beta[i]
        gates[place] = 1 / (1 + math.exp(-size[i] / sum(size) * normed))
    return gates


@pytest.mark.parametrize("branch", ["channel", "pixel", "both"])
@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("absolute", [False, True])
def test_loops(branch, train, absolute):
    module = built(train, branch=branch, size=None if branch == "channel" else (H, W), absolute=absolute)
    x = drawn(B, C, H, W)
    indices = itertools.product(*map(range, x.shape))
    places = {place: x[place].item() for place in indices}
    gates = dict.fromkeys(places, 1.0)
    if module.channel_norm is not None:
        gates = gate_by_loops(places, module.channel_norm, train, absolute, lambda place: place[1])
    if module.pixel_norm is not None:
        gated = {place: value * gates[place] for place, value in places.items()}
        by_pixel = gate_by_loops(gated, module.pixel_norm, train, absolute, lambda p: p[2] * W + p[3])
        gates = {place: gate * by_pixel[place] for place, gate in gates.items()}
    expected = torch.tensor([gates[place] for place in sorted(places)], dtype=torch.float64).view(x.shape)
    statistics = [buffer.clone() for buffer in module.buffers()]
    found = module.weights(x)
    torch.testing.assert_close(found, expected)
    for buffer, before in zip(module.buffers(), statistics, strict=True):
        assert torch.equal(buffer, before) != train
        buffer.copy_(before)
    torch.testing.assert_close(module(x), x * expected)


def gate_written_out(x, scale, shift, norm, shape, train, absolute, detach):
    """One branch from its equations; ``shape`` says along which axes of x the scales lie."""
    gamma, beta = scale.view(shape), shift.view(shape)
    share = gamma.abs() / gamma.abs().sum() if absolute else gamma / gamma.sum()
    share = share.detach() if detach else share
    mean, variance = norm.running_mean.view(shape), norm.running_var.view(shape)
    if train:
        shared = [axis for axis, size in enumerate(shape) if size == 1]
        mean = x.mean(shared, keepdim=True)
        variance = ((x - mean) ** 2).mean(shared, keepdim=True)
    return torch.sigmoid(share * (gamma * (x - mean) / (variance + EPS).sqrt() + beta))


@pytest.mark.parametrize("branch", ["channel", "pixel", "both"])
@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("train", [False, True])
def test_gradients_with_and_without_the_path_through_the_weights(branch, absolute, detach, train):
    size = None if branch == "channel" else (H, W)
    module = built(train, branch=branch, size=size, absolute=absolute, detach=detach)
    x, upstream = drawn(B, C, H, W).requires_grad_(), drawn(B, C, H, W, seed=8)
    leaves = [x, *module.parameters()]
    copies = [leaf.detach().clone().requires_grad_() for leaf in leaves]
    output, *parameters = copies
    for norm, shape in ((module.channel_norm, (1, C, 1, 1)), (module.pixel_norm, (1, 1, H, W))):
        if norm is not None:
            scale, shift, *parameters = parameters
            output = output * gate_written_out(output, scale, shift, norm, shape, train, absolute, detach)
    expected = torch.autograd.grad(output, copies, upstream)
    found = torch.autograd.grad(module(x), leaves, upstream)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)


def test_running_statistics():
    module, x = built(True, branch="both", size=(H, W)), drawn(B, C, H, W)
    gated = x * module.channel_gate(x)
    module = built(True, branch="both", size=(H, W))
    module(x)
    groups = [(module.channel_norm, x, 1, 40), (module.pixel_norm, gated.flatten(2), 2, 41)]
    for norm, seen, axis, seed in groups:
        values = seen.movedim(axis, 0).flatten(1)
        n = len(values)
        mean, variance = drawn(n, seed=seed), drawn(n, seed=seed + 10).abs() + 0.5
        torch.testing.assert_close(norm.running_mean, 0.9 * mean + 0.1 * values.mean(1))
        torch.testing.assert_close(norm.running_var, 0.9 * variance + 0.1 * values.var(1, correction=1))


def test_the_two_gradients_of_the_scales_differ():
    gradients = []
    for detach in (False, True):
        module = built(train=True, detach=detach)
        module(drawn(B, C, H, W)).square().sum().backward()
        gradients.append(module.channel_norm.weight.grad)
    assert (gradients[0] - gradients[1]).abs().min() > 1e-4
    torch.testing.assert_close(
        ((gradients[0] - gradients[1]) * drawn(C, seed=20)).sum(), torch.zeros((), dtype=torch.float64)
    )


def test_the_gate_is_near_one_half_at_the_start():
    module = NormalizationAttention(256).eval()
    x = torch.linspace(-5, 5, 101).repeat(1, 256, 1, 1)
    gate = module.weights(x)
    assert 0.495 < gate.min() < 0.496
    assert 0.504 < gate.max() < 0.505


def test_in_eval_the_channel_branch_is_a_swish_with_its_own_slopes():
    module, x = built(train=False), drawn(B, C, H, W)
    norm = module.channel_norm
    root = (norm.running_var + EPS).sqrt()
    a = shares(norm.weight) * norm.weight / root
    b = shares(norm.weight) * (norm.bias - norm.weight * norm.running_mean / root)
    torch.testing.assert_close(module(x), x * torch.sigmoid(a[:, None, None] * x + b[:, None, None]))


def test_shares():
    scale = torch.tensor([2.0, -1.0, 1.0])
    assert shares(scale).tolist() == [0.5, 0.25, 0.25]
    assert shares(scale, absolute=False).tolist() == [1.0, -0.5, 0.5]
    assert torch.equal(shares(7 * scale), shares(scale))
    torch.testing.assert_close(shares(1e-30 * scale), shares(scale))
    assert shares(torch.zeros(3)).tolist() == [0, 0, 0]
    leaf = scale.clone().requires_grad_()
    assert not shares(leaf).requires_grad
    assert shares(leaf, detach=False).requires_grad


def test_shares_of_nothing_have_a_finite_gradient():
    zeros = torch.zeros(3, requires_grad=True)
    (gradient,) = torch.autograd.grad(shares(zeros, detach=False), zeros, torch.tensor([1.0, 2.0, 3.0]))
    assert gradient.isfinite().all()


def test_extra_parameters_of_resnet_50():
    """Its 16 block outputs: how many, channels, side of the map at 224 pixels."""
    stages = [(3, 256, 56), (4, 512, 28), (6, 1024, 14), (3, 2048, 7)]

    def extra(build):
        with torch.device("meta"):
            return sum(n * sum(p.numel() for p in build(c, side).parameters()) for n, c, side in stages)

    assert extra(lambda c, side: NormalizationAttention(c)) == 30_208
    assert extra(lambda c, side: NormalizationAttention(c, branch="both", size=(side, side))) == 57_942


def test_parameters():
    assert sum(p.numel() for p in NormalizationAttention(6).parameters()) == 12
    both = NormalizationAttention(6, branch="both", size=(3, 5))
    assert sum(p.numel() for p in both.parameters()) == 12 + 30
    assert NormalizationAttention(6, branch="pixel", size=(3, 5)).channel_norm is None


class Wrapper(nn.Module):
    """What a data-parallel wrapper does to the names of the modules inside."""

    def __init__(self, module):
        super().__init__()
        self.module = module


@pytest.mark.parametrize("wrap", [lambda network: network, Wrapper])
def test_the_penalty_reaches_every_scale_wherever_it_is(wrap):
    inner = nn.Sequential(nn.BatchNorm2d(C), built(train=True), built(train=True, branch="both", size=(H, W)))
    found = scale_penalty(wrap(nn.ModuleDict({"deep": inner})))
    norms = [inner[1].channel_norm, inner[2].channel_norm, inner[2].pixel_norm]
    expected = sum(abs(value) for norm in norms for value in norm.weight.tolist())
    assert found.shape == ()
    assert found.item() == pytest.approx(expected)
    found.backward()
    for norm in norms:
        assert torch.equal(norm.weight.grad, norm.weight.sign())
    assert inner[0].weight.grad is None


@pytest.mark.no_shape_hook
def test_the_penalty_refuses_a_network_without_any():
    text = (
        "found no NormalizationAttention in this Sequential, so there is nothing to penalise; pass the "
        "network that holds them"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        scale_penalty(nn.Sequential(nn.BatchNorm2d(3)))


SIZE_TEXT = (
    "; the pixel branch needs size=(height, width), since it has one scale for each pixel, and the channel "
    "branch takes none"
)


@pytest.mark.no_shape_hook
@pytest.mark.parametrize(
    ("channels", "options", "text"),
    [
        (0, {}, "channels=0 should be a whole number of at least 1"),
        (
            4,
            {"branch": "chanel"},
            "branch='chanel' is not one of 'channel', 'pixel', 'both'; did you mean 'channel'?",
        ),
        (4, {"branch": "pixel"}, "branch='pixel' came with size=None" + SIZE_TEXT),
        (4, {"size": (3, 5)}, "branch='channel' came with size=(3, 5)" + SIZE_TEXT),
        (4, {"branch": "both", "size": (0, 5)}, "height=0 should be a whole number of at least 1"),
        (4, {"branch": "both", "size": (3, -1)}, "width=-1 should be a whole number of at least 1"),
    ],
)
def test_wrong_arguments(channels, options, text):
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        NormalizationAttention(channels, **options)


@pytest.mark.no_shape_hook
def test_wrong_inputs():
    module = NormalizationAttention(C, branch="both", size=(3, 5))
    text = (
        "this module has one scale for each pixel of a map of size=(3, 5), the input's size is (5, 3); "
        "resize the input, or use the channel branch for any size"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        module(torch.zeros(2, C, 5, 3))
    with pytest.raises(ValueError, match=r"^this module was built for channels=4"):
        module(torch.zeros(2, 5, 3, 5))
    with pytest.raises(ValueError, match="more than 1 value"):
        NormalizationAttention(C).train()(torch.zeros(1, C, 1, 1))
    with pytest.raises(ValueError, match="more than 1 value"):
        NormalizationAttention(1, branch="pixel", size=(3, 5)).train()(torch.zeros(1, 1, 3, 5))
