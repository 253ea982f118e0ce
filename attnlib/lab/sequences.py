"""Sequences on which it is known in advance what attention should look at."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from attnlib._checks import check_positive


@dataclass(frozen=True)
class Lookups:
    """Sequences of questions and answers, see ``lookups``.

    Args:
        tokens: (b, n, keys + 2 + values), zeros and ones: which key, question or answer, which value.
        values: (b, n), the value that belongs to the token's key, for questions and answers alike.
        partners: (b, n), the place of the other token with the same key.
        asks: (b, n), whether the token is a question.
    """

    tokens: Float[Tensor, "b n width"]
    values: Int[Tensor, "b n"]
    partners: Int[Tensor, "b n"]
    asks: Bool[Tensor, "b n"]

    def __len__(self) -> int:
        return len(self.tokens)

    def part(self, start: int, stop: int) -> "Lookups":
        """The sequences from ``start`` to before ``stop``."""
        return Lookups(*(t[start:stop] for t in (self.tokens, self.values, self.partners, self.asks)))


def lookups(n: int = 1000, *, keys: int = 8, values: int = 4, seed: int = 0) -> Lookups:
    """Sequences in which every key occurs twice, in random order: once in a question, once in an answer.

    An answer also shows a value, drawn at random; a question is to be given the value of its key. So a
    question has to look at one token, its partner, and nothing else says where that is or what it holds.

    Args:
        n: how many sequences.
        keys: how many keys; a sequence has twice as many tokens.
        values: how many different values.
        seed: of the draws.
    """
    check_positive("n", n)
    check_positive("keys", keys)
    check_positive("values", values)
    rng = np.random.default_rng(seed)
    order = rng.permuted(np.tile(np.arange(2 * keys), (n, 1)), axis=1)  # below keys: the question of that key
    value_of_key = rng.integers(values, size=(n, keys))
    key, asks = torch.from_numpy(order % keys), torch.from_numpy(order < keys)
    value = torch.from_numpy(value_of_key).gather(1, key)
    place = torch.from_numpy(np.argsort(order, axis=1))  # of each question and answer
    partners = place.gather(1, torch.from_numpy((order + keys) % (2 * keys)))
    role = torch.stack([asks, ~asks], 2)
    shown = F.one_hot(value, values) * ~asks[..., None]
    tokens = torch.cat([F.one_hot(key, keys), role, shown], 2).float()
    return Lookups(tokens, value, partners, asks)
