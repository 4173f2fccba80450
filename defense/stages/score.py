"""Score every training sample at a trained model."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from torch import Tensor, nn

from defense.artifacts import Scores
from defense.config.schema import Objective, Scorer
from defense.data.splits import Split
from defense.influence.members import Checkpoint
from defense.influence.objectives import Validation
from defense.influence.scorers import METHODS, Problem, judged
from defense.runtime.checkpoint import Forgetful, Memory
from defense.runtime.distributed import ALONE, Crew
from defense.runtime.progress import Watch

VERSION = 7


def score(
    model: nn.Module,
    train: Split,
    validation: Validation,
    objective: Objective,
    scorer: Scorer,
    *,
    attacked: Split | None = None,
    states: Sequence[Checkpoint] = (),
    held_out: Tensor | None = None,
    seed: int,
    watch: Watch,
    memory: Memory | None = None,
    crew: Crew = ALONE,
) -> Scores:
    """Return the score of each training sample, with the model's prediction and loss beside it.

    attacked: the training samples attacked at the model; states: checkpoints of its training; held_out:
    probabilities (n, classes) of models that have not seen the sample; where they are needed. memory: keeps what
    is finished, so that a killed scoring goes on where it was. crew: the processes that share the samples; each
    returns all scores. Where the scorer has several members, or the objective several terms, the share of each
    stands in a column of its own.
    """
    memory = memory or Forgetful()
    given = (model, train, attacked, validation, objective, scorer, seed, watch, states, memory, crew, held_out)
    problem = Problem(*given)
    scored = METHODS[scorer.method](problem)
    prediction, losses = judged(model, train, scorer.batch_size, crew=crew)
    table = pd.DataFrame(
        {
            "id": train.ids.numpy(),
            "score": scored.total.numpy(),
            "label": train.labels.cpu().numpy(),
            "truth": train.truth.cpu().numpy(),
            "prediction": prediction.numpy(),
            "loss": losses.numpy(),
            **{f"score.{name}": values.numpy() for name, values in (scored.parts | scored.members).items()},
        }
    )
    return Scores(table, as_table(scored.record))


def mean(each: dict[str, Scores]) -> Scores:
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
