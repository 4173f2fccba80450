"""The training loop: SGD with Nesterov momentum and a one-cycle learning rate, on weighted samples."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from defense.config.schema import Train
from defense.runtime.distributed import Ranks
from defense.runtime.runtime import Runtime
from defense.training.epochs import EpochEnd
from defense.training.inputs import Criteria, TrainingSet
from defense.training.network import to_channels_last
from defense.training.sgd import TrainingRun, diverged

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
    run = TrainingRun(model, samples, recipe, runtime, criteria.losses, seed=seed)
    measured = to_channels_last(run.result, recipe)  # not compiled: each mode and size of batch is a program
    for epoch in range(run.state.begin(after), recipe.epochs):
        tally, rates = Tally(run.device, run.ranks), 0.0
        with run.epoch(epoch):
            for number in range(epoch * run.steps, (epoch + 1) * run.steps):
                rates += run.rate
                batch = run.batch(number)
                loss, logits = run.step(batch, run.attacked(batch))
                tally.add(loss, logits, batch.labels)
                done = number + 1
                if (done - epoch * run.steps) % READ_EVERY == 0 or done % run.steps == 0:
                    tally.read(recipe, epoch)
                runtime.progress(done, run.total, **tally.numbers)
        numbers = {f"train_{name}": value for name, value in tally.numbers.items()}
        numbers = {
            "epoch": epoch + 1,
            **numbers,
            **criteria.measure(measured, epoch + 1),
            "learning_rate": rates / run.steps,
        }
        yield EpochEnd(numbers, run.result.state_dict(), partial(run.state.state, epoch + 1))


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
