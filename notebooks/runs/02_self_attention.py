"""The stored runs behind part 9 of 02_self_attention, one row a trained network.

    python notebooks/runs/02_self_attention.py

writes data/results/02_lookups.csv; some two minutes on one core.
"""

import pandas as pd
import torch
from torch import nn
from torch.nn import functional as F

from attnlib import dot_product_attention
from attnlib.lab.data import data_folder
from attnlib.lab.sequences import lookups


class Reader(nn.Module):
    """One attention over the tokens, and a linear layer that reads the value off its output."""

    def __init__(self, d, scale, size=1.0):
        super().__init__()
        self.W_q, self.W_k = (nn.Parameter(0.7 * size * torch.randn(14, d)) for _ in range(2))
        self.W_v, self.scale = nn.Parameter(0.25 * torch.randn(14, 16)), scale
        self.read = nn.Linear(16, 4)

    def forward(self, x):
        o, _ = dot_product_attention(x @ self.W_q, x @ self.W_k, x @ self.W_v, scale=self.scale)
        return self.read(o)


def learn(model, data, *, steps, batch_size, learning_rate):
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    for step in range(steps):
        start = step * batch_size % len(data)
        batch = data.part(start, start + batch_size)
        loss = F.cross_entropy(model(batch.tokens)[batch.asks], batch.values[batch.asks])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def train(d, scaled, small_start, steps, seed):
    """One network; with a small start its scores begin as if they were scaled, without the factor."""
    torch.manual_seed(seed)
    model = Reader(d, d**-0.5 if scaled else 1.0, d**-0.25 if small_start else 1.0)
    learn(model, lookups(32 * steps, seed=seed), steps=steps, **RECIPE)
    return model


RECIPE = {"batch_size": 32, "learning_rate": 0.02}
SETTINGS = [(d, scaled, False, 300) for d in (4, 16, 64, 256) for scaled in (True, False)]
SETTINGS += [(64, False, True, 300), (64, False, False, 1200)]


def main():
    torch.set_num_threads(1)
    new, rows = lookups(500, seed=1000), []
    for d, scaled, small_start, steps in SETTINGS:
        for seed in range(10):
            model = train(d, scaled, small_start, steps, seed)
            with torch.no_grad():
                right = (model(new.tokens).argmax(-1) == new.values)[new.asks]
            row = {"d": d, "scaled": scaled, "small_start": small_start, "steps": steps, "seed": seed}
            row["accuracy"] = round(right.float().mean().item(), 4)
            rows.append(row | RECIPE | {"torch": torch.__version__[:6]})
        print(d, scaled, small_start, steps, "done", flush=True)
    pd.DataFrame(rows).to_csv(data_folder() / "results" / "02_lookups.csv", index=False, lineterminator="\n")


if __name__ == "__main__":
    main()
