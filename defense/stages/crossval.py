"""Predict every training sample by a model that has not seen it: cross-validation."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch

from defense import models, robustness, training
from defense.artifacts import HeldOut
from defense.config.choices import reads
from defense.config.schema import Training
from defense.data.splits import Dataset
from defense.errors import InputError
from defense.models.build import Design
from defense.models.predict import predict
from defense.randomness import derive
from defense.runtime.runtime import Runtime
from defense.stages.train import TRAINED_ON, train_network
from defense.store.stage import stage
from defense.training.inputs import TrainingSet


@stage(version=3, code=(models, robustness, training))
def crossval(
    runtime: Runtime,
    design: Design,
    data: Annotated[Dataset, reads(*TRAINED_ON)],
    training: Training,
    *,
    folds: int,
) -> HeldOut:
    """Return probabilities float32 (n, classes) of the training samples, each by a model trained on other folds.

    The folds have every class in its share; all models have the same first weights. Raises InputError if a class
    has fewer samples than there are folds.
    """
    from sklearn.model_selection import StratifiedKFold

    labels = data.train.labels.cpu().numpy()
    least = int(np.bincount(labels).min())
    if least < folds:
        raise InputError("scorer.folds", folds, f"expected at most {least}, the samples of the smallest class")
    chance = derive(design.seed, "folds")
    parts = StratifiedKFold(folds, shuffle=True, random_state=chance).split(labels, labels)
    probabilities = torch.empty((len(labels), data.classes))
    for number, (_, out) in enumerate(parts, start=1):
        keep = torch.ones(len(labels), dtype=torch.bool)
        keep[out] = False
        model = design.build()
        samples = TrainingSet.of(data.train, keep)
        train_network(model, data, training, runtime.alone(), samples=samples, seed=design.seed)
        rows = torch.from_numpy(out)
        logits = predict(model, data.train.subset(rows), batch_size=4 * training.recipe.batch_size)
        probabilities[rows] = logits.float().softmax(1)
        runtime.progress(number, folds)
    return HeldOut({"probabilities": probabilities})
