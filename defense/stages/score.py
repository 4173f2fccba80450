"""Score every training sample at the baseline."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import torch.nn.functional as F
from torch import nn

from defense.artifacts import Scores
from defense.data.splits import Split
from defense.influence.objectives import OBJECTIVES, Validation
from defense.influence.scorers import SCORERS, Problem
from defense.models.predict import predict
from defense.schema import Objective, Scorer

VERSION = 1


def score(
    model: nn.Module,
    train: Split,
    validation: Validation,
    objective: Objective,
    scorer: Scorer,
    *,
    seed: int,
    watch: Callable[..., None],
) -> Scores:
    """Return the score of each training sample, with the model's prediction and loss beside it."""
    problem = Problem(model, train, OBJECTIVES[objective.name](validation), scorer.batch_size, seed, watch)
    scores = SCORERS[scorer.name](problem)
    logits = predict(model, train, batch_size=scorer.batch_size)
    labels = train.labels.cpu()
    table = pd.DataFrame(
        {
            "id": train.ids.numpy(),
            "score": scores.numpy(),
            "label": labels.numpy(),
            "truth": train.truth.cpu().numpy(),
            "prediction": logits.argmax(1).numpy(),
            "loss": F.cross_entropy(logits, labels, reduction="none").numpy(),
        }
    )
    return Scores(table)
