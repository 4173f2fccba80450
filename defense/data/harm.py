"""Harm planted in training samples, with known truth: `truth` keeps the label that a sample came with.

What takes no model is planted here; `defense.stages.plant` makes flips at the boundary, poisons and hypocritical
pictures, whose labels stay.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from defense.config.choices import Harm
from defense.config.schema import Data
from defense.data.overlays import Stamped
from defense.data.splits import Split
from defense.errors import InputError
from defense.randomness import generator


def harmed(train: Split, spec: Data, *, classes: int, seed: int) -> Split:
    """Return the training split with its harm planted; as it is where that takes a model, or there is none."""
    if spec.harm not in HARMS:
        return train
    return whole(HARMS[spec.harm](train, spec, classes, draws(seed)), spec, classes=classes)


def draws(seed: int) -> torch.Generator:
    """Return what the draws of a harm are made from.

    All harms share it: symmetric, pair, poison and hypocritical hit the same samples. Its name is older than most
    of them.
    """
    return generator(seed, "label noise")


def drawn(count: int, rate: float, generator: torch.Generator) -> Tensor:
    """Return round(rate * count) of `count` rows, drawn at random, in no order."""
    return torch.randperm(count, generator=generator)[: round(rate * count)]


def flip_symmetric(labels: Tensor, rate: float, classes: int, generator: torch.Generator) -> Tensor:
    """Return a copy of `labels` (n,) in which round(rate * n) are another class, each other class as likely."""
    flipped, rows = labels.clone(), drawn(len(labels), rate, generator)
    step = torch.randint(1, classes, (len(rows),), generator=generator)
    flipped[rows] = (labels[rows] + step) % classes
    return flipped


def flip_pair(labels: Tensor, rate: float, classes: int, generator: torch.Generator) -> Tensor:
    """Return a copy of `labels` (n,) in which round(rate * n) are c + 1 instead of c, 0 instead of the last."""
    flipped, rows = labels.clone(), drawn(len(labels), rate, generator)
    flipped[rows] = (labels[rows] + 1) % classes
    return flipped


def flip_nearest(labels: Tensor, logits: Tensor, rate: float) -> Tensor:
    """Return a copy of `labels` (n,) in which the round(rate * n) nearest to the boundary are the class beyond it.

        margin_i = logit of the own label - highest other logit,   of logits (n, classes)

    The smallest margins above zero, so of samples that the model gets right; ties go to the lower row. Raises
    InputError where it gets fewer right.
    """
    own = logits.gather(1, labels[:, None]).squeeze(1)
    other, runner_up = logits.scatter(1, labels[:, None], -torch.inf).max(1)
    margin = own - other
    count, right = round(rate * len(labels)), int((margin > 0).sum())
    if count > right:
        valid = f"asks for {count} samples at the boundary; expected at most {right}, which the model gets right"
        raise InputError("data.harm_rate", rate, valid)
    rows = margin.where(margin > 0, torch.inf).argsort(stable=True)[:count]
    flipped = labels.clone()
    flipped[rows] = runner_up[rows]
    return flipped


def symmetric(train: Split, spec: Data, classes: int, chance: torch.Generator) -> Split:
    """Flip labels to another class, each as likely."""
    return replace(train, labels=flip_symmetric(train.labels, spec.harm_rate, classes, chance))


def pair(train: Split, spec: Data, classes: int, chance: torch.Generator) -> Split:
    """Flip labels to the next class."""
    return replace(train, labels=flip_pair(train.labels, spec.harm_rate, classes, chance))


def trigger(train: Split, spec: Data, classes: int, chance: torch.Generator) -> Split:
    """Stamp a patch on samples of other classes and label them `spec.harm_target` (BadNets, Gu et al. 2017)."""
    others = (train.labels != spec.harm_target).nonzero().flatten()
    count = round(spec.harm_rate * len(train))
    if count > len(others):
        valid = f"asks for {count} samples that are not of data.harm_target; expected at most {len(others)}"
        raise InputError("data.harm_rate", spec.harm_rate, valid)
    rows = others[torch.randperm(len(others), generator=chance)[:count]]
    labels, marked = train.labels.clone(), torch.zeros(len(train), dtype=torch.bool)
    labels[rows], marked[rows] = spec.harm_target, True
    return replace(train, images=Stamped(train.images, marked, patch_of(spec, train)), labels=labels)


def boxes(train: Split, spec: Data, classes: int, chance: torch.Generator) -> Split:
    """Give the samples of a class that lie in a box the label of the next class; one box for every class.

    A box is the smallest square (a cube, with more features) around a sample of the class, drawn at random, that
    holds as many of the class as are to be flipped: its share of round(rate * n). Others in it stay.
    """
    rows = torch.arange(len(train))
    points, labels = train.images.take(rows).flatten(1), train.labels.clone()
    for label, count in enumerate(in_each_class(train, spec, classes)):
        own = rows[train.labels == label]
        centre = points[own[torch.randint(len(own), (1,), generator=chance)]]
        distances = (points[own] - centre).abs().amax(1)
        labels[own[distances.argsort(stable=True)[:count]]] = (label + 1) % classes
    return replace(train, labels=labels)


def in_each_class(train: Split, spec: Data, classes: int) -> list[int]:
    """Return how many samples of each class are to be flipped, as evenly as they can be."""
    each, left = divmod(round(spec.harm_rate * len(train)), classes)
    return [each + (label < left) for label in range(classes)]


def patch_of(spec: Data, split: Split) -> int:
    """Return the side of the trigger's patch in pixels: an eighth of the picture's unless it is given."""
    return max(1, min(split.images.shape[1:]) // 8) if spec.harm_patch is None else spec.harm_patch


def stamped(split: Split, spec: Data) -> Split:
    """Return the same samples, labelled as they are, with the trigger's patch on every picture."""
    marked = torch.ones(len(split), dtype=torch.bool)
    return split.with_images(Stamped(split.images, marked, patch_of(spec, split)))


