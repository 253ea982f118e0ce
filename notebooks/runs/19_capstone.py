"""The stored runs behind the race in 19_capstone, one row a trained network.

    python notebooks/runs/19_capstone.py

writes data/results/19_digits.csv and data/results/19_cards.csv; some minutes on one core.
"""

import pandas as pd
import torch
from torch import nn

from attnlib import SqueezeExcitation
from attnlib.lab.data import cued_digits, data_folder
from attnlib.lab.race import race
from attnlib.lab.runs import Half
from attnlib.lab.small_network import learn
from attnlib.lab.training import accuracy

SEEDS = 10
ON_DIGITS = {"epochs": 8, "batch_size": 50, "learning_rate": 0.05}
ON_CARDS = {"epochs": 8, "batch_size": 50, "learning_rate": 0.015}


class OwnGate(nn.Module):
    """A gate for each channel from one number that describes it; every gate starts at one half."""

    def __init__(self, channels, describe):
        super().__init__()
        self.describe = describe
        self.score = nn.Conv2d(channels, channels, 1, groups=channels)
        nn.init.zeros_(self.score.weight)
        nn.init.zeros_(self.score.bias)

    def forward(self, x):
        return x * torch.sigmoid(self.score(self.describe(x)))


def deviation(x):
    return (x.var((2, 3), correction=0, keepdim=True) + 1e-5).sqrt()


def mean(x):
    return x.mean((2, 3), keepdim=True)


CANDIDATES = {
    "none": None,
    "half": lambda channels: Half(),
    "se": lambda channels: SqueezeExcitation(channels, reduction=1),
    "mean": lambda channels: OwnGate(channels, mean),
    "contrast": lambda channels: OwnGate(channels, deviation),
}


def on_digits():
    """The recipe of a study: the same start and the same batches for every candidate of a seed."""
    rows = race(CANDIDATES, seeds=range(SEEDS), **ON_DIGITS)
    assert (rows["note"] == "").all()
    rows = rows[["candidate", "seed", "accuracy", "loss", "parameters"]].round({"accuracy": 4, "loss": 4})
    return rows.assign(**ON_DIGITS)


def on_cards():
    """The game and the recipe of notebooks 07 and 08: the same batches, but another start."""
    cards, new_cards = cued_digits(2000, seed=0), cued_digits(500, split="test", seed=1)
    rows = []
    for name, make in CANDIDATES.items():
        attention = None if make is None else (lambda make=make: make(16))
        for seed in range(SEEDS):
            network = learn(cards, attention, seed=seed, groups=2, **ON_CARDS)
            found = round(accuracy(network, new_cards), 4)
            rows.append({"candidate": name, "seed": seed, "accuracy": found, **ON_CARDS})
        print(f"{name} done", flush=True)
    return pd.DataFrame(rows).assign(images=len(cards), new_images=len(new_cards))


def main():
    torch.set_num_threads(1)
    for name, rows in {"19_cards": on_cards(), "19_digits": on_digits()}.items():
        rows = rows.assign(torch=torch.__version__[:6])
        rows.to_csv(data_folder() / "results" / f"{name}.csv", index=False, lineterminator="\n")


if __name__ == "__main__":
    main()
