"""What is measured on the validation split after every epoch."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from defense.config.choices import AttackName
from defense.config.reads import reading
from defense.config.schema import Attack, Train, Training
from defense.data.images import TensorImages
from defense.data.splits import Split
from defense.errors import InputError, out_of_memory_names
from defense.models.predict import predict
from defense.randomness import derive
from defense.robustness.attacks import Attacker
from defense.runtime.distributed import SINGLE_PROCESS, Ranks, raise_on_all, shard_batches
from defense.runtime.runtime import Runtime
from defense.training.inputs import Measure
from defense.training.recipes import attacked

# Samples. PGD of 10 steps takes about 11 passes for each: beside an epoch of CIFAR-10, 3 % of training by PGD of 7
# steps and 11 % of training by one; about as much as an epoch where there are as few thousand training samples.
# The standard error is then 1.6 points at most.
ATTACKED = 1000


def measuring(validation: Split, training: Training, runtime: Runtime, *, classes: int, seed: int) -> Measure:
    """Return a function that measures a network on `validation`: loss, accuracy and, if a recipe attacks, robust
    accuracy.

    Accuracies are in per cent, the robust one is of up to `ATTACKED` samples. The ranks of `runtime` share the
    samples, and each is given the same numbers. It raises InputError if the loss is not finite.
    """
    recipe, ranks = training.recipe, runtime.ranks

    def clean(network: nn.Module, epoch: int) -> dict[str, float]:
        return ranks.broadcast(clean_numbers(network, validation, recipe, epoch=epoch, ranks=ranks))

    if "threat" not in reading(recipe):
        return clean
    attack = Attack(AttackName.pgd, steps=recipe.validation_steps)
    few = validation.subset(spread(len(validation), ATTACKED))

    def clean_and_robust(network: nn.Module, epoch: int) -> dict[str, float]:
        numbers = clean(network, epoch)
        with out_of_memory_names("train.batch_size", recipe.batch_size):
            attacker = Attacker(network, training.threat, classes, recipe.batch_size, seed)
            robust = robust_accuracy(attacker, few, attack, runtime)
        return numbers | {"validation_robust_accuracy": ranks.broadcast(robust)}

    return clean_and_robust


def spread(length: int, most: int) -> Tensor:
    """Return up to `most` rows, evenly over `length`; int64."""
    count = min(length, most)
    return torch.arange(count) * length // count


def clean_numbers(
    network: nn.Module, validation: Split, recipe: Train, *, epoch: int, ranks: Ranks = SINGLE_PROCESS
) -> dict[str, float]:
    """Return loss and accuracy on the images as they are; raises InputError if the loss is not finite."""
    logits = predict(network, validation, batch_size=4 * recipe.batch_size, ranks=ranks).float()
    labels = validation.labels.cpu()
    loss = float(F.cross_entropy(logits, labels))
    if not math.isfinite(loss):
        found = f"the validation loss is {loss} after epoch {epoch}; lower it"
        raise InputError("train.learning_rate", recipe.learning_rate, found)
    return {"validation_loss": loss, "validation_accuracy": accuracy(logits, labels)}


def robust_accuracy(attacker: Attacker, split: Split, attack: Attack, runtime: Runtime) -> float:
    """Return the share of samples, in per cent, that are right as they are and under `attack`; only the former
    see it.

    Attacks are made in the precision of the devices, and judged in float32.
    """
    network, batch_size, ranks = attacker.model, attacker.batch_size, runtime.ranks
    labels = split.labels.cpu()
    right = predict(network, split, batch_size=batch_size, ranks=ranks).argmax(1) == labels
    standing = split.subset(right.nonzero().flatten())
    if len(standing) == 0:
        return 0.0
    mine = shard_batches(ranks, len(standing), batch_size)

    def own_stand() -> Tensor:
        stands = [torch.empty(0, dtype=torch.bool)]
        for rows, x, own in standing.batches(batch_size, start=mine.start, stop=mine.stop):
            seed = derive(attacker.seed, "validation attack", rows.start)
            with runtime.fabric.autocast():
                moved = attacked(
                    network, x, own, seed, attack=attack, threat=attacker.threat, classes=attacker.classes
                )
            part = standing.subset(torch.arange(rows.start, rows.stop)).with_images(TensorImages(moved))
            stands.append(predict(network, part, batch_size=batch_size).argmax(1) == own.cpu())
        return torch.cat(stands)

    return 100 * int(ranks.gather(raise_on_all(ranks, own_stand)).sum()) / len(split)


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Return how many rows of logits (n, classes) are highest at their label (n,), in per cent."""
    return 100 * float((logits.argmax(1) == labels).double().mean())
