"""Predict every training sample by a model that has not seen it: cross-validation."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric

from defense.artifacts import HeldOut
from defense.config.schema import Threat, Train
from defense.data.splits import Dataset
from defense.errors import InputError
from defense.models.build import build
from defense.models.predict import predict
from defense.randomness import derive
from defense.runtime.progress import Watch
from defense.stages.train import trained

VERSION = 2


def cross_validate(
    settings: dict[str, Any],
    data: Dataset,
    recipe: Train,
    folds: int,
    *,
    threat: Threat,
    seed: int,
    fabric: Fabric,
    watch: Watch,
) -> HeldOut:
    """Return probabilities float32 (n, classes) of the training samples, each by a model trained on other folds.

    The folds have every class in its share; all models have the same first weights. Raises InputError where a
    class has fewer samples than there are folds.
    """
    from sklearn.model_selection import StratifiedKFold

    labels = data.train.labels.cpu().numpy()
    least = int(np.bincount(labels).min())
    if least < folds:
        raise InputError("scorer.folds", folds, f"expected at most {least}, the samples of the smallest class")
    parts = StratifiedKFold(folds, shuffle=True, random_state=derive(seed, "folds")).split(labels, labels)
    probabilities = torch.empty((len(labels), data.classes))
    for number, (_, out) in enumerate(parts, start=1):
        keep = torch.ones(len(labels), dtype=torch.bool)
        keep[out] = False
        model = build(settings, data, seed=seed)
        trained(model, data, recipe, keep=keep, threat=threat, seed=seed, fabric=fabric)
        rows = torch.from_numpy(out)
        logits = predict(model, data.train.subset(rows), batch_size=4 * recipe.batch_size)
        probabilities[rows] = logits.float().softmax(1)
        watch(number, folds)
    return HeldOut({"probabilities": probabilities})
