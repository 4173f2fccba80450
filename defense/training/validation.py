"""What is measured on the validation split after every epoch."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor, nn

from defense.config.choices import AttackName
from defense.config.reads import reading
from defense.config.schema import Attack, Threat, Train
from defense.data.images import TensorImages
from defense.data.splits import Split
from defense.errors import InputError, out_of_memory_names
from defense.models.predict import predict
from defense.randomness import derive
from defense.runtime.distributed import ALONE, Crew, rows_of, together
from defense.training.recipes import attacked

Measure = Callable[[nn.Module, int], dict[str, float]]  # network, epoch -> validation_<...>

# Samples. PGD of 10 steps takes about 11 passes for each: beside an epoch of CIFAR-10, 3 % of training by PGD of 7
# steps and 11 % of training by one; about as much as an epoch where there are as few thousand training samples.
# The standard error is then 1.6 points at most.
ATTACKED = 1000


def measuring(
    validation: Split,
    recipe: Train,
    threat: Threat,
    *,
    classes: int,
    seed: int,
    fabric: Fabric,
    crew: Crew = ALONE,
) -> Measure:
    """Return what measures a network on `validation`: loss, accuracy and, where a recipe attacks, robust accuracy.

    Accuracies are in per cent, the robust one is of up to `ATTACKED` samples. crew: the processes that share them,
    each of which is given the same numbers. It raises InputError where the loss is not finite.
    """

    def clean(network: nn.Module, epoch: int) -> dict[str, float]:
        return crew.broadcast(clean_numbers(network, validation, recipe, epoch=epoch, crew=crew))

    if "threat" not in reading(recipe):
        return clean
    attack = Attack(AttackName.pgd, steps=recipe.validation_steps)
    few = validation.subset(spread(len(validation), ATTACKED))

    def clean_and_robust(network: nn.Module, epoch: int) -> dict[str, float]:
        numbers = clean(network, epoch)
        with out_of_memory_names("train.batch_size", recipe.batch_size):
            robust = robust_accuracy(
                network,
                few,
                attack,
                threat,
                recipe.batch_size,
                classes=classes,
                seed=seed,
                fabric=fabric,
                crew=crew,
            )
        return numbers | {"validation_robust_accuracy": crew.broadcast(robust)}

    return clean_and_robust


def spread(length: int, most: int) -> Tensor:
    """Return up to `most` rows, evenly over `length`; int64."""
    count = min(length, most)
    return torch.arange(count) * length // count


def clean_numbers(
    network: nn.Module, validation: Split, recipe: Train, *, epoch: int, crew: Crew = ALONE
) -> dict[str, float]:
    """Return loss and accuracy on the pictures as they are; raises InputError where the loss is not finite."""
    logits = predict(network, validation, batch_size=4 * recipe.batch_size, crew=crew).float()
    labels = validation.labels.cpu()
    loss = float(F.cross_entropy(logits, labels))
    if not math.isfinite(loss):
        found = f"the validation loss is {loss} after epoch {epoch}; lower it"
        raise InputError("train.learning_rate", recipe.learning_rate, found)
    return {"validation_loss": loss, "validation_accuracy": accuracy(logits, labels)}


def robust_accuracy(
    network: nn.Module,
    split: Split,
    attack: Attack,
    threat: Threat,
    batch_size: int,
    *,
    classes: int,
    seed: int,
    fabric: Fabric,
    crew: Crew = ALONE,
) -> float:
    """Return how many samples, in per cent, are right as they are and under `attack`; only the former see it.

    Attacks are made in the precision of the devices, and judged in float32.
    """
    labels = split.labels.cpu()
    right = predict(network, split, batch_size=batch_size, crew=crew).argmax(1) == labels
    standing = split.subset(right.nonzero().flatten())
    if len(standing) == 0:
        return 0.0
    mine = rows_of(crew, len(standing), batch_size)

    def own_stand() -> Tensor:
        stands = [torch.empty(0, dtype=torch.bool)]
        for rows, x, own in standing.batches(batch_size, start=mine.start, stop=mine.stop):
            purpose = derive(seed, "validation attack", rows.start)
            with fabric.autocast():
                moved = attacked(network, x, own, purpose, attack=attack, threat=threat, classes=classes)
            part = standing.subset(torch.arange(rows.start, rows.stop)).with_images(TensorImages(moved))
            stands.append(predict(network, part, batch_size=batch_size).argmax(1) == own.cpu())
        return torch.cat(stands)

    return 100 * int(crew.gather(together(crew, own_stand)).sum()) / len(split)


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Return how many rows of logits (n, classes) are highest at their label (n,), in per cent."""
    return 100 * float((logits.argmax(1) == labels).double().mean())
