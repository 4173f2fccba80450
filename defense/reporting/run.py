"""The content of every finished run, whatever its task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from defense.config.schema import Config
from defense.data.splits import Dataset

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


def named(table: pd.DataFrame, data: Dataset) -> pd.DataFrame:
    """Return a table of samples, by their column of ids, with the column of their names beside it."""
    place = table.columns.tolist().index(ID) + 1
    out = table.copy()
    out.insert(place, NAME, data.names_of(table[ID].to_numpy()))
    return out
