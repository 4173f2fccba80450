"""The numbers of the arms of one run: accuracies, and their differences over the test samples that they share."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from defense.reporting.record import Run
from defense.reporting.statistics import Mean, paired_accuracies, percent
from defense.reporting.tables import arms_of, header, lookup, markdown, metrics, spoken, trusted_of


def accuracies(evaluation: pd.DataFrame) -> dict[str, Any]:
    """Return {clean, triggered, transfer, adaptive: {attack: ..., worst: ...}} in percent.

    triggered: where there is a planted trigger.
    """
    nested: dict[str, Any] = {}
    for column in evaluation.columns.drop(["id", "prediction"]):
        kind, _, attack = str(column).partition(".")
        share = percent(evaluation[column].sum(), len(evaluation))
        if attack:
            nested.setdefault(kind, {})[attack] = share
        else:
            nested[kind] = share
    return nested


def difference(run: Run, metric: str, first: str = "defended", second: str = "control") -> Mean:
    """Return first - second in points of accuracy, with Tango's interval over the test samples they share.

    Where nothing was treated the arms are one model: they differ by nothing, and no luck is in that. Trusted arms
    are models of their own.
    """
    one, other = (run.arms[name].evaluation[metric].to_numpy() for name in (first, second))
    apart = treated(run) or trusted_of((first, second))
    return paired_accuracies(one, other) if apart else Mean(0.0, np.nan, np.nan, len(one))


def treated(run: Run) -> int:
    """Return how many training samples the defended arm removes, relabels, or weighs less."""
    return int(run.arms["defended"].treatment["treated"].sum())


def last_attack(run: Run) -> str:
    """Return the attack that all others come before: what survives it is the accuracy at worst."""
    *_, last = (name for name in accuracies(run.arms["baseline"].evaluation)["adaptive"] if name != "worst")
    return str(last)


def arm_rows(run: Run) -> list[dict[str, str]]:
    """Return one row per metric: its name, each arm in percent, and defended - control with its interval.

    The last attack has none: its row would be the one at worst again.
    """
    arms = {name: accuracies(run.arms[name].evaluation) for name in arms_of(run.arms)}
    again = f"adaptive.{last_attack(run)}"
    return [
        {
            "metric": spoken(metric),
            **{name: f"{lookup(arm, metric):.1f}" for name, arm in arms.items()},
            "difference": str(difference(run, metric)),
        }
        for metric in metrics(arms["baseline"])
        if metric != again
    ]


def arms_table(run: Run) -> str:
    """Return the table of the arms for a terminal."""
    columns = ("metric", *arms_of(run.arms), "difference")
    return markdown(header(run.arms), [[row[key] for key in columns] for row in arm_rows(run)])
