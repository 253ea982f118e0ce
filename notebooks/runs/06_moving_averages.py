"""The stored runs behind part 9 of 06_moving_averages: forecasts of the next value, one row a forecaster.

    python notebooks/runs/06_moving_averages.py

writes data/results/06_forecasts.csv; about a minute on one core.
"""

import pandas as pd
import torch
from torch import nn
from torch.nn import functional as F

from attnlib.lab.data import data_folder, load_co2, load_sunspots
from attnlib.sequence.moving_average import WindowedCosineAttention, exponential_moving_average

SEEDS, BLOCKS, DECAYS = 10, 5, [i / 50 for i in range(50)]
RECIPE = {"share": 0.7, "lags": 24, "pattern": 12, "window": 36, "width": 8, "steps": 200}


def walk(seed, noise):
    """500 steps of variance 0.05 or 1, and what a measurement adds to each of them."""
    steps, errors = torch.randn(2, 500, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (0.05**0.5 * steps).cumsum(0) + errors if noise else steps.cumsum(0)


SERIES = {
    "noisy walk": lambda seed: walk(seed, noise=True),
    "random walk": lambda seed: walk(seed, noise=False),
    "CO2": lambda seed: load_co2().value,
    "sunspots": lambda seed: load_sunspots().value,
}


def averaged(x, decay):
    return exponential_moving_average(x[:, None], decay)[:, 0]


def best_decay(x, cut):
    """The decay whose average forecasts best up to the cut."""
    errors = [squares(x, averaged(x, decay), RECIPE["lags"], cut).mean() for decay in DECAYS]
    return DECAYS[int(torch.stack(errors).argmin())]


def squares(x, forecast, start, stop):
    """Squared errors at the times from start to before stop; forecast[t] is what t says about t + 1."""
    return (x[start:stop] - forecast[start - 1 : stop - 1]).square()


class ByAge(nn.Module):
    """Softmax weights for the last values, learnt for each age and the same at all times."""

    def __init__(self):
        super().__init__()
        self.score = nn.Parameter(torch.zeros(RECIPE["lags"], dtype=torch.float64))

    def forward(self, x):
        past = F.pad(x, (len(self.score) - 1, 0)).unfold(0, len(self.score), 1)  # oldest first
        return past @ self.score.softmax(0)


class ByContent(nn.Module):
    """The present plus an average of what followed where the last changes looked like the present ones."""

    def __init__(self):
        super().__init__()
        start = torch.randn(RECIPE["pattern"], RECIPE["width"]).double()
        self.W = nn.Parameter(start / RECIPE["pattern"] ** 0.5)
        self.attend = WindowedCosineAttention(RECIPE["window"], beta=5.0, learnable=True).double()
        self.fuse = nn.Parameter(torch.ones(1).double())

    def forward(self, x):
        change = x.diff()
        pattern = F.pad(change, (RECIPE["pattern"], 0)).unfold(0, RECIPE["pattern"], 1)
        key, value = pattern @ self.W, F.pad(change, (0, 1))[:, None]  # the last one is not known yet
        return x + self.fuse * self.attend(key, key, value)[:, 0]


def trained(model, x, cut, learning_rate):
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    start = RECIPE["pattern"] + RECIPE["window"]
    for _ in range(RECIPE["steps"]):
        loss = squares(x, model(x[:cut]), start, cut).mean() / x[:cut].diff().var()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return model(x)


def linear(x, cut):
    """The next change from the last changes and a constant, by least squares up to the cut."""
    lags, change = RECIPE["lags"] - 1, x.diff()
    past = torch.cat([change.unfold(0, lags, 1), torch.ones(len(change) - lags + 1, 1).double()], 1)
    weights = torch.linalg.lstsq(past[: cut - lags - 1], change[lags : cut - 1]).solution
    return x + F.pad(past @ weights, (lags, 0))


def by_season(x, cut):
    """What followed a year ago, plus the change since then."""
    return x + F.pad(x[1:-11] - x[:-12], (12, 0))


FORECASTERS = {
    "last value": lambda x, cut: x,
    "EMA, d = 0.8": lambda x, cut: averaged(x, 0.8),
    "EMA, best d": lambda x, cut: averaged(x, best_decay(x, cut)),
    "by age": lambda x, cut: trained(ByAge(), x, cut, 0.1),
    "linear": linear,
    "by content": lambda x, cut: trained(ByContent(), x, cut, 0.03),
    "season": by_season,
}
DRAWN = {"by content"}  # those that start at random


def main():
    torch.set_num_threads(1)
    rows = []
    for series, make in SERIES.items():
        walks = "walk" in series
        for name, forecaster in FORECASTERS.items():
            if name == "season" and series != "CO2":
                continue
            for seed in range(SEEDS if walks or name in DRAWN else 1):
                x = make(seed)
                cut = int(RECIPE["share"] * len(x))
                torch.manual_seed(seed)
                errors = squares(x, forecaster(x, cut), cut, len(x))
                row = {"series": series, "forecaster": name, "seed": seed}
                row |= {"error": errors.mean().sqrt().item()}
                row |= {f"block {i}": b.mean().sqrt().item() for i, b in enumerate(errors.chunk(BLOCKS))}
                row["decay"] = best_decay(x, cut) if name == "EMA, best d" else None
                rows.append(row | RECIPE | {"values": len(x), "torch": torch.__version__[:6]})
            print(series, name, "done", flush=True)
    table = pd.DataFrame(rows).round({"error": 4} | {f"block {i}": 4 for i in range(BLOCKS)})
    table.to_csv(data_folder() / "results" / "06_forecasts.csv", index=False, lineterminator="\n")


if __name__ == "__main__":
    main()
