"""The stored runs behind part 9 of 04_recurrent_attention.

    python notebooks/runs/04_recurrent_attention.py

writes data/results/04_copying.csv (one row for each network and length of the strings) and 04_dates.csv (one
row for each network); some six minutes on one core.
"""

import random

import pandas as pd
import torch
from torch import nn
from torch.nn import functional as F

from attnlib.lab.data import data_folder
from attnlib.lab.grammar import Vocabulary, date_pairs
from attnlib.sequence.recurrent import RecurrentTranslator

DIGITS = "0123456789"
LENGTHS = (1, 2, 3, 4, 6, 8, 10, 12, 14, 16, 18, 20, 24, 28)
BATCH, STEPS, RATE, CLIP = 64, 300, 0.01, 1.0


def strings(n, lengths, seed):
    """Random digits, as many as one of ``lengths``; source and target are the same."""
    rng = random.Random(seed)
    texts = ["".join(rng.choice(DIGITS) for _ in range(rng.choice(lengths))) for _ in range(n)]
    return [(text, text) for text in texts]


def learn(model, pairs, words, signs):
    """One pass over the pairs, 64 a step, with Adam; the learning rate falls to 0 on a straight line."""
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    for i in range(0, len(pairs), BATCH):
        optimizer.param_groups[0]["lr"] = RATE * (1 - i / len(pairs))
        sources, targets = zip(*pairs[i : i + BATCH], strict=True)
        (x, lengths), (y, _) = words.encode(sources), signs.encode(targets, ends=True)
        real = y[:, 1:] != signs.PAD
        loss = F.cross_entropy(model(x, lengths, y[:, :-1])[real], y[:, 1:][real])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
    return model


class Location(nn.Module):
    """Luong's location function: scores for the first 40 places, from the state alone."""

    def __init__(self, states):
        super().__init__()
        self.A = nn.Linear(states, 40, bias=False)

    def forward(self, states, memory):
        return self.A(states)[..., : memory.shape[-2]]


def fresh(words, signs, attention, width, seed):
    torch.manual_seed(seed)
    kind = "general" if attention == "location" else attention
    model = RecurrentTranslator(
        len(words), target_vocabulary=len(signs), embedding=16, width=width, attention=kind
    )
    if attention == "location":
        model.score = Location(2 * width)
    return model


def right(model, pairs, words, signs):
    """The shares of whole targets and of their characters that the model writes rightly by itself."""
    sources, targets = zip(*pairs, strict=True)
    x, lengths = words.encode(sources)
    limit = max(map(len, targets)) + 1
    written = signs.decode(model.translate(x, lengths, begin=signs.BEGIN, end=signs.END, limit=limit))
    same = [
        a == b
        for w, t in zip(written, targets, strict=True)
        for a, b in zip(w.ljust(len(t)), t, strict=False)
    ]
    whole = sum(w == t for w, t in zip(written, targets, strict=True)) / len(targets)
    return round(whole, 4), round(sum(same) / len(same), 4)


def on_year(model, pairs, words, signs):
    """How often the largest weight of a step that writes the year lies on the year's four characters."""
    (x, lengths), (y, _) = words.encode([s for s, _ in pairs]), signs.encode([t for _, t in pairs], ends=True)
    top = model.weights(x, lengths, y[:, :-1])[:, :4].argmax(-1)
    first = torch.tensor([source.index(target[:4]) for source, target in pairs])[:, None]
    return round(((top >= first) & (top < first + 4)).float().mean().item(), 4)


def copying():
    digits, rows = Vocabulary([DIGITS]), []
    kinds = [(a, 24, 400) for a in ("additive", "dot", "location", None)] + [
        (None, 48, 400),
        (None, 24, 1600),
    ]
    for attention, width, steps in kinds:
        for seed in range(3):
            model = fresh(digits, digits, attention, width, seed)
            learn(model, strings(BATCH * steps, range(1, 21), seed), digits, digits)
            for n in LENGTHS:
                whole, each = right(model, strings(200, [n], 1000 + n), digits, digits)
                row = {"attention": attention or "none", "width": width, "steps": steps, "seed": seed}
                rows.append(row | {"length": n, "whole": whole, "characters": each} | SETTINGS)
            print(attention, width, steps, seed, "done", flush=True)
    return rows


def dates():
    new, rows = date_pairs(500, seed=1000, split="test"), []
    english = date_pairs(300, seed=1001, split="test", languages=["english"])
    for attention in ("additive", "dot", "general", "concat", "location", None):
        for seed in range(3):
            pairs = date_pairs(BATCH * STEPS, seed=seed)
            words, signs = Vocabulary([p for p, _ in pairs]), Vocabulary([t for _, t in pairs])
            model = learn(fresh(words, signs, attention, 24, seed), pairs, words, signs)
            whole, each = right(model, new, words, signs)
            row = {"attention": attention or "none", "width": 24, "steps": STEPS, "seed": seed}
            row |= {"whole": whole, "characters": each}
            row["on_year"] = None if attention is None else on_year(model, english, words, signs)
            rows.append(row | SETTINGS)
            print(rows[-1], flush=True)
    return rows


SETTINGS = {"batch_size": BATCH, "learning_rate": RATE, "torch": torch.__version__[:6]}


def main():
    torch.set_num_threads(1)
    for name, rows in (("04_dates", dates()), ("04_copying", copying())):
        pd.DataFrame(rows).to_csv(data_folder() / "results" / f"{name}.csv", index=False, lineterminator="\n")


if __name__ == "__main__":
    main()
