"""The stored runs behind parts 9 and 10 of 03_multi_head_and_positions, one row a trained network.

    python notebooks/runs/03_multi_head_and_positions.py

writes data/results/03_marks.csv (two heads against one), 03_order.csv (digits with and without positions),
03_longer.csv (sequences longer than those trained on; a row for each length and block of eight places) and
03_narrow.csv (few and many narrow heads); some four minutes on one core.
"""

import pandas as pd
import torch
from torch import nn
from torch.nn import functional as F

from attnlib.lab.data import data_folder, load_digits
from attnlib.lab.sequences import lookups
from attnlib.sequence.multi_head import MultiHeadAttention
from attnlib.sequence.positions import LearnedPositions, RelativeBias, SinusoidalPositions

SEEDS = range(5)


def step(optimizer, loss):
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


# ---- two heads against one: eight tokens, four numbers a and four numbers b each, two of them marked


def marked(count, seed, same_place=False):
    """Tokens (count, 8, 10), and the wanted (count, 8): a of the first mark's token, b of the second's."""
    g = torch.Generator().manual_seed(seed)
    contents, order = torch.randn(count, 8, 8, generator=g), torch.rand(count, 8, generator=g).argsort(1)
    marks = F.one_hot(order[:, :2], 8).mT.float()  # count, token, mark
    first, second = (marks[:, :, [mark]] for mark in ((0, 0) if same_place else (0, 1)))
    wanted = torch.cat([(first * contents).sum(1)[:, :4], (second * contents).sum(1)[:, 4:]], 1)
    return torch.cat([contents, marks], 2), wanted


class Fetcher(nn.Module):
    """The first token asks; with blind keys its query and all keys see the marks only."""

    def __init__(self, heads, blind=False):
        super().__init__()
        self.embed, self.blind = nn.Linear(10, 16), blind
        self.attention = MultiHeadAttention(16, heads=heads, bias=False)
        self.read = nn.Linear(16, 8)

    def forward(self, x):
        seen = torch.cat([torch.zeros_like(x[..., :8]), x[..., 8:]], -1) if self.blind else x
        k, _ = self.attention.keys_values(self.embed(seen))
        _, v = self.attention.keys_values(self.embed(x))
        return self.read(self.attention.attend(self.embed(seen[:, :1]), k, v))[:, 0]


MARKS = {"steps": 300, "batch_size": 64, "learning_rate": 0.01}


def fetch(heads, blind, same_place, seed):
    torch.manual_seed(seed)
    model, (x, y) = Fetcher(heads, blind), marked(MARKS["steps"] * MARKS["batch_size"], seed, same_place)
    optimizer = torch.optim.Adam(model.parameters(), lr=MARKS["learning_rate"])
    for batch, wanted in zip(x.split(MARKS["batch_size"]), y.split(MARKS["batch_size"]), strict=True):
        step(optimizer, F.mse_loss(model(batch), wanted))
    new, wanted = marked(4000, 1000, same_place)
    with torch.no_grad():
        return F.mse_loss(model(new), wanted).item()


def marks():
    for same_place in (False, True):
        for heads, blind in [(1, True), (1, False), (2, False), (4, False)]:
            for seed in SEEDS:
                error = fetch(heads, blind, same_place, seed)
                settings = {"same_place": same_place, "heads": heads, "blind": blind, "seed": seed}
                yield settings | {"error": round(error, 4)} | MARKS


# ---- order: a digit's rows as tokens, in four kinds of knowing the place


class Rows(nn.Module):
    """One block over the eight rows of a digit, and a mean over them."""

    def __init__(self, kind, classes):
        super().__init__()
        self.embed, self.attention = nn.Linear(8, 32), MultiHeadAttention(32, heads=4)
        self.place = {"sinusoids": SinusoidalPositions(32), "learned": LearnedPositions(8, 32)}.get(kind)
        self.relative = RelativeBias(4, reach=7) if kind == "relative" else None
        self.hidden = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 32))
        self.read = nn.Linear(32, classes)

    def forward(self, x):
        h = self.embed(x) if self.place is None else self.place(self.embed(x))
        h = h + self.attention(h, score_bias=None if self.relative is None else self.relative(8))
        return self.read((h + self.hidden(h)).mean(1))


def rows_of(digits, task, seed):
    """Images (n, 8, 8) and what is asked of them."""
    g, x = torch.Generator().manual_seed(seed), digits.images[:, 0]
    if task == "upright":
        turned = torch.rand(len(x), generator=g) < 0.5
        return torch.where(turned[:, None, None], x.flip(1), x), turned.long()
    if task == "shuffled":
        x = x.gather(1, torch.rand(len(x), 8, generator=g).argsort(1)[..., None].expand_as(x))
    return x, digits.labels


ORDER = {"epochs": 30, "batch_size": 64, "learning_rate": 0.003}


