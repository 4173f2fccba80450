"""Whether the reverse of a training run is its derivative: tried on a few samples before any compute."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from defense.data.splits import Split
from defense.errors import InputError
from defense.metagradient.norms import tracking_norms
from defense.models.contract import FEW, first_line
from defense.models.modes import attributes_of, buffers_of, modes_of

FIELD = "scorer.method"
NAME = "metagradient"


def check_differentiable(model: nn.Module, train: Split) -> None:
    """Raise InputError if training of `model` cannot be differentiated: see the checks below.

    The model comes back as it was.
    """
    rows = torch.arange(min(FEW, len(train)))
    x, labels = train.images.take(rows).cpu(), train.labels[rows.to(train.labels.device)].cpu()
    with modes_of(model), buffers_of(model), attributes_of(model), torch.random.fork_rng(devices=()):
        model.train()
        with unchanged_buffers(model), no_draws():
            check_twice_differentiable(model, x, labels)


def check_twice_differentiable(model: nn.Module, x: Tensor, labels: Tensor) -> None:
    """Raise InputError unless the loss has a gradient whose inner product with itself has one, too."""
    weights = [value for value in model.parameters() if value.requires_grad]
    if not weights:
        raise InputError("model", type(model).__name__, "no parameter asks for a gradient; model.requires_grad_()")
    try:
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            loss = F.cross_entropy(model(x), labels)
            first = torch.autograd.grad(loss, weights, create_graph=True, allow_unused=True)
            square = torch.stack([value.square().sum() for value in first if value is not None]).sum()
            torch.autograd.grad(square, weights, allow_unused=True)
    except (RuntimeError, NotImplementedError) as error:
        why = f"{type(model).__name__} cannot be differentiated twice ({first_line(error)})"
        raise InputError(FIELD, NAME, f"{why}; expected another scorer, or another network") from error


@contextmanager
def no_draws() -> Iterator[None]:
    """Raise InputError if the network draws random numbers inside: a replay would have to draw them again."""
    before = torch.get_rng_state()
    yield
    if not torch.equal(before, torch.get_rng_state()):
        found = "the network draws random numbers in training, as dropout does"
        raise InputError(FIELD, NAME, f"{found}; expected model.dropout=0, or another scorer")


@contextmanager
def unchanged_buffers(model: nn.Module) -> Iterator[None]:
    """Raise InputError if a buffer changes inside that is no running statistic of batch norm."""
    norms = tracking_norms(model)
    known = {f"{name}.{kind}".lstrip(".") for name, norm in norms.items() for kind, _ in norm.named_buffers()}
    before = {name: value.clone() for name, value in model.named_buffers()}
    yield
    for name, value in model.named_buffers():
        if name not in known and (name not in before or not torch.equal(before[name], value)):
            found = f"the buffer {name} changes in training, and no derivative goes through it"
            raise InputError(FIELD, NAME, f"{found}; expected another scorer, or another network")
