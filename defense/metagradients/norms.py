"""Batch norm as a part of the state: its running statistics depend on the weights, and logits on both.

    r <- (1 - rho) r + rho s(theta, B),   s the mean and the unbiased variance of each channel over the batch

rho is `momentum`; if that is None, 1 / (number of batches so far). torch differentiates neither the update nor the
use of r, so both are written out here (Ioffe and Szegedy 2015).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from defense.influence.members import Parameters
from defense.training.norms import BATCH_NORM, over

MEAN, VARIANCE = "running_mean", "running_var"


@dataclass(frozen=True)
class Update:
    """One update of the running statistics of the norm at `name`."""

    name: str
    share: float  # rho
    mean: Tensor  # (C,), of the batch
    variance: Tensor  # (C,), unbiased


def tracking_norms(model: nn.Module) -> dict[str, BATCH_NORM]:
    """Return the batch norms of `model` that keep running statistics, by name."""
    norms = {name: part for name, part in model.named_modules() if isinstance(part, BATCH_NORM)}
    return {name: norm for name, norm in norms.items() if norm.running_mean is not None}


@contextmanager
def recorded_updates(model: nn.Module) -> Iterator[list[Update]]:
    """Yield a list of the updates that forward passes inside make, in order; they can be differentiated."""
    updates: list[Update] = []

    def record(name: str, norm: BATCH_NORM, given: tuple[Any, ...]) -> None:
        if not norm.training:
            return
        assert norm.num_batches_tracked is not None
        x = given[0]
        share = 1 / (float(norm.num_batches_tracked) + 1) if norm.momentum is None else norm.momentum
        variance, mean = torch.var_mean(x, over(x))
        updates.append(Update(name, share, mean, variance))

    with ExitStack() as stack:
        for name, norm in tracking_norms(model).items():
            stack.callback(norm.register_forward_pre_hook(partial(record, name)).remove)
        yield updates


def pull_back(updates: list[Update], adjoints: Parameters) -> Tensor:
    """Return the scalar whose gradient is the part of the updates in the adjoint of the weights.

    adjoints: d phi / d r' by name of buffer; it becomes d phi / d r, of the statistics before the updates.
    """
    total = torch.zeros(())
    for update in reversed(updates):
        for kind, found in ((MEAN, update.mean), (VARIANCE, update.variance)):
            name = f"{update.name}.{kind}".lstrip(".")
            total = total.to(found) + (update.share * adjoints[name] * found).sum()
            adjoints[name] = (1 - update.share) * adjoints[name]
    return total


@contextmanager
def open_statistics(model: nn.Module) -> Iterator[Parameters]:
    """Let logits in eval mode be differentiated by the running statistics, which are yielded by name of buffer."""
    norms = tracking_norms(model)
    leaves: Parameters = {}
    try:
        for name, norm in norms.items():
            own = {kind: getattr(norm, kind).detach().clone().requires_grad_() for kind in (MEAN, VARIANCE)}
            leaves |= {f"{name}.{kind}".lstrip("."): value for kind, value in own.items()}
            norm.forward = partial(by_statistics, norm, own[MEAN], own[VARIANCE])  # type: ignore[method-assign]
        yield leaves
    finally:
        for norm in norms.values():
            norm.__dict__.pop("forward", None)  # the one of its class again


def by_statistics(norm: BATCH_NORM, mean: Tensor, variance: Tensor, x: Tensor) -> Tensor:
    """Return (x - mean) / sqrt(variance + eps), scaled and moved as `norm` does in eval mode; x (b, C, ...)."""
    shape = (1, -1, *[1] * (x.ndim - 2))
    out = (x - mean.view(shape)) * (variance + norm.eps).rsqrt().view(shape)
    return out if norm.weight is None else out * norm.weight.view(shape) + norm.bias.view(shape)
