"""From scores to what a retraining sees of each training sample, and the control of equal size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import pandas as pd

from defense.artifacts import Scores, Treatment
from defense.config.choices import TreatmentName, reads
from defense.config.schema import Treat
from defense.data.splits import Split
from defense.errors import InputError
from defense.randomness import random_scores
from defense.runtime.runtime import Runtime
from defense.store.stage import stage

READ = ("table.score", "table.prediction", "table.label")  # of scores


@dataclass(frozen=True)
class RankedSamples:
    """The samples in order of the training split, as a treatment looks at them."""

    scores: np.ndarray  # float (n,): the lowest are treated
    predictions: np.ndarray  # int (n,): the labels that the scored model gives
    labels: np.ndarray  # int (n,): as given
    classes: int

    @classmethod
    def by(cls, scores: Scores, classes: int) -> RankedSamples:
        """Return what scores suggest."""
        score, prediction, label = (scores.table[name].to_numpy() for name in ("score", "prediction", "label"))
        return cls(score, prediction, label, classes)


def untreated(train: Split) -> Treatment:
    """Return the treatment that leaves everything as it is."""
    table = {"id": train.ids.numpy(), "keep": True, "label": train.labels.cpu().numpy(), "weight": 1.0}
    return Treatment(pd.DataFrame({**table, "treated": False}))


def trusting(train: Split, trusted: int, weight: float) -> Treatment:
    """Return the treatment that lets the last `trusted` samples weigh `weight` times as much; the mean stays 1."""
    weights = np.where(np.arange(len(train)) < len(train) - trusted, 1.0, weight)
    return Treatment(untreated(train).table.assign(weight=weights / weights.mean()))


@stage(version=4)
def treat(
    runtime: Runtime,
    train: Annotated[Split, reads("ids", "labels")],
    scores: Annotated[Scores, reads(*READ)],
    spec: Treat,
    *,
    classes: int,
) -> Treatment:
    """Treat the samples with the lowest scores; see `chosen` for which.

    Raises InputError if the treatment leaves a class without samples.
    """
    ranked = RankedSamples.by(scores, classes)
    rows = np.arange(len(train)) if spec.effect.weighs else chosen(ranked, spec)
    treated = TREATMENTS[spec.effect](untreated(train), ranked, rows)
    return no_class_lost(treated, train, spec)


@stage(version=4)
def control(
    runtime: Runtime,
    train: Annotated[Split, reads("ids", "labels")],
    scores: Annotated[Scores, reads(*READ)],
    defended: Treatment,
    spec: Treat,
    *,
    classes: int,
    seed: int,
) -> Treatment:
    """Return the treatment of equal size with its samples drawn at random.

    If samples are removed or relabelled: as many (in every class, if the budget is balanced), treated the same
    way. If they are weighed: the same weights, shuffled. Raises InputError if there is nothing else to draw.
    """
    ranked = RankedSamples.by(scores, classes)
    order = random_scores(len(train), seed=seed).numpy()
    if spec.effect.weighs:
        shuffled = defended.table[["weight", "treated"]].to_numpy()[np.argsort(order, kind="stable")]
        return Treatment(
            untreated(train).table.assign(weight=shuffled[:, 0].astype(float), treated=shuffled[:, 1].astype(bool))
        )
    selected = chosen(ranked, spec)
    if 0 < len(selected) == len(eligible_rows(ranked, spec)) < len(train):
        found = f"the model gives {len(selected)} of {len(train)} samples another label"
        valid = f"expected a budget below {len(selected) / len(train):.2g}, so that a control can be drawn"
        raise InputError("treatment.budget", spec.budget, f"{found}; {valid}")
    treated = TREATMENTS[spec.effect](untreated(train), ranked, random_rows(selected, ranked, spec, order))
    return no_class_lost(treated, train, spec)


def chosen(ranked: RankedSamples, spec: Treat) -> np.ndarray:
    """Return the rows to treat: below `threshold` if it is given, else the round(budget * n) lowest scores.

    They are taken from the `eligible_rows`, and are fewer if there are not as many. With balance "class" the
    budget is spent in every class alike. Ties go to the lower row.
    """
    scores, labels, rows = ranked.scores, ranked.labels, eligible_rows(ranked, spec)
    if spec.threshold is not None:
        return rows[scores[rows] < spec.threshold]
    if spec.balance == "class":
        classes = [(rows[labels[rows] == label], int((labels == label).sum())) for label in np.unique(labels)]
        return np.concatenate([own[lowest(scores[own], round(spec.budget * size))] for own, size in classes])
    return rows[lowest(scores[rows], round(spec.budget * len(scores)))]


def eligible_rows(ranked: RankedSamples, spec: Treat) -> np.ndarray:
    """Return the rows that a treatment can change: of relabel those that the model gives another label."""
    if spec.name is TreatmentName.relabel and ranked.classes > 2:
        return np.flatnonzero(ranked.predictions != ranked.labels)
    return np.arange(len(ranked.labels))


def random_rows(selected: np.ndarray, ranked: RankedSamples, spec: Treat, order: np.ndarray) -> np.ndarray:
    """Return as many rows as are `selected`, lowest in `order`; as many per class if the budget is balanced."""
    labels, rows = ranked.labels, eligible_rows(ranked, spec)
    if spec.balance != "class":
        return rows[lowest(order[rows], len(selected))]
    classes = [
        (rows[labels[rows] == label], int((labels[selected] == label).sum())) for label in np.unique(labels)
    ]
    return np.concatenate([own[lowest(order[own], count)] for own, count in classes])


def lowest(values: np.ndarray, count: int) -> np.ndarray:
    """Return the rows of the `count` lowest values; ties go to the lower row."""
    return np.argsort(values, kind="stable")[:count]


def no_class_lost(treatment: Treatment, train: Split, spec: Treat) -> Treatment:
    """Return the treatment; raises InputError if a class of the training split has no sample left."""
    table = treatment.table
    lost = set(train.labels.tolist()) - set(table["label"][table["keep"]])
    if lost:
        field, value, other = "budget", spec.budget, ", or treatment.balance=class"
        if spec.threshold is not None:
            field, value, other = "threshold", spec.threshold, ""
        valid = f"leaves no sample of class {min(lost)}; expected a milder treatment{other}"
        raise InputError(f"treatment.{field}", value, valid)
    return treatment


def remove(treatment: Treatment, ranked: RankedSamples, rows: np.ndarray) -> Treatment:
    """Leave the samples at `rows` out."""
    keep = treatment.table["keep"].to_numpy().copy()
    keep[rows] = False
    return Treatment(treatment.table.assign(keep=keep, treated=~keep))


def relabel(treatment: Treatment, ranked: RankedSamples, rows: np.ndarray) -> Treatment:
    """Give the samples at `rows` the label that the model gives them; for two classes the other one."""
    labels = ranked.labels.copy()
    labels[rows] = 1 - labels[rows] if ranked.classes == 2 else ranked.predictions[rows]
    return Treatment(treatment.table.assign(label=labels, treated=np.isin(np.arange(len(labels)), rows)))


def reweight(treatment: Treatment, ranked: RankedSamples, rows: np.ndarray) -> Treatment:
    """Weigh every sample by exp of the z-score of its score, clipped to at most 2, and then divided by the mean.

    Clipped first: a few scores far above the others would else take nearly all the weight.
    """
    scores = ranked.scores.astype(float)
    spread = scores.std()
    raw = np.exp(((scores - scores.mean()) / spread if spread > 0 else np.zeros_like(scores)).clip(max=np.log(2)))
    weights = raw / raw.mean()
    return Treatment(treatment.table.assign(weight=weights, treated=weights < 1))


def weigh(treatment: Treatment, ranked: RankedSamples, rows: np.ndarray) -> Treatment:
    """Take the scores for weights, as a descent returns them."""
    return Treatment(treatment.table.assign(weight=ranked.scores, treated=ranked.scores < 1))


TREATMENTS: dict[TreatmentName, Callable[[Treatment, RankedSamples, np.ndarray], Treatment]] = {
    TreatmentName.remove: remove,
    TreatmentName.relabel: relabel,
    TreatmentName.reweight: reweight,
    TreatmentName.optimize: weigh,
}
