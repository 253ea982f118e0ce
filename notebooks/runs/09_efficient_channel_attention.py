"""The stored runs behind parts 6 and 9 of 09_efficient_channel_attention, one row a trained network.

    python notebooks/runs/09_efficient_channel_attention.py

writes data/results/09_cards.csv, 09_order.csv and 09_digits.csv; ten minutes on one core.
"""

import pandas as pd
import torch
from torch import nn
from torch.nn import functional as F

from attnlib import EfficientChannelAttention, SqueezeExcitation
from attnlib.lab.data import Images, cued_digits, data_folder, load_digits
from attnlib.lab.small_network import SmallNetwork, learn
from attnlib.lab.training import accuracy, train

RECIPE = {"batch_size": 50, "learning_rate": 0.015}
MIXED = [4 * group + i for i in range(4) for group in (0, 3, 1, 2)]  # side 0, cue, side 1, blank, side 0 ...


class BeforeReLU(SmallNetwork):
    """The small network with the mechanism between its batch norm and the ReLU behind it."""

    def forward(self, x):
        z = self.norm(self.conv_2(F.relu(self.conv_1(x))))
        return self.read(F.avg_pool2d(F.relu(self.attention(z)), 4).flatten(1))


def eca(k, **options):
    return lambda: EfficientChannelAttention(16, kernel_size=k, **options)


def mixed(make):
    """The mechanism behind a fixed new order of the channels."""

    class Reordered(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = make()

        def forward(self, x):
            return self.inner(x[:, MIXED])

    return Reordered


def se():
    return SqueezeExcitation(16, reduction=1)


def cue_apart(two_sided):
    """Cards with four parts: side 0, side 1, a blank part, and a cue that is bright if side 0 counts."""
    images = torch.zeros(len(two_sided), 4, 16, 8)
    images[:, :2, 8:] = two_sided.images[:, :, 8:]
    images[:, 3, :4, :4] = two_sided.images[:, 0, :1, :1]
    return Images(images, two_sided.labels, two_sided.classes)


def learn_before(data, make, *, seed, groups, **recipe):
    """As ``learn``, with the mechanism before the ReLU."""
    torch.manual_seed(seed)
    attention = make()
    network = BeforeReLU(data.images.shape[1:], len(data.classes), attention=attention, groups=groups)
    train(network, data, **recipe, seed=seed, progress=False)
    return network


def runs(data, test, variants, seeds, *, groups, epochs, learn=learn):
    """A row for each variant and seed: what was trained, on how much, with which settings, and how well."""
    for name, make in variants.items():
        for seed in range(seeds):
            settings = {"groups": groups, "epochs": epochs, **RECIPE}
            share = round(accuracy(learn(data, make, seed=seed, **settings), test), 4)
            row = {"variant": name, "seed": seed, "accuracy": share, **settings}
            yield row | {"images": len(data), "new_images": len(test), "torch": torch.__version__[:6]}
        print(f"{name}, groups={groups} done", flush=True)


def main():
    torch.set_num_threads(1)
    cards, new_cards = cued_digits(2000, seed=0), cued_digits(500, split="test", seed=1)
    behind = {f"k = {k}": eca(k) for k in (1, 3, 5, 9, 17, 31)}
    behind |= {f"k = {k}, bias": eca(k, bias=True) for k in (1, 3)}
    before = {f"k = {k}, before": eca(k) for k in (1, 3)} | {"SE, before": se}
    on_cards = list(runs(cards, new_cards, behind, 10, groups=2, epochs=8))
    on_cards += runs(cards, new_cards, before, 10, groups=2, epochs=8, learn=learn_before)

    apart, new_apart = cue_apart(cards), cue_apart(new_cards)
    in_order = {"plain": None} | {f"k = {k}": eca(k) for k in (3, 5, 9, 17, 31)} | {"SE": se}
    reordered = {"k = 3, mixed": mixed(eca(3)), "SE, mixed": mixed(se)}
    on_apart = list(runs(apart, new_apart, in_order | reordered, 10, groups=4, epochs=8))
    dense = {"plain": None, "k = 3": eca(3), "SE": se}
    on_apart += runs(apart, new_apart, dense, 10, groups=1, epochs=8)

    digits, new_digits = load_digits("train"), load_digits("test")
    on_digits = [
        row
        for epochs in (8, 12)
        for row in runs(digits, new_digits, {"ECA": eca(3)}, 15, groups=1, epochs=epochs)
    ]
    for name, rows in {"09_cards": on_cards, "09_order": on_apart, "09_digits": on_digits}.items():
        pd.DataFrame(rows).to_csv(data_folder() / "results" / f"{name}.csv", index=False, lineterminator="\n")


if __name__ == "__main__":
    main()
