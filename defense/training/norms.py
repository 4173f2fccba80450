"""Batch norm over a batch that several processes share: the statistics are those of the whole batch.

    m = (1/N) sum_i x_i,   s = (1/N) sum_i (x_i - m)^2,   y = gamma (x - m) / sqrt(s + eps) + beta

with the sums over all samples, of every process, and all places of a picture (Ioffe and Szegedy 2015). torch has
this for GPUs alone (nn.SyncBatchNorm); here it is a few differentiable operations, the same on every device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from defense.crew import Crew

BATCH_NORM = nn.modules.batchnorm._BatchNorm


@contextmanager
def whole_batches(model: nn.Module, crew: Crew) -> Iterator[None]:
    """Let every batch norm of `model` in training mode see the samples of all processes while inside.

    All processes make the same forward and backward passes meanwhile, each on samples of its own.
    """
    norms = [part for part in model.modules() if isinstance(part, BATCH_NORM)] if crew.size > 1 else []
    try:
        for norm in norms:
            norm.forward = partial(normalized, norm, norm.forward, crew)  # type: ignore[method-assign]
        yield
    finally:
        for norm in norms:
            norm.__dict__.pop("forward", None)  # the one of its class again


def normalized(norm: BATCH_NORM, usual: Callable[[Tensor], Tensor], crew: Crew, x: Tensor) -> Tensor:
    """Return what `norm` makes of x (b, C, ...), its part of a batch; `usual` is its own forward."""
    if not norm.training:
        return usual(x)
    exact = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
    axes = [axis for axis in range(x.ndim) if axis != 1]
    shape = (1, -1, *[1] * (x.ndim - 2))
    own = x.numel() // x.shape[1]
    sums = crew.added(torch.cat([exact.sum(axes), exact.new_tensor([own])]))
    count, mean = sums[-1].detach(), sums[:-1] / sums[-1].detach()
    centred = exact - mean.view(shape)
    variance = crew.added(centred.square().sum(axes)) / count
    follow(norm, mean.detach(), variance.detach(), count)
    out = centred * (variance + norm.eps).rsqrt().view(shape)
    if norm.affine:
        out = out * norm.weight.view(shape) + norm.bias.view(shape)
    return out.to(x.dtype)


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
