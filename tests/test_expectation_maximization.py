"""Expectation-maximisation attention against loops, and its bases, which only update_bases may move."""

import re

import pytest
import torch
from by_hand import assert_same, batch_norm, drawn, randomised

from attnlib.feature_map import ExpectationMaximizationAttention

B, C, H, W, K = 2, 5, 3, 4, 3


def built(train: bool = False, **options: object) -> ExpectationMaximizationAttention:
    return randomised(ExpectationMaximizationAttention(C, bases=K, **options), train)


def rounds(module, x, iterations):
    """E and M for one image after the other."""
    all_z, all_mu = [], []
    for image in x:
        rows = image.flatten(1).T @ module.conv_in.weight.flatten(1).T + module.conv_in.bias
        mu = module.mu
        for _ in range(iterations):
            e = torch.exp(rows @ mu.T)
            z = e / e.sum(1, keepdim=True)
            means = [(z[:, k, None] * rows).sum(0) / z[:, k].sum() for k in range(K)]
            mu = torch.stack([mean / mean.square().sum().sqrt() for mean in means])
        all_z.append(z)
        all_mu.append(mu)
    return torch.stack(all_z), torch.stack(all_mu)


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("iterations", [1, 3])
def test_loops(train, iterations):
    module = built(train, iterations=iterations)

    def oracle(x):
        z, mu = rounds(module, x, iterations)
        y = (z @ mu).clamp(min=0) @ module.conv_out.weight.flatten(1).T
        y = batch_norm(y.transpose(1, 2).reshape(x.shape), module.norm, train)
        return (x + y).clamp(min=0)

    x = drawn(B, C, H, W)
    assert_same(module, oracle, x)
    torch.testing.assert_close(module.weights(x), rounds(module, x, iterations)[0])


def test_without_gradients_the_first_convolution_learns_nothing():
    for detach in (False, True):
        module = built(True, detach=detach)
        module(drawn(B, C, H, W)).square().sum().backward()
        assert (module.conv_in.weight.grad is None) == detach
        assert module.conv_out.weight.grad.abs().max() > 0
    with_gradients, without = built(), built(detach=True)
    without.mu.copy_(with_gradients.mu)
    assert torch.equal(without(drawn(B, C, H, W)), with_gradients(drawn(B, C, H, W)))


@pytest.mark.parametrize("train", [False, True])
def test_forward_leaves_the_bases_alone(train):
    module = built(train)
    before = module.mu.clone()
    module(drawn(B, C, H, W))
    assert torch.equal(module.mu, before)


@pytest.mark.parametrize("momentum", [0.9, 0.25])
def test_update_bases_is_a_moving_average(momentum):
    module, x = built(momentum=momentum), drawn(B, C, H, W)
    _, mu = rounds(module, x, 3)
    expected = momentum * module.mu + (1 - momentum) * mu.mean(0)
    module.update_bases(x)
    torch.testing.assert_close(module.mu, expected.detach())
    assert not module.mu.requires_grad


def test_the_rebuilt_map_has_the_rank_of_the_bases():
    z, mu = built().expectation_maximization(drawn(B, C, H, W))
    assert torch.linalg.matrix_rank(z @ mu).tolist() == [K, K]
    torch.testing.assert_close(z.sum(-1), torch.ones(B, H * W, dtype=torch.float64))


def test_a_single_basis_is_the_direction_of_the_mean():
    module = randomised(ExpectationMaximizationAttention(C, bases=1))
    x = drawn(1, C, H, W)
    z, mu = module.expectation_maximization(x)
    mean = module.conv_in(x).mean((2, 3))
    torch.testing.assert_close(mu[0], mean / mean.norm())
    assert (z == 1).all()


def test_the_bases_start_with_length_one_and_are_no_parameters():
    module = ExpectationMaximizationAttention(512)
    torch.testing.assert_close(module.mu.norm(dim=1), torch.ones(64))
    assert sum(p.numel() for p in module.parameters()) == 525_824
    assert "mu" in module.state_dict()


@pytest.mark.no_shape_hook
@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"bases": 0}, "bases=0 should be a whole number of at least 1"),
        ({"iterations": 0}, "iterations=0 should be a whole number of at least 1"),
        ({"momentum": 1.5}, "momentum=1.5 should lie between 0 and 1"),
        ({"momentum": -0.1}, "momentum=-0.1 should lie between 0 and 1"),
    ],
)
def test_wrong_arguments(options, text):
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        ExpectationMaximizationAttention(4, **options)


@pytest.mark.no_shape_hook
def test_wrong_channels():
    with pytest.raises(ValueError, match=r"^channels=0 should be"):
        ExpectationMaximizationAttention(0)
    for method in ("forward", "weights", "update_bases"):
        with pytest.raises(ValueError, match=r"^this module was built for channels=5, the input"):
            getattr(built(), method)(torch.zeros(1, 4, 2, 2))
