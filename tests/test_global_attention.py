"""GAM against its equations, written out; what groups and the shuffle between them do."""

import re

import pytest
import torch
from by_hand import assert_same, batch_norm, convolution, drawn, randomised

from attnlib.feature_map import GlobalAttention

B, C, H, W = 2, 8, 3, 5


def shuffled(x, groups):
    """Channel i of group g goes to place i * groups + g."""
    per_group = x.shape[1] // groups
    places = [g * per_group + i for i in range(per_group) for g in range(groups)]
    return x[:, places]


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize(("groups", "shuffle"), [(1, True), (2, True), (2, False)])
@pytest.mark.parametrize("channel_sigmoid", [False, True])
def test_gam(train, groups, shuffle, channel_sigmoid):
    options = {"groups": groups, "shuffle": shuffle, "channel_sigmoid": channel_sigmoid}
    module = randomised(GlobalAttention(C, reduction=2, **options), train)

    def oracle(x):
        columns = torch.einsum("oc,bchw->bohw", module.W_1.weight, x) + module.W_1.bias.view(1, -1, 1, 1)
        gate = torch.einsum("oc,bchw->bohw", module.W_2.weight, columns.clamp(min=0))
        gate = gate + module.W_2.bias.view(1, -1, 1, 1)
        x = x * (gate.sigmoid() if channel_sigmoid else gate)
        y = convolution(x, module.f_1.weight, module.f_1.bias, groups=groups)
        y = batch_norm(y, module.norm_1, train).clamp(min=0)
        y = shuffled(y, groups) if shuffle else y
        y = convolution(y, module.f_2.weight, module.f_2.bias, groups=groups)
        return x * batch_norm(y, module.norm_2, train).sigmoid()

    assert_same(module, oracle, drawn(B, C, H, W))


@pytest.mark.parametrize("shuffle", [False, True])
def test_only_the_shuffle_lets_groups_hear_of_each_other(shuffle):
    module = randomised(GlobalAttention(C, reduction=2, groups=2, shuffle=shuffle))
    x = drawn(1, C, H, W).requires_grad_()
    (gradient,) = torch.autograd.grad(module.spatial_gate(x)[0, : C // 2].sum(), x)
    assert (gradient[0, : C // 2] != 0).any()
    assert (gradient[0, C // 2 :] != 0).any() == shuffle


def test_the_channel_gate_stays_at_its_place():
    module, x = randomised(GlobalAttention(C, reduction=2)), drawn(1, C, H, W).requires_grad_()
    (gradient,) = torch.autograd.grad(module.channel_gate(x)[0, :, 1, 2].sum(), x)
    elsewhere = torch.ones(H, W, dtype=torch.bool)
    elsewhere[1, 2] = False
    assert (gradient[0][:, elsewhere] == 0).all()
    assert (gradient[0, :, 1, 2] != 0).all()


def test_the_spatial_gate_sees_thirteen_by_thirteen_places():
    module = randomised(GlobalAttention(4, reduction=1))
    x = drawn(1, 4, 17, 17).requires_grad_()
    (gradient,) = torch.autograd.grad(module.spatial_gate(x)[0, :, 8, 8].sum(), x)
    seen = (gradient[0] != 0).any(0)
    assert seen[2:15, 2:15].float().mean() > 0.9
    assert seen.sum() == seen[2:15, 2:15].sum()
    assert seen[2].any()
    assert seen[:, 14].any()


def test_by_hand():
    """Two layers of ones on one channel: relu(2) = 2; both batch norms give 0, so the spatial gate is 1/2."""
    module = GlobalAttention(1, reduction=1, channel_sigmoid=False).eval()
    for name, p in module.named_parameters():
        p.data = torch.ones_like(p) if name in ("W_1.weight", "W_2.weight") else torch.zeros_like(p)
    assert module(torch.full((1, 1, 1, 1), 2.0)).item() == 2 * 2 * 0.5


@pytest.mark.no_shape_hook
@pytest.mark.parametrize(
    ("channels", "options", "text"),
    [
        (30, {}, "channels=30 is not divisible by reduction=16; use 15 or 10"),
        (32, {"groups": 4}, "channels / reduction=2 is not divisible by groups=4; use 2 or 1"),
    ],
)
def test_wrong_arguments(channels, options, text):
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        GlobalAttention(channels, **options)


@pytest.mark.no_shape_hook
def test_wrong_inputs():
    with pytest.raises(ValueError, match=r"^this module was built for channels=16, the input"):
        GlobalAttention(16)(torch.zeros(2, 8, 4, 4))
