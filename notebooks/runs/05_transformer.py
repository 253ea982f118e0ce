"""The stored runs behind part 9 of 05_transformer, one row a trained network.

    python notebooks/runs/05_transformer.py

writes data/results/05_dates.csv; some six minutes on one core.
"""

import pandas as pd
import torch
from torch.nn import functional as F

from attnlib import padding_mask
from attnlib.lab.data import data_folder
from attnlib.lab.grammar import Vocabulary, date_pairs
from attnlib.sequence.decoding import greedy
from attnlib.sequence.transformer import Transformer

STEPS, BATCH, PEAK = 600, 64, 4e-3
SIZE = {"width": 64, "heads": 4, "hidden": 128, "layers": 2, "dropout": 0.0}
SETTINGS = [(order, warmup, "line") for order in ("post", "pre") for warmup in (100, 0)]
SETTINGS += [("post", 100, "root")]


def rate(step, warmup, fall):
    """The learning rate of steps from 0: up to PEAK, then down to 0 in a line, or as 1 / root(step)."""
    up = (step + 1) / max(warmup, 1)
    if fall == "root":
        return PEAK * min(up, (max(warmup, 1) / (step + 1)) ** 0.5)
    return PEAK * min(up, (STEPS - step) / (STEPS - warmup))


def learn(model, data, *, seed, warmup, fall):
    source, lengths, target = data
    optimizer = torch.optim.Adam(model.parameters(), betas=(0.9, 0.98), eps=1e-9)
    draw = torch.Generator().manual_seed(seed)
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = rate(step, warmup, fall)
        rows = torch.randint(len(source), (BATCH,), generator=draw)
        mask = padding_mask(lengths[rows], source.shape[1])
        logits = model(source[rows], target[rows, :-1], mask=mask)
        loss = F.cross_entropy(logits.flatten(0, 1), target[rows, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def main():
    torch.set_num_threads(1)
    pairs, new = date_pairs(20_000, seed=1), date_pairs(500, seed=2, split="test")
    words, digits = (Vocabulary(list(side)) for side in zip(*pairs, strict=True))
    data = *words.encode([s for s, _ in pairs]), digits.encode([t for _, t in pairs], ends=True)[0]
    asked, lengths = words.encode([s for s, _ in new])
    rows = []
    for order, warmup, fall in SETTINGS:
        for seed in range(3):
            torch.manual_seed(seed)
            options = SIZE | {"norm_first": order == "pre"}
            model = Transformer(len(words), target_vocabulary=len(digits), **options)
            learn(model, data, seed=seed, warmup=warmup, fall=fall)
            mask = padding_mask(lengths, asked.shape[1])
            found = greedy(model.eval(), asked, begin=digits.BEGIN, end=digits.END, limit=12, mask=mask)
            texts = digits.decode(found.tokens)
            right = sum(text == target for text, (_, target) in zip(texts, new, strict=True))
            row = {"norm": order, "warmup": warmup, "fall": fall, "seed": seed, "exact": right / len(new)}
            row |= {"steps": STEPS, "batch_size": BATCH, "peak": PEAK, "pairs": len(pairs), "new": len(new)}
            rows.append(row | SIZE | {"torch": torch.__version__[:6]})
            print(row, flush=True)
    pd.DataFrame(rows).to_csv(data_folder() / "results" / "05_dates.csv", index=False, lineterminator="\n")


if __name__ == "__main__":
    main()
