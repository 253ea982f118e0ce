"""Signatures: on functions whose Jacobian is known, both matrices are what (7.13) of notebook 07 says."""

import matplotlib.pyplot as plt
import pytest
import torch

from attnlib.lab.signatures import Signature, draw_signature, signature


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


X = normal(1, 3, 2, 4)
MIX, MOVE = normal(3, 3, seed=1), normal(8, 8, seed=2)


def mixes_and_moves(x):
    """y_c(p) = sum over k and q of MIX[c, k] MOVE[p, q] x_k(q): its Jacobian is the product of the two."""
    return torch.einsum("ck,pq,bkq->bcp", MIX, MOVE, x.flatten(2)).view_as(x)


def test_of_a_linear_map_it_is_the_map():
    found = signature(mixes_and_moves, X)
    torch.testing.assert_close(found.channels, MIX.abs() / MIX.abs().max())
    torch.testing.assert_close(found.places, MOVE.abs() / MOVE.abs().max())


def test_it_is_the_root_of_the_mean_square():
    def two_slopes(x):  # channel 0 hears channel 1 with slope 3 at one place of eight, -1 at the others
        slopes = torch.full((8,), -1.0, dtype=x.dtype)
        slopes[5] = 3
        first = slopes.view(2, 4) * x[:, 1]
        return torch.stack([first, 2 * x[:, 1], 0 * x[:, 2]], 1)

    found = signature(two_slopes, X)
    # rows 0 and 1 of channels: roots of (7 * 1 + 9) / 64 and of 8 * 4 / 64
    expected = torch.tensor([[0, 0.5**0.5, 0], [0, 1, 0], [0, 0, 0]], dtype=torch.float64)
    torch.testing.assert_close(found.channels, expected)
    # place 5 by itself: (9 + 4) / 9, the others (1 + 4) / 9
    diagonal = torch.full((8,), (5 / 13) ** 0.5, dtype=torch.float64)
    diagonal[5] = 1
    torch.testing.assert_close(found.places, diagonal.diag())


def test_rows_listen_to_columns():
    def from_the_next(x):  # channel c follows channel c + 1, place p follows place p + 1, counted row by row
        moved = x.flatten(2).roll(-1, 2).view_as(x)
        return moved.roll(-1, 1)

    found = signature(from_the_next, X)
    torch.testing.assert_close(found.channels, torch.eye(3, dtype=torch.float64).roll(1, 1))
    torch.testing.assert_close(found.places, torch.eye(8, dtype=torch.float64).roll(1, 1))


def test_a_gate_is_written_out_to_the_shape_of_the_features():
    weights = torch.tensor([1.0, -2.0, 4.0], dtype=torch.float64)[:, None, None]
    found = signature(lambda x: weights * x.mean((2, 3), keepdim=True), X)  # a gate b c 1 1
    expected = torch.tensor([0.25, 0.5, 1], dtype=torch.float64).diag()
    torch.testing.assert_close(found.channels, expected)
    torch.testing.assert_close(found.places, torch.ones(8, 8, dtype=torch.float64))


def test_a_gate_that_listens_to_nothing_has_a_signature_of_zeros():
    found = signature(lambda x: 0 * x + 0.5, X)
    assert (found.channels == 0).all() and (found.places == 0).all()


def test_each_matrix_has_its_own_scale():
    found = signature(lambda x: 1e-3 * mixes_and_moves(x), X)
    assert found.channels.max() == found.places.max() == 1


@pytest.mark.no_shape_hook
@pytest.mark.parametrize("x", [normal(2, 3, 2, 4), normal(1, 2, 4)])
def test_only_one_image_is_accepted(x):
    with pytest.raises(ValueError, match=r"expected one image \(1, c, h, w\), got shape .*; pass x\[:1\]"):
        signature(lambda x: x, x)


def test_drawing():
    pattern = Signature(torch.tensor([[1.0, 0.25], [0.0, 1.0]]), torch.tensor([[0.04, 1.0, 0.5]] * 3))
    figure, axes = plt.subplots(1, 2)
    returned = draw_signature(pattern, axes=axes, title="a gate")
    assert returned is axes
    assert [ax.get_title() for ax in axes] == ["a gate", ""]
    assert [ax.get_xlabel() for ax in axes] == ["channel changed", "place changed"]
    assert [ax.get_ylabel() for ax in axes] == ["channel that follows", "place that follows"]
    for ax, matrix in zip(axes, (pattern.channels, pattern.places), strict=True):
        (image,) = ax.get_images()
        torch.testing.assert_close(torch.from_numpy(image.get_array().data), matrix.double().sqrt())
        assert image.get_clim() == (0, 1)
    assert len(figure.axes) == 2  # no colour bars
    plt.close(figure)
