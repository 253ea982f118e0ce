"""The network of the experiments: its shapes, its view of 5x5 pixels, and that a seed decides all."""

import pytest
import torch
from torch import nn

from attnlib import SqueezeExcitation
from attnlib.lab import small_network
from attnlib.lab.data import Images, cued_digits
from attnlib.lab.small_network import SmallNetwork, learn


def network(**options):
    torch.manual_seed(5)
    return SmallNetwork((2, 12, 8), 7, **options).double().eval()


def test_shapes():
    net, x = network(width=6), torch.randn(3, 2, 12, 8).double()
    assert net.features(x).shape == (3, 6, 12, 8)
    assert net(x).shape == (3, 7)


def test_a_unit_sees_five_by_five_pixels():
    net, x = network(), torch.randn(1, 2, 12, 8).double().requires_grad_()
    (seen,) = torch.autograd.grad(net.features(x)[0, :, 6, 3].sum(), x)
    rows, columns = seen[0].abs().sum(0).nonzero().T
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (4, 8, 1, 5)


def test_at_a_corner_it_sees_nothing_of_the_other_side():
    net, x = network(), torch.randn(1, 2, 12, 8).double().requires_grad_()
    (seen,) = torch.autograd.grad(net.features(x)[0, :, 0, 0].sum(), x)
    rows, columns = seen[0].abs().sum(0).nonzero().T
    assert (rows.max(), columns.max()) == (2, 2)


def test_the_features_are_two_convolutions_with_a_relu_behind_each():
    net, x = network(), torch.randn(3, 2, 12, 8).double()
    assert net.conv_1.weight.shape == (16, 2, 3, 3)
    by_hand = net.norm(net.conv_2(net.conv_1(x).clamp(min=0))).clamp(min=0)
    assert torch.equal(net.features(x), by_hand) and (by_hand == 0).any()


def test_with_two_groups_each_half_sees_one_channel():
    net, x = network(groups=2), torch.randn(1, 2, 12, 8).double()
    changed = x.clone()
    changed[:, 1] += 1
    same = (net.features(x) == net.features(changed)).flatten(2).all(2)[0]
    assert same[:8].all() and not same[8:].all()
    changed = x.clone()
    changed[:, 0] += 1
    same = (net.features(x) == net.features(changed)).flatten(2).all(2)[0]
    assert same[8:].all() and not same[:8].all()


def test_what_follows_the_mechanism_is_linear():
    net = network(attention=nn.Identity())
    a, b = torch.randn(2, 1, 16, 12, 8).double()
    net.features = lambda x: x
    zero = net(0 * a)
    assert torch.allclose(net(a + b) + zero, net(a) + net(b))


def test_the_mechanism_stands_behind_the_features():
    se = SqueezeExcitation(16, reduction=4)
    net, x = network(attention=se), torch.randn(2, 2, 12, 8).double()
    by_hand = nn.functional.avg_pool2d(se(net.features(x)), 4).flatten(1)
    assert torch.equal(net(x), net.read(by_hand))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (((1, 10, 8), 3), "height=10 is not divisible by block=4; use 5 or 2"),
        (((1, 8, 9), 3), "width=9 is not divisible by block=4; use 3 or 1"),
        (((1, 8, 8), 0), "classes=0 should be a whole number of at least 1"),
    ],
)
def test_arguments_are_checked(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        SmallNetwork(*arguments)


def test_groups_must_fit():
    with pytest.raises(ValueError, match="width=16 is not divisible by groups=3; use 2 or 4"):
        SmallNetwork((3, 8, 8), 10, groups=3)


def test_learn_builds_trains_and_repeats_itself():
    cards = cued_digits(40)
    options = {"groups": 2, "epochs": 2, "batch_size": 20}
    first, again, other = (
        learn(cards, lambda: SqueezeExcitation(16), seed=seed, **options).state_dict() for seed in (1, 1, 2)
    )
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["attention.W_1.weight"], other["attention.W_1.weight"])
    assert first["norm.num_batches_tracked"] == 4
    assert first["conv_1.weight"].shape == (16, 1, 3, 3) and first["read.bias"].shape == (10,)


@pytest.mark.parametrize("recipe", [{}, {"epochs": 3, "batch_size": 7, "learning_rate": 0.2}])
def test_learn_trains_by_its_recipe_and_without_a_mechanism_too(monkeypatch, recipe):
    calls = []
    monkeypatch.setattr(small_network, "train", lambda network, data, **options: calls.append(options))
    assert isinstance(learn(cued_digits(20), seed=5, **recipe).attention, nn.Identity)
    usual = {"epochs": 8, "batch_size": 50, "learning_rate": 0.015}
    assert calls == [{**usual, **recipe, "seed": 5, "progress": False}]


def test_learn_takes_the_number_of_classes_from_the_data():
    data = cued_digits(20)
    few = Images(data.images, data.labels % 3, ("a", "b", "c"))
    assert learn(few, seed=1, epochs=1).read.out_features == 3
