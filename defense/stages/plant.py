"""Plant the harm that takes a model trained on the unharmed samples: flips at its boundary, and poisons."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated

import pandas as pd
import torch
from torch import Tensor, nn

from defense import models, robustness
from defense.artifacts import Planted, Tensors
from defense.config.choices import Harm, reads
from defense.config.schema import Data, Threat
from defense.data.harm import draws, flip_nearest, flip_symmetric, whole
from defense.data.overlays import Overlaid
from defense.data.splits import Split
from defense.errors import out_of_memory_names
from defense.models.modes import evaluating, frozen
from defense.models.predict import predict
from defense.robustness.attacks import toward
from defense.runtime.progress import Progress
from defense.runtime.runtime import Runtime
from defense.stages.trained import Model
from defense.store.stage import stage

STEPS = 40  # of the descent that makes a poison; the 100 of Ilyas et al. 2019 lower its loss by 3 % more

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Planting:
    """The model, samples and settings that a harm is made from."""

    model: nn.Module
    train: Split
    rate: float
    ball: Threat | None
    classes: int
    batch_size: int
    seed: int
    progress: Progress


@stage(version=3, code=(models, robustness))
def plant(
    runtime: Runtime,
    model: Model,
    train: Annotated[Split, reads("ids", "images", "labels")],
    spec: Annotated[Data, reads("harm", "harm_rate")],
    *,
    ball: Threat | None = None,
    batch_size: int,
    seed: int,
) -> Planted:
    """Return the harm of `spec` for the training split, made at `model`, which was trained on that split as it is.

    ball: the change that a poison may make. Raises InputError if the split has too few samples for the harm.
    """
    rate, progress = spec.harm_rate, runtime.progress
    planting = Planting(model.network, train, rate, ball, model.classes, batch_size, seed, progress)
    labels, pictures = PLANTERS[spec.harm](planting)
    planted = whole(replace(train, labels=labels), spec, classes=model.classes)
    rows = (labels != train.labels).nonzero().flatten().cpu()
    table = {"row": rows.numpy(), "id": train.ids[rows].numpy(), "label": planted.labels[rows].cpu().numpy()}
    return Planted(pd.DataFrame(table), pictures)


def harmed(train: Split, planted: Planted) -> Split:
    """Return the training split with its harm planted; `truth` stays."""
    rows = torch.tensor(planted.table["row"].to_numpy())
    labels = train.labels.clone()
    labels[rows] = torch.tensor(planted.table["label"].to_numpy(), device=labels.device)
    if "pictures" not in planted.tensors:
        return replace(train, labels=labels)
    pictures = planted.tensors["pictures"].to(labels.device)
    return replace(train, labels=labels, images=Overlaid(train.images, rows, pictures))


def ball_of(spec: Data, threat: Threat) -> Threat | None:
    """Return the ball of a poison: in the run's norm, and of its radius unless the data have one of their own."""
    if spec.harm is not Harm.poison:
        return None
    return threat if spec.harm_eps is None else replace(threat, eps=spec.harm_eps)


def boundary(planting: Planting) -> tuple[Tensor, Tensors]:
    """Return labels (n,) of which those nearest to the boundary of the model are flipped across it."""
    train = planting.train
    logits = predict(planting.model, train, batch_size=planting.batch_size).to(train.labels.device)
    return flip_nearest(train.labels, logits, planting.rate), {}


def poison(planting: Planting) -> tuple[Tensor, Tensors]:
    """Return labels (n,) of which some, drawn at random, are flipped, and their pictures led toward the new label.

    What makes them of that class is not robust: D_rand of Ilyas et al. 2019, "Adversarial examples are not bugs,
    they are features". Those that the model does not follow are wrong labels rather: the log says where most are.
    """
    model, train, size, ball = planting.model, planting.train, planting.batch_size, planting.ball
    assert ball is not None
    flipped = flip_symmetric(train.labels.cpu(), planting.rate, planting.classes, draws(planting.seed))
    labels = flipped.to(train.labels.device)
    changed = replace(train, labels=labels).subset((labels != train.labels).nonzero().flatten().cpu())
    pictures, followed = torch.empty((len(changed), *train.images.shape)), 0
    with evaluating(model), frozen(model), out_of_memory_names("train.batch_size", size):
        for rows, x, targets in changed.batches(size):
            moved = toward(model, x, targets, ball, steps=STEPS)
            followed += int((model(moved).argmax(1) == targets).sum())
            pictures[rows] = moved.cpu()
            planting.progress(rows.stop, len(changed))
    if followed < len(changed) / 2:
        said = "the model takes %d of %d poisons for their target within %g, the others are wrong labels; raise %s"
        log.warning(said, followed, len(changed), ball.eps, "data.harm_eps")
    return labels, {"pictures": pictures}


PLANTERS: dict[Harm, Callable[[Planting], tuple[Tensor, Tensors]]] = {
    Harm.boundary: boundary,
    Harm.poison: poison,
}
