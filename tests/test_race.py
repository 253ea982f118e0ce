"""A race: equal starts and equal batches for every candidate, and a clear word where one does not fit."""

import re

import pandas as pd
import pytest
import torch
from torch import nn

from attnlib import SqueezeExcitation
from attnlib.lab import race as module_under_test
from attnlib.lab.race import COLUMNS, race
from attnlib.lab.runs import Half, build_network, load_split, train_run
from attnlib.lab.study import grid

TINY = {"train_images": 60, "test_images": 40, "epochs": 2, "batch_size": 20, "progress": False}
RESULT = ["accuracy", "loss", "curve", "parameters"]


def halving(channels):
    return Half()


def own_se(channels):
    return SqueezeExcitation(channels, reduction=4)


def test_the_rows():
    found = race({"mine": halving, "plain": None, "se": "se"}, seeds=[3, 1], **TINY)
    assert list(found.columns) == COLUMNS
    assert list(zip(found["seed"], found["candidate"], strict=True)) == [
        (seed, name) for seed in (3, 1) for name in ("mine", "plain", "se")
    ]
    assert found["parameters"].tolist() == 2 * [3162, 3162, 3310]
    assert found["accuracy"].between(0, 1).all() and (found["note"] == "").all()
    assert found["curve"].str.split(";").str.len().eq(2).all()
    assert found["loss"].nunique() == 6


def test_a_candidate_of_one_s_own_runs_as_the_study_does():
    own = race({"a": own_se, "b": halving, "c": lambda channels: nn.Identity()}, seeds=[2], **TINY)
    named = race({"a": "se", "b": "half", "c": "none"}, seeds=[2], **TINY)
    pd.testing.assert_frame_equal(own, named)
    setting = {name: value for name, value in TINY.items() if name != "progress"}
    rows = [train_run(run)[1] for run in grid(["se", "half", "none"], seeds=[2], **setting)]
    assert own[RESULT].to_dict("records") == [{name: row[name] for name in RESULT} for row in rows]


def test_a_row_does_not_depend_on_the_other_candidates():
    together = race({"half": "half", "mine": own_se}, seeds=[0, 1], **TINY)
    alone = race({"mine": own_se}, seeds=[1], **TINY)
    pd.testing.assert_frame_equal(together.iloc[[3]].reset_index(drop=True), alone)


def test_the_backbone_starts_equal_around_one_s_own_module():
    setting = {name: value for name, value in TINY.items() if name != "progress"}
    run, data = grid(["none"], seeds=[4], **setting)[0], load_split("digits", "train", 8)
    plain, mine = build_network(run, data).state_dict(), build_network(run, data, own_se).state_dict()
    assert all(torch.equal(mine[name], value) for name, value in plain.items())
    assert [name.split(".")[0] for name in mine if name not in plain] == 4 * ["attention"]


@pytest.mark.parametrize("backbone", ["resnet20", "mobilenetv2"])
def test_other_backbones(backbone):
    tiny = TINY | {"train_images": 20, "test_images": 10, "epochs": 1, "batch_size": 10}
    found = race({"mine": own_se, "none": "none"}, seeds=[0], source="cluttered", backbone=backbone, **tiny)
    assert found["parameters"][0] > found["parameters"][1]


class FirstHalf(nn.Module):
    def forward(self, x):
        return x[:, :8]


class Pair(nn.Module):
    def forward(self, x):
        return x, x


@pytest.mark.no_shape_hook
@pytest.mark.parametrize(
    ("candidates", "text"),
    [
        ({}, "expected at least one candidate, got an empty mapping; try {'none': None}"),
        (
            {"fine": None, "mine": Half()},
            "candidate 'mine' is a module that exists already, and every network needs one of its own; "
            "pass a function that makes it, such as Half or lambda channels: ...",
        ),
        ({"mine": 3}, "candidate 'mine' is 3; expected a function from channels to a module, a name"),
        ({"mine": lambda channels: 7}, "candidate 'mine' made 7; expected a torch.nn.Module"),
        (
            {"mine": lambda channels: FirstHalf()},
            "candidate 'mine' was given features of shape (2, 16, 8, 8) and returned a tensor of shape "
            "(2, 8, 8, 8); it should keep the shape",
        ),
        (
            {"mine": lambda channels: Pair()},
            "candidate 'mine' was given features of shape (2, 16, 8, 8) and returned tuple; it should keep",
        ),
        ({"mine": "see"}, "mechanism='see' is not one of"),
    ],
)
def test_errors_come_before_any_training(candidates, text, monkeypatch):
    monkeypatch.setattr(module_under_test, "train_run", lambda *_: pytest.fail("a network was trained"))
    with pytest.raises(ValueError, match=f"^{re.escape(text)}"):
        race(candidates, **TINY)


def test_no_seeds():
    with pytest.raises(
        ValueError, match=re.escape("expected at least one seed, got none; range(3) gives three")
    ):
        race({"none": None}, seeds=[], **TINY)


def test_a_module_that_is_handed_out_twice():
    shared = Half()
    with pytest.raises(ValueError, match="candidate 'mine' hands out the same module again"):
        race({"mine": lambda channels: shared}, **TINY)


class Explodes(nn.Module):
    def forward(self, x):
        return x / 0 if self.training else x


def test_a_training_that_fails_leaves_a_note():
    found = race({"mine": lambda channels: Explodes()}, seeds=[0], **TINY)
    assert found["accuracy"].isna().all() and found["note"][0] == "the loss is nan in epoch 1"
