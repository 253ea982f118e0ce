"""The stored runs behind parts 6, 9 and 10 of 10_spatial_attention, one row a trained network.

    python notebooks/runs/10_spatial_attention.py

writes data/results/10_clutter.csv and data/results/10_cards.csv; about 25 minutes on one core.
"""

import pandas as pd
import torch
from torch import nn
from torch.nn import functional as F

from attnlib import PointwiseSpatialAttention, SpatialAttention, SqueezeExcitation
from attnlib.feature_map import sam_layer
from attnlib.lab.data import cluttered_digits, cued_digits, data_folder
from attnlib.lab.images import Images
from attnlib.lab.localization import energy_in_box, pointing_game
from attnlib.lab.small_network import SmallNetwork, learn
from attnlib.lab.training import accuracy, train

WIDTH = 16


class Votes(SmallNetwork):
    """Halves the picture; the linear layer reads the mean over all places."""

    def __init__(self, attention=None, extra=0):
        super().__init__((1, 32, 32), 10, attention=attention, width=WIDTH)
        self.read = nn.Linear(WIDTH + extra, 10)

    def features(self, x):
        return super().features(F.avg_pool2d(x, 2))

    def forward(self, x):
        return self.read(self.attention(self.features(x)).mean((2, 3)))


class Joined(SpatialAttention):
    """The gate's map as one more channel, and no product."""

    def forward(self, x):
        return torch.cat([x, self.weights(x)], 1)


class Product(nn.Module):
    """Darknet's product with a linear 1x1 convolution: neither norm nor sigmoid."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(WIDTH, WIDTH, 1)

    def forward(self, x):
        return sam_layer(x, self.conv(x))


CLUTTER = {
    "plain": None,
    "joined": lambda: Joined(WIDTH, zero_start=False),
    "1 x 1": lambda: SpatialAttention(WIDTH, kernel_size=1),
    "3 x 3": lambda: SpatialAttention(WIDTH, kernel_size=3),
    "SAM": lambda: SpatialAttention(WIDTH),
    "point-wise": lambda: PointwiseSpatialAttention(WIDTH),
    "product": Product,
    "layer": lambda: nn.Sequential(nn.Conv2d(WIDTH, WIDTH, 1), nn.ReLU()),
}
CARDS = {
    "plain": None,
    "SAM": lambda: SpatialAttention(WIDTH),
    "point-wise": lambda: PointwiseSpatialAttention(WIDTH),
    "SE": lambda: SqueezeExcitation(WIDTH, reduction=1),
}


def large(maps):
    """Maps (n, 16, 16) at the scale of the images, (n, 32, 32)."""
    return maps.repeat_interleave(2, 1).repeat_interleave(2, 2)


@torch.no_grad()
def localization(network, data):
    """Both scores for the features and their 7x7 means; with a spatial gate, for it and its output too."""
    features = network.features(data.images)
    strength = features.mean(1)
    maps = {"features": strength, "smooth": F.avg_pool2d(strength[:, None], 7, 1, 3)[:, 0]}
    if type(network.attention) is SpatialAttention:
        gate = network.attention.double().weights(features.double())[:, 0]  # few ties at 1
        maps |= {"gate": gate, "gated": network.attention.float()(features).mean(1)}
    scores = {}
    for name, values in maps.items():
        scores[f"pointing {name}"] = pointing_game(large(values), data.boxes).mean().item()
        scores[f"energy {name}"] = energy_in_box(large(values), data.boxes).mean().item()
    return {name: round(score, 4) for name, score in scores.items()}


def on_clutter(variants, seeds, epochs, data, test):
    for name in variants:
        for seed in seeds:
            torch.manual_seed(seed)
            network = Votes(CLUTTER[name]() if CLUTTER[name] else None, extra=name == "joined")
            recipe = {"epochs": epochs, "batch_size": 50, "learning_rate": 0.015}
            train(network, data, **recipe, seed=seed, progress=False)
            row = {"variant": name, "seed": seed, "accuracy": round(accuracy(network, test), 4), **recipe}
            row |= {"images": len(data), "new_images": len(test), "torch": torch.__version__[:6]}
            yield row | localization(network, test)
        print(f"{name}, {epochs} epochs done", flush=True)


def stretched(cards, rows):
    """The same cards with that many empty rows between the square and the digits."""
    top, bottom = cards.images[:, :, :8], cards.images[:, :, 8:]
    images = torch.cat([F.pad(top, (0, 0, 0, rows)), bottom], 2)
    return Images(images, cards.labels, cards.classes)


def on_cards(seeds, cards, test):
    for rows in (0, 8):
        data, new = stretched(cards, rows), stretched(test, rows)
        for name, attention in CARDS.items():
            for seed in range(seeds):
                recipe = {"epochs": 8, "batch_size": 50, "learning_rate": 0.015, "groups": 2}
                network = learn(data, attention, seed=seed, **recipe)
                row = {
                    "variant": name,
                    "rows": rows,
                    "seed": seed,
                    "accuracy": round(accuracy(network, new), 4),
                }
                yield (
                    row
                    | recipe
                    | {"images": len(data), "new_images": len(new), "torch": torch.__version__[:6]}
                )
            print(f"cards, {rows} rows, {name} done", flush=True)


def store(name, rows):
    file = data_folder() / "results" / f"{name}.csv"
    pd.DataFrame(rows).to_csv(file, index=False, lineterminator="\n")


def main():
    torch.set_num_threads(1)
    store("10_cards", on_cards(5, cued_digits(2000, seed=0), cued_digits(500, split="test", seed=1)))
    clutter, new_clutter = cluttered_digits(2000, seed=0), cluttered_digits(500, split="test", seed=1)
    short = list(on_clutter(CLUTTER, range(16), 24, clutter, new_clutter))
    store("10_clutter", short)
    store("10_clutter", [*short, *on_clutter(["plain", "SAM"], range(4), 72, clutter, new_clutter)])


if __name__ == "__main__":
    main()
