"""The stored runs behind parts 6, 9 and 10 of 14_non_local, one row a trained network.

    python notebooks/runs/14_non_local.py

writes data/results/14_cards.csv and data/results/14_digits.csv; twelve minutes on one core.
"""

import math

import pandas as pd
import torch
from torch import nn
from torch.nn import functional as F

from attnlib import ExpectationMaximizationAttention, NonLocal
from attnlib.lab.data import batches, cued_digits, data_folder, load_digits
from attnlib.lab.small_network import SmallNetwork, learn
from attnlib.lab.training import accuracy, classification_loss, train

RECIPE = {"epochs": 8, "batch_size": 50, "learning_rate": 0.015}


class OneMap(NonLocal):
    """Every place uses the average of all places' weights, so that all of them get the same."""

    def forward(self, x):
        _, _, v = self.queries_keys_values(x)
        y = (self.weights(x).mean(1, keepdim=True) @ v).mT[..., None]
        return x + self.norm(self.W_z(y)).expand_as(x)


class OwnPlace(NonLocal):
    """The same projections, and each place keeps to itself: nothing is averaged."""

    def forward(self, x):
        return x + self.norm(self.W_z(self.g(x)))


class Averages(nn.Module):
    """Pixels weighted by the Gaussian of their distances and nothing else, or by the distances."""

    def __init__(self, raw=False):
        super().__init__()
        self.raw = raw

    def forward(self, x):
        pixels = x.flatten(2).mT
        lengths = pixels.square().sum(2)
        squares = lengths[:, :, None] + lengths[:, None] - 2 * pixels @ pixels.mT
        if self.raw:
            distances = squares.clamp(min=1e-6).sqrt()  # a root has no slope at 0
            weights = distances / distances.sum(2, keepdim=True)
        else:
            weights = (-squares / 2).softmax(2)
        return (weights @ pixels).mT.reshape(x.shape)


VARIANTS = {
    "plain": None,
    "own place": lambda: OwnPlace(16),
    "gaussian": lambda: NonLocal(16, similarity="gaussian"),
    "embedded": lambda: NonLocal(16),
    "embedded, scaled": lambda: NonLocal(16, scale=8**-0.5),
    "euclidean": lambda: NonLocal(16, similarity="euclidean"),
    "dot": lambda: NonLocal(16, similarity="dot"),
    "concatenation": lambda: NonLocal(16, similarity="concatenation"),
    "one map": lambda: OneMap(16),
    "averages": Averages,
    "distances": lambda: Averages(raw=True),
    "EM": lambda: ExpectationMaximizationAttention(16, bases=8),
}
WITH_MAPS = ("gaussian", "embedded", "embedded, scaled", "euclidean")  # their weights are shares


def with_update(model, batch):
    """Cross-entropy, after the bases have moved towards those of this batch."""
    with torch.no_grad():
        model.attention.update_bases(model.features(batch.images))
    return classification_loss(model, batch)


def trained(data, name, seed, groups):
    """`learn`, but for EM attention, whose training loop also moves the bases."""
    if name != "EM":
        return learn(data, VARIANTS[name], seed=seed, groups=groups, **RECIPE)
    torch.manual_seed(seed)
    shape, classes = data.images.shape[1:], len(data.classes)
    network = SmallNetwork(shape, classes, attention=VARIANTS[name](), groups=groups)
    train(network, data, **RECIPE, seed=seed, loss=with_update, progress=False)
    return network


@torch.no_grad()
def apart(network, images):
    """How far two places' weights are apart: half the sum of the differences, mean over pairs and images.

    0 where all places have the same weights, 1 where no two look at a common place.
    """
    w = network.attention.weights(network.features(images))
    return torch.stack([torch.cdist(one, one, p=1).sum() / 2 / math.perm(len(one), 2) for one in w]).mean()


@torch.no_grad()
def with_one_map(network, test):
    """The accuracy with each place's weights replaced by their mean, without training again."""
    block = network.attention
    network.attention = OneMap(16, similarity=block.similarity, scale=block.scale).eval()
    network.attention.load_state_dict(block.state_dict())
    value = accuracy(network, test)
    network.attention = block
    return value


@torch.no_grad()
def with_cut(network, test, queries, keys):
    """The accuracy when the places ``queries`` may not look at the places ``keys``."""
    block, x = network.attention, network.features(test.images)
    _, _, v = block.queries_keys_values(x)
    weights = block.weights(x).masked_fill(queries[:, None] & keys, 0)
    weights = weights / weights.sum(2, keepdim=True).clamp(min=1e-9)
    z = x + block.norm(block.W_z((weights @ v).mT.unflatten(2, x.shape[2:])))
    logits = network.read(F.avg_pool2d(z, 4).flatten(1))
    return (logits.argmax(1) == test.labels).float().mean().item()


@torch.no_grad()
def settled(network, data, test):
    """The accuracy after the batch norms have seen the data twice more, with all weights held."""
    network.train()
    for epoch in range(2):
        for batch in batches(data, RECIPE["batch_size"], seed=epoch):
            network(batch.images)
    network.eval()
    return accuracy(network, test)


def runs(data, test, variants, seeds, groups):
    """A row for each variant and seed: what was trained, with which settings, how well, and its maps."""
    for name in variants:
        for seed in range(seeds):
            network = trained(data, name, seed, groups)
            row = {"variant": name, "seed": seed, "accuracy": round(accuracy(network, test), 4)}
            if name in WITH_MAPS:
                torch.manual_seed(seed)
                shape = data.images.shape[1:]
                fresh = SmallNetwork(shape, 10, attention=VARIANTS[name](), groups=groups).eval()
                row["apart_at_start"] = round(apart(fresh, test.images[:100]).item(), 4)
                row["apart"] = round(apart(network, test.images[:100]).item(), 4)
                row["with_one_map"] = round(with_one_map(network, test), 4)
                if data.images.shape[1:] == (2, 16, 8):  # the cards: where the square is, and the digits
                    square, digits = torch.zeros(2, 16, 8, dtype=torch.bool)
                    square[:5, :5], digits[8:] = True, True
                    square, digits = square.flatten(), digits.flatten()
                    row["digits_blind"] = round(with_cut(network, test, digits, square), 4)
                    row["square_blind"] = round(with_cut(network, test, square, digits), 4)
            if name == "EM":
                row["norm_variance"] = round(network.attention.norm.running_var.max().item(), 5)
            row["settled"] = round(settled(network, data, test), 4)
            row |= RECIPE | {"groups": groups, "images": len(data), "new_images": len(test)}
            yield row | {"torch": torch.__version__[:6]}
        print(f"{name} done", flush=True)


def main():
    torch.set_num_threads(1)
    cards, new_cards = cued_digits(2000, seed=0), cued_digits(500, split="test", seed=1)
    digits, new_digits = load_digits("train"), load_digits("test")
    tables = {
        "14_digits": runs(digits, new_digits, ["plain", "embedded", "dot"], 15, groups=1),
        "14_cards": runs(cards, new_cards, VARIANTS, 10, groups=2),
    }
    for name, rows in tables.items():
        file = data_folder() / "results" / f"{name}.csv"
        pd.DataFrame(rows).to_csv(file, index=False, lineterminator="\n")


if __name__ == "__main__":
    main()