def check_harm(train: Split, spec: Data, *, classes: int) -> None:
    """Raise InputError if a harm cannot be planted in this training split; costs nothing."""
    if spec.harm is Harm.none:
        return
    if round(spec.harm_rate * len(train)) < 1:
        raise InputError("data.harm_rate", spec.harm_rate, f"is less than one of {len(train)} training samples")
    if spec.harm is Harm.boxes:
        if train.images.shape[1:] != (1, 1):
            raise InputError("data.harm", spec.harm, "expected points, as those of data=moons")
        least = int(torch.bincount(train.labels, minlength=classes).min())
        if max(in_each_class(train, spec, classes)) > least:
            valid = f"asks for more samples in a box than the {least} of the smallest class; expected a lower rate"
            raise InputError("data.harm_rate", spec.harm_rate, valid)
    if spec.harm is Harm.trigger:
        if spec.harm_target >= classes:
            raise InputError("data.harm_target", spec.harm_target, f"expected a class, 0 to {classes - 1}")
        side = min(train.images.shape[1:])
        if patch_of(spec, train) > side:
            raise InputError("data.harm_patch", spec.harm_patch, f"expected at most {side}, the side of a picture")


def whole(train: Split, spec: Data, *, classes: int) -> Split:
    """Return the split; raises InputError if its harm leaves no sample with the label of a class."""
    missing = set(range(classes)) - set(train.labels.tolist())
    if missing:
        valid = f"leaves no training sample with label {min(missing)}; expected a lower rate"
        raise InputError("data.harm_rate", spec.harm_rate, valid)
    return train


HARMS: dict[Harm, Callable[[Split, Data, int, torch.Generator], Split]] = {
    Harm.symmetric: symmetric,
    Harm.pair: pair,
    Harm.boxes: boxes,
    Harm.trigger: trigger,
}
