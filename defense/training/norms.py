"""Batch norm over a batch that several processes share: the statistics are those of the whole batch.

    m = (1/N) sum_i x_i,   s = (1/N) sum_i (x_i - m)^2,   h = (x - m) / sqrt(s + eps),   y = gamma h + beta
    dL/dx = gamma / sqrt(s + eps) [ g - (1/N) sum_i g_i - h (1/N) sum_i g_i h_i ],   g = dL/dy

with the sums over all samples, of every process, and all places of an image (Ioffe and Szegedy 2015). Each
process sums its own, and only those sums travel. torch has this for GPUs alone (nn.SyncBatchNorm); this runs on
every device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from defense.runtime.distributed import Ranks

BATCH_NORM = nn.modules.batchnorm._BatchNorm


@contextmanager
def whole_batches(model: nn.Module, ranks: Ranks) -> Iterator[None]:
    """Let every batch norm of `model` in training mode see the samples of all processes while inside.

    All processes make the same forward and backward passes meanwhile, each on samples of its own.
    """
    norms = [part for part in model.modules() if isinstance(part, BATCH_NORM)] if ranks.size > 1 else []
    try:
        for norm in norms:
            norm.forward = partial(normalized, norm, norm.forward, ranks)  # type: ignore[method-assign]
        yield
    finally:
        for norm in norms:
            norm.__dict__.pop("forward", None)  # the one of its class again


def normalized(norm: BATCH_NORM, usual: Callable[[Tensor], Tensor], ranks: Ranks, x: Tensor) -> Tensor:
    """Return what `norm` makes of x (b, C, ...), this process's part of a batch; `usual` is its own forward."""
    if not norm.training:
        return usual(x)
    exact = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
    shape = (1, -1, *[1] * (x.ndim - 2))
    with torch.no_grad():
        own = exact.new_tensor([exact.numel() // exact.shape[1]])
        sums = torch.cat([exact.sum(over(exact)), own])
        ranks.sum([sums])
        count, mean = sums[-1], sums[:-1] / sums[-1]
        spread = (exact - mean.view(shape)).square().sum(over(exact))  # about the mean of all: nothing cancels
        ranks.sum([spread])
        follow(norm, mean, spread / count, count)
    out: Tensor = Shared.apply(
        exact, norm.weight, norm.bias, Statistics(mean, spread / count, count, norm.eps, ranks)
    )
    return out.to(x.dtype)


def over(x: Tensor) -> list[int]:
    """Return the axes of x (b, C, ...) but that of the channels."""
    return [axis for axis in range(x.ndim) if axis != 1]


@dataclass(frozen=True)
class Statistics:
    """Those of a batch that `ranks` share: of each channel (C,), over `count` numbers."""

    mean: Tensor
    variance: Tensor
    count: Tensor
    eps: float
    ranks: Ranks


class Shared(torch.autograd.Function):
    """x -> y, with the gradient that goes through the statistics of the whole batch; see the head of this file."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, of: Statistics) -> Tensor:
        """Return y; without weight and bias it is h."""
        ctx.save_for_backward(x, weight)
        ctx.of = of
        return F.batch_norm(x, of.mean, of.variance, weight, bias, eps=of.eps)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return dL/dx of the whole loss, and this process's part of dL/dgamma and dL/dbeta."""
        (given,), (x, weight), of = gradients, ctx.saved_tensors, ctx.of
        out = F.batch_norm(x, of.mean, of.variance, eps=of.eps)  # h
        own = torch.stack([(given * out).sum(over(given)), given.sum(over(given))])
        whole = own.clone()
        of.ranks.sum([whole])
        shape = (1, -1, *[1] * (x.ndim - 2))
        along, through = ((part / of.count).view(shape) for part in whole)
        scale = (of.variance + of.eps).rsqrt() * (1 if weight is None else weight)
        by_x = torch.sub(given, out.mul_(along).add_(through)).mul_(scale.view(shape))
        by_affine = (None, None) if weight is None else (own[0], own[1])
        return by_x, *by_affine, None


@torch.no_grad()
def follow(norm: BATCH_NORM, mean: Tensor, variance: Tensor, count: Tensor) -> None:
    """Bring the running statistics of `norm` up to date with those of one batch of `count` numbers a channel."""
    if not norm.track_running_stats or norm.running_mean is None or norm.running_var is None:
        return
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked.add_(1)
    share = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
    norm.running_mean.lerp_(mean.to(norm.running_mean), share)
    norm.running_var.lerp_((variance * (count / (count - 1))).to(norm.running_var), share)
