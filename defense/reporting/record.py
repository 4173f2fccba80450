"""Everything that the report of one run is made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from defense.config.choices import Measure, Protocol
from defense.config.schema import Config
from defense.data.images import Images
from defense.data.splits import Dataset


@dataclass(frozen=True)
class Arm:
    """One retrained model: what it was trained on, how training went, and its results sample by sample."""

    treatment: pd.DataFrame  # as artifacts.Treatment
    history: pd.DataFrame  # as artifacts.TrainedModel
    evaluation: pd.DataFrame  # as artifacts.Evaluation
    checks: dict[str, dict[str, Any]]  # of robustness.checks.Finding, by check; none where they were left out
    learned: dict[str, Any]  # of robustness.checks.Learned, on all test samples


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


OF_A_SCORE = ("trajectory", "metagradient", "score")  # stages of a score, by the first word of their labels


@dataclass(frozen=True)
class Foreseen:
    """Predictions by scores and measurements, for each target and each of m retrainings: (targets, m)."""

    predicted: np.ndarray  # summed scores, of parts of validation
    measured: dict[str, np.ndarray]  # -v, by where samples were attacked: anew, frozen; or clean
    predicted_singles: np.ndarray  # the same of single validation samples; empty without
    measured_singles: dict[str, np.ndarray]


@dataclass(frozen=True)
class Run(Scoring):
    """One finished run of task=defend."""

    arms: dict[str, Arm]  # by the names in tables.ARMS; proxy where the scores come from one
    adversarial: Images  # the validation pictures, attacked at the scored model
    candidates: pd.DataFrame | None  # as selection.Chosen, where the treatment was chosen
    descent: pd.DataFrame | None  # as descent.Descent.rounds, of treatment=optimize
    standing: dict[str, Any]  # of robustness.checks.Standing: under adaptive attack at worst
    further_controls: dict[str, pd.DataFrame] = field(
        default_factory=dict
    )  # as artifacts.Evaluation: control_2, ...

    @property
    def controls(self) -> dict[str, pd.DataFrame]:
        """The evaluation of every random draw, by its name."""
        return {"control": self.arms["control"].evaluation} | self.further_controls


@dataclass(frozen=True)
class Repair(Scoring):
    """One finished run of task=repair."""

    which: list[Measure]  # what is measured
    treatment: pd.DataFrame  # as artifacts.Treatment, of the defended arm
    descent: pd.DataFrame | None  # as descent.Descent.rounds, of treatment=optimize
    measured: dict[str, pd.DataFrame]  # as artifacts.Measurement, by arm
    histories: dict[str, pd.DataFrame]  # as artifacts.TrainedModel, by arm
    arms_learned: dict[str, dict[str, Any]]  # of robustness.checks.Learned, on all test samples


Tables = dict[tuple[float, Protocol], dict[str, pd.DataFrame]]  # artifacts.Evasion by share, protocol and arm


@dataclass(frozen=True)
class Evaded(Scoring):
    """One finished run of task=evade; its scores are those of the largest share, by the strict protocol."""

    tables: Tables
    chosen: dict[float, np.ndarray]  # by share: which test points are moved, bool (n,)
