"""Accuracy and gaps of a table of predictions, counted by hand."""

from __future__ import annotations

import pandas as pd
import pytest

from defense.config.choices import Measure
from defense.tasks.repair.measures import GAPS, measured

# group 0: 3 of 4 samples given class 1, and both of class 1; group 1: 1 of 5, and one of three
TABLE = pd.DataFrame(
    [
        (0, 1, 1), (0, 1, 1), (0, 0, 1), (0, 0, 0),
        (1, 1, 1), (1, 1, 0), (1, 1, 0), (1, 0, 0), (1, 0, 0),
    ],
    columns=["group", "label", "prediction"],
).assign(part="test")  # fmt: skip


@pytest.mark.extra("fairlearn")
def test_gaps_are_differences_of_shares_between_groups() -> None:
    found = measured(TABLE, [Measure.accuracy, *GAPS], positive=1)
    assert found == pytest.approx(
        {
            "accuracy": 100 * 6 / 9,
            "demographic_parity": 100 * (3 / 4 - 1 / 5),
            "equal_opportunity": 100 * (1 - 1 / 3),
        }
    )


@pytest.mark.extra("fairlearn")
def test_the_favourable_class_can_be_the_other() -> None:
    found = measured(TABLE, list(GAPS), positive=0)
    assert found["demographic_parity"] == pytest.approx(100 * (4 / 5 - 1 / 4))
    assert found["equal_opportunity"] == pytest.approx(100 * (2 / 2 - 1 / 2))


@pytest.mark.extra("fairlearn")
def test_three_groups_are_compared_by_the_extremes() -> None:
    more = pd.DataFrame({"group": 2, "label": 1, "prediction": [1, 1], "part": "test"})
    found = measured(pd.concat([TABLE, more]), [Measure.demographic_parity], positive=1)
    assert found["demographic_parity"] == pytest.approx(100 * (1 - 1 / 5))


def test_given_samples_are_measured_apart() -> None:
    given = pd.DataFrame({"label": [0, 1], "prediction": [0, 0], "part": "given"})
    found = measured(pd.concat([TABLE, given]), [Measure.accuracy, Measure.given], positive=1)
    assert found == pytest.approx({"accuracy": 100 * 6 / 9, "given": 50})
