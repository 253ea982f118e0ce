"""Two measured series: carbon dioxide over Mauna Loa and the number of sunspots."""

from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float64
from torch import Tensor

from attnlib._checks import check_choice
from attnlib.lab.stored import data_file


class Series(NamedTuple):
    """A quantity over time."""

    time: Float64[Tensor, " n"]  # years, the fraction counts the days: 2 July 1959 noon is 1959.5
    value: Float64[Tensor, " n"]
    name: str
    unit: str


def load_co2(step: str = "month") -> Series:
    """Carbon dioxide over Mauna Loa, March 1958 to December 2001, in ppm (molecules in a million of dry air).

    ``step="week"``: the 2,225 weeks that have a value; 59 weeks between them have none, so the time is not
    even. ``step="month"``: 526 months, each the mean of its weeks; the five months without any (June and
    October 1958, February to April 1964) are read off the straight line between their neighbours.

    Source: C. D. Keeling and T. P. Whorf, Scripps Institution of Oceanography, public domain; in statsmodels'
    copy.
    """
    check_choice("step", step, ("week", "month"))
    table = pd.read_csv(data_file("co2.csv"), index_col="week", parse_dates=True)["ppm"]
    if step == "month":
        table = table.resample("MS").mean().interpolate()  # evenly from month to month
        time = table.index.year + (table.index.month - 0.5) / 12
    else:
        days = np.where(table.index.is_leap_year, 366, 365)
        time = table.index.year + (table.index.day_of_year - 0.5) / days
    return Series(_tensor(time), _tensor(table), "carbon dioxide", "ppm")


def load_sunspots() -> Series:
    """The mean number of sunspots of each year, 1700 to 2008: 309 values; its cycle lasts about 11 years.

    Source: National Geophysical Data Center (NOAA), public domain; in statsmodels' copy.
    """
    table = pd.read_csv(data_file("sunspots.csv"))
    return Series(_tensor(table["year"] + 0.5), _tensor(table["number"]), "sunspots", "yearly mean number")


def _tensor(column: object) -> Float64[Tensor, " n"]:
    return torch.tensor(np.asarray(column), dtype=torch.float64)
