"""Decoding against an exhaustive search, against itself without a cache, and at its limits."""

import copy
import itertools
import re

import pytest
import torch

from attnlib.sequence import padding_mask
from attnlib.sequence.decoding import Cached, Recomputed, beam_search, greedy
from attnlib.sequence.transformer import Transformer

SOURCE_WORDS, WORDS, BEGIN, END, WIDTH, B, N = 9, 4, 2, 1, 12, 3, 6
LENGTHS = torch.tensor([4, 6, 1])
MASK = padding_mask(LENGTHS, N)
TOKENS = {"begin": BEGIN, "end": END}
SEEDS = pytest.mark.parametrize("seed", range(6))
each_order = pytest.mark.parametrize("norm_first", [False, True], ids=["post", "pre"])


def build(seed=0, norm_first=True) -> Transformer:
    """A model with opinions, which differ from seed to seed, source to source and place to place."""
    options = {"width": WIDTH, "heads": 3, "hidden": 10, "layers": 2, "norm_first": norm_first}
    torch.manual_seed(seed)
    model = Transformer(SOURCE_WORDS, target_vocabulary=WORDS, **options).double().eval()
    for p in model.decoder.layers.parameters():
        p.data *= 2 if p.ndim == 2 else 1
    # with tied embeddings a fresh model repeats itself; here what it returns is turned first
    model.decoder.norm = torch.nn.Linear(WIDTH, WIDTH, bias=False).double()
    model.decoder.norm.weight.data *= 10
    model.target.weight.data *= 0.5
    model.positions.base = 1.5  # all wavelengths are short
    for layer in model.decoder.layers:
        layer.cross_attention.W_O.weight.data *= 0.2
    return model


def sources(seed=0) -> torch.Tensor:
    return torch.randint(SOURCE_WORDS, (B, N), generator=torch.Generator().manual_seed(seed))


def log_probability(model, source, mask, tokens) -> float:
    """Of the whole target, from one pass with all of it given."""
    target = torch.tensor([[BEGIN, *tokens[:-1]]])
    log_p = model(source, target, mask=mask)[0].log_softmax(-1)
    return sum(log_p[t, token].item() for t, token in enumerate(tokens))


def written(found, i) -> list[int]:
    """Hypothesis i, and the check that only ends stand behind it."""
    length = found.lengths[i].item()
    tokens = found.tokens[i].tolist()
    assert tokens[length - 1 :] == [END] * (len(tokens) - length + 1)
    assert END not in tokens[: length - 1]
    return tokens[:length]


def everything(limit):
    """All targets of at most ``limit`` tokens that end."""
    others = [w for w in range(WORDS) if w != END]
    for n in range(limit):
        for tokens in itertools.product(others, repeat=n):
            yield [*tokens, END]


@SEEDS
@each_order
def test_greedy_is_the_argmax_of_each_step(seed, norm_first):
    model, source = build(seed, norm_first), sources(seed)
    found = greedy(model, source, mask=MASK, limit=7, **TOKENS)
    for i in range(B):
        tokens, own = [], (source[i : i + 1], MASK[i : i + 1])
        while len(tokens) < 6 and END not in tokens:
            logits = model(own[0], torch.tensor([[BEGIN, *tokens]]), mask=own[1])[0, -1]
            tokens.append(logits.argmax().item())
        tokens += [] if END in tokens else [END]
        assert written(found, i) == tokens
        assert found.scores[i].item() == pytest.approx(log_probability(model, *own, tokens), abs=1e-11)


def test_the_hypotheses_of_these_tests_differ_in_length():
    lengths = {
        length
        for seed in range(6)
        for length in greedy(build(seed), sources(seed), limit=7, mask=MASK, **TOKENS).lengths.tolist()
    }
    assert len(lengths) > 2
    assert 7 in lengths


@SEEDS
@pytest.mark.parametrize("length_penalty", [0.0, 0.6])
def test_a_beam_of_one_is_greedy(seed, length_penalty):
    model, source = build(seed), sources(seed)
    options = {"mask": MASK, "limit": 7, "length_penalty": length_penalty, **TOKENS}
    found, expected = beam_search(model, source, beam=1, **options), greedy(model, source, **options)
    assert torch.equal(found.tokens, expected.tokens)
    assert torch.equal(found.lengths, expected.lengths)
    torch.testing.assert_close(found.scores, expected.scores)


