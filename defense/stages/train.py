"""Train one arm: the baseline on everything, the others on what their treatment leaves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pandas as pd
import torch
from lightning_fabric import Fabric
from torch import nn

from defense.artifacts import Tensors, TrainedModel, Treatment
from defense.choices import Optimizer
from defense.data.splits import Dataset
from defense.influence.members import Checkpoint
from defense.models.build import build
from defense.schema import Threat, Train
from defense.training.converge import converge
from defense.training.loop import fit
from defense.training.recipes import hardening

VERSION = 2

OPTIMIZERS: dict[Optimizer, Callable[..., Iterator[dict[str, float]]]] = {
    Optimizer.sgd: fit,
    Optimizer.lbfgs: converge,
}


def train(
    settings: dict[str, Any],
    data: Dataset,
    recipe: Train,
    treatment: Treatment,
    *,
    threat: Threat,
    seed: int,
    fabric: Fabric,
    watch: Callable[..., None],
) -> TrainedModel:
    """Return the network that `settings` describe, trained by `recipe` on the treated training split.

    threat: what the attack of an adversarial recipe may do. Validation is looked at for the curves alone.
    The weights are those of the last epoch; those of `recipe.checkpoints` - 1 earlier ones are kept beside them.
    """
    model = build(settings, data, seed=seed)
    table = treatment.table
    labels = torch.tensor(table["label"].to_numpy(), device=data.train.labels.device)
    epochs = OPTIMIZERS[recipe.optimizer](
        model,
        replace(data.train, labels=labels),
        data.validation,
        recipe,
        keep=torch.tensor(table["keep"].to_numpy()),
        weights=torch.tensor(table["weight"].to_numpy(), dtype=torch.float32),
        harden=hardening(recipe, threat, data.classes),
        seed=seed,
        fabric=fabric,
        watch=watch,
    )
    history: list[dict[str, float]] = []
    checkpoints: Tensors = {}
    for numbers in epochs:
        history.append(numbers)
        if (epoch := int(numbers["epoch"])) in earlier_epochs(recipe):
            checkpoints |= {f"{epoch}/{name}": value.clone() for name, value in model.state_dict().items()}
    return TrainedModel(dict(model.state_dict()), checkpoints, pd.DataFrame(history))


def earlier_epochs(recipe: Train) -> set[int]:
    """Return the epochs, evenly spaced and before the last, after which the weights are kept."""
    spaced = {round(recipe.epochs * k / recipe.checkpoints) for k in range(1, recipe.checkpoints)}
    return spaced - {0, recipe.epochs}


def checkpoints_of(trained: TrainedModel) -> list[Checkpoint]:
    """Return the kept checkpoints in their order, the last being the final weights.

    Each is weighed by the sum of the learning rates of the epochs that it stands for, those since the one before:
    a one-cycle schedule ends at zero, and the last checkpoint stands for more than that.
    """
    states: dict[int, Tensors] = {}
    for name, value in trained.checkpoints.items():
        when, _, own = name.partition("/")
        states.setdefault(int(when), {})[own] = value
    rates = trained.history.set_index("epoch")["learning_rate"]
    states = dict(sorted(states.items())) | {int(rates.index[-1]): trained.weights}
    found, begin = [], 0
    for epoch, state in states.items():
        found.append(Checkpoint(f"epoch {epoch}", float(rates.loc[begin + 1 : epoch].sum()), state))
        begin = epoch
    return found


def restore(
    settings: dict[str, Any], data: Dataset, trained: TrainedModel, *, seed: int, device: torch.device
) -> nn.Module:
    """Return the network of an arm trained with `seed`, on `device` and in eval mode.

    The seed matters to networks that draw something which is neither a parameter nor a buffer.
    """
    model = build(settings, data, seed=seed)
    model.load_state_dict(trained.weights)
    return model.to(device).eval()
