"""Plant the harm that takes a model trained on the unharmed samples.

Flips at its boundary, poisons, and hypocritical pictures, which carry their own label.
"""

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
from defense.config.choices import Harm, Keep, Recipe, reads
from defense.config.schema import Data, Threat, Train, Training
from defense.data.harm import drawn, draws, flip_nearest, flip_symmetric, whole
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

STEPS = 40  # of the descent that moves a picture; the 100 of Ilyas et al. 2019 lower a poison's loss by 3 % more
CRAFTING = 0.25  # of the ball's radius: Tao et al. 2022 train the model of hypocritical pictures within so much

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


@dataclass(frozen=True)
class Change:
    """The rows of the training split that a harm changes, int64 (k,) in order; all labels (n,); their pictures."""

    rows: Tensor
    labels: Tensor
    tensors: Tensors


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

    ball: how far a picture may be moved. Raises InputError if the split has too few samples for the harm.
    """
    rate, progress = spec.harm_rate, runtime.progress
    planting = Planting(model.network, train, rate, ball, model.classes, batch_size, seed, progress)
    change = PLANTERS[spec.harm](planting)
    planted, rows = whole(replace(train, labels=change.labels), spec, classes=model.classes), change.rows
    table = {"row": rows.numpy(), "id": train.ids[rows].numpy(), "label": planted.labels[rows].cpu().numpy()}
    return Planted(pd.DataFrame(table), change.tensors)


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
    """Return the ball that a harm moves pictures in: the run's, unless the data have a radius of their own.

    None of a harm that moves none.
    """
    if "harm_eps" not in spec.harm.reads:
        return None
    return threat if spec.harm_eps is None else replace(threat, eps=spec.harm_eps)


def planter_training(spec: Data, recipe: Train, threat: Threat) -> Training:
    """Return how the model of a harm is trained, whatever the run's recipe, so that runs share the harm.

    Ordinarily; for hypocritical pictures adversarially, within a quarter of the radius that they are moved by. So
    its features withstand small changes, and an attack of the whole radius undoes them.
    """
    recipe = replace(recipe, recipe=Recipe.standard, checkpoints=1, keep=Keep.last, ema=None)
    ball = ball_of(spec, threat)
    if spec.harm is not Harm.hypocritical or ball is None:
        return Training(recipe, threat)
    return Training(replace(recipe, recipe=Recipe.adversarial), replace(ball, eps=CRAFTING * ball.eps))


def boundary(planting: Planting) -> Change:
    """Return labels (n,) of which those nearest to the boundary of the model are flipped across it."""
    train = planting.train
    logits = predict(planting.model, train, batch_size=planting.batch_size).to(train.labels.device)
    labels = flip_nearest(train.labels, logits, planting.rate)
    return Change((labels != train.labels).nonzero().flatten().cpu(), labels, {})


def poison(planting: Planting) -> Change:
    """Return labels (n,) of which some, drawn at random, are flipped, and their pictures led toward the new label.

    What makes them of that class is not robust: D_rand of Ilyas et al. 2019, "Adversarial examples are not bugs,
    they are features". Those that the model does not follow are wrong labels rather: the log says where most are.
    """
    train = planting.train
    flipped = flip_symmetric(train.labels.cpu(), planting.rate, planting.classes, draws(planting.seed))
    labels = flipped.to(train.labels.device)
    rows = (labels != train.labels).nonzero().flatten().cpu()
    change, followed, ball = led(planting, rows, labels)
    if followed < len(rows) / 2:
        said = "the model takes %d of %d poisons for their target within %g, the others are wrong labels; raise %s"
        log.warning(said, followed, len(rows), ball.eps, "data.harm_eps")
    return change


def hypocritical(planting: Planting) -> Change:
    """Return the labels (n,) as they are; pictures drawn at random are led toward their own label.

    At the model they have less loss than before. Trained on them, another model fits what an attack undoes: Tao et
    al. 2022, "Can adversarial training be manipulated by non-robust features?", arXiv 2201.13329.
    """
    train = planting.train
    rows = drawn(len(train), planting.rate, draws(planting.seed)).sort().values
    return led(planting, rows, train.labels)[0]


def led(planting: Planting, rows: Tensor, labels: Tensor) -> tuple[Change, int, Threat]:
    """Return the change that leads the pictures at `rows` (k,) toward their entry of `labels` (n,).

    With it, how many of them the model takes for that label in the end, and the ball that they are moved in.
    """
    model, size, ball = planting.model, planting.batch_size, planting.ball
    assert ball is not None
    changed = replace(planting.train, labels=labels).subset(rows)
    pictures, followed = torch.empty((len(changed), *planting.train.images.shape)), 0
    with evaluating(model), frozen(model), out_of_memory_names("train.batch_size", size):
        for batch, x, targets in changed.batches(size):
            moved = toward(model, x, targets, ball, steps=STEPS)
            followed += int((model(moved).argmax(1) == targets).sum())
            pictures[batch] = moved.cpu()
            planting.progress(batch.stop, len(changed))
    return Change(rows, labels, {"pictures": pictures}), followed, ball


PLANTERS: dict[Harm, Callable[[Planting], Change]] = {
    Harm.boundary: boundary,
    Harm.poison: poison,
    Harm.hypocritical: hypocritical,
}
