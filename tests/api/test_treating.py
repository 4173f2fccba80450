"""`defense.treat` is the stage of a run, by the ids of the user."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import defense
from defense.config.compose import composed
from defense.data.splits import Split
from defense.errors import InputError
from defense.randomness import derive
from defense.stages.treat import RankedSamples
from tests import calls
from tests.conftest import make_split

TRAIN: Split = make_split(40, 4, (1, 2, 2))
LABELS = TRAIN.labels.numpy()
CHANCE = np.random.default_rng(0)
SCORES, PREDICTIONS = CHANCE.normal(size=40), (LABELS + (CHANCE.random(40) < 0.5)) % 4
IDS = [f"row {number}" for number in range(40)]
CASES: dict[str, dict[str, Any]] = {
    "remove": {"budget": 0.2},
    "in every class": {"budget": 0.2, "balance": "class"},
    "below a threshold": {"threshold": -0.5},
    "relabel": {"treatment": "relabel", "budget": 0.2},
    "reweight": {"treatment": "reweight"},
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_the_stage_and_its_control(name: str) -> None:
    given = CASES[name]
    values = [f"treatment.{key}={value}" for key, value in given.items() if key != "treatment"]
    spec = composed(f"treatment={given.get('treatment', 'remove')}", *values).treatment
    ranked = RankedSamples(SCORES, PREDICTIONS, LABELS, 4)
    expected = calls.treat(TRAIN, ranked, spec)
    drawn = calls.control(TRAIN, expected, ranked, spec, seed=derive(3, "control"))
    scores = pd.Series(SCORES, index=IDS)
    for random, right in ((False, expected), (True, drawn)):
        found = defense.treat(scores, LABELS, predictions=PREDICTIONS, random=random, seed=3, **given)
        assert list(found) == ["keep", "label", "weight", "treated"]
        assert found.index.tolist() == IDS
        pd.testing.assert_frame_equal(found.reset_index(drop=True), right.table.drop(columns="id"))


def test_the_lowest_scores_are_left_out() -> None:
    found = defense.treat(SCORES, torch.from_numpy(LABELS), budget=0.25)
    assert sorted(found.index[~found["keep"]]) == sorted(np.argsort(SCORES)[:10])


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown treatment": ({"treatment": "drop"}, "treatment=drop: expected one of remove, relabel, reweight"),
    "one that trains": ({"treatment": "optimize"}, "treatment=optimize: takes trainings; expected one of remove"),
    "a budget of 7": ({"budget": 7}, r"treatment.budget=7: expected a fraction in \[0, 1\)"),
    "a budget that trains": ({"budget": "auto"}, "treatment.budget=auto: takes trainings"),
    "a balance": ({"balance": "sex"}, "treatment.balance=sex: expected one of none, class"),
    "no predictions": ({"treatment": "relabel"}, "predictions=None: expected the labels that the model gives"),
    "a class lost": ({"threshold": 9.0}, "treatment.threshold=9.0: leaves no sample of class 0"),
    "fewer labels": ({"labels": LABELS[:5]}, r"labels=torch.int64 of shape \(5,\): expected whole numbers"),
    "labels below 0": ({"labels": LABELS - 1}, "labels=-1: expected classes from 0 up"),
    "one-hot": ({"labels": np.eye(4)[LABELS]}, r"labels.argmax\(1\) gives them"),
    "labels of others": (
        {"labels": pd.Series(LABELS, index=IDS)},
        "labels=a Series with another index: expected that of scores",
    ),
    "NaN": ({"scores": SCORES * np.nan}, "scores=NaN or infinity: expected finite numbers"),
    "a table": (
        {"scores": SCORES[:, None]},
        r"scores=float64 of shape \(40, 1\): expected numbers of shape \(n,\)",
    ),
    "an id twice": ({"scores": pd.Series(SCORES, index=["a"] * 40)}, "ids=a: is there twice"),
    "a seed": ({"seed": -1}, "seed=-1: expected a whole number"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_is_one_line(name: str) -> None:
    options, said = WRONG[name]
    given = {"scores": SCORES, "labels": LABELS, **options}
    with pytest.raises(InputError, match=said):
        defense.treat(given.pop("scores"), given.pop("labels"), **given)
