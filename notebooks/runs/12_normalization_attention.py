"""The stored runs behind parts 2, 6, 9 and 10 of 12_normalization_attention, one row a trained network.

    python notebooks/runs/12_normalization_attention.py

writes data/results/12_digits.csv, 12_cards.csv, 12_penalty.csv (with the scales that were learnt) and
12_pruning.csv (a row for each of those networks and each order of removal); five minutes on one core.
"""

import pandas as pd
import torch
from torch import nn
from torch.nn import functional as F

from attnlib import NormalizationAttention, scale_penalty
from attnlib.lab.data import cued_digits, data_folder, load_digits
from attnlib.lab.small_network import SmallNetwork, learn
from attnlib.lab.training import accuracy, classification_loss, train

RECIPE = {"batch_size": 50, "learning_rate": 0.015}
PENALTIES = {"NAM": (0, 1e-4, 1e-3, 1e-2), "network": (0, 3e-2)}  # whose scales are penalised: how much
SEEDS, RANDOM_ORDERS = 15, 10


class Swish(nn.Module):
    """x sigmoid(a x + b) with a slope and an offset of its own for each of 16 channels."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Parameter(torch.full((16, 1, 1), 1 / 16)), nn.Parameter(torch.zeros(16, 1, 1))

    def forward(self, x):
        return x * torch.sigmoid(self.a * x + self.b)


class Half(nn.Module):
    """What is left of the block when all its weights are 0."""

    def forward(self, x):
        return x / 2


VARIANTS = {
    "plain": None,
    "half": Half,
    "swish": Swish,
    "NAM": lambda: NormalizationAttention(16),
    "NAM, through w": lambda: NormalizationAttention(16, detach=False),
}


def settings(data, test):
    return {"images": len(data), "new_images": len(test), "torch": torch.__version__[:6]}


def runs(data, test, variants, seeds, **recipe):
    """A row for each variant and seed: what was trained, on how much, with which settings, and how well."""
    for name in variants:
        for seed in range(seeds):
            network = learn(data, VARIANTS[name], seed=seed, **recipe)
            row = {"variant": name, "seed": seed, "accuracy": round(accuracy(network, test), 4), **recipe}
            yield row | settings(data, test)
        print(f"{name} done", flush=True)


def scales(network):
    """Those of NAM's own norm, or without NAM those of the network's norm."""
    attention = network.attention
    return (network.norm if isinstance(attention, nn.Identity) else attention.channel_norm).weight


def learn_with_penalty(data, whose, p, seed, epochs=8):
    """The network of ``learn`` with p times the sum of |gamma| of NAM's or the network's norm in its loss."""

    def loss(model, batch):
        penalty = scale_penalty(model) if whose == "NAM" else scales(model).abs().sum()
        return classification_loss(model, batch) + p * penalty

    torch.manual_seed(seed)
    attention = NormalizationAttention(16) if whose == "NAM" else None
    network = SmallNetwork(data.images.shape[1:], len(data.classes), attention=attention)
    train(network, data, epochs=epochs, seed=seed, progress=False, loss=loss, **RECIPE)
    return network


@torch.no_grad()
def accuracy_while_removing(network, test, order):
    """The accuracy after 0, 1, 2 ... channels in front of the last layer have been set to zero, in order."""
    y = network.attention(network.features(test.images))
    shares = []
    for channel in [None, *order]:
        if channel is not None:
            y[:, channel] = 0
        logits = network.read(F.avg_pool2d(y, 4).flatten(1))
        shares.append((logits.argmax(1) == test.labels).double().mean().item())
    return torch.tensor(shares)


def orders_of(network, seed):
    """Names and lists of orders in which to remove the channels; a name's curves are averaged."""
    by_scale = scales(network).abs().argsort().tolist()
    generator = torch.Generator().manual_seed(seed)
    at_random = [torch.randperm(16, generator=generator).tolist() for _ in range(RANDOM_ORDERS)]
    return {"smallest first": [by_scale], "random": at_random, "largest first": [by_scale[::-1]]}


@torch.no_grad()
def penalty_row(network, test):
    """Accuracy, the range of the factors that multiply the features, and the scales."""
    x = network.features(test.images)
    gate = network.attention.weights(x) if hasattr(network.attention, "weights") else torch.ones(1)
    row = {"accuracy": round(accuracy(network, test), 4)}
    row |= {"gate_low": round(gate.min().item(), 4), "gate_high": round(gate.max().item(), 4)}
    return row | {f"gamma_{c}": round(gamma, 4) for c, gamma in enumerate(scales(network).tolist())}


def with_penalties(data, test):
    by_network, by_order = [], []
    for whose, p in [(whose, p) for whose, strengths in PENALTIES.items() for p in strengths]:
        for seed in range(SEEDS):
            network = learn_with_penalty(data, whose, p, seed)
            head = {"penalised": whose, "p": p, "seed": seed, "epochs": 8, **RECIPE, **settings(data, test)}
            by_network.append(head | penalty_row(network, test))
            for name, orders in orders_of(network, seed).items():
                curve = torch.stack([accuracy_while_removing(network, test, o) for o in orders]).mean(0)
                removed = {f"removed_{k}": round(value, 4) for k, value in enumerate(curve.tolist())}
                by_order.append(head | {"order": name, "orders": len(orders)} | removed)
        print(f"{whose}, p = {p} done", flush=True)
    return by_network, by_order


def main():
    torch.set_num_threads(1)
    digits, new_digits = load_digits("train"), load_digits("test")
    on_digits = [
        row
        for epochs in (8, 12)
        for row in runs(digits, new_digits, VARIANTS, SEEDS, groups=1, epochs=epochs, **RECIPE)
    ]
    cards, new_cards = cued_digits(2000, seed=0), cued_digits(500, split="test", seed=1)
    on_cards = list(runs(cards, new_cards, ["plain", "NAM"], 5, groups=2, epochs=8, **RECIPE))
    by_network, by_order = with_penalties(digits, new_digits)
    tables = {"digits": on_digits, "cards": on_cards, "penalty": by_network, "pruning": by_order}
    for name, rows in tables.items():
        file = data_folder() / "results" / f"12_{name}.csv"
        pd.DataFrame(rows).to_csv(file, index=False, lineterminator="\n")


if __name__ == "__main__":
    main()
