"""Score every training sample at a trained model."""

from __future__ import annotations

import pandas as pd
import torch.nn.functional as F
from torch import nn

from defense.artifacts import Scores
from defense.data.splits import Split
from defense.influence.alignment import Watch
from defense.influence.batching import fitted
from defense.influence.objectives import Validation
from defense.influence.scorers import METHODS, Problem
from defense.models.predict import predict
from defense.schema import Objective, Scorer

VERSION = 2


def score(
    model: nn.Module,
    train: Split,
    validation: Validation,
    objective: Objective,
    scorer: Scorer,
    *,
    attacked: Split | None = None,
    seed: int,
    watch: Watch,
) -> Scores:
    """Return the score of each training sample, with the model's prediction and loss beside it.

    attacked: the training samples attacked at the model, for the settings that need them. Where the scorer has
    several members, or the objective several terms, the share of each stands in a column of its own.
    """
    problem = Problem(model, train, attacked, validation, objective, scorer, seed, watch)
    scored = METHODS[scorer.method](problem)
    logits = fitted(scorer.batch_size, train, lambda size: predict(model, train, batch_size=size))
    table = pd.DataFrame(
        {
            "id": train.ids.numpy(),
            "score": scored.total.numpy(),
            "label": train.labels.cpu().numpy(),
            "truth": train.truth.cpu().numpy(),
            "prediction": logits.argmax(1).numpy(),
            "loss": F.cross_entropy(logits, train.labels.cpu(), reduction="none").numpy(),
            **{f"score.{name}": values.numpy() for name, values in (scored.parts | scored.members).items()},
        }
    )
    record = pd.DataFrame({"name": list(scored.record), "value": list(scored.record.values())})
    return Scores(table, record.astype({"name": "str", "value": "float64"}))
