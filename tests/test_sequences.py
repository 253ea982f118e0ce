"""The sequences keep what their docstrings promise: what is to be looked at is there, where it says."""

import pytest
import torch

from attnlib.lab.sequences import lookups

KEYS, VALUES = 5, 3


@pytest.fixture(scope="module")
def data():
    return lookups(200, keys=KEYS, values=VALUES, seed=3)


def test_shapes_and_kinds(data):
    assert len(data) == 200
    assert data.tokens.shape == (200, 2 * KEYS, KEYS + 2 + VALUES) and data.tokens.dtype == torch.float32
    assert data.values.shape == data.partners.shape == data.asks.shape == (200, 2 * KEYS)
    assert data.asks.dtype == torch.bool and data.values.dtype == data.partners.dtype == torch.int64


def test_a_seed_repeats_and_another_differs():
    assert torch.equal(lookups(5, seed=1).tokens, lookups(5, seed=1).tokens)
    assert not torch.equal(lookups(5, seed=1).tokens, lookups(5, seed=2).tokens)


def test_every_key_is_asked_once_and_answered_once(data):
    key = data.tokens[..., :KEYS].argmax(2)
    for role in (data.asks, ~data.asks):
        assert role.sum(1).tolist() == [KEYS] * 200
        assert torch.equal(key[role].view(200, KEYS).sort(1).values, torch.arange(KEYS).expand(200, KEYS))


def test_a_token_shows_its_key_its_role_and_only_as_an_answer_its_value(data):
    key, role, value = data.tokens.split([KEYS, 2, VALUES], dim=2)
    assert (key.sum(2) == 1).all() and (role.sum(2) == 1).all()
    assert torch.equal(role[..., 0] == 1, data.asks)
    assert torch.equal(value.sum(2) == 1, ~data.asks) and (value[data.asks] == 0).all()
    assert torch.equal(value[~data.asks].argmax(1), data.values[~data.asks])


def test_the_partner_is_the_other_token_with_the_same_key_and_holds_the_value(data):
    key = data.tokens[..., :KEYS].argmax(2)
    places = torch.arange(2 * KEYS).expand_as(data.partners)
    assert (data.partners != places).all()
    assert torch.equal(data.partners.gather(1, data.partners), places)
    assert torch.equal(key.gather(1, data.partners), key)
    assert torch.equal(data.asks.gather(1, data.partners), ~data.asks)
    assert torch.equal(data.values.gather(1, data.partners), data.values)


def test_places_and_values_tell_nothing():
    many = lookups(4000, seed=0)
    assert (many.asks.double().mean(0) - 1 / 2).abs().max() < 0.04
    assert (many.values.flatten().bincount() / many.values.numel() - 1 / 4).abs().max() < 0.02
    key = many.tokens[..., :8].argmax(2)
    for k in range(8):
        assert (many.values[key == k].bincount() / 8000 - 1 / 4).abs().max() < 0.03


def test_a_part_holds_the_same_sequences(data):
    part = data.part(10, 14)
    assert len(part) == 4
    for name in ("tokens", "values", "partners", "asks"):
        assert torch.equal(getattr(part, name), getattr(data, name)[10:14])


@pytest.mark.parametrize("argument", ["n", "keys", "values"])
def test_arguments_are_checked(argument):
    with pytest.raises(ValueError, match=f"{argument}=0 should be a whole number of at least 1"):
        lookups(**{argument: 0})
