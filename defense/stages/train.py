"""Train one arm: the baseline on everything, the others on what their treatment leaves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pandas as pd
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from defense.artifacts import Tensors, TrainedModel, Treatment
from defense.config.choices import Optimizer
from defense.config.schema import Threat, Train
from defense.data.splits import Dataset
from defense.influence.members import Checkpoint
from defense.models.build import build
from defense.runtime.checkpoint import Memory, Seldom, packed, unpacked
from defense.runtime.distributed import ALONE, Common, Crew
from defense.runtime.progress import Watch, silent
from defense.training.converge import converge
from defense.training.epochs import Choice, EpochEnd
from defense.training.loop import fit
from defense.training.recipes import losses_of
from defense.training.validation import measuring

VERSION = 4

OPTIMIZERS: dict[Optimizer, Callable[..., Iterator[EpochEnd]]] = {
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
    watch: Watch,
    memory: Memory | None = None,
    crew: Crew = ALONE,
) -> TrainedModel:
    """Return the network that `settings` describe, trained by `recipe` on the treated training split.

    threat: what the attacks of a recipe, and those that choose its epoch, may do. Validation is looked at for the
    curves and for the epoch that is kept; test never is. memory: keeps an epoch now and then, which a killed
    training goes on after. crew: the processes that share every batch of sgd; each returns the same model.
    """
    table = treatment.table
    labels = torch.tensor(table["label"].to_numpy(), device=data.train.labels.device)
    return trained(
        build(settings, data, seed=seed),
        replace(data, train=replace(data.train, labels=labels)),
        recipe,
        keep=torch.tensor(table["keep"].to_numpy()),
        weights=torch.tensor(table["weight"].to_numpy(), dtype=torch.float32),
        threat=threat,
        seed=seed,
        fabric=fabric,
        watch=watch,
        memory=memory,
        crew=crew,
    )


def trained(
    model: nn.Module,
    data: Dataset,
    recipe: Train,
    *,
    keep: Tensor,
    weights: Tensor | None = None,
    threat: Threat,
    seed: int,
    fabric: Fabric,
    watch: Watch = silent,
    memory: Memory | None = None,
    crew: Crew = ALONE,
) -> TrainedModel:
    """Train `model` in place on the kept samples of data.train; it ends at the epoch that is kept.

    keep, weights: as of `defense.training.loop.fit`, None: all weigh the same; memory: as of `train`. Of the
    `recipe.checkpoints` - 1 earlier epochs whose weights stand beside them, those after the kept one are left out.
    """
    seldom = Seldom(memory)
    common = Common(seldom, crew)
    kept = common.recall("training")
    nothing: dict[str, Any] = {"history": [], "checkpoints": {}, "choice": {}, "after": None}
    known = unpacked(kept) if kept else nothing
    history: list[dict[str, float]] = known["history"]
    checkpoints: dict[int, Tensors] = known["checkpoints"]
    choice = Choice(recipe)
    choice.load(known["choice"])
    ends = OPTIMIZERS[recipe.optimizer](
        model,
        data.train,
        recipe,
        keep=keep,
        weights=torch.ones(len(keep)) if weights is None else weights,
        losses=losses_of(recipe, threat, data.classes),
        measure=measuring(
            data.validation, recipe, threat, classes=data.classes, seed=seed, fabric=fabric, crew=crew
        ),
        seed=seed,
        fabric=fabric,
        watch=watch,
        after=known["after"],
        **({"crew": crew} if crew.size > 1 else {}),  # who converges is alone
    )
    for end in ends:
        history.append(end.numbers)
        if (epoch := int(end.numbers["epoch"])) in earlier_epochs(recipe):
            checkpoints[epoch] = {name: value.clone() for name, value in end.weights.items()}
        if choice.look(end):
            break
        if seldom.due():
            so_far = {"history": history, "checkpoints": checkpoints, "choice": choice.state()}
            common.keep("training", packed(so_far | {"after": end.state()}))
    best = choice.best
    model.load_state_dict(best.weights)
    table = pd.DataFrame(history)
    return TrainedModel(
        best.weights,
        {
            f"{epoch}/{name}": x
            for epoch, state in checkpoints.items()
            if epoch < best.epoch
            for name, x in state.items()
        },
        table.assign(kept=table["epoch"] == best.epoch),
    )


def earlier_epochs(recipe: Train) -> set[int]:
    """Return the epochs, evenly spaced and before the last, after which the weights are kept."""
    spaced = {round(recipe.epochs * k / recipe.checkpoints) for k in range(1, recipe.checkpoints)}
    return spaced - {0, recipe.epochs}


def checkpoints_of(trained: TrainedModel) -> list[Checkpoint]:
    """Return the checkpoints in their order, the last being the weights of the epoch that was kept.

    Each is weighed by the sum of the learning rates of the epochs that it stands for, those since the one before:
    a one-cycle schedule ends at zero, and the last checkpoint stands for more than that.
    """
    states: dict[int, Tensors] = {}
    for name, value in trained.checkpoints.items():
        when, _, own = name.partition("/")
        states.setdefault(int(when), {})[own] = value
    history = trained.history.set_index("epoch")
    rates, kept = history["learning_rate"], int(history.index[history["kept"]][0])
    states = dict(sorted(states.items())) | {kept: trained.weights}
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
