"""Coordinate attention against its equations, row by row and column by column."""

import pytest
import torch
from by_hand import assert_same, batch_norm, drawn, randomised

from attnlib.feature_map import CoordinateAttention

B, C, H, W = 2, 5, 3, 4


def layer(conv, t):
    return torch.einsum("oc,bcn->bon", conv.weight[:, :, 0, 0], t) + conv.bias[:, None]


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("reduction", [32, 1])
def test_written_out(train, reduction):
    module = randomised(CoordinateAttention(C, reduction=reduction), train)

    def oracle(x):
        strips = torch.cat([x.mean(3), x.mean(2)], 2)
        f = batch_norm(layer(module.conv_1, strips), module.norm, train)
        f = f * (f + 3).clamp(0, 6) / 6
        rows, columns = layer(module.conv_h, f[:, :, :H]), layer(module.conv_w, f[:, :, H:])
        return x * rows.sigmoid()[:, :, :, None] * columns.sigmoid()[:, :, None]

    assert_same(module, oracle, drawn(B, C, H, W), without=("conv_1.bias",) if train else ())


def test_a_gate_is_a_product_of_a_row_and_a_column():
    gate = randomised(CoordinateAttention(C)).weights(drawn(B, C, H, W))
    assert (torch.linalg.matrix_rank(gate, rtol=1e-9) == 1).all()


@pytest.mark.parametrize(("channels", "count"), [(64, 1688), (256, 6680), (2048, 397_504)])
def test_parameters(channels, count):
    with torch.device("meta"):
        assert sum(p.numel() for p in CoordinateAttention(channels).parameters()) == count


@pytest.mark.no_shape_hook
def test_wrong_arguments():
    with pytest.raises(ValueError, match=r"^channels=0 should be a whole number of at least 1$"):
        CoordinateAttention(0)
    with pytest.raises(ValueError, match=r"^reduction=0 should be a whole number of at least 1$"):
        CoordinateAttention(8, reduction=0)
    with pytest.raises(ValueError, match=r"^this module was built for channels=5, the input"):
        CoordinateAttention(C)(torch.zeros(1, 4, 2, 2))