def read_rows(task, kind, seed):
    torch.manual_seed(seed)
    model, train = Rows(kind, 2 if task == "upright" else 10), load_digits("train")
    optimizer = torch.optim.Adam(model.parameters(), lr=ORDER["learning_rate"])
    for epoch in range(ORDER["epochs"]):
        x, y = rows_of(train, task, 100 * seed + epoch)
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(100 * seed + epoch))
        for batch in order.split(ORDER["batch_size"]):
            step(optimizer, F.cross_entropy(model(x[batch]), y[batch]))
    x, y = rows_of(load_digits("test"), task, 1000)
    with torch.no_grad():
        return (model(x).argmax(1) == y).double().mean().item()


def order():
    for task in ("digit", "shuffled", "upright"):
        for kind in ("none", "sinusoids", "learned", "relative"):
            for seed in SEEDS:
                row = {"task": task, "positions": kind, "seed": seed}
                yield row | {"accuracy": round(read_rows(task, kind, seed), 4)} | ORDER


# ---- longer sequences than those trained on: say the letter before


class Before(nn.Module):
    """Which of eight letters stood one place to the left?"""

    def __init__(self, kind):
        super().__init__()
        self.embed, self.attention = nn.Embedding(8, 32), MultiHeadAttention(32, heads=2)
        self.place = {"sinusoids": SinusoidalPositions(32), "learned": LearnedPositions(64, 32)}.get(kind)
        self.relative = RelativeBias(2, reach=8) if kind == "relative" else None
        self.read = nn.Linear(32, 8)

    def forward(self, letters):
        h = self.embed(letters) if self.place is None else self.place(self.embed(letters))
        bias = None if self.relative is None else self.relative(letters.shape[1])
        return self.read(self.attention(h, score_bias=bias))


LONGER = {"trained_length": 16, "steps": 600, "batch_size": 64, "learning_rate": 0.005}


def longer():
    for kind in ("sinusoids", "learned", "relative"):
        for seed in SEEDS:
            torch.manual_seed(seed)
            model, g = Before(kind), torch.Generator().manual_seed(seed)
            optimizer = torch.optim.Adam(model.parameters(), lr=LONGER["learning_rate"])
            for _ in range(LONGER["steps"]):
                x = torch.randint(8, (LONGER["batch_size"], LONGER["trained_length"]), generator=g)
                step(optimizer, F.cross_entropy(model(x)[:, 1:].flatten(0, 1), x[:, :-1].flatten()))
            for length in (16, 32, 48, 64):
                x = torch.randint(8, (500, length), generator=torch.Generator().manual_seed(1000))
                with torch.no_grad():
                    right = (model(x)[:, 1:].argmax(2) == x[:, :-1]).double().mean(0)
                for first in range(0, length, 8):
                    share = (
                        right[max(first - 1, 0) : first + 7].mean().item()
                    )  # place 0 has nothing before it
                    row = {"positions": kind, "seed": seed, "length": length, "places_from": first}
                    yield row | {"accuracy": round(share, 4)} | LONGER


# ---- narrow heads, on the look-up game of notebook 02


class Narrow(nn.Module):
    def __init__(self, heads, head_width):
        super().__init__()
        self.embed = nn.Linear(14, 16)
        self.attention = MultiHeadAttention(16, heads=heads, head_width=head_width)
        self.read = nn.Linear(16, 4)

    def forward(self, x):
        return self.read(self.attention(self.embed(x)))


NARROW = {"steps": 600, "batch_size": 32, "learning_rate": 0.01}


def narrow():
    new = lookups(500, seed=1000)
    for heads, head_width in [(1, 1), (1, 2), (1, 4), (1, 16), (4, 1), (16, 1)]:
        for seed in SEEDS:
            torch.manual_seed(seed)
            model = Narrow(heads, head_width)
            data = lookups(NARROW["steps"] * NARROW["batch_size"], seed=seed)
            optimizer = torch.optim.Adam(model.parameters(), lr=NARROW["learning_rate"])
            for start in range(0, len(data), NARROW["batch_size"]):
                batch = data.part(start, start + NARROW["batch_size"])
                loss = F.cross_entropy(model(batch.tokens)[batch.asks], batch.values[batch.asks])
                step(optimizer, loss)
            with torch.no_grad():
                right = (model(new.tokens).argmax(-1) == new.values)[new.asks].double().mean().item()
            row = {"heads": heads, "head_width": head_width, "seed": seed}
            yield row | {"accuracy": round(right, 4)} | NARROW


def main():
    torch.set_num_threads(1)
    for name, rows in {"marks": marks, "order": order, "longer": longer, "narrow": narrow}.items():
        table = pd.DataFrame(rows()).assign(torch=torch.__version__[:6])
        table.to_csv(data_folder() / "results" / f"03_{name}.csv", index=False, lineterminator="\n")
        print(name, "done", flush=True)


if __name__ == "__main__":
    main()
