"""treatment=optimize: weights of training samples by metagradient descent, and the round whose weights are taken.

One part of validation drives the descent. The other decides. It names the round in which its objective is lowest.
As that is the lowest of several, a treatment by its weights is then compared with none: both are trained from the
same fresh first weights and in the same order. Unless the objective falls on the deciding samples, as surely as
`treatment.confidence` asks for, nothing is treated. None of these trainings is reported.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch

from defense.artifacts import DescentRound, Scores, Treatment
from defense.config.choices import TreatmentName
from defense.config.schema import Treat
from defense.data.splits import Dataset
from defense.errors import InputError
from defense.metagradients.descent import step_weights
from defense.pipeline.run import Run
from defense.reporting.statistics import mean_interval, rank_correlation
from defense.stages.treat import untreated

MEASURED = ("round", "driving", "deciding", "driving_accuracy", "deciding_accuracy", "agreement")
FALL = ("fall", "fall_low", "fall_high")
LIGHTEST = 0.01  # mean weight of the samples of a class, below which the class is lost


@dataclass(frozen=True)
class Descent:
    """The weights of the round that is taken, and all rounds; without a descent, scores as they are."""

    scores: Scores  # of the run, with these weights for scores
    spec: Treat  # of budget 0 if nothing is to be treated
    # round, driving, deciding: the objective on either part; driving_accuracy, deciding_accuracy: in percent, and
    # under attack if the objective looks at that; agreement: rank correlation of the derivatives with those of the
    # round before; fall, fall_low, fall_high: of the objective by the treatment of the round that is compared with
    # none, and its 95 % interval; chosen: the round that is taken. None without a descent
    rounds: pd.DataFrame | None


def descended(run: Run, scores: Scores) -> Descent:
    """Return the weights of a descent if that is the treatment, else the scores as they are."""
    spec = run.config.treatment
    return descend(run, scores) if spec.name is TreatmentName.optimize else Descent(scores, spec, None)


def with_weights(scores: Scores, descent: Descent) -> Scores:
    """Return scores with the weights of a descent as a further column; without a descent, as they are."""
    if descent.rounds is None:
        return scores
    return Scores(scores.table.assign(descent_weight=descent.scores.table["score"]), scores.record)


def descend(run: Run, scores: Scores) -> Descent:
    """Return the weights of a descent along metagradients; scores: of the run, for all but the weights.

    It ends before the last round if a class would lose nearly all its weight.
    """
    spec, labels = run.config.treatment, run.data.train.labels.cpu().numpy()
    weights = [np.ones(len(labels))]
    rows: list[dict[str, float]] = []
    derivatives: list[np.ndarray] = []
    for number in range(spec.rounds + 1):
        found = train_round(run, number, weights[-1])
        rows.append({"round": number} | measured(found))
        if number == spec.rounds:
            break
        derivatives.append(-np.mean([each.scores["score"].to_numpy() for each in found], axis=0))
        if number > 0:
            rows[-1]["agreement"] = rank_correlation(*derivatives[-2:])
        new = step_weights(torch.from_numpy(weights[-1]), torch.from_numpy(derivatives[-1]), spec.rate).numpy()
        if lightest_class(new, labels) < LIGHTEST:
            break
        weights.append(new)
    table = pd.DataFrame(rows).reindex(columns=[*MEASURED, *FALL])
    best = int(table["deciding"].argmin())
    by_weight = Scores(scores.table.assign(score=weights[best]), scores.record)
    if best > 0:
        falls = measure_falls(run, run.treat(by_weight, spec, "descent"))
        table.loc[best, list(FALL)] = mean_interval(falls).columns(FALL[0])
        if not mean_interval(falls, confidence=spec.confidence).low > 0:
            best = 0
    if best == 0:
        by_weight, spec = Scores(scores.table.assign(score=1.0), scores.record), replace(spec, budget=0.0)
    return Descent(by_weight, spec, table.assign(chosen=table["round"] == best))


def check_room_for_removal(spec: Treat, data: Dataset) -> None:
    """Raise InputError if a removal by the weights would leave fewer samples than classes."""
    total = len(data.train)
    left = total - round(spec.budget * total)
    if spec.effect is TreatmentName.remove and left < data.classes:
        said = f"leaves {left} training samples for {data.classes} classes; expected a milder treatment"
        raise InputError("treatment.budget", spec.budget, said)


def measure_falls(run: Run, treatment: Treatment) -> np.ndarray:
    """Return how far a treatment lowers the contribution to the objective of each deciding sample, (n,).

    With it and without, trainings begin with the same first weights and have the same order, which no round has. A
    sample counts by its mean over as many of them as the scorer takes the mean over.
    """
    falls = [
        run.deciding("untreated", which, untreated(run.data.train)).table["contribution"]
        - run.deciding("treated", which, treatment).table["contribution"]
        for which in range(run.config.scorer.seeds)
    ]
    return np.mean(falls, axis=0)


def train_round(run: Run, number: int, weights: np.ndarray) -> list[DescentRound]:
    """Return one round under each of its trainings, as many as the scorer takes the mean over."""
    treatment = Treatment(untreated(run.data.train).table.assign(weight=weights))
    return [run.descent(number, which, treatment) for which in range(run.config.scorer.seeds)]


def measured(found: list[DescentRound]) -> dict[str, float]:
    """Return the objective and the accuracy on either part of validation, as means over trainings."""
    mean = pd.concat([each.measured for each in found]).groupby("part", sort=False).mean(numeric_only=True)
    names = {"driving": "validation", "deciding": "choice"}
    values = {name: mean["objective"][part] for name, part in names.items()}
    return values | {f"{name}_accuracy": mean["accuracy"][part] for name, part in names.items()}


def lightest_class(weights: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean weight of the samples of the class in which it is lowest."""
    return min(float(weights[labels == label].mean()) for label in np.unique(labels))
