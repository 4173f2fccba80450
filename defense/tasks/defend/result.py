"""One run of task=defend: its arms, their accuracies, and what result.json holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from defense.data.images import Images
from defense.reporting.arms import accuracies, arms_of, header, lookup, shown_metrics, spoken, trusted_of
from defense.reporting.escaping import markdown
from defense.reporting.run import Scoring
from defense.reporting.statistics import Mean, paired_accuracies, paired_difference, points


@dataclass(frozen=True)
class Arm:
    """One retrained model: what it was trained on, how training went, and its results sample by sample."""

    treatment: pd.DataFrame  # as artifacts.Treatment
    history: pd.DataFrame  # as artifacts.TrainedModel
    evaluation: pd.DataFrame  # as artifacts.Evaluation
    checks: dict[str, dict[str, Any]]  # of robustness.checks.Finding, by check; none where they were left out
    learned: dict[str, Any]  # of robustness.checks.Learned, on all test samples


@dataclass(frozen=True)
class Run(Scoring):
    """One finished run of task=defend."""

    arms: dict[str, Arm]  # by the names in arms.ARMS; proxy if the scores come from one
    adversarial: Images  # the validation pictures, attacked at the scored model
    candidates: pd.DataFrame | None  # as selection.Chosen, if the treatment was chosen
    descent: pd.DataFrame | None  # as descent.Descent.rounds, of treatment=optimize
    standing: dict[str, Any]  # of robustness.checks.Standing: under adaptive attack at worst
    further_controls: dict[str, pd.DataFrame] = field(
        default_factory=dict
    )  # as artifacts.Evaluation: control_2, ...

    @property
    def controls(self) -> dict[str, pd.DataFrame]:
        """The evaluation of every random draw, by its name."""
        return {"control": self.arms["control"].evaluation} | self.further_controls


def arm_accuracies(run: Run) -> dict[str, dict[str, Any]]:
    """Return `accuracies` by arm; those of the control are means over all random draws."""
    found = {name: accuracies(arm.evaluation) for name, arm in run.arms.items()}
    return found | {"control": mean_accuracies([*draw_accuracies(run).values()])}


def draw_accuracies(run: Run) -> dict[str, dict[str, Any]]:
    """Return `accuracies` of every random draw, by its name."""
    return {name: accuracies(table) for name, table in run.controls.items()}


def mean_accuracies(several: Sequence[Any]) -> Any:
    """Return the mean of numbers, or of nested numbers by their names."""
    if isinstance(several[0], dict):
        return {name: mean_accuracies([each[name] for each in several]) for name in several[0]}
    return several[0] if len(several) == 1 else points(np.mean(several))


def difference(run: Run, metric: str, first: str = "defended", second: str = "control") -> Mean:
    """Return first - second in points of accuracy, with an interval over the test samples that they share.

    The interval is Tango's. Beside the mean of several random draws it is Student's, of the differences by sample.
    If nothing was treated the arms are one model: they differ by nothing, and no luck is in that. Trusted arms are
    models of their own.
    """
    one, other = (run.arms[name].evaluation[metric].to_numpy() for name in (first, second))
    if not treated(run) and not trusted_of((first, second)):
        return Mean(0.0, np.nan, np.nan, len(one))
    if second == "control" and len(run.controls) > 1:
        draws = np.mean([table[metric].to_numpy() for table in run.controls.values()], axis=0)
        return paired_difference(100 * one.astype(float), 100 * draws)
    return paired_accuracies(one, other)


def treated(run: Run) -> int:
    """Return how many training samples the defended arm removes, relabels, or weighs less."""
    return int(run.arms["defended"].treatment["treated"].sum())


def arm_rows(run: Run) -> list[dict[str, str]]:
    """Return one row per metric: its name, each arm in percent, and defended - control with its interval."""
    arms = {name: own for name, own in arm_accuracies(run).items() if name in arms_of(run.arms)}
    return [
        {
            "metric": spoken(metric),
            **{name: f"{lookup(arm, metric):.1f}" for name, arm in arms.items()},
            "difference": str(difference(run, metric)),
        }
        for metric in shown_metrics(arms["baseline"])
    ]


def arms_table(run: Run) -> str:
    """Return the table of the arms for a terminal."""
    columns = ("metric", *arms_of(run.arms), "difference")
    return markdown(header(run.arms), [[row[key] for key in columns] for row in arm_rows(run)])
