"""The numbers of one run, for machines (result.json) and for the pages that people read."""

from __future__ import annotations

import platform
from typing import Any

import pandas as pd

from defense.reporting.descent import rounds_as_json
from defense.reporting.learning import SCORED, health_of
from defense.reporting.outcomes import arm_accuracies, difference, draw_accuracies, treated
from defense.reporting.record import Run, Scoring
from defense.reporting.selection import of_one_class, one_class, selection
from defense.reporting.tables import trusted_of
from defense.reporting.verdict import verdict
from defense.runtime.versions import version

PACKAGES = (
    "defense", "torch", "torchvision", "torchattacks", "curvlinops-for-pytorch", "lightning-fabric",
    "hydra-core", "numpy", "scikit-learn",
)  # fmt: skip


def result(run: Run) -> dict[str, Any]:
    """Return what result.json holds: accuracies in percent, fractions in [0, 1], times in seconds."""
    taken = run.arms["defended"].treatment["treated"].to_numpy()
    learned = {name: arm.learned for name, arm in run.arms.items()}
    health = health_of(learned, run.data.class_names, run.standing)
    return {
        "verdict": verdict(run, health),
        "gain_over_control": difference(run, "adaptive.worst").as_json("samples"),
        **{
            f"gain_over_{arm}": difference(run, "adaptive.worst", second=arm).as_json("samples")
            for arm in trusted_of(run.arms)
        },
        "clean_change": {
            over: difference(run, "clean", second=over).as_json("samples") for over in ("control", "baseline")
        },
        "arms": arm_accuracies(run),
        **({"controls": draw_accuracies(run)} if run.further_controls else {}),
        "checks": {name: arm.checks for name, arm in run.arms.items() if arm.checks},
        "selection": selection(run, taken),
        "one_class": one_class(run, taken),
        **({} if run.candidates is None else {"candidates": candidates(run.candidates)}),
        **({} if run.descent is None else {"descent": rounds_as_json(run.descent)}),
        **common(run),
        "health": health,
        "sizes": {
            **{part: len(getattr(run.data, part)) for part in ("train", "validation", "test")},
            "treated": treated(run),
            "of_one_class": of_one_class(run, taken),
        },
    }


def candidates(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return what a treatment was chosen from, a candidate each; ends of no interval are None."""
    return [
        {str(name): None if pd.isna(value) else value for name, value in row.items()}
        for row in table.to_dict("records")
    ]


def common(run: Scoring) -> dict[str, Any]:
    """Return what the result.json of every task holds."""
    return {
        "name": run.config.name,
        "task": str(run.config.task),
        "seed": run.config.seed,
        "sizes": {part: len(getattr(run.data, part)) for part in ("train", "validation", "test")},
        "left_out": run.data.left_out,
        "health": health_of({SCORED: run.learned}, run.data.class_names),
        "scoring": {"record": run.record, "members": spread(run.scores)},
        "keys": run.keys,
        "seconds": run.seconds,
        "reused": run.reused,
        "overrides": run.overrides,
        "device": run.device,
        "versions": versions(),
        "config": run.settings,
    }


def spread(scores: pd.DataFrame) -> dict[str, float]:
    """Return the rank correlation with the score of each of its parts: members, and terms of the objective."""
    parts = [name for name in scores.columns if name.startswith("score.")]
    return {
        name.removeprefix("score."): float(scores["score"].corr(scores[name], method="spearman"))
        for name in parts
        if scores[name].nunique() > 1 and scores["score"].nunique() > 1
    }


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that the numbers depend on."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}
