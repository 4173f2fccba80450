"""What a verdict says of clean accuracy, and that numbers of a run are made from counts."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from defense.config.compose import composed
from defense.pipeline.selection import measured
from defense.reporting.arms import accuracies
from defense.reporting.statistics import Mean, tango
from defense.tasks.defend.result import difference
from defense.tasks.defend.verdict import clean_said
from defense.tasks.repair.measures import accuracy
from tests.conftest import TINY, run_in


def run(count: int, *, treated: bool = True, **right: int) -> Any:
    """A run whose arms have the first `right` of `count` test samples right."""
    arms = {}
    for arm, number in right.items():
        stands = np.arange(count) < number
        columns = {"id": range(count), "prediction": 0, "clean": stands, "transfer": stands}
        table = pd.DataFrame(columns | {"adaptive.pgd": stands, "adaptive.worst": stands})
        arms[arm] = SimpleNamespace(evaluation=table, treatment=pd.DataFrame({"treated": [treated, False]}))
    return SimpleNamespace(arms=arms, controls={"control": arms["control"].evaluation})


def said(**right: int) -> str:
    changes = {over: difference(run(500, **right), "clean", second=over) for over in ("control", "baseline")}
    return clean_said(changes)


def test_a_loss_of_clean_accuracy_is_named_with_its_interval() -> None:
    """Of 500 samples 29 are lost against the control: -5.8 points, as in the trial of treatment.budget=auto."""
    low, high = (100 * end for end in tango(0, 29, 500, confidence=0.95))
    assert said(control=475, defended=446, baseline=446) == (
        f"Clean accuracy fell: -5.8 points against the control ({low:+.1f} to {high:+.1f})."
    )
    both = said(control=475, defended=446, baseline=470)
    assert both.startswith(
        f"Clean accuracy fell: -5.8 points against the control ({low:+.1f} to {high:+.1f}), -4.8 "
    )
    assert both.count("against the baseline") == 1


@pytest.mark.parametrize(
    ("control", "baseline", "words"),
    [
        (446, 446, ""),
        (449, 443, ""),  # three samples either way are within the interval
        (420, 446, "Clean accuracy rose: +5.2 points against the control"),
        (475, 420, "Clean accuracy fell: -5.8 points against the control"),
    ],
)
def test_what_the_interval_does_not_tell_from_nothing_is_not_named(
    control: int, baseline: int, words: str
) -> None:
    found = said(control=control, defended=446, baseline=baseline)
    assert found.startswith(words)
    assert bool(found) is bool(words)
    if control > 446 > baseline and words:
        assert "Clean accuracy rose: +5.2 points against the baseline" in found


def test_seven_of_fifty_are_fourteen_percent_wherever_they_are_counted() -> None:
    """Not 14.000000000000002, which 100 times the mean is."""
    arms = run(50, control=7, defended=29, baseline=28).arms
    assert accuracies(arms["control"].evaluation) == {
        "clean": 14.0,
        "transfer": 14.0,
        "adaptive": {"pgd": 14.0, "worst": 14.0},
    }
    assert repr(accuracies(arms["defended"].evaluation)["clean"]) == "58.0"
    assert repr(accuracies(arms["baseline"].evaluation)["clean"]) == "56.0"
    table = pd.DataFrame({"label": np.zeros(50, int), "prediction": (np.arange(50) >= 7).astype(int)})
    assert repr(accuracy(table, 1)) == "14.0"


def test_one_model_does_not_differ_from_itself_by_luck() -> None:
    """Nothing was treated: all arms are the baseline, and no interval is made up."""
    found = difference(run(50, treated=False, control=7, defended=7), "clean")
    assert str(found) == "+0.0"
    assert found.as_json("samples") == {"mean": 0.0, "low": None, "high": None, "samples": 50}


def test_candidates_have_tangos_interval_at_the_confidence_of_their_number() -> None:
    """Of 40 samples held out three are gained and none is lost: that is no gain yet."""
    right = {"control": np.arange(40) < 20, "defended": np.arange(40) < 23}

    def evaluate(arm: str, *_: Any, **__: Any) -> Any:
        return SimpleNamespace(table=pd.DataFrame({"adaptive.worst": right[arm.partition("_")[0]]}))

    run: Any = SimpleNamespace(train=lambda *_, **__: None, evaluate=evaluate)
    nothing: Any = None
    found = measured(run, composed().treatment, nothing, nothing, confidence=1 - 0.05 / 4)
    ends = tango(3, 0, 40, confidence=1 - 0.05 / 4)
    assert (found.control, found.defended) == (50.0, 57.5)
    assert found.gain == Mean(7.5, 100 * ends[0], 100 * ends[1], 40)
    assert not found.beats_its_control


def test_a_gain_over_random_that_is_below_no_treatment_says_so(tmp_path: Path) -> None:
    """Of two runs whose control falls far, one ends above the baseline and one below."""
    words = [*TINY, f"store={tmp_path / 'store'}"]
    for seed in range(4):
        found = run_in(tmp_path / str(seed), *words, f"seed={seed}")
        worst = {arm: own["adaptive"]["worst"] for arm, own in found["arms"].items()}
        below = worst["baseline"] - worst["defended"]
        told = f"That is {below:.1f} points less than no treatment"
        assert (told in found["verdict"]) == (below > 0 and "took accuracy" in found["verdict"])
