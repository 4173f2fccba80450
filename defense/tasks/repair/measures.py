"""The measures of an arm that nobody attacks: accuracy, and gaps between groups as fairlearn defines them.

A gap is the highest minus the lowest share over groups, of hard decisions; the objectives of a score are the same
of probabilities. All are in percent or points.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from defense.config.choices import Measure, ObjectiveName
from defense.data.splits import Dataset
from defense.errors import InputError
from defense.reporting.compare import Metric
from defense.reporting.statistics import percent, points

Function = Callable[[pd.DataFrame, int], float]


@dataclass(frozen=True)
class Measured:
    """How a measure is taken of a table of predictions, and the metric that settings are compared by."""

    function: Function
    part: str  # of the samples
    metric: Metric


def accuracy(table: pd.DataFrame, positive: int) -> float:
    """Return the share of samples whose prediction is their label, in percent."""
    return percent((table["prediction"] == table["label"]).sum(), len(table))


def demographic_parity(table: pd.DataFrame, positive: int) -> float:
    """Return the gap between groups in the share that is given the class `positive`, in points."""
    from fairlearn.metrics import demographic_parity_difference

    return _gap(demographic_parity_difference, table, positive)


def equal_opportunity(table: pd.DataFrame, positive: int) -> float:
    """Return the gap between groups in the share of class `positive` that is given it, in points."""
    from fairlearn.metrics import equal_opportunity_difference

    return _gap(equal_opportunity_difference, table, positive)


def gap(path: str, name: str) -> Metric:
    """Return the metric of a gap between groups."""
    return Metric(path, name, unit="points", lower_is_better=True)


def _gap(function: Callable[..., float], table: pd.DataFrame, positive: int) -> float:
    truth, given = (np.asarray(table[name] == positive, dtype=int) for name in ("label", "prediction"))
    return points(100 * function(truth, given, sensitive_features=table["group"]))


MEASURES: dict[Measure, Measured] = {
    Measure.accuracy: Measured(accuracy, "test", Metric("accuracy", "accuracy")),
    Measure.given: Measured(accuracy, "given", Metric("given", "accuracy on samples attacked by others")),
    Measure.demographic_parity: Measured(
        demographic_parity, "test", gap("demographic_parity", "demographic parity gap")
    ),
    Measure.equal_opportunity: Measured(
        equal_opportunity, "test", gap("equal_opportunity", "equal opportunity gap")
    ),
}
GAPS = (Measure.demographic_parity, Measure.equal_opportunity)
AIMS = {  # what an objective is about
    ObjectiveName.utility: Measure.accuracy,
    ObjectiveName.robustness: Measure.given,
    ObjectiveName.demographic_parity: Measure.demographic_parity,
    ObjectiveName.equal_opportunity: Measure.equal_opportunity,
    ObjectiveName.own: Measure.accuracy,
}


def measures_of(data: Dataset) -> list[Measure]:
    """Return the measures on test; raises InputError if that takes fairlearn, which is not installed."""
    found = [Measure.accuracy]
    if "test" in data.given:
        found.append(Measure.given)
    if data.test.groups is not None:
        try:
            import fairlearn.metrics  # noqa: F401
        except ImportError as error:
            said = 'gaps between groups are measured by fairlearn: pip install -e ".[fairness]"'
            raise InputError("data.sensitive", "groups", said) from error
        found += GAPS
    return found


def measured(table: pd.DataFrame, which: list[Measure], *, positive: int) -> dict[str, float]:
    """Return every measure of the predictions of one arm; table: as of artifacts.Measurement."""
    parts = {name: rows for name, rows in table.groupby("part")}
    return {str(name): MEASURES[name].function(parts[MEASURES[name].part], positive) for name in which}
