"""A treatment that the user brings: a function from a table of samples to what a retraining sees of them."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import pandas as pd
import torch
from pandas.api import types

from defense.artifacts import Scores, Treatment
from defense.config.choices import reads
from defense.config.schema import Treat
from defense.data.splits import Split
from defense.randomness import generator, random_scores
from defense.runtime.runtime import Runtime
from defense.runtime.user_function import UserFunction
from defense.stages.treat import READ, untreated
from defense.store.stage import stage

FIELD = "treatment"
SHOWN = ("score", "label", "prediction", "loss")  # to the function, of each sample
COLUMNS = ("keep", "label", "weight")  # that it returns
LESS = 1 - 1e-9  # a weight below it is lowered


@stage(version=1)
def treat_by_user(
    runtime: Runtime,
    train: Annotated[Split, reads("ids", "labels")],
    scores: Annotated[Scores, reads(*READ, "table.loss")],
    spec: Treat,
    *,
    classes: int,
    seed: int,
) -> Treatment:
    """Return what the function that `spec` names makes of the samples; weights are divided by their mean.

    Raises InputError if it does not give keep, label and weight of each sample, or leaves a class without any.
    """
    samples = scores.table[list(SHOWN)].set_index(pd.Index(train.ids.numpy(), name="id"))
    return completed(called(spec, FIELD, samples, classes=classes, seed=seed), train, spec)


@stage(version=1)
def control_of_user(
    runtime: Runtime,
    train: Annotated[Split, reads("ids", "labels")],
    scores: Annotated[Scores, reads("table.prediction")],
    defended: Treatment,
    spec: Treat,
    *,
    classes: int,
    seed: int,
) -> Treatment:
    """Return as much treatment of samples drawn at random: keep and weight shuffled, as many labels changed.

    Labels change among the kept samples, those that the model gives another label first, and to that label. If
    there are too few of them, the others get another label at random.
    """
    given, predicted = train.labels.cpu().numpy(), scores.table["prediction"].to_numpy()
    order = random_scores(len(train), seed=seed).numpy()
    table, label = defended.table[list(COLUMNS)].copy(), given.copy()
    count = int((table["keep"] & (table["label"] != given)).sum())
    kept_last = np.argsort(table["keep"].to_numpy(), kind="stable")
    shuffled = table[["keep", "weight"]].iloc[kept_last].set_axis(np.argsort(order, kind="stable")).sort_index()
    agreed = (predicted == given) & (classes > 2)  # of two classes the other one is known
    changed = np.lexsort((order, agreed, ~shuffled["keep"].to_numpy()))[:count]
    step = torch.randint(1, classes, (len(given),), generator=generator(seed, "other labels")).numpy()
    label[changed] = np.where(predicted != given, predicted, (given + step) % classes)[changed]
    return completed(shuffled.assign(label=label), train, spec)


def called(spec: Treat, field: str, samples: pd.DataFrame, *, classes: int, seed: int) -> pd.DataFrame:
    """Return keep, label and weight by the function that `spec` names, in the order of `samples`.

    field: of the settings, for errors. Raises InputError if the function gives anything else.
    """
    function = UserFunction.of(spec, field)
    found = function(samples.copy(), budget=spec.budget, classes=classes, seed=seed)
    if not isinstance(found, pd.DataFrame):
        raise function.refusal(f"gives a {type(found).__name__}; expected a pandas.DataFrame")
    missing = [name for name in COLUMNS if name not in found]
    if missing:
        raise function.refusal(f"gives no column {', '.join(missing)}; expected {', '.join(COLUMNS)}")
    if not found.index.sort_values().equals(samples.index.sort_values()):
        said = f"gives {len(found)} rows for {len(samples)} samples, or other ids"
        raise function.refusal(f"{said}; expected the index of the samples, each id once")
    table = found.loc[samples.index, list(COLUMNS)]
    keep, label, weight = (table[name] for name in COLUMNS)
    if not types.is_bool_dtype(keep):
        raise function.refusal(f"gives keep as {keep.dtype}; expected bool")
    if not types.is_integer_dtype(label) or not label.between(0, classes - 1).all():
        raise function.refusal(f"gives label as {label.dtype}; expected whole numbers from 0 to {classes - 1}")
    if not types.is_numeric_dtype(weight) or not np.isfinite(weight).all() or (weight < 0).any():
        raise function.refusal("gives a weight that is no number, not finite or below 0; expected 1 as usual")
    if not weight[keep].sum() > 0:
        raise function.refusal("leaves no sample of a weight above 0; expected some")
    return table.assign(weight=weight / weight[keep].mean())


def completed(table: pd.DataFrame, train: Split, spec: Treat) -> Treatment:
    """Return a treatment by keep, label and weight; raises InputError if a class is left without any weight."""
    keep, label, weight = (table[name].to_numpy() for name in COLUMNS)
    given = train.labels.cpu().numpy()
    lost = set(given) - set(label[keep & (weight > 0)])
    if lost:
        said = f"leaves no sample of class {min(lost)}; expected some of every class"
        raise UserFunction.of(spec, FIELD).refusal(said)
    treated = ~keep | (label != given) | (weight < LESS)
    values = {"keep": keep, "label": label.astype(given.dtype), "weight": weight.astype(float)}
    return Treatment(untreated(train).table.assign(**values, treated=treated))


def check_user_treatment(spec: Treat, train: Split, classes: int) -> None:
    """Raise InputError unless the function treats a few samples, with scores and predictions that are made up."""
    UserFunction.of(spec, FIELD).check_signature(("samples",), ("budget", "classes", "seed"))
    label, chance = train.labels.cpu().numpy(), random_scores(len(train), seed=0).numpy()
    columns = {"score": chance, "label": label, "prediction": (label + (chance > 0)) % classes}
    samples = pd.DataFrame(columns | {"loss": chance + 1}, index=pd.Index(train.ids.numpy(), name="id"))
    called(spec, FIELD, samples, classes=classes, seed=0)
