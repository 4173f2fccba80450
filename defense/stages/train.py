"""Train one arm: the baseline on everything, the others on what their treatment leaves."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Annotated, Any

import pandas as pd
import torch
from torch import nn

from defense import models, robustness, training
from defense.artifacts import Tensors, TrainedModel, Treatment
from defense.config.choices import Optimizer, reads
from defense.config.schema import Train, Training
from defense.data.splits import Dataset, Split
from defense.models.build import Design
from defense.runtime.checkpoint import ThrottledCheckpoint, packed, unpacked
from defense.runtime.distributed import SharedCheckpoint
from defense.runtime.runtime import Runtime
from defense.store.stage import stage
from defense.training.epochs import EpochEnd, EpochSelection
from defense.training.inputs import Criteria, Measure, TrainingSet
from defense.training.lbfgs import fit_lbfgs
from defense.training.loop import fit
from defense.training.recipes import losses_of
from defense.training.validation import measuring

log = logging.getLogger(__name__)

OPTIMIZERS: dict[Optimizer, Callable[..., Iterator[EpochEnd]]] = {
    Optimizer.sgd: fit,
    Optimizer.lbfgs: fit_lbfgs,
}
TREATED_ON = (
    "train.images",
    "validation.images",
    "validation.labels",
    "classes",
)  # its labels are the treatment's
TRAINED_ON = ("train.labels", *TREATED_ON)
SEEN = ("table.keep", "table.label", "table.weight")  # of a treatment


def shares_batches(arguments: Mapping[str, Any]) -> bool:
    """Return whether several processes share the batches of a training: sgd alone has batches."""
    return arguments["training"].recipe.optimizer is Optimizer.sgd


@stage(
    version=5,
    code=(models, robustness, training),
    shared=shares_batches,
    as_before={"kept": None},
    counts_ranks=True,
)
def train(
    runtime: Runtime,
    design: Design,
    data: Annotated[Dataset, reads(*TREATED_ON)],
    training: Training,
    treatment: Annotated[Treatment, reads(*SEEN)],
    *,
    kept: int | None = None,
) -> TrainedModel:
    """Return the network of a design trained on the treated training split.

    Validation gives the curves and the epoch that is kept. If that is given as `kept`, training ends with it and
    looks at no validation. Test is never looked at. The checkpoint of `runtime` keeps an epoch now and then, and a
    killed training goes on after it.
    """
    samples = training_set(data.train, treatment)
    return train_network(
        design.build(),
        data,
        training,
        runtime,
        samples=samples,
        seed=design.seed,
        kept=kept,
    )


def untrained(design: Design) -> TrainedModel:
    """Return the network of a design as it stands, with the history of no epoch."""
    if not {"weights", "folder"} & {name for name, value in design.settings.items() if value is not None}:
        log.warning("no model.weights: the network has the weights that model._target_ gives it")
    history = pd.DataFrame({"epoch": [0], "learning_rate": [0.0], "kept": [True]})
    return TrainedModel(dict(design.build().state_dict()), {}, history)


def training_set(train: Split, treatment: Treatment) -> TrainingSet:
    """Return the training split as a treatment leaves it."""
    table = treatment.table
    labels = torch.tensor(table["label"].to_numpy(), device=train.labels.device)
    weights = torch.tensor(table["weight"].to_numpy(), dtype=torch.float32)
    return TrainingSet(replace(train, labels=labels), torch.tensor(table["keep"].to_numpy()), weights)


def train_network(
    model: nn.Module,
    data: Dataset,
    training: Training,
    runtime: Runtime,
    *,
    samples: TrainingSet,
    seed: int,
    kept: int | None = None,
) -> TrainedModel:
    """Train `model` in place on `samples`; it ends at the epoch that is kept.

    kept: that epoch, from 1; None: the validation of `data` says. Of the earlier epochs whose weights the recipe
    asks for, those after the kept one are left out.
    """
    recipe = training.recipe
    throttled = ThrottledCheckpoint(runtime.checkpoint)
    checkpoint = SharedCheckpoint(throttled, runtime.ranks)
    begun = checkpoint.load("training")
    nothing: dict[str, Any] = {"history": [], "checkpoints": {}, "choice": {}, "after": None}
    known = unpacked(begun) if begun else nothing
    history: list[dict[str, float]] = known["history"]
    checkpoints: dict[int, Tensors] = known["checkpoints"]
    choice = EpochSelection(recipe, until=kept)
    choice.load(known["choice"])
    measure: Measure = unmeasured
    if kept is None:
        measure = measuring(data.validation, training, runtime, classes=data.classes, seed=seed)
    ends = OPTIMIZERS[recipe.optimizer](
        model,
        samples,
        recipe,
        runtime,
        criteria=Criteria(losses_of(training, data.classes), measure),
        seed=seed,
        after=known["after"],
    )
    for end in ends:
        history.append(end.numbers)
        if (epoch := int(end.numbers["epoch"])) in earlier_epochs(recipe):
            checkpoints[epoch] = {name: value.clone() for name, value in end.weights.items()}
        if choice.look(end):
            break
        if throttled.due():
            so_far = {"history": history, "checkpoints": checkpoints, "choice": choice.state()}
            checkpoint.save("training", packed(so_far | {"after": end.state()}))
    best = choice.best
    if kept not in (None, best.epoch):
        raise ValueError(f"epoch {kept} is to be kept, and training ended with epoch {best.epoch}")
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


def unmeasured(network: nn.Module, epoch: int) -> dict[str, float]:
    """Return no numbers: there are no samples to measure a network on that it is not trained on."""
    return {}


def earlier_epochs(recipe: Train) -> set[int]:
    """Return the epochs, evenly spaced and before the last, after which the weights are kept."""
    spaced = {round(recipe.epochs * k / recipe.checkpoints) for k in range(1, recipe.checkpoints)}
    return spaced - {0, recipe.epochs}
