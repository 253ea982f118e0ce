"""The two series are what their sources say, in the right order and unit."""

import pytest
import torch

from attnlib.lab.data import load_co2, load_sunspots


def test_the_weeks_of_carbon_dioxide():
    series = load_co2("week")
    assert (series.name, series.unit) == ("carbon dioxide", "ppm")
    assert series.time.shape == series.value.shape == (2225,)
    assert series.value[:4].tolist() == [316.1, 317.3, 317.6, 317.5] and series.value[-1] == 371.5
    assert torch.allclose(series.time[0], torch.tensor(1958 + 87.5 / 365, dtype=torch.float64))  # 29 March
    weeks = series.time.diff() * 365.25 / 7
    assert (weeks.round() >= 1).all() and weeks.round().sum() == 2283  # 59 of 2,284 have no value


def test_the_months_are_even_and_mean_their_weeks():
    series, week = load_co2(), load_co2("week")
    assert series.value.shape == (526,) and series.time.dtype == series.value.dtype == torch.float64
    assert torch.allclose(series.time.diff(), torch.tensor(1 / 12, dtype=torch.float64))
    assert abs(series.time[0] - (1958 + 2.5 / 12)) < 1e-9  # the middle of March
    april = (week.time > 1958 + 90 / 365) & (week.time < 1958 + 120 / 365)
    assert april.sum() == 4 and torch.allclose(series.value[1], week.value[april].mean())


def test_a_month_without_a_week_lies_between_its_neighbours():
    may, june, july = load_co2().value[2:5]
    assert torch.allclose(june, (may + july) / 2)
    january, _, march, april, may = load_co2().value[70:75]  # of 1964
    assert torch.allclose(march, (january + may) / 2) and torch.allclose(april, (march + may) / 2)


def test_carbon_dioxide_rises_and_has_its_peak_in_may():
    years = load_co2().value[10:-12].reshape(-1, 12)  # from January 1959
    assert (years.mean(1).diff() > 0).all()
    assert years.mean(0).argmax() == 4 and years.mean(0).argmin() in (8, 9)


def test_sunspots():
    series = load_sunspots()
    assert (series.name, series.unit) == ("sunspots", "yearly mean number")
    assert series.time.tolist() == [year + 0.5 for year in range(1700, 2009)]
    assert series.value[:3].tolist() == [5, 11, 16] and series.value[-1] == pytest.approx(2.9)
    assert series.value.max() == series.value[1957 - 1700]


@pytest.mark.no_shape_hook
def test_the_step_is_checked():
    with pytest.raises(ValueError, match=r"step='weak' is not one of .*did you mean 'week'"):
        load_co2("weak")
