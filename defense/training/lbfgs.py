"""Training to the minimum: L-BFGS on the whole split at once, for small convex models.

    minimise  mean_i weight_i * cross_entropy_i + weight_decay / 2 |theta|^2

Where the model is linear in its parameters there is one minimum, whatever the start, the seed and the order:
what is retrained without a sample differs from it by that sample alone.
"""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from defense.config.schema import Train
from defense.errors import InputError
from defense.models.modes import evaluating
from defense.models.predict import predict
from defense.runtime.runtime import Runtime
from defense.training.epochs import EpochEnd
from defense.training.inputs import Criteria, TrainingSet
from defense.training.validation import accuracy

log = logging.getLogger(__name__)


def fit_lbfgs(
    model: nn.Module,
    samples: TrainingSet,
    recipe: Train,
    runtime: Runtime,
    *,
    criteria: Criteria,
    seed: int,
    after: dict[str, Any] | None = None,
) -> Iterator[EpochEnd]:
    """Train `model` in place, in float64 and eval mode, and yield the numbers of the minimum as one epoch.

    Arguments are those of `defense.training.loop.fit`; the losses and `seed` have nothing to act on. The log warns
    if the largest entry of the gradient stays above `recipe.tolerance` after `recipe.epochs` iterations. There is
    one epoch, so with a state nothing is left to do. A killed search begins again.
    """
    if after is not None:
        return
    train, rows, fabric = samples.split, samples.kept, runtime.fabric
    double = copy.deepcopy(model).to(fabric.device).double().eval()
    x, labels = train.images.take(rows).double(), train.labels[rows.to(train.labels.device)]
    weight = samples.weights[rows].to(x)
    parameters = [parameter for parameter in double.parameters() if parameter.requires_grad]
    solver = torch.optim.LBFGS(
        parameters,
        max_iter=recipe.epochs,
        max_eval=4 * recipe.epochs,
        tolerance_grad=recipe.tolerance,
        tolerance_change=0,
        history_size=50,
        line_search_fn="strong_wolfe",
    )

    def lower() -> Tensor:
        solver.zero_grad()
        decay = sum(parameter.square().sum() for parameter in parameters)
        losses = F.cross_entropy(double(x), labels, reduction="none")
        loss: Tensor = (weight * losses).mean() + recipe.weight_decay / 2 * decay
        loss.backward()
        return loss

    with evaluating(double), torch.enable_grad(), one_thread():
        solver.step(lower)
        loss = lower().item()
    if not math.isfinite(loss):
        raise InputError(
            "train.optimizer", recipe.optimizer, f"the training loss is {loss}; expected train=standard"
        )
    steepest = max(float(parameter.grad.abs().max()) for parameter in parameters if parameter.grad is not None)
    if steepest > recipe.tolerance:
        log.warning("training has not converged: a gradient of %.2g, wanted %.2g", steepest, recipe.tolerance)
    model.load_state_dict(double.state_dict())
    model.to(fabric.device)
    runtime.progress(1, 1, loss=loss)
    kept = train.subset(rows)
    found = accuracy(predict(model, kept, batch_size=recipe.batch_size), kept.labels.cpu())
    numbers = {
        "epoch": 1,
        "train_loss": loss,
        "train_accuracy": found,
        **criteria.measure(model, 1),
        "learning_rate": 1.0,
    }
    yield EpochEnd(numbers, model.state_dict())


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread: handing out pieces of a small problem costs more than computing them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
