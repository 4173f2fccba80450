"""The training loop: SGD with Nesterov momentum and a one-cycle learning rate, on weighted samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim import SGD
from torch.optim.lr_scheduler import OneCycleLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from defense.config.schema import Train
from defense.data.splits import Split
from defense.errors import InputError, out_of_memory_names
from defense.randomness import derive, global_seed
from defense.runtime.distributed import ALONE, Crew, draws
from defense.runtime.progress import Watch
from defense.training.augment import augment, plan_epoch
from defense.training.course import Course
from defense.training.epochs import EpochEnd
from defense.training.network import compiled, compiling_names, laid_out
from defense.training.norms import BATCH_NORM, whole_batches
from defense.training.recipes import Losses
from defense.training.validation import Measure

UNTRAINED = 0.25  # part of averaged weights that may be those of the start
READ_EVERY = 50  # steps: to read a number the host waits until a GPU has caught up with it


def fit(
    model: nn.Module,
    train: Split,
    recipe: Train,
    *,
    keep: Tensor,
    weights: Tensor,
    losses: Losses,
    measure: Measure,
    seed: int,
    fabric: Fabric,
    watch: Watch,
    after: dict[str, Any] | None = None,
    crew: Crew = ALONE,
) -> Iterator[EpochEnd]:
    """Train `model` in place on the kept samples and yield what each epoch ends with.

    keep: bool (n,); weights: float (n,), mean 1 over the kept samples; both row by row as in `train`. losses: of
    the recipe; measure: of the network after an epoch. learning_rate: its mean over the steps. The order of an
    epoch is a permutation of all n samples from which the others are left out, so that removing samples keeps the
    order of the rest. The loss of a batch is mean_i weight_i * loss_i. With `recipe.ema` the weights that are
    measured and yielded are averages over the steps, of batch norm's statistics too.
    after: the state that an epoch of another call has ended with; what follows is, bit for bit, what followed.
    crew: the processes that share every batch. Gradients, batch norm's statistics and the numbers of an epoch are
    those of the whole batch, up to rounding; what dropout and attacks draw is each process's own.
    Raises InputError when the loss is not finite, or a batch has not a sample for each process.
    """
    device = fabric.device
    keep, weights = keep.cpu(), weights.to(device)
    steps = math.ceil(int(keep.sum()) / recipe.batch_size)
    begin_alike(model, recipe, int(keep.sum()) // steps, crew)
    optimizer, scheduler = descent(model, recipe, total_steps=recipe.epochs * steps)
    # The network is not called through what fabric wraps around it: in mixed precision that rounds pictures, to
    # 1/256, as much as a small perturbation. In `fabric.autocast` it is what the layers are given that is rounded.
    _, wrapped_optimizer = fabric.setup(model, optimizer)
    model.train()
    network = compiled(laid_out(model, recipe), recipe)
    average = averaged(model, recipe.ema, steps=recipe.epochs * steps)
    result = average.module if average else model
    measured = laid_out(result, recipe)  # not compiled: there would be a program for each mode and size of batch
    course = Course(model, optimizer, scheduler, average, fabric.strategy.precision)
    for epoch in range(course.begin(after), recipe.epochs):
        plan = plan_epoch(len(train), crop=recipe.crop, flip=recipe.flip, seed=seed, epoch=epoch)
        order = plan.order[keep[plan.order]]
        shifts, flips = plan.shifts.to(device), plan.flips.to(device)
        tally, rates = Tally(device, crew), 0.0
        with (
            global_seed(seed, "dropout", epoch, *draws(crew)),
            compiling_names(recipe),
            whole_batches(model, crew),
        ):
            for step, batch in enumerate(torch.tensor_split(order, steps), start=1):
                rows = batch.tensor_split(crew.size)[crew.rank]
                with out_of_memory_names("train.batch_size", recipe.batch_size):
                    here = rows.to(device, non_blocking=True)
                    x = augment(train.images.take(rows), shifts[here], flips[here], crop=recipe.crop)
                    labels = train.labels[here]
                    chance = derive(seed, "training attack", epoch, step, *draws(crew))
                    with fabric.autocast(), diverging_names(recipe, epoch):
                        each, logits = losses(network, x, labels, chance)
                    loss = (weights[here] * each).mean()
                    wrapped_optimizer.zero_grad()
                    fabric.backward(loss * (len(rows) / len(batch)))
                    add_up(model, crew)
                rates += float(scheduler.get_last_lr()[0])
                wrapped_optimizer.step()
                scheduler.step()
                if average:
                    average.update_parameters(model)
                tally.add(loss, logits, labels)
                if step % READ_EVERY == 0 or step == steps:
                    tally.read(recipe, epoch)
                watch(epoch * steps + step, recipe.epochs * steps, **tally.numbers)
        numbers = {f"train_{name}": value for name, value in tally.numbers.items()}
        numbers = {"epoch": epoch + 1, **numbers, **measure(measured, epoch + 1), "learning_rate": rates / steps}
        yield EpochEnd(numbers, result.state_dict(), partial(course.state, epoch + 1))


def begin_alike(model: nn.Module, recipe: Train, smallest: int, crew: Crew) -> None:
    """Give all processes the weights of that of rank 0, whatever a user's network draws them from.

    Raises InputError where the `smallest` batch has not a sample for each, or they cannot train together.
    """
    if crew.size == 1:
        return
    if smallest < crew.size:
        found = f"leaves batches of {smallest} samples for {crew.size} processes; expected one for each at least"
        raise InputError("train.batch_size", recipe.batch_size, found)
    if recipe.compile and any(isinstance(part, BATCH_NORM) for part in model.modules()):
        found = "not with batch norm over several processes; expected false"
        raise InputError("train.compile", recipe.compile, found)
    own = {name: value.cpu() for name, value in model.state_dict().items()} if crew.rank == 0 else {}
    model.load_state_dict(crew.broadcast(own))


def add_up(model: nn.Module, crew: Crew) -> None:
    """Replace the gradients of each process, for its part of a batch, by those for the whole of it."""
    if crew.size == 1:
        return
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in parameters:
        if parameter.grad is None:  # of what the network has not used here
            parameter.grad = torch.zeros_like(parameter)
    crew.sum([parameter.grad for parameter in parameters if parameter.grad is not None])


def descent(model: nn.Module, recipe: Train, *, total_steps: int) -> tuple[SGD, OneCycleLR]:
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

    Raises InputError where after so many `steps` too much of the first weights is left in it.
    """
    if decay is None:
        return None
    if decay**steps > UNTRAINED:
        found = f"after {steps} steps {100 * decay**steps:.0f} % of the average is the untrained start; lower it"
        raise InputError("train.ema", decay, found)
    return AveragedModel(model, multi_avg_fn=smoothing(decay), use_buffers=True)


def smoothing(decay: float) -> Callable[..., None]:
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

    def __init__(self, device: torch.device, crew: Crew) -> None:
        self.sums, self.crew, self.numbers = torch.zeros(3, device=device), crew, dict[str, float]()

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Add this process's part of a batch: its mean loss, logits (b, classes) and labels (b,)."""
        self.sums[:2] += torch.stack([loss.detach() * len(labels), (logits.argmax(1) == labels).sum()])
        self.sums[2] += len(labels)

    def read(self, recipe: Train, epoch: int) -> None:
        """Bring `numbers` up to date; raises InputError where the loss is not finite."""
        sums = self.sums.clone()
        self.crew.sum([sums])
        loss, right = (sums[:2] / sums[2]).tolist()
        if not math.isfinite(loss):
            raise diverged(recipe, f"the training loss is {loss}", epoch)
        self.numbers = {"loss": loss, "accuracy": 100 * right}
