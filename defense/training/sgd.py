"""A training run by SGD, one step at a time: the loop, a replay and the reverse pass share this definition.

    g = (1/b) sum_{i in B} w_i grad l_i(theta) + lambda theta
    m <- mu m + g,   theta <- theta - eta (g + mu m)

Step t of a run has the same batch, augmentation, attack and learning rate whenever it is taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

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
from defense.training.augment import Epoch, augment, plan_epoch
from defense.training.inputs import TrainingSet
from defense.training.network import compiled, compiling_names, to_channels_last
from defense.training.norms import BATCH_NORM, whole_batches
from defense.training.recipes import Losses
from defense.training.state import TrainingState

UNTRAINED = 0.25  # part of averaged weights that may be those of the start


@dataclass(frozen=True)
class Batch:
    """The samples of one step, or this process's part of them."""

    rows: Tensor  # int64 (b,), of the training split
    images: Tensor  # (b, C, H, W), cropped and flipped
    labels: Tensor  # int64 (b,)
    weights: Tensor  # float (b,)
    share: float  # of the whole batch
    seed: int  # of the attack


class TrainingRun:
    """Training of `model` in place on the kept samples, step by step; `state` is what changes.

    The ranks of `runtime` share every batch. With `recipe.ema` the `result` is a copy of the model that holds
    averages over the steps. Raises InputError if a batch has not a sample for each rank.
    """

    def __init__(
        self,
        model: nn.Module,
        samples: TrainingSet,
        recipe: Train,
        runtime: Runtime,
        losses: Losses,
        *,
        seed: int,
    ) -> None:
        self.model, self.recipe, self.losses, self.seed = model, recipe, losses, seed
        self.split, self.keep = samples.split, samples.keep.cpu()
        self.fabric, self.ranks = runtime.fabric, runtime.ranks
        self.device = self.fabric.device
        self.weights = samples.weights.to(self.device)
        count = int(self.keep.sum())
        self.steps = math.ceil(count / recipe.batch_size)  # of an epoch
        self.total = recipe.epochs * self.steps
        broadcast_weights(model, recipe, count // self.steps, self.ranks)
        optimizer, scheduler = make_optimizer(model, recipe, total_steps=self.total)
        # Call the network itself, not the wrapper of fabric: in mixed precision that rounds images to 1/256, as
        # much as a small perturbation. `fabric.autocast` rounds the inputs of layers instead.
        _, self.optimizer = self.fabric.setup(model, optimizer)
        model.train()
        self.plain = to_channels_last(model, recipe)
        self.network = compiled(self.plain, recipe)
        average = averaged(model, recipe.ema, steps=self.total)
        self.result = average.module if average else model
        self.state = TrainingState(model, optimizer, scheduler, average, self.fabric.strategy.precision)
        self.plan = lru_cache(maxsize=1)(self.planned)

    def planned(self, epoch: int) -> tuple[Epoch, tuple[Tensor, ...]]:
        """Return the draws of an epoch, on the device, and the rows of its batches."""
        plan = plan_epoch(
            len(self.split), crop=self.recipe.crop, flip=self.recipe.flip, seed=self.seed, epoch=epoch
        )
        batches = torch.tensor_split(plan.order[self.keep[plan.order]], self.steps)
        return Epoch(plan.order, plan.shifts.to(self.device), plan.flips.to(self.device)), batches

    def batch(self, number: int) -> Batch:
        """Return the samples of step `number`, from 0 up over all epochs."""
        epoch, step = divmod(number, self.steps)
        plan, batches = self.plan(epoch)
        rows = batches[step].tensor_split(self.ranks.size)[self.ranks.rank]
        here = rows.to(self.device, non_blocking=True)
        return Batch(
            rows,
            augment(self.split.images.take(rows), plan.shifts[here], plan.flips[here], crop=self.recipe.crop),
            self.split.labels[here],
            self.weights[here],
            len(rows) / len(batches[step]),
            derive(self.seed, "training attack", epoch, step + 1, *rank_seed(self.ranks)),
        )

    @contextmanager
    def epoch(self, epoch: int) -> Iterator[None]:
        """Seed what the network draws in an epoch, from 0 up, and let its batch norms see whole batches inside."""
        with (
            global_seed(self.seed, "dropout", epoch, *rank_seed(self.ranks)),
            compiling_names(self.recipe),
            whole_batches(self.model, self.ranks),
            diverging_names(self.recipe, epoch),
        ):
            yield

    def attacked(self, batch: Batch) -> Tensor:
        """Return the images of a batch as the recipe attacks them at the network of the moment."""
        with out_of_memory_names("train.batch_size", self.recipe.batch_size), self.fabric.autocast():
            return self.losses.attack(self.network, batch.images, batch.labels, batch.seed)

    def step(self, batch: Batch, attacked: Tensor) -> tuple[Tensor, Tensor]:
        """Take one step by a batch whose images are `attacked`; return the mean loss (), logits (b, classes)."""
        with out_of_memory_names("train.batch_size", self.recipe.batch_size):
            with self.fabric.autocast():
                each, logits = self.losses.of(self.network, batch.images, attacked, batch.labels)
            loss = (batch.weights * each).mean()
            self.optimizer.zero_grad()
            self.fabric.backward(loss * batch.share)
            all_reduce_gradients(self.model, self.ranks)
        self.optimizer.step()
        self.state.scheduler.step()
        if self.state.average:
            self.state.average.update_parameters(self.model)
        return loss, logits

    @property
    def rate(self) -> float:
        """The learning rate of the next step."""
        return float(self.state.scheduler.get_last_lr()[0])


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


def check_average(decay: float | None, *, steps: int) -> None:
    """Raise InputError if after so many `steps` too much of the first weights is left in an average."""
    if decay is not None and decay**steps > UNTRAINED:
        left = f"{100 * decay**steps:.0f} % of the first weights"
        found = f"after {steps} steps the average still holds {left}; use a smaller decay"
        raise InputError("train.ema", decay, found)


def averaged(model: nn.Module, decay: float | None, *, steps: int) -> AveragedModel | None:
    """Return a copy of `model` that becomes decay * copy + (1 - decay) * model with every update, buffers too.

    None without a decay. Raises InputError as `check_average` does.
    """
    check_average(decay, steps=steps)
    if decay is None:
        return None
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
    """Return the error of a training that diverges: `found`, in this epoch, counted from 0."""
    return InputError("train.learning_rate", recipe.learning_rate, f"{found} in epoch {epoch + 1}; lower it")


@contextmanager
def diverging_names(recipe: Train, epoch: int) -> Iterator[None]:
    """Turn numbers that are not finite into an InputError."""
    try:
        yield
    except FloatingPointError as error:
        raise diverged(recipe, str(error), epoch) from error
