"""Localisation scores, against boxes and maps small enough to count."""

import pytest
import torch

from attnlib.lab.data import cluttered_digits
from attnlib.lab.localization import energy_in_box, inside_boxes, pointing_game

BOX = torch.tensor([[1, 0, 3, 1]])  # columns 1 and 2 of row 0


def test_a_box_is_columns_first_and_leaves_its_ends_out():
    expected = torch.zeros(1, 2, 4, dtype=torch.bool)
    expected[0, 0, 1] = expected[0, 0, 2] = True
    assert torch.equal(inside_boxes(BOX, 2, 4), expected)


def test_inside_agrees_with_slicing_on_the_cluttered_digits():
    data = cluttered_digits(20)
    inside = inside_boxes(data.boxes, 32, 32)
    for mask, (x0, y0, x1, y1) in zip(inside, data.boxes.tolist(), strict=True):
        assert mask[y0:y1, x0:x1].all() and mask.sum() == (y1 - y0) * (x1 - x0)


def test_the_docstring_of_cluttered_digits_says_what_a_fixed_place_scores():
    boxes = cluttered_digits(2000).boxes
    coverage = inside_boxes(boxes, 32, 32).double().mean(0)
    assert round(coverage.mean().item(), 2) == 0.17
    assert round(coverage.max().item(), 2) == 0.56


def test_pointing_at_two_images():
    maps = torch.tensor([[[0.0, 9, 1, 0], [0, 0, 0, 8]], [[0.0, 0, 0, 1], [0, 5, 0, 0]]])
    assert pointing_game(maps, BOX.expand(2, 4)).tolist() == [1, 0]


def test_pointing_shares_a_tie_so_that_a_flat_map_scores_the_box_s_area():
    maps = torch.tensor([[[0.0, 3, 0, 3], [0, 0, 3, 3]]])
    assert pointing_game(maps, BOX).tolist() == [1 / 4]
    assert pointing_game(torch.full((1, 2, 4), 0.5), BOX).tolist() == [2 / 8]


def test_negative_values_may_point():
    assert pointing_game(torch.tensor([[[-3.0, -1, -3, -3], [-2, -2, -2, -2]]]), BOX).tolist() == [1]


def test_energy_is_the_share_of_each_map_alone():
    maps = torch.tensor([[[1.0, 2, 1, 0], [4, 0, 0, 4]], [[0.0, 7, 0, 0], [0, 0, 0, 0]]])
    assert energy_in_box(maps, BOX.expand(2, 4)).tolist() == [3 / 12, 1]
    assert torch.allclose(energy_in_box(10 * maps, BOX.expand(2, 4)), torch.tensor([3 / 12, 1]))


def test_a_map_of_zeros_counts_as_flat():
    assert energy_in_box(torch.zeros(1, 2, 4), BOX).tolist() == [2 / 8]


@pytest.mark.no_shape_hook
def test_errors_say_what_was_expected():
    with pytest.raises(ValueError, match="without negative values"):
        energy_in_box(torch.tensor([[[-1.0, 0, 0, 0], [0, 0, 0, 0]]]), BOX)
    for score in (pointing_game, energy_in_box):
        with pytest.raises(ValueError, match=r"maps \(n, h, w\) and boxes \(n, 4\), got \(2, 2, 4\)"):
            score(torch.ones(2, 2, 4), BOX)
        with pytest.raises(ValueError, match="0 <= x0 < x1 <= 4"):
            score(torch.ones(1, 2, 4), torch.tensor([[1, 0, 5, 1]]))
        with pytest.raises(ValueError, match="check their order"):
            score(torch.ones(1, 2, 4), torch.tensor([[3, 0, 1, 1]]))
