"""The stored runs behind part 9 of 07_attention_on_feature_maps, one row a trained network.

    python notebooks/runs/07_attention_on_feature_maps.py

writes data/results/07_cards.csv and data/results/07_digits.csv; a few minutes on one core.
"""

import pandas as pd
import torch
from torch import nn

from attnlib.lab.data import cued_digits, data_folder, load_digits
from attnlib.lab.small_network import learn
from attnlib.lab.training import accuracy


class Gate(nn.Module):
    """Descriptor, score, gate, rescale: the class of part 4 of the notebook."""

    def __init__(self, descriptor, score):
        super().__init__()
        self.descriptor, self.score = descriptor, score

    def forward(self, x):
        return x * torch.sigmoid(self.score(self.descriptor(x)))


def channel_means(x):
    return x.mean((2, 3), keepdim=True)


def place_means(x):
    return x.mean(1, keepdim=True)


VARIANTS = {
    "plain": None,
    "own channel": lambda: Gate(channel_means, nn.Conv2d(16, 16, 1, groups=16)),
    "all channels": lambda: Gate(channel_means, nn.Conv2d(16, 16, 1)),
    "places": lambda: Gate(place_means, nn.Conv2d(1, 1, 3, padding=1)),
    "joint": lambda: Gate(nn.Identity(), nn.Conv2d(16, 16, 1)),
}


def runs(data, test, variants, seeds, **recipe):
    """A row for each variant and seed: what was trained, on how much, with which settings, and how well."""
    for name in variants:
        for seed in seeds:
            network = learn(data, VARIANTS[name], seed=seed, **recipe)
            row = {"variant": name, "seed": seed, "accuracy": round(accuracy(network, test), 4), **recipe}
            yield row | {"images": len(data), "new_images": len(test), "torch": torch.__version__[:6]}
        print(f"{name} done", flush=True)


def main():
    torch.set_num_threads(1)
    recipe = {"epochs": 8, "batch_size": 50, "learning_rate": 0.015}
    cards, new_cards = cued_digits(2000, seed=0), cued_digits(500, split="test", seed=1)
    digits, new_digits = load_digits("train"), load_digits("test")
    on_cards = list(runs(cards, new_cards, VARIANTS, range(10), groups=2, **recipe))
    on_digits = list(runs(digits, new_digits, VARIANTS, range(15), groups=1, **recipe))
    on_digits += runs(digits, new_digits, ["plain", "places"], range(15, 30), groups=1, **recipe)
    for name, rows in {"07_cards": on_cards, "07_digits": on_digits}.items():
        pd.DataFrame(rows).to_csv(data_folder() / "results" / f"{name}.csv", index=False, lineterminator="\n")


if __name__ == "__main__":
    main()
