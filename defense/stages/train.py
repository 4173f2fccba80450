"""Train one arm: the baseline on everything, the others on what their treatment leaves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pandas as pd
import torch
from lightning_fabric import Fabric
from torch import nn

from defense.artifacts import TrainedModel, Treatment
from defense.data.splits import Dataset
from defense.models.build import build
from defense.schema import Train
from defense.training.loop import fit

VERSION = 1


def train(
    settings: dict[str, Any],
    data: Dataset,
    recipe: Train,
    treatment: Treatment,
    *,
    seed: int,
    fabric: Fabric,
    watch: Callable[..., None],
) -> TrainedModel:
    """Return the network that `settings` describe, trained by `recipe` on the treated training split.

    The validation split is looked at for the curves alone. The weights are those of the last epoch.
    """
    model = build(settings, data, seed=seed)
    table = treatment.table
    labels = torch.tensor(table["label"].to_numpy(), device=data.train.labels.device)
    epochs = fit(
        model,
        replace(data.train, labels=labels),
        data.validation,
        recipe,
        keep=torch.tensor(table["keep"].to_numpy()),
        weights=torch.tensor(table["weight"].to_numpy(), dtype=torch.float32),
        seed=seed,
        fabric=fabric,
        watch=watch,
    )
    history = pd.DataFrame(list(epochs))
    return TrainedModel(weights=dict(model.state_dict()), history=history)


def restore(
    settings: dict[str, Any], data: Dataset, trained: TrainedModel, *, seed: int, device: torch.device
) -> nn.Module:
    """Return the network of an arm trained with `seed`, on `device` and in eval mode.

    The seed matters to networks that draw something which is neither a parameter nor a buffer.
    """
    model = build(settings, data, seed=seed)
    model.load_state_dict(trained.weights)
    return model.to(device).eval()
