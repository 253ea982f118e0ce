"""The stored runs behind parts 6, 9 and 10 of 13_global_attention, one row a trained network.

    python notebooks/runs/13_global_attention.py

writes data/results/13_marked.csv, data/results/13_cards.csv and data/results/13_digits.csv; about thirteen
minutes on one core.
"""

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn import functional as F

from attnlib import CBAM, GlobalAttention, SqueezeExcitation
from attnlib.lab.cost import count_parameters
from attnlib.lab.data import Images, cued_digits, data_folder, load_digits
from attnlib.lab.small_network import SmallNetwork
from attnlib.lab.training import accuracy, train

WIDTH = 16


def write(card, digits, picks, mark):
    """Four digits and the bars of one of them on an empty card (side, row, place, column)."""
    for k, pick in enumerate(picks):
        card[k // 2, 6:14, k % 2, 3:11] = digits.images[pick, 0]
    card[mark // 2, [0, 1, 18, 19], mark % 2, 3:11] = 1
    return digits.labels[picks[mark]]


def marked_cards(n, split, seed):
    """Two digits on each of two sides, four classes; the one between two bars is to be read."""
    digits, rng = load_digits(split), np.random.default_rng(seed)
    by_class = [np.flatnonzero(digits.labels == c) for c in range(10)]
    cards, labels = torch.zeros(n, 2, 20, 2, 14), torch.zeros(n, dtype=torch.int64)
    for i, mark in enumerate(rng.permutation(n) % 4):
        picks = [rng.choice(by_class[c]) for c in rng.permutation(10)[:4]]
        labels[i] = write(cards[i], digits, picks, mark)
    return Images(cards.flatten(3), labels, digits.classes)


def stretched(cards, rows):
    """The cards of notebook 08 with that many empty rows between the square and the digits."""
    top, bottom = cards.images[:, :, :8], cards.images[:, :, 8:]
    images = torch.cat([F.pad(top, (0, 0, 0, rows)), bottom], 2)
    return Images(images, cards.labels, cards.classes)


class OneGate(nn.Module):
    """One of GAM's two gates, alone."""

    def __init__(self, which):
        super().__init__()
        gam = GlobalAttention(WIDTH, reduction=4)
        if which == "channel":
            self.W_1, self.W_2 = gam.W_1, gam.W_2
        else:
            self.f_1, self.norm_1, self.f_2, self.norm_2 = gam.f_1, gam.norm_1, gam.f_2, gam.norm_2
        self.shuffle, self.channel_sigmoid = False, True
        self.gate = getattr(GlobalAttention, f"{which}_gate")

    def forward(self, x):
        return x * self.gate(self, x)


class Layer(nn.Module):
    """The two 7x7 convolutions of the spatial gate as a residual block: nothing is multiplied."""

    def __init__(self):
        super().__init__()
        self.f_1, self.f_2 = nn.Conv2d(WIDTH, 4, 7, padding=3), nn.Conv2d(4, WIDTH, 7, padding=3)
        self.norm_1, self.norm_2 = nn.BatchNorm2d(4), nn.BatchNorm2d(WIDTH)

    def forward(self, x):
        return F.relu(x + self.norm_2(self.f_2(F.relu(self.norm_1(self.f_1(x))))))


VARIANTS = {
    "plain": None,
    "wide": None,
    "SE": lambda: SqueezeExcitation(WIDTH, reduction=1),
    "CBAM": lambda: CBAM(WIDTH, reduction=1),
    "CBAM 13": lambda: CBAM(WIDTH, reduction=1, kernel_size=13),
    "GAM": lambda: GlobalAttention(WIDTH, reduction=4),
    "M_c": lambda: OneGate("channel"),
    "M_s": lambda: OneGate("spatial"),
    "layer": Layer,
}
SLOWLY = ("CBAM 13", "CBAM", "GAM", "layer")  # those that are not bound by (13.1), once more
# the plain network of at least as many parameters as the one with GAM, on the images of each task
WIDE = {"marked": 28, "digits": 30}


def runs(task, data, test, names, seeds, groups, epochs=8, learning_rate=0.015):
    for name in names:
        for seed in range(seeds):
            torch.manual_seed(seed)
            attention = VARIANTS[name]() if VARIANTS[name] else None
            width = WIDE[task] if name == "wide" else WIDTH
            shape = data.images.shape[1:]
            network = SmallNetwork(shape, 10, attention=attention, width=width, groups=groups)
            recipe = {"epochs": epochs, "batch_size": 50, "learning_rate": learning_rate}
            train(network, data, **recipe, seed=seed, progress=False)
            row = {"variant": name, "rows": shape[1], "seed": seed}
            row |= {"accuracy": round(accuracy(network, test), 4)}
            row |= {"seen": round(accuracy(network, data), 4), "parameters": count_parameters(network)}
            row |= {"width": width, "groups": groups, **recipe}
            yield row | {"images": len(data), "new_images": len(test), "torch": torch.__version__[:6]}
        print(task, shape[1], name, "done", flush=True)


def store(name, rows):
    file = data_folder() / "results" / f"{name}.csv"
    pd.DataFrame(rows).to_csv(file, index=False, lineterminator="\n")


def main():
    torch.set_num_threads(1)
    names = ("plain", "wide", "GAM")
    store("13_digits", runs("digits", load_digits("train"), load_digits("test"), names, 10, 1))
    cards, new_cards = cued_digits(2000, seed=0), cued_digits(500, split="test", seed=1)
    rows = []
    for more in (0, 12):
        data, test = stretched(cards, more), stretched(new_cards, more)
        rows += runs("cards", data, test, ("plain", "SE", "GAM"), 5, 2)
    store("13_cards", rows)
    marked, new_marked = marked_cards(2000, "train", 0), marked_cards(500, "test", 1)
    rows = [
        *runs("marked", marked, new_marked, VARIANTS, 5, 2),
        *runs("marked", marked, new_marked, ("GAM",), 3, 2, epochs=5),
        *runs("marked", marked, new_marked, SLOWLY, 5, 2, learning_rate=0.005),
    ]
    store("13_marked", rows)


if __name__ == "__main__":
    main()
