"""The stored runs behind parts 9 and 10 of 15_efficient_multi_scale, one row a trained network.

    python notebooks/runs/15_efficient_multi_scale.py

writes data/results/15_cards.csv, 15_sheets.csv and 15_digits.csv; about ten minutes on one core.
"""

import pandas as pd
import torch

from attnlib import EfficientMultiScaleAttention, SqueezeExcitation
from attnlib.lab.data import cued_digits, data_folder, load_digits
from attnlib.lab.images import Images
from attnlib.lab.small_network import learn
from attnlib.lab.training import accuracy

RECIPE = {"epochs": 8, "batch_size": 50, "learning_rate": 0.015}
ORDERS = {"apart": [0, 1, 2, 3], "together": [0, 2, 1, 3]}


class Changed(EfficientMultiScaleAttention):
    """The module with one thing changed; the same parameters, drawn in the same order."""

    def __init__(self, channels, *, groups, change):
        super().__init__(channels, groups=groups)
        self.change = change

    def first_softmax(self, t):
        """a_1 of each group, (bG, d, 1, 1); t is what goes into the norm."""
        if self.change == "a_1 live":
            return t.mean((2, 3), keepdim=True).softmax(1)
        if self.change == "a_1 = 1/d":
            return torch.full_like(t[:, :, :1, :1], 1 / t.shape[1])
        return self.norm.bias.softmax(0)[None, :, None, None]

    def weights(self, x):
        h, w = x.shape[2:]
        grouped = x.unflatten(1, (self.groups, -1)).flatten(0, 1)
        strips = torch.cat([grouped.mean(3), grouped.mean(2)], 2)[..., None]
        u, v = self.conv_1x1(strips).sigmoid().split([h, w], 2)
        t = grouped * u * v.mT
        x_1, x_2 = self.norm(t), self.conv_3x3(grouped)
        a_1, a_2 = self.first_softmax(t), x_2.mean((2, 3), keepdim=True).softmax(1)
        if self.change == "a_2 = 1/d":
            a_2 = torch.full_like(a_2, 1 / a_2.shape[1])
        A = {"3 x 3 only": a_1 * x_2, "strips only": x_1 / x_1.shape[1]}
        A = A.get(self.change, a_1 * x_2 + a_2 * x_1)
        return A.sum(1, keepdim=True).sigmoid().expand_as(grouped).reshape(x.shape)


def changed(change):
    return lambda: Changed(16, groups=2, change=change)


GROUPS = {f"G = {g}": lambda g=g: EfficientMultiScaleAttention(16, groups=g) for g in (1, 2, 4, 8, 16)}
CHANGES = ("a_1 = softmax(beta)", "a_1 = 1/d", "a_1 live", "a_2 = 1/d", "3 x 3 only", "strips only")
VARIANTS = (
    {"plain": None, "SE": lambda: SqueezeExcitation(16, reduction=1)}
    | GROUPS
    | {change: changed(change) for change in CHANGES}
)


def sheets(cards, order):
    """Every card cut into four sheets: the digits of both sides, and the upper halves of both sides."""
    images = torch.zeros(len(cards), 4, 16, 8)
    images[:, :2, 8:], images[:, 2:, :8] = cards.images[:, :, 8:], cards.images[:, :, :8]
    return Images(images[:, ORDERS[order]], cards.labels, cards.classes)


def largest_weight(network, name):
    """The largest entry of softmax(beta), which is a_1 where the module is the library's."""
    if name not in GROUPS:
        return {}
    return {"largest_a_1": round(network.attention.norm.bias.softmax(0).max().item(), 4)}


def runs(data, test, variants, seeds, groups, **settings):
    """A row for each variant and seed: what was trained, with which settings, and how well."""
    for name in variants:
        for seed in range(seeds):
            network = learn(data, VARIANTS[name], seed=seed, groups=groups, **RECIPE)
            row = {"variant": name, "seed": seed, "accuracy": round(accuracy(network, test), 4)}
            row |= largest_weight(network, name) | settings | RECIPE
            row |= {"groups": groups, "images": len(data), "new_images": len(test)}
            yield row | {"torch": torch.__version__[:6]}
        print(f"{name} {settings} done", flush=True)


def main():
    torch.set_num_threads(1)
    cards, new_cards = cued_digits(2000, seed=0), cued_digits(500, split="test", seed=1)
    digits, new_digits = load_digits("train"), load_digits("test")
    on_sheets = [
        row
        for order in ORDERS
        for row in runs(
            *(sheets(data, order) for data in (cards, new_cards)),
            ["plain", "SE", "G = 1", "G = 2"],
            10,
            groups=4,
            order=order,
        )
    ]
    tables = {
        "15_sheets": on_sheets,
        "15_digits": runs(digits, new_digits, ["plain", "G = 2", "a_1 live"], 15, groups=1),
        "15_cards": runs(cards, new_cards, ["plain", *GROUPS, *CHANGES], 10, groups=2),
    }
    for name, rows in tables.items():
        file = data_folder() / "results" / f"{name}.csv"
        pd.DataFrame(rows).to_csv(file, index=False, lineterminator="\n")


if __name__ == "__main__":
    main()
