"""The training loop: SGD with Nesterov momentum and a one-cycle learning rate, on weighted samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD
from torch.optim.lr_scheduler import OneCycleLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from defense.config.schema import Train
from defense.errors import InputError, out_of_memory_names
from defense.randomness import derive, global_seed
from defense.runtime.distributed import Ranks, rank_seed
from defense.runtime.runtime import Runtime
from defense.training.augment import augment, plan_epoch
from defense.training.epochs import EpochEnd
from defense.training.inputs import Criteria, TrainingSet
from defense.training.network import compiled, compiling_names, to_channels_last
from defense.training.norms import BATCH_NORM, whole_batches
from defense.training.state import TrainingState

UNTRAINED = 0.25  # part of averaged weights that may be those of the start
READ_EVERY = 50  # steps: to read a number the host waits until a GPU has caught up with it


def fit(
    model: nn.Module,
    samples: TrainingSet,
    recipe: Train,
    runtime: Runtime,
    *,
    criteria: Criteria,
    seed: int,
    after: dict[str, Any] | None = None,
) -> Iterator[EpochEnd]:
    """Train `model` in place on the kept samples and yield what each epoch ends with.

    learning_rate: its mean over the steps. The order of an epoch is a permutation of all n samples from which the
    others are left out, so that removing samples keeps the order of the rest. The loss of a batch is
    mean_i weight_i * loss_i. With `recipe.ema` the weights that are measured and yielded are averages over the
    steps, and so are the statistics of batch norm. after: the state that an epoch of another call has ended with;
    the epochs after it are, bit for bit, those of that call.
    The ranks of `runtime` share every batch. Gradients, statistics of batch norm and the numbers of an epoch are
    those of the whole batch, up to rounding; dropout and attacks draw for each rank.
    Raises InputError if the loss is not finite, or a batch has not a sample for each rank.
    """
    train, fabric, ranks = samples.split, runtime.fabric, runtime.ranks
    device = fabric.device
    keep, weights = samples.keep.cpu(), samples.weights.to(device)
    steps = math.ceil(int(keep.sum()) / recipe.batch_size)
    broadcast_weights(model, recipe, int(keep.sum()) // steps, ranks)
    optimizer, scheduler = make_optimizer(model, recipe, total_steps=recipe.epochs * steps)
    # The network is not called through what fabric wraps around it: in mixed precision that rounds pictures, to
    # 1/256, as much as a small perturbation. In `fabric.autocast` it is what the layers are given that is rounded.
    _, wrapped_optimizer = fabric.setup(model, optimizer)
    model.train()
    network = compiled(to_channels_last(model, recipe), recipe)
    average = averaged(model, recipe.ema, steps=recipe.epochs * steps)
    result = average.module if average else model
    measured = to_channels_last(result, recipe)  # not compiled: each mode and size of batch is a program
    course = TrainingState(model, optimizer, scheduler, average, fabric.strategy.precision)
    for epoch in range(course.begin(after), recipe.epochs):
        plan = plan_epoch(len(train), crop=recipe.crop, flip=recipe.flip, seed=seed, epoch=epoch)
        order = plan.order[keep[plan.order]]
        shifts, flips = plan.shifts.to(device), plan.flips.to(device)
        tally, rates = Tally(device, ranks), 0.0
        with (
            global_seed(seed, "dropout", epoch, *rank_seed(ranks)),
            compiling_names(recipe),
            whole_batches(model, ranks),
        ):
            for step, batch in enumerate(torch.tensor_split(order, steps), start=1):
                rows = batch.tensor_split(ranks.size)[ranks.rank]
                with out_of_memory_names("train.batch_size", recipe.batch_size):
                    here = rows.to(device, non_blocking=True)
                    x = augment(train.images.take(rows), shifts[here], flips[here], crop=recipe.crop)
                    labels = train.labels[here]
                    chance = derive(seed, "training attack", epoch, step, *rank_seed(ranks))
                    with fabric.autocast(), diverging_names(recipe, epoch):
                        each, logits = criteria.losses(network, x, labels, chance)
                    loss = (weights[here] * each).mean()
                    wrapped_optimizer.zero_grad()
                    fabric.backward(loss * (len(rows) / len(batch)))
                    all_reduce_gradients(model, ranks)
                rates += float(scheduler.get_last_lr()[0])
                wrapped_optimizer.step()
                scheduler.step()
                if average:
                    average.update_parameters(model)
                tally.add(loss, logits, labels)
                if step % READ_EVERY == 0 or step == steps:
                    tally.read(recipe, epoch)
                runtime.progress(epoch * steps + step, recipe.epochs * steps, **tally.numbers)
        numbers = {f"train_{name}": value for name, value in tally.numbers.items()}
        numbers = {
            "epoch": epoch + 1,
            **numbers,
            **criteria.measure(measured, epoch + 1),
            "learning_rate": rates / steps,
        }
        yield EpochEnd(numbers, result.state_dict(), partial(course.state, epoch + 1))


def broadcast_weights(model: nn.Module, recipe: Train, smallest: int, ranks: Ranks) -> None:
    """Give all processes the weights of that of rank 0, whatever a user's network draws them from.

    Raises InputError if the `smallest` batch has not a sample for each, or they cannot train together.
    """
    if ranks.size == 1:
        return
    if smallest < ranks.size:
        found = f"leaves batches of {smallest} samples for {ranks.size} processes; expected one for each at least"
        raise InputError("train.batch_size", recipe.batch_size, found)
    if recipe.compile and any(isinstance(part, BATCH_NORM) for part in model.modules()):
        found = "not with batch norm over several processes; expected false"
        raise InputError("train.compile", recipe.compile, found)
    own = {name: value.cpu() for name, value in model.state_dict().items()} if ranks.rank == 0 else {}
    model.load_state_dict(ranks.broadcast(own))


def all_reduce_gradients(model: nn.Module, ranks: Ranks) -> None:
    """Replace the gradients of each process, for its part of a batch, by those for the whole of it."""
    if ranks.size == 1:
        return
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in parameters:
        if parameter.grad is None:  # of what the network has not used here
            parameter.grad = torch.zeros_like(parameter)
    ranks.sum([parameter.grad for parameter in parameters if parameter.grad is not None])


def make_optimizer(model: nn.Module, recipe: Train, *, total_steps: int) -> tuple[SGD, OneCycleLR]:
    """Return SGD and its one-cycle schedule."""
    optimizer = SGD(
        model.parameters(),
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=recipe.momentum > 0,
    )
    peak = recipe.learning_rate
    return optimizer, OneCycleLR(optimizer, max_lr=peak, total_steps=total_steps, cycle_momentum=False)


def averaged(model: nn.Module, decay: float | None, *, steps: int) -> AveragedModel | None:
    """Return a copy of `model` that becomes decay * copy + (1 - decay) * model with every update, buffers too.

    Raises InputError if after so many `steps` too much of the first weights is left in it.
    """
    if decay is None:
        return None
    if decay**steps > UNTRAINED:
        left = f"{100 * decay**steps:.0f} % of the first weights"
        found = f"after {steps} steps the average still holds {left}; use a smaller decay"
        raise InputError("train.ema", decay, found)
    return AveragedModel(model, multi_avg_fn=ema_update(decay), use_buffers=True)


def ema_update(decay: float) -> Callable[..., None]:
    """Return what brings averages up to date: numbers by `decay`; whole numbers, as counts, are taken over."""
    numbers = get_ema_multi_avg_fn(decay)

    def update(averages: list[Tensor], values: list[Tensor], count: Tensor | int) -> None:
        if averages[0].is_floating_point():  # all are of one type
            numbers(averages, values, count)
        else:
            for average, value in zip(averages, values, strict=True):
                average.copy_(value)

    return update


def diverged(recipe: Train, found: str, epoch: int) -> InputError:
    """Return the error that says what came of too high a learning rate."""
    return InputError("train.learning_rate", recipe.learning_rate, f"{found} in epoch {epoch + 1}; lower it")


@contextmanager
def diverging_names(recipe: Train, epoch: int) -> Iterator[None]:
    """Turn numbers that are not finite into an InputError."""
    try:
        yield
    except FloatingPointError as error:
        raise diverged(recipe, str(error), epoch) from error


class Tally:
    """Mean loss and accuracy of an epoch so far, summed on the device and read now and then."""

    def __init__(self, device: torch.device, ranks: Ranks) -> None:
        self.sums, self.ranks, self.numbers = torch.zeros(3, device=device), ranks, dict[str, float]()

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Add this process's part of a batch: its mean loss, logits (b, classes) and labels (b,)."""
        self.sums[:2] += torch.stack([loss.detach() * len(labels), (logits.argmax(1) == labels).sum()])
        self.sums[2] += len(labels)

    def read(self, recipe: Train, epoch: int) -> None:
        """Bring `numbers` up to date; raises InputError if the loss is not finite."""
        sums = self.sums.clone()
        self.ranks.sum([sums])
        loss, right = (sums[:2] / sums[2]).tolist()
        if not math.isfinite(loss):
            raise diverged(recipe, f"the training loss is {loss}", epoch)
        self.numbers = {"loss": loss, "accuracy": 100 * right}