@SEEDS
@pytest.mark.parametrize("length_penalty", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("limit", [1, 2, 4])
def test_a_beam_as_wide_as_the_tree_finds_the_best(seed, length_penalty, limit):
    model, source = build(seed), sources(seed)
    options = {"mask": MASK, "limit": limit, "length_penalty": length_penalty, **TOKENS}
    found = beam_search(model, source, beam=3**limit, **options)
    for i in range(B):
        own = source[i : i + 1], MASK[i : i + 1]
        scores = {
            tuple(tokens): log_probability(model, *own, tokens) / ((5 + len(tokens)) / 6) ** length_penalty
            for tokens in everything(limit)
        }
        best = max(scores, key=scores.get)
        assert written(found, i) == list(best)
        assert found.scores[i].item() == pytest.approx(scores[best], abs=1e-11)


@SEEDS
@pytest.mark.parametrize("beam", [2, 3])
@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
def test_a_score_is_never_below_the_greedy_one(seed, beam, length_penalty):
    model, source = build(seed), sources(seed)
    options = {"mask": MASK, "limit": 7, "length_penalty": length_penalty, **TOKENS}
    found, first = beam_search(model, source, beam=beam, **options), greedy(model, source, **options)
    assert (found.scores >= first.scores - 1e-12).all()
    for i in range(B):
        tokens = written(found, i)
        own = log_probability(model, source[i : i + 1], MASK[i : i + 1], tokens)
        assert found.scores[i].item() == pytest.approx(own / ((5 + len(tokens)) / 6) ** length_penalty)


class Table:
    """A stand-in for a model whose log-probabilities depend on the tokens so far as a table says."""

    def __init__(self, following: dict[tuple[int, ...], list[float]], words: int) -> None:
        self.following, self.target = following, torch.nn.Embedding(words, 1)

    def encode(self, source, *, mask=None):
        return source[:, :, None].double()

    def decode(self, target, memory, *, mask=None):
        anything = [1 / self.target.num_embeddings] * self.target.num_embeddings  # also behind an end
        rows = [self.following.get(tuple(prefix[1:]), anything) for prefix in target.tolist()]
        return torch.tensor(rows).double().log()[:, None]


@pytest.mark.no_shape_hook
def test_what_a_beam_finds_by_hand():
    """Greedy takes 0 and is then at a loss; the best target is 2, 2, for a beam of three."""
    following = {(): [0.5, 0.3, 0.19, 0.01], (0,): [0.28, 0.24, 0.24, 0.24], (1,): [0.3, 0.3, 0.3, 0.1]}
    following |= {(2,): [0.02, 0.03, 0.9, 0.05]}
    following |= {(a, b): [0.01, 0.01, 0.01, 0.97] for a in range(3) for b in range(3)}
    model = Table(following, 4)
    source = torch.zeros(1, 1, dtype=torch.long)
    options = {"begin": 2, "end": 3, "limit": 3, "cached": False}
    first = greedy(model, source, **options)
    assert first.tokens.tolist() == [[0, 0, 3]]
    assert first.scores.exp().item() == pytest.approx(0.5 * 0.28 * 0.97)
    two, three = (beam_search(model, source, beam=beam, **options) for beam in (2, 3))
    assert two.tokens.tolist() == first.tokens.tolist()
    assert three.tokens.tolist() == [[2, 2, 3]]
    assert three.scores.exp().item() == pytest.approx(0.19 * 0.9 * 0.97)


@pytest.mark.no_shape_hook
def test_the_greedy_hypothesis_stays_a_candidate():
    """Two other prefixes crowd out the greedy one at the second step and then end badly."""
    good, bad = [0.01, 0.01, 0.01, 0.97], [0.33, 0.33, 0.33, 0.01]
    following = {(): [0.4, 0.36, 0.23, 0.01], (0,): [0.34, 0.33, 0.32, 0.01], (1,): [0.5, 0.49, 0.0, 0.01]}
    following |= {(2,): [0.01, 0.01, 0.01, 0.97], (0, 0): good}
    following |= {(a, b): bad for a in range(3) for b in range(3) if (a, b) != (0, 0)}
    model, source = Table(following, 4), torch.zeros(1, 1, dtype=torch.long)
    assert 0.36 * 0.49 > 0.4 * 0.34  # both prefixes behind 1 come before the greedy one
    options = {"begin": 2, "end": 3, "limit": 3, "cached": False}
    first, found = greedy(model, source, **options), beam_search(model, source, beam=2, **options)
    assert first.tokens.tolist() == found.tokens.tolist() == [[0, 0, 3]]
    assert found.scores.exp().item() == pytest.approx(0.4 * 0.34 * 0.97)


@SEEDS
@each_order
@pytest.mark.parametrize("mask", [None, MASK, MASK[:1]], ids=["no mask", "padding", "one for all"])
def test_with_and_without_a_cache(seed, norm_first, mask):
    model, source = build(seed, norm_first), sources(seed)
    options = {"mask": mask, "limit": 7, **TOKENS}
    for decode in (greedy, lambda *a, **o: beam_search(*a, beam=3, **o)):
        kept, again = (decode(model, source, cached=cached, **options) for cached in (True, False))
        assert torch.equal(kept.tokens, again.tokens)
        assert torch.equal(kept.lengths, again.lengths)
        torch.testing.assert_close(kept.scores, again.scores)


@each_order
def test_steps_equal_the_pass_with_the_whole_target(norm_first):
    """Also after sequences were chosen, in another order and one of them twice."""
    model, source = build(norm_first=norm_first), sources()
    target = torch.randint(WORDS, (B, 5), generator=torch.Generator().manual_seed(1))
    rows = torch.tensor([2, 0, 2, 1])
    with torch.no_grad():
        expected = model(source, target, mask=MASK).log_softmax(-1)
        for kind in (Cached, Recomputed):
            state = kind(model, source, mask=MASK)
            for t in range(5):
                if t == 2:
                    state.select(rows)
                chosen = torch.arange(B) if t < 2 else rows
                torch.testing.assert_close(state.step(target[chosen, t]), expected[chosen, t])


def test_a_sequence_decodes_alone_as_in_a_batch():
    model, source = build(3), sources(3)
    for decode in (greedy, lambda *a, **o: beam_search(*a, beam=3, **o)):
        found = decode(model, source, mask=MASK, limit=7, **TOKENS)
        for i in range(B):
            alone = decode(model, source[i : i + 1, : LENGTHS[i]], limit=7, **TOKENS)
            assert written(alone, 0) == written(found, i)
            torch.testing.assert_close(alone.scores, found.scores[i : i + 1])


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_the_limit_holds_the_end(limit):
    model, source = build(), sources()
    usual = model.logits
    model.logits = lambda y: usual(y) - 50 * (torch.arange(WORDS) == END)  # the end becomes improbable
    for beam in (1, 2):
        found = beam_search(model, source, beam=beam, mask=MASK, limit=limit, **TOKENS)
        assert found.tokens.shape[1] == found.lengths.max() <= limit
        assert all(written(found, i)[-1] == END for i in range(B))
    assert greedy(model, source, mask=MASK, limit=limit, **TOKENS).lengths.max() == limit


@pytest.mark.no_shape_hook
def test_the_penalty_favours_what_is_longer():
    """On a choice between an end at once and a longer target with less probability."""
    following = {(): [0.45, 0.0, 0.0, 0.55], (0,): [0.9, 0.0, 0.0, 0.1], (0, 0): [0.05, 0.0, 0.0, 0.95]}
    model, source = Table(following, 4), torch.zeros(1, 1, dtype=torch.long)
    options = {"begin": 2, "end": 3, "limit": 4, "cached": False, "beam": 2}
    plain = beam_search(model, source, **options)
    assert plain.tokens.tolist() == [[3]]
    assert plain.scores.exp().item() == pytest.approx(0.55)
    longer = beam_search(model, source, length_penalty=2.0, **options)
    assert longer.tokens.tolist() == [[0, 0, 3]]
    log_p = torch.tensor(0.45 * 0.9 * 0.95).log().item()
    assert longer.scores.item() == pytest.approx(log_p / (8 / 6) ** 2)


def test_no_gradients_and_other_precisions():
    model, source = build(2), sources(2)
    expected = beam_search(model, source, beam=3, mask=MASK, limit=5, **TOKENS)
    assert not expected.scores.requires_grad
    found = beam_search(copy.deepcopy(model).float(), source, beam=3, mask=MASK, limit=5, **TOKENS)
    assert found.scores.dtype == torch.float32
    assert torch.equal(found.tokens, expected.tokens)


@pytest.mark.no_shape_hook
@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"limit": 0}, "limit=0 should be a whole number of at least 1"),
        ({"beam": 0}, "beam=0 should be a whole number of at least 1"),
        ({"end": 4}, "end=4 is not in the target's vocabulary of 4 tokens"),
        ({"begin": -1}, "begin=-1 is not in the target's vocabulary of 4 tokens"),
        ({"length_penalty": -0.5}, "length_penalty=-0.5 should be at least 0"),
        (
            {"mask": padding_mask(torch.tensor([2, 0, 3]), N)},
            "source 1 has no token that may be attended to; is it empty?",
        ),
    ],
)
def test_wrong_arguments(options, text):
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        beam_search(build(), sources(), **({"beam": 2, "limit": 5, **TOKENS} | options))


@pytest.mark.no_shape_hook
@pytest.mark.parametrize("decode", [greedy, lambda *a, **o: beam_search(*a, beam=2, **o)])
def test_empty_and_unknown_sources(decode):
    with pytest.raises(ValueError, match=r"^expected source of shape \(batch, tokens\) with at least one"):
        decode(build(), sources()[:, :0], limit=5, **TOKENS)
    with pytest.raises(ValueError, match=r"^source\[0, 0\] is 109; with 9 tokens in the vocabulary"):
        decode(build(), torch.full((1, 2), 109), limit=5, **TOKENS)
