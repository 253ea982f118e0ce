"""Intervals and comparisons of seeds against scipy, statsmodels and a simulation."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from attnlib.lab.compare import holm, interval, paired


def runs(**accuracies):
    rows = [
        {"mechanism": name, "seed": seed, "accuracy": value}
        for name, values in accuracies.items()
        for seed, value in enumerate(values)
    ]
    return pd.DataFrame(rows)


def test_an_interval_is_students():
    values = [0.62, 0.64, 0.61, 0.66, 0.65]
    mean, reach = interval(values)
    low, high = stats.t.interval(0.95, 4, loc=np.mean(values), scale=stats.sem(values))
    assert (mean - reach, mean + reach) == pytest.approx((low, high), abs=1e-12)
    assert interval(values, level=0.5)[1] < reach


def test_an_interval_holds_the_mean_as_often_as_it_says():
    draws = np.random.default_rng(0).normal(3, 2, (4000, 5))
    held = [abs(mean - 3) <= reach for mean, reach in map(interval, draws)]
    assert 0.94 < np.mean(held) < 0.96


@pytest.mark.parametrize(
    "p",
    [
        [0.01, 0.04, 0.03],
        [0.5, 0.5, 0.001, 0.02],
        [1.0, 0.0],
        [0.02],
        [0.9, 0.8],
        list(np.linspace(0.001, 0.3, 11)),
    ],
)
def test_holm_is_that_of_statsmodels(p):
    assert holm(p) == pytest.approx(multipletests(p, method="holm")[1], abs=1e-15)
    assert holm(p[::-1]) == pytest.approx(holm(p)[::-1], abs=1e-15)


def test_paired_differences():
    table = paired(runs(a=[0.5, 0.6, 0.7], b=[0.52, 0.63, 0.71], c=[0.4, 0.9, 0.5]), "a")
    assert list(table.index) == ["b", "c"]
    assert table.loc["b", "difference"] == pytest.approx(0.02)
    assert table.loc["b", "p"] == pytest.approx(stats.ttest_1samp([0.02, 0.03, 0.01], 0).pvalue)
    assert table.loc["b", "reach"] == pytest.approx(stats.t.ppf(0.975, 2) * 0.01 / 3**0.5)
    assert table["p_holm"].tolist() == pytest.approx(holm(table["p"]).tolist())
    assert paired(runs(a=[0.5, 0.6], b=[0.5, 0.6]), "a").loc["b", "p"] == 1
    assert paired(runs(a=[0.5, 0.5], b=[0.75, 0.75]), "a").loc["b", "p"] == 0


@pytest.mark.no_shape_hook
@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: interval([0.5]), "train more seeds"),
        (lambda: interval([0.5, 0.6], level=95), "level=95"),
        (lambda: holm([0.5, 1.5]), "probabilities"),
        (lambda: paired(runs(a=[1, 2], b=[1, 2]), "sam"), "'sam' is not among a, b"),
        (lambda: paired(runs(a=[1, 2], b=[1]), "a"), "b has no accuracy for seed 1"),
        (lambda: paired(pd.concat([runs(a=[1, 2], b=[1, 3])] * 2), "a"), "several rows for one seed"),
    ],
)
def test_what_cannot_be_compared_is_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()
