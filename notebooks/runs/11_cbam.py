"""The stored runs behind parts 9, 10 and 11 of 11_cbam, one row a trained network (and a test set).

    python notebooks/runs/11_cbam.py

writes data/results/11_ablation.csv and data/results/11_turned.csv; about six minutes on one core.
"""

import math

import pandas as pd
import torch
from torch.nn import functional as F

from attnlib import BAM, CBAM, SpatialAttention, SqueezeExcitation
from attnlib.feature_map import ChannelAttention
from attnlib.lab.data import Images, cued_digits, data_folder, load_digits
from attnlib.lab.small_network import learn
from attnlib.lab.training import accuracy

CHANNEL, SPATIAL, BOTH, SWAPPED = "channel", "spatial", "channel-spatial", "spatial-channel"


class Parallel(CBAM):
    """Both gates look at the input itself; neither sees what the other leaves."""

    def weights(self, x):
        return self.channel.weights(x), self.spatial.weights(x)


def frozen():
    """Spatial gate first, but its batch norm's scale stays 0: every spatial gate stays 1/2."""
    module = CBAM(16, reduction=1, order=SWAPPED)
    module.spatial.requires_grad_(False)
    return module


VARIANTS = {
    "plain": None,
    "mean only": lambda: SqueezeExcitation(16, reduction=1),
    "max only": lambda: SqueezeExcitation(16, reduction=1, pool="max"),
    CHANNEL: lambda: ChannelAttention(16, reduction=1),
    SPATIAL: lambda: SpatialAttention(16),
    BOTH: lambda: CBAM(16, reduction=1),
    SWAPPED: lambda: CBAM(16, reduction=1, order=SWAPPED),
    "frozen": frozen,
    "parallel": lambda: Parallel(16, reduction=1),
    "gamma = 1": lambda: CBAM(16, reduction=1, zero_start=False),
    "BAM": lambda: BAM(16, reduction=1),
}
ON_DIGITS = ("plain", CHANNEL, SPATIAL, BOTH, SWAPPED)
ANGLES = range(0, 181, 15)  # degrees
SCALES = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.4, 1.5)
RECIPE = {"batch_size": 50, "learning_rate": 0.015}


def transformed(data, degrees=0.0, scale=1.0):
    """The images turned anticlockwise about their centre and enlarged by ``scale``, bilinearly."""
    angle = math.radians(degrees)
    cos, sin = math.cos(angle) / scale, math.sin(angle) / scale
    matrix = torch.tensor([[cos, -sin, 0.0], [sin, cos, 0.0]]).expand(len(data), 2, 3)
    grid = F.affine_grid(matrix, data.images.shape, align_corners=False)
    return Images(F.grid_sample(data.images, grid, align_corners=False), data.labels, data.classes)


def enlarged(data):
    """8x8 digits as 16x16 with a border of 4 pixels, so that a turned or enlarged one stays inside."""
    large = F.interpolate(data.images, scale_factor=2, mode="bilinear")
    return Images(F.pad(large, (4, 4, 4, 4)), data.labels, data.classes)


def described(name, seed, data, test, recipe):
    """What was trained, on how much, with which settings."""
    sizes = {"images": len(data), "new_images": len(test), "torch": torch.__version__[:6]}
    return {"variant": name, "seed": seed, **recipe, **sizes}


def spatial_gates(network, cards):
    """The mean spatial gate on the square of the side to read, and in the rows of the digits."""
    if not isinstance(network.attention, CBAM):
        return {"gate_on_square": "", "gate_on_digits": ""}
    with torch.no_grad():
        places = network.attention.weights(network.features(cards.images))[1][:, 0]
    square, digits = places[:, :4, :4].mean().item(), places[:, 8:].mean().item()
    return {"gate_on_square": round(square, 3), "gate_on_digits": round(digits, 3)}


def ablation():
    cards, new_cards = cued_digits(2000, seed=0), cued_digits(500, split="test", seed=1)
    digits, new_digits = load_digits("train"), load_digits("test")
    tasks = [("cards", cards, new_cards, 2, VARIANTS, 10), ("digits", digits, new_digits, 1, ON_DIGITS, 15)]
    for task, data, test, groups, names, seeds in tasks:
        for name in names:
            for seed in range(seeds):
                recipe = {"groups": groups, "epochs": 8, **RECIPE}
                network = learn(data, VARIANTS[name], seed=seed, **recipe)
                row = {"task": task, "accuracy": round(accuracy(network, test), 4)}
                if task == "cards":
                    row |= spatial_gates(network, test)
                yield row | described(name, seed, data, test, recipe)
            print(task, name, "done", flush=True)


def turned():
    digits, new_digits = enlarged(load_digits("train")), enlarged(load_digits("test"))
    for name in ("plain", BOTH):
        for seed in range(10):
            recipe = {"groups": 1, "epochs": 8, **RECIPE}
            network = learn(digits, VARIANTS[name], seed=seed, **recipe)
            cases = [(angle, 1.0) for angle in ANGLES] + [(0, scale) for scale in SCALES if scale != 1]
            for degrees, scale in cases:
                right = accuracy(network, transformed(new_digits, degrees, scale))
                row = {"degrees": degrees, "scale": scale, "accuracy": round(right, 4)}
                yield row | described(name, seed, digits, new_digits, recipe)
        print("turned", name, "done", flush=True)


def main():
    torch.set_num_threads(1)
    for name, rows in {"11_ablation": ablation(), "11_turned": turned()}.items():
        pd.DataFrame(rows).to_csv(data_folder() / "results" / f"{name}.csv", index=False, lineterminator="\n")


if __name__ == "__main__":
    main()
