"""The stored runs behind parts 9 and 10 of 08_squeeze_and_excitation, one row a trained network.

    python notebooks/runs/08_squeeze_and_excitation.py

writes data/results/08_cards.csv and data/results/08_digits.csv; a few minutes on one core.
"""

import pandas as pd
import torch
from torch import nn

from attnlib import SqueezeExcitation
from attnlib.lab.data import cued_digits, data_folder, load_digits
from attnlib.lab.small_network import learn
from attnlib.lab.training import accuracy


class Static(nn.Module):
    """Gates that are learnt but do not look at the image."""

    def __init__(self):
        super().__init__()
        self.b = nn.Parameter(torch.zeros(1, 16, 1, 1))

    def forward(self, x):
        return x * torch.sigmoid(self.b)


class Double(SqueezeExcitation):
    """A softmax over the channels after the sigmoid."""

    factor = 1

    def forward(self, x):
        return x * self.factor * self.weights(x).softmax(1)


class DoubleTimes16(Double):
    """The same, scaled back up by the number of channels."""

    factor = 16


VARIANTS = {
    "plain": None,
    "static": Static,
    "double": lambda: Double(16, reduction=1),
    "double x 16": lambda: DoubleTimes16(16, reduction=1),
} | {f"r = {r}": lambda r=r: SqueezeExcitation(16, reduction=r) for r in (1, 2, 4, 8, 16)}


def runs(data, test, variants, seeds, **recipe):
    """A row for each variant and seed: what was trained, on how much, with which settings, and how well."""
    for name in variants:
        for seed in range(seeds):
            network = learn(data, VARIANTS[name], seed=seed, **recipe)
            row = {"variant": name, "seed": seed, "accuracy": round(accuracy(network, test), 4), **recipe}
            yield row | {"images": len(data), "new_images": len(test), "torch": torch.__version__[:6]}
        print(f"{name} done", flush=True)


def main():
    torch.set_num_threads(1)
    recipe = {"batch_size": 50, "learning_rate": 0.015}
    cards, new_cards = cued_digits(2000, seed=0), cued_digits(500, split="test", seed=1)
    on_cards = list(runs(cards, new_cards, VARIANTS, 10, groups=2, epochs=8, **recipe))
    on_cards += runs(cards, new_cards, ["r = 16"], 10, groups=2, epochs=32, **recipe)
    digits, new_digits = load_digits("train"), load_digits("test")
    on_digits = [
        row
        for epochs in (8, 12)
        for row in runs(digits, new_digits, ["plain", "r = 1"], 15, groups=1, epochs=epochs, **recipe)
    ]
    for name, rows in {"08_cards": on_cards, "08_digits": on_digits}.items():
        pd.DataFrame(rows).to_csv(data_folder() / "results" / f"{name}.csv", index=False, lineterminator="\n")


if __name__ == "__main__":
    main()
