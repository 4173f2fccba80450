"""Score every training sample at a trained model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import pandas as pd
from torch import Tensor

from defense import influence, models
from defense.artifacts import HeldOut, Scores
from defense.config.schema import Objective, Scorer
from defense.data.splits import Split
from defense.data.validation import Validation
from defense.influence.scorers import METHODS, ScoringContext, predict_with_losses
from defense.models.checkpoints import Checkpoint
from defense.runtime.runtime import Runtime
from defense.stages.trained import Model
from defense.store.stage import stage, unread

ELSEWHERE = ("name", "proxy", "seeds", "folds")  # settings of a scorer that choose its models, folds and name


@stage(version=8, code=(influence, models), shared=True)
def score(
    runtime: Runtime,
    model: Model,
    train: Split,
    validation: Validation | None,
    objective: Objective | None,
    scorer: Annotated[Scorer, unread(*ELSEWHERE)],
    *,
    attacked: Split | None = None,
    states: Sequence[Checkpoint] = (),
    held_out: HeldOut | None = None,
    seed: int,
) -> Scores:
    """Return the score of each training sample, with the model's prediction and loss beside it.

    validation, objective: None for a scorer that looks at no objective. attacked: the training samples attacked at
    the model; states: checkpoints of its training; held_out: predictions of models that have not seen the sample;
    each if the scorer needs it. If the scorer has several members, or the objective several terms, the share of
    each is a column of its own.
    """
    network, probabilities = model.network, held_out.tensors["probabilities"] if held_out else None
    problem = ScoringContext(
        network, train, attacked, validation, objective, scorer, seed, states, probabilities, runtime
    )
    scored = METHODS[scorer.method](problem)
    prediction, losses = predict_with_losses(network, train, scorer.batch_size, ranks=runtime.ranks)
    table = as_scores(train, scored.total, prediction, losses)
    parts = {f"score.{name}": values.numpy() for name, values in (scored.parts | scored.members).items()}
    return Scores(table.assign(**parts), as_table(scored.record))


def as_scores(train: Split, scores: Tensor, prediction: Tensor, losses: Tensor) -> pd.DataFrame:
    """Return the table of scores, a row for each training sample."""
    columns = {"id": train.ids, "score": scores, "label": train.labels, "truth": train.truth}
    columns |= {"prediction": prediction, "loss": losses}
    return pd.DataFrame({name: values.cpu().numpy() for name, values in columns.items()})


@stage(version=1, code=(influence, models), shared=True)
def score_by_file(
    runtime: Runtime, model: Model, train: Split, given: Tensor, *, batch_size: int | None
) -> Scores:
    """Return scores (n,) that somebody else has made, with the model's prediction and loss beside them."""
    prediction, losses = predict_with_losses(model.network, train, batch_size, ranks=runtime.ranks)
    return Scores(as_scores(train, given, prediction, losses), as_table({}))


@stage(version=2, code=(influence, models))
def score_mean(runtime: Runtime, each: Mapping[str, Scores]) -> Scores:
    """Return the mean of scores taken at several models, by name; see `mean`."""
    return mean(each)


def mean(each: Mapping[str, Scores]) -> Scores:
    """Return the mean of scores taken at several models, by name, with the score of each in a column of its own.

    Prediction and loss are those of the first model.
    """
    tables = {name: scores.table["score"] for name, scores in each.items()}
    first = next(iter(each.values())).table
    plain = first[[name for name in first.columns if not name.startswith("score.")]]
    columns = {f"score.{name}": values for name, values in tables.items()}
    record = {
        f"{name} {said.name}": said.value
        for name, scores in each.items()
        for said in scores.record.itertuples(index=False)
    }
    total = sum(tables.values()) / len(tables)
    return Scores(plain.assign(score=total, **columns), as_table(record))


def as_table(record: dict[str, float]) -> pd.DataFrame:
    """Return a record as a table of names and values."""
    table = pd.DataFrame({"name": list(record), "value": list(record.values())})
    return table.astype({"name": "str", "value": "float64"})
