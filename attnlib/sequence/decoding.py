"""Decoding: writing a target token by token, with the model's own tokens as its input.

    greedy   y_t = the most probable token behind y_1 ... y_(t-1)
    beam     of all prefixes with one token more, keep the `beam` most probable; a prefix that ends leaves
             the beam and is a hypothesis
    score    log p(y | x) / ((5 + |y|) / 6)^alpha       Wu et al., arXiv 1609.08144, eq. (14), with alpha
             `length_penalty`, 0 for the plain log-probability; |y| counts the end token

At each step a decoder layer needs the keys and values of all tokens so far. `Cached` keeps them and computes
one new token a step; `Recomputed` computes all of them again, and is here to be compared.

Where sources differ:
    limit       Some cut a hypothesis off at the longest length and rank it as it is, which favours what does
                not end. Here the last place holds the end, paid for like any other token, so that all scores
                are of whole sequences.
    greedy      A beam may lose the greedy prefix and finish with a worse one. Here the greedy hypothesis
                stays a candidate, so a score is never below its.
    width       Some make the beam narrower by one for each hypothesis that has ended. Here it stays.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from attnlib._checks import check_positive
from attnlib.sequence.transformer import KeysValues, Transformer

Mask = Bool[Tensor, "..."]


@dataclass(frozen=True)
class Decoded:
    """One hypothesis for each sequence.

    Args:
        tokens: (b, n), without the begin; behind the first end there are only ends.
        lengths: (b,), with the end.
        scores: (b,), at most 0.
    """

    tokens: Int[Tensor, "b n"]
    lengths: Int[Tensor, " b"]
    scores: Float[Tensor, " b"]


class Cached:
    """A model that has read its source and goes on from the target's tokens so far, one a step.

    It keeps by layer the keys and values of the memory, computed once, and those of the tokens so far.
    """

    def __init__(self, model: Transformer, source: Int[Tensor, "b n"], *, mask: Mask | None = None) -> None:
        memory = model.encode(source, mask=mask)
        self.model, self.mask, self.length = model, mask, 0
        self.of_memory = [layer.cross_attention.keys_values(memory) for layer in model.decoder.layers]
        self.past: list[KeysValues | None] = [None] * len(self.of_memory)

    def step(self, tokens: Int[Tensor, " b"]) -> Float[Tensor, "b vocabulary"]:
        """Log-probabilities of what follows the tokens so far, with ``tokens`` as the newest."""
        x = self.model.embed("target", tokens[:, None], start=self.length)
        for i, layer in enumerate(self.model.decoder.layers):
            x, self.past[i] = layer.advance(x, self.past[i], self.of_memory[i], memory_mask=self.mask)
        self.length += 1
        return self.model.logits(self.model.decoder.norm(x))[:, 0].log_softmax(-1)

    def select(self, rows: Int[Tensor, " chosen"]) -> None:
        """Go on with these sequences, which may be repeated."""
        self.of_memory = [(k[rows], v[rows]) for k, v in self.of_memory]
        self.past = [pair and (pair[0][rows], pair[1][rows]) for pair in self.past]
        self.mask = _chosen(self.mask, rows)


class Recomputed:
    """The same without keeping anything: every step runs the decoder over all tokens so far."""

    def __init__(self, model: Transformer, source: Int[Tensor, "b n"], *, mask: Mask | None = None) -> None:
        self.model, self.mask, self.memory = model, mask, model.encode(source, mask=mask)
        self.prefix = source.new_empty(len(source), 0)

    def step(self, tokens: Int[Tensor, " b"]) -> Float[Tensor, "b vocabulary"]:
        self.prefix = torch.cat([self.prefix, tokens[:, None]], 1)
        return self.model.decode(self.prefix, self.memory, mask=self.mask)[:, -1].log_softmax(-1)

    def select(self, rows: Int[Tensor, " chosen"]) -> None:
        self.prefix, self.memory, self.mask = self.prefix[rows], self.memory[rows], _chosen(self.mask, rows)


def _chosen(mask: Mask | None, rows: Tensor) -> Mask | None:
    """The masks of the sequences ``rows``, where each has one of its own."""
    return mask if mask is None or mask.ndim < 3 or len(mask) == 1 else mask[rows]


@torch.no_grad()
def greedy(
    model: Transformer,
    source: Int[Tensor, "b n"],
    *,
    begin: int,
    end: int,
    limit: int,
    mask: Mask | None = None,
    length_penalty: float = 0.0,
    cached: bool = True,
) -> Decoded:
    """The most probable token at each step.

    Args:
        model: in eval mode, or its dropout will take part.
        source: as for the model; ``mask`` is its padding mask.
        begin: the token that the target starts with.
        end: the token that ends it.
        limit: the largest length, counting the end; every hypothesis ends there at the latest.
        length_penalty: alpha of the score.
        cached: whether to keep keys and values.

    Raises:
        ValueError: for a source without tokens or with unknown ones, a begin or end that is not in the
            vocabulary, or a limit or length_penalty that is not positive (0 for the latter is).
    """
    _check(model, source, mask, begin, end, limit, length_penalty)
    state = (Cached if cached else Recomputed)(model, source, mask=mask)
    tokens = source.new_full((len(source),), begin)
    finished = torch.zeros_like(tokens, dtype=torch.bool)
    written, lengths, total = [], torch.zeros_like(tokens), 0.0
    for t in range(1, limit + 1):
        log_p = state.step(tokens)  # b vocabulary
        tokens = log_p.argmax(-1) if t < limit else torch.full_like(tokens, end)
        tokens = tokens.masked_fill(finished, end)
        total = total + log_p.gather(1, tokens[:, None])[:, 0].masked_fill(finished, 0)
        lengths = lengths + ~finished
        finished = finished | (tokens == end)
        written.append(tokens)
        if finished.all():
            break
    return Decoded(
        torch.stack(written, 1), lengths, total / _penalty(lengths.to(total.dtype), length_penalty)
    )


@torch.no_grad()
def beam_search(
    model: Transformer,
    source: Int[Tensor, "b n"],
    *,
    beam: int,
    begin: int,
    end: int,
    limit: int,
    mask: Mask | None = None,
    length_penalty: float = 0.0,
    cached: bool = True,
) -> Decoded:
    """The best hypothesis that a beam finds; with ``beam=1`` the greedy one. Arguments as for ``greedy``."""
    check_positive("beam", beam)
    options = {"begin": begin, "end": end, "limit": limit, "mask": mask, "cached": cached}
    first = greedy(model, source, length_penalty=length_penalty, **options)
    b, vocabulary = len(source), model.target.num_embeddings
    row = torch.arange(b, device=source.device)[:, None]  # b 1
    best = first.scores
    winners = source.new_full((b, limit), end)
    winners[:, : first.tokens.shape[1]] = first.tokens
    winner_lengths = first.lengths

    state = (Cached if cached else Recomputed)(model, source, mask=mask)
    state.select(row.expand(b, beam).flatten())
    prefixes = source.new_full((b, beam, limit), end)
    tokens = source.new_full((b, beam), begin)
    live = best.new_full((b, beam), -torch.inf)  # log-probabilities; one prefix each at the start
    live[:, 0] = 0
    for t in range(1, limit + 1):
        log_p = state.step(tokens.flatten()).view(b, beam, vocabulary)
        if t == limit:
            log_p = log_p.masked_fill(torch.arange(vocabulary, device=log_p.device) != end, -torch.inf)
        live, place = (live[..., None] + log_p).flatten(1).topk(beam)  # the best of beam * vocabulary
        parent, tokens = place // vocabulary, place % vocabulary  # b beam
        prefixes = prefixes[row, parent]
        prefixes[:, :, t - 1] = tokens

        ended = live.masked_fill(tokens != end, -torch.inf) / _penalty(t, length_penalty)
        score, which = ended.max(1)
        better = score > best
        best = score.where(better, best)
        winners = prefixes[row[:, 0], which].where(better[:, None], winners)
        winner_lengths = winner_lengths.masked_fill(better, t)

        live = live.masked_fill(tokens == end, -torch.inf)
        hope = live.amax(1) / _penalty(limit, length_penalty)  # no prefix can end with more
        if (hope <= best).all():
            break
        state.select((row * beam + parent).flatten())
    return Decoded(winners[:, : int(winner_lengths.max())], winner_lengths, best)


def _penalty(length: Tensor | int, alpha: float) -> Tensor | float:
    return ((5 + length) / 6) ** alpha


def _check(
    model: Transformer,
    source: Tensor,
    mask: Tensor | None,
    begin: int,
    end: int,
    limit: int,
    length_penalty: float,
) -> None:
    check_positive("limit", limit)
    for name, token in (("begin", begin), ("end", end)):
        if not 0 <= token < model.target.num_embeddings:
            raise ValueError(
                f"{name}={token} is not in the target's vocabulary of {model.target.num_embeddings} tokens"
            )
    if not length_penalty >= 0:
        raise ValueError(f"length_penalty={length_penalty!r} should be at least 0")
    if mask is not None and not mask.any(-1).all():
        first = (~mask.any(-1)).nonzero()[0, 0].item() if mask.ndim == 3 else 0
        raise ValueError(f"source {first} has no token that may be attended to; is it empty?")
