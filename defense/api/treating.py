"""Turn scores into a list of what to train on, from Python."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from defense.api.samples import Inputs, as_ids, as_labels, as_tensor
from defense.api.scoring import check_whole
from defense.artifacts import Scores
from defense.config.checks import check_treatment
from defense.config.choices import Task, TreatmentName
from defense.config.compose import composed_with
from defense.config.schema import Treat
from defense.data.splits import Split
from defense.errors import InputError
from defense.randomness import derive
from defense.runtime.runtime import Runtime
from defense.stages.treat import control as control_stage
from defense.stages.treat import treat as treat_stage

OFFERED = [
    TreatmentName.remove,
    TreatmentName.relabel,
    TreatmentName.reweight,
]  # what takes scores and no training


def treat(
    scores: pd.Series | Sequence[float],
    labels: Any,
    *,
    budget: float = 0.1,
    threshold: float | None = None,
    treatment: str = "remove",
    balance: str = "none",
    predictions: Any | None = None,
    random: bool = False,
    seed: int = 0,
) -> pd.DataFrame:
    """Return what to train on: keep, label, weight and treated of every sample, by the ids of the scores.

    Args:
        scores: of the training samples, as `defense.score` returns them: the lowest are treated.
        labels: whole numbers (n,), from 0 up, in the order of the scores.
        budget: the part of the samples that is treated, in [0, 1); reweight, which treats all, does not read it.
        threshold: treat every sample that scores below this number instead.
        treatment: remove; relabel, with the label that the model gives; reweight, by the score.
        balance: class spends the budget in every class alike.
        predictions: the labels (n,) that the model gives, for relabel of more than two classes.
        random: treat as many samples drawn at random instead, the control that every treatment must beat.
        seed: of that draw.

    Raises:
        InputError: for the first argument that does not fit, and if a class would lose all of its samples.

    >>> import pandas as pd, defense
    >>> scores = pd.Series([0.2, -1.5, 0.3, 0.1], index=["a", "b", "c", "d"])
    >>> treated = defense.treat(scores, [0, 0, 1, 1], budget=0.25)
    >>> treated.index[treated["keep"]].tolist()
    ['a', 'c', 'd']
    """
    check_whole("seed", seed, 0)
    spec = as_treatment(treatment, budget, threshold, balance)
    table, classes = as_table(scores, labels, predictions, spec)
    rows = torch.arange(len(table))
    own = torch.from_numpy(table["label"].to_numpy(copy=True))
    train = Split(rows, Inputs(torch.empty(len(rows), 0)), own, own)  # a treatment looks at no sample
    given = Scores(table, pd.DataFrame({"name": [], "value": []}))
    found = treat_stage(Runtime(), train, given, spec, classes=classes)
    if random:
        drawn = derive(seed, "control")
        found = control_stage(Runtime(), train, given, found, spec, classes=classes, seed=drawn)
    return found.table.drop(columns="id").set_index(table.index)


def as_treatment(treatment: str, budget: float, threshold: float | None, balance: str) -> Treat:
    """Return the settings of a treatment; raises InputError if they do not fit."""
    names = [str(name) for name in OFFERED]
    if treatment not in names:
        found = "takes trainings; " if treatment == TreatmentName.optimize.value else ""
        raise InputError("treatment", treatment, f"{found}expected one of {', '.join(names)}")
    values = {"budget": budget, "threshold": threshold, "balance": balance}
    spec = composed_with(
        [f"treatment={treatment}"], {f"treatment.{name}": value for name, value in values.items()}
    ).treatment
    if spec.holds_out:
        raise InputError("treatment.budget", budget, "takes trainings; expected a fraction in [0, 1)")
    check_treatment(spec, Task.defend)
    return spec


def as_table(scores: Any, labels: Any, predictions: Any | None, spec: Treat) -> tuple[pd.DataFrame, int]:
    """Return scores, labels and predictions by id, and the number of classes.

    Raises InputError if they do not fit.
    """
    values = np.asarray(scores)
    if values.ndim != 1 or values.dtype.kind not in "fiu" or len(values) == 0:
        raise InputError("scores", f"{values.dtype} of shape {values.shape}", "expected numbers of shape (n,)")
    if not np.isfinite(values).all():
        raise InputError("scores", "NaN or infinity", "expected finite numbers")
    index = as_ids(scores.index if isinstance(scores, pd.Series) else None, len(values))
    own = in_order("labels", labels, index)
    needed = spec.name is TreatmentName.relabel and int(own.max()) > 1
    if predictions is None and needed:
        raise InputError("predictions", None, "expected the labels that the model gives, for treatment=relabel")
    given = own if predictions is None else in_order("predictions", predictions, index)
    table = pd.DataFrame({"id": np.arange(len(values)), "score": values, "label": own, "prediction": given}, index)
    return table, max(2, int(own.max()) + 1, int(given.max()) + 1)


def in_order(field: str, labels: Any, index: pd.Index) -> np.ndarray:
    """Return labels as int64 (n,), in the order of the scores; raises InputError if they do not fit."""
    if isinstance(labels, pd.Series) and not labels.index.equals(index):
        raise InputError(field, "a Series with another index", "expected that of scores, in the same order")
    own = as_labels(field, as_tensor(field, labels), len(index)).cpu().numpy()
    if own.min() < 0:
        raise InputError(field, int(own.min()), "expected classes from 0 up")
    return own
