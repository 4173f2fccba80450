"""What every finished run has, and what result.json holds of it whatever its task."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from typing import Any

import pandas as pd

from defense.config.schema import Config
from defense.data.splits import Dataset
from defense.reporting.health import SCORED, health_of
from defense.runtime.versions import version

PACKAGES = (
    "defense", "torch", "torchvision", "torchattacks", "curvlinops-for-pytorch", "lightning-fabric",
    "hydra-core", "numpy", "scikit-learn",
)  # fmt: skip
OF_A_SCORE = ("trajectory", "metagradient", "score")  # stages of a score, by the first word of their labels
ID, NAME = "id", "name"  # columns of every table of samples


@dataclass(frozen=True)
class Scoring:
    """What every finished run has: its settings, its data, and a score for every training sample."""

    config: Config
    settings: dict[str, Any]  # the config as plain values
    overrides: list[str]
    data: Dataset
    scores: pd.DataFrame  # as artifacts.Scores
    record: dict[str, float]  # of artifacts.Scores: residuals, iterations, values of the objective
    keys: dict[str, str]  # of each stage: its entry in the store, as in train/<key>
    seconds: dict[str, float]  # of each stage, when it was computed
    reused: list[str]  # stages taken from the store
    device: str
    learned: dict[str, Any]  # of robustness.checks.Learned: the scored model, on its training samples


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


def named(table: pd.DataFrame, data: Dataset) -> pd.DataFrame:
    """Return a table of samples, by their column of ids, with the column of their names beside it."""
    place = table.columns.tolist().index(ID) + 1
    out = table.copy()
    out.insert(place, NAME, data.names_of(table[ID].to_numpy()))
    return out
