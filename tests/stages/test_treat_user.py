"""The control of a treatment of the user: as much of everything, of samples drawn at random."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from defense.artifacts import Scores, Treatment
from defense.config.choices import TreatmentName
from defense.errors import InputError
from defense.runtime.runtime import Runtime
from defense.stages.treat_user import completed, control_of_user
from tests.conftest import DEFAULT, make_split

SPEC = replace(DEFAULT.treatment, name=TreatmentName.own, _target_="my_parts.drop_lowest")
COUNT, CLASSES = 60, 3
TRAIN = make_split(COUNT, CLASSES, (1, 2, 2))
LABELS = TRAIN.labels.numpy()


def control(defended: Treatment, predictions: np.ndarray, seed: int) -> pd.DataFrame:
    """Return the table of the control of a treatment; predictions: of the scored model."""
    scores = Scores(pd.DataFrame({"prediction": predictions}), pd.DataFrame())
    return control_of_user(Runtime(), TRAIN, scores, defended, SPEC, classes=CLASSES, seed=seed).table


def treatment(keep: np.ndarray, label: np.ndarray, weight: np.ndarray) -> Treatment:
    return completed(pd.DataFrame({"keep": keep, "label": label, "weight": weight}), TRAIN, SPEC)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 20), st.integers(0, 15), st.integers(0, 40), st.integers(0, 99))
def test_a_control_keeps_weighs_and_changes_as_many(dropped: int, changed: int, disputed: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    keep = np.ones(COUNT, dtype=bool)
    keep[rng.permutation(COUNT)[:dropped]] = False
    label = LABELS.copy()
    rows = rng.permutation(np.flatnonzero(keep))[:changed]
    label[rows] = (label[rows] + 1) % CLASSES
    weight = rng.uniform(0.5, 1.5, COUNT)
    predictions = np.where(rng.permutation(COUNT) < disputed, (LABELS + 1) % CLASSES, LABELS)
    defended = treatment(keep, label, weight)
    table = control(defended, predictions, seed)
    of_kept = [sorted(each.loc[each["keep"], "weight"]) for each in (table, defended.table)]
    assert of_kept[0] == of_kept[1]
    different = table["label"] != LABELS
    assert different.sum() == changed
    assert table["keep"][different].all()
    agreed = predictions[different] == LABELS[different]
    kept = table["keep"].to_numpy()
    assert agreed.sum() == max(0, changed - (kept & (predictions != LABELS)).sum())
    assert (table["label"].to_numpy()[different][~agreed] == predictions[different][~agreed]).all()


def test_another_seed_draws_other_samples() -> None:
    keep = np.arange(COUNT) >= 12
    drawn = [
        np.flatnonzero(~control(treatment(keep, LABELS, np.ones(COUNT)), LABELS, seed)["keep"])
        for seed in range(400)
    ]
    assert all(len(each) == 12 for each in drawn)
    counts = np.bincount(np.concatenate(drawn), minlength=COUNT)  # binomial: 80 expected, 8 their deviation
    assert counts.min() > 80 - 40
    assert counts.max() < 80 + 40


def test_a_class_that_is_left_without_weight_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"treatment\._target_=my_parts\.drop_lowest: leaves no sample of class 2"
    ):
        treatment(np.ones(COUNT, dtype=bool), LABELS, np.where(LABELS == 2, 0.0, 1.0))
