"""The training loop: SGD with Nesterov momentum and a one-cycle learning rate, on weighted samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor, nn

from defense.data.splits import Split
from defense.errors import InputError, out_of_memory_names
from defense.models.predict import predict
from defense.randomness import derive, global_seed
from defense.schema import Train
from defense.training.augment import augment, plan_epoch
from defense.training.recipes import Harden

Watch = Callable[..., None]


def fit(
    model: nn.Module,
    train: Split,
    validation: Split,
    recipe: Train,
    *,
    keep: Tensor,
    weights: Tensor,
    harden: Harden,
    seed: int,
    fabric: Fabric,
    watch: Watch,
) -> Iterator[dict[str, float]]:
    """Train `model` in place on the kept samples and yield the numbers of each epoch as it ends.

    keep: bool (n,); weights: float (n,), mean 1 over the kept samples; both row by row as in `train`. harden: what
    the recipe does to the pictures of a batch. learning_rate: its mean over the steps. The order of an epoch
    is a permutation of all n samples from which the others are left out, so that removing samples keeps the
    order of the rest. The loss of a batch is mean_i weight_i * cross_entropy_i.
    Raises InputError when the loss is not finite.
    """
    keep, weights = keep.cpu(), weights.to(fabric.device)
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=recipe.momentum > 0,
    )
    steps = math.ceil(int(keep.sum()) / recipe.batch_size)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=recipe.learning_rate,
        total_steps=recipe.epochs * steps,
        cycle_momentum=False,
    )
    wrapped, wrapped_optimizer = fabric.setup(model, optimizer)
    wrapped.train()
    for epoch in range(recipe.epochs):
        plan = plan_epoch(len(train), crop=recipe.crop, flip=recipe.flip, seed=seed, epoch=epoch)
        order = plan.order[keep[plan.order]]
        loss_sum, rates, correct, done = 0.0, 0.0, 0, 0
        with global_seed(seed, "dropout", epoch):
            for step, rows in enumerate(torch.tensor_split(order, steps), start=1):
                with out_of_memory_names("train.batch_size", recipe.batch_size):
                    x = augment(train.images.take(rows), plan.shifts[rows], plan.flips[rows], crop=recipe.crop)
                    labels = train.labels[rows.to(train.labels.device)]
                    x = harden(model, x, labels, derive(seed, "training attack", epoch, step))
                    logits = wrapped(x)
                    losses = F.cross_entropy(logits, labels, reduction="none")
                    loss = (weights[rows.to(weights.device)] * losses).mean()
                    wrapped_optimizer.zero_grad()
                    fabric.backward(loss)
                rates += float(scheduler.get_last_lr()[0])
                wrapped_optimizer.step()
                scheduler.step()
                loss_sum += loss.item() * len(rows)
                correct += int((logits.argmax(1) == labels).sum())
                done += len(rows)
                if not math.isfinite(loss_sum):
                    found = f"the training loss is {loss.item()} in epoch {epoch + 1}; lower it"
                    raise InputError("train.learning_rate", recipe.learning_rate, found)
                numbers = {"loss": loss_sum / done, "accuracy": 100 * correct / done}
                watch(epoch * steps + step, recipe.epochs * steps, **numbers)
        yield {
            "epoch": epoch + 1,
            "train_loss": loss_sum / done,
            "train_accuracy": 100 * correct / done,
            **validated(model, validation, recipe, epoch=epoch + 1),
            "learning_rate": rates / steps,
        }


def validated(model: nn.Module, validation: Split, recipe: Train, *, epoch: int) -> dict[str, float]:
    """Return loss and accuracy on the validation split; raises InputError where the loss is not finite."""
    logits = predict(model, validation, batch_size=4 * recipe.batch_size)
    labels = validation.labels.cpu()
    loss = float(F.cross_entropy(logits.float(), labels))
    if not math.isfinite(loss):
        found = f"the validation loss is {loss} after epoch {epoch}; lower it"
        raise InputError("train.learning_rate", recipe.learning_rate, found)
    accuracy = 100 * float((logits.argmax(1) == labels).double().mean())
    return {"validation_loss": loss, "validation_accuracy": accuracy}
