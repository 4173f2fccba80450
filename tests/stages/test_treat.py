from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from defense.config.choices import TreatmentName
from defense.config.schema import Treat
from defense.errors import InputError
from defense.stages.treat import TREATMENTS, RankedSamples, untreated
from tests.calls import control, order_of, treat
from tests.conftest import DEFAULT, make_split

SPLIT = make_split(40, 4, (1, 2, 2))
LABELS = SPLIT.labels.numpy()
PREDICTIONS = (LABELS + 1) % 4
SEED = 5
ORDER = order_of(40, SEED)


def spec(**changes: Any) -> Treat:
    defaults = {**vars(DEFAULT.treatment), "budget": 0.25}
    return Treat(**defaults | changes)


def suggestion(scores: np.ndarray) -> RankedSamples:
    return RankedSamples(scores, PREDICTIONS, LABELS, classes=4)


SCORES = np.random.default_rng(1).normal(size=40)


@given(st.lists(st.floats(-5, 5), min_size=40, max_size=40), st.floats(0, 0.2))
def test_the_lowest_go_and_as_many_as_the_budget_says(values: list[float], budget: float) -> None:
    scores = np.array(values)
    keep = treat(SPLIT, suggestion(scores), spec(budget=budget)).table["keep"].to_numpy()
    assert (~keep).sum() == round(budget * 40)
    if not keep.all():
        assert scores[~keep].max() <= scores[keep].min()


def test_removal_changes_nothing_else() -> None:
    table = treat(SPLIT, suggestion(SCORES), spec()).table
    expected = untreated(SPLIT).table
    for column in ("id", "label", "weight"):
        assert table[column].tolist() == expected[column].tolist()
    assert table["treated"].tolist() == (~table["keep"]).tolist()
    assert not expected["treated"].any()


def test_a_threshold_takes_every_harmful_sample() -> None:
    table = treat(SPLIT, suggestion(SCORES), spec(threshold=0.0)).table
    assert table["treated"].tolist() == (SCORES < 0).tolist()


@pytest.mark.parametrize("name", [TreatmentName.remove, TreatmentName.relabel])
def test_a_balanced_budget_is_spent_in_every_class(name: TreatmentName) -> None:
    balanced = spec(name=name, budget=0.3, balance="class")
    defended = treat(SPLIT, suggestion(SCORES), balanced)
    other = control(SPLIT, defended, suggestion(SCORES), balanced, SEED)
    for table in (defended.table, other.table):
        assert [int(table["treated"][label == LABELS].sum()) for label in range(4)] == [3, 3, 3, 3]
    for label in range(4):
        rows = np.flatnonzero(label == LABELS)
        lowest = rows[np.argsort(SCORES[rows])[:3]]
        assert set(lowest) == set(np.flatnonzero(defended.table["treated"])) & set(rows)


def test_relabelling_gives_the_label_that_the_model_gives() -> None:
    table = treat(SPLIT, suggestion(SCORES), spec(name=TreatmentName.relabel)).table
    rows = np.argsort(SCORES)[:10]
    expected = LABELS.copy()
    expected[rows] = PREDICTIONS[rows]
    assert table["label"].tolist() == expected.tolist()
    assert table["keep"].all()
    assert set(np.flatnonzero(table["treated"])) == set(rows)


def test_two_classes_are_swapped() -> None:
    split = make_split(20, 2, (1, 2, 2))
    labels = split.labels.numpy()
    two = RankedSamples(np.arange(20.0), labels, labels, classes=2)  # the model agrees with the label
    table = treat(split, two, spec(name=TreatmentName.relabel, budget=0.2)).table
    assert table["label"].tolist() == [*(1 - labels[:4]), *labels[4:]]


def test_weights_follow_the_definition() -> None:
    table = treat(SPLIT, suggestion(SCORES), spec(name=TreatmentName.reweight)).table
    raw = [np.exp((score - SCORES.mean()) / SCORES.std()) for score in SCORES]
    clipped = [min(weight, 2) for weight in raw]
    expected = [weight / (sum(clipped) / 40) for weight in clipped]
    assert max(raw) > 2
    np.testing.assert_allclose(table["weight"], expected)
    assert table["treated"].tolist() == [weight < 1 for weight in expected]
    same = treat(SPLIT, suggestion(np.ones(40)), spec(name=TreatmentName.reweight)).table
    assert (same["weight"] == 1).all()


def test_a_score_far_above_the_others_does_not_take_all_the_weight() -> None:
    scores = np.where(np.arange(40) == 7, 1e6, SCORES)
    weights = treat(SPLIT, suggestion(scores), spec(name=TreatmentName.reweight)).table["weight"]
    assert weights.mean() == pytest.approx(1)
    assert weights.min() > 0.5


def test_what_the_model_agrees_with_is_not_relabelled() -> None:
    """Else a budget is spent on samples whose label stays, and a control changes more labels than the defence."""
    agreed = np.where(np.arange(40) < 20, LABELS, PREDICTIONS)
    some = RankedSamples(SCORES, agreed, LABELS, classes=4)
    relabelled = spec(name=TreatmentName.relabel)
    defended = treat(SPLIT, some, relabelled)
    other_label = np.arange(20, 40)
    assert set(np.flatnonzero(defended.table["treated"])) == set(other_label[np.argsort(SCORES[other_label])[:10]])
    assert set(np.flatnonzero(defended.table["label"] != LABELS)) == set(np.flatnonzero(defended.table["treated"]))
    other = control(SPLIT, defended, some, relabelled, SEED).table
    assert set(np.flatnonzero(other["label"] != LABELS)) == set(other_label[np.argsort(ORDER[other_label])[:10]])
    most = treat(SPLIT, some, spec(name=TreatmentName.relabel, budget=0.9))
    assert most.table["treated"].sum() == 20
    with pytest.raises(
        InputError, match=r"treatment\.budget=0\.9: the model gives 20 of 40 samples another label"
    ):
        control(SPLIT, most, some, spec(name=TreatmentName.relabel, budget=0.9), SEED)
    below = treat(SPLIT, some, spec(name=TreatmentName.relabel, threshold=0.0))
    assert set(np.flatnonzero(below.table["treated"])) == set(other_label[SCORES[other_label] < 0])


@pytest.mark.parametrize("name", list(TREATMENTS))
def test_the_control_is_of_equal_size_and_drawn_by_its_order_alone(name: TreatmentName) -> None:
    chosen = spec(name=name)
    defended = treat(SPLIT, suggestion(SCORES), chosen)
    found = control(SPLIT, defended, suggestion(SCORES), chosen, SEED).table
    assert found["treated"].sum() == defended.table["treated"].sum()
    assert found["treated"].dtype == bool
    assert found["treated"].tolist() != defended.table["treated"].tolist()
    if name.weighs:
        assert sorted(found["weight"]) == sorted(defended.table["weight"])
    else:
        assert set(np.flatnonzero(found["treated"])) == set(np.argsort(ORDER)[:10])
    if name is TreatmentName.relabel:
        rows = np.flatnonzero(found["treated"])
        assert found["label"].to_numpy()[rows].tolist() == PREDICTIONS[rows].tolist()


def test_a_class_must_not_vanish() -> None:
    scores = np.where(LABELS == 2, -1.0, 1.0)
    with pytest.raises(InputError, match=r"treatment.budget=0.25: leaves no sample of class 2"):
        treat(SPLIT, suggestion(scores), spec())
    with pytest.raises(InputError, match=r"treatment.threshold=0.5: leaves no sample of class 2"):
        treat(SPLIT, suggestion(scores), spec(threshold=0.5))
