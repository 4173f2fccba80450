"""Torch's forward mode: loaded in silence, and with a leaner rule for batch norm.

Torch differentiates batch norm in seven passes over its input; in eval mode it is one scale and shift per channel,

    y = s x + t,   dy = s dx + ds x + dt,   s = weight / sqrt(var + eps),   t = bias - s mean

which takes three. Where batch norm follows every convolution that is a fifth of a derivative of a small network.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad
from torch.overrides import TorchFunctionMode


@contextmanager
def scripting_in_silence() -> Iterator[None]:
    """Ignore that libraries use torch.jit.script, which torch warns of and nobody here can mend."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit.script", category=FutureWarning)
        yield


@cache
def load_forward_mode() -> None:
    """Load torch's rules for forward mode, as it does on first use."""
    with scripting_in_silence(), forward_ad.dual_level():
        forward_ad.make_dual(torch.zeros(1), torch.zeros(1))


class ScaleShift(torch.autograd.Function):
    """s x + t, differentiated forward alone."""

    @staticmethod
    def forward(x: Tensor, s: Tensor, t: Tensor) -> Tensor:
        """Return s x + t."""
        return torch.addcmul(t, x, s)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """Keep what the derivative needs."""
        ctx.save_for_forward(*inputs)

    @staticmethod
    def jvp(ctx: Any, dx: Tensor, ds: Tensor, dt: Tensor) -> Tensor:
        """Return s dx + ds x + dt."""
        x, s, _ = ctx.saved_tensors
        return torch.addcmul(dt, x, ds).addcmul_(dx, s)


def batch_norm(
    x: Tensor, mean: Tensor, var: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> Tensor:
    """Return batch norm of x (b, channels, ...) by statistics that are held fixed."""
    s = torch.rsqrt(var + eps)
    s = s if weight is None else s * weight
    t = -mean * s if bias is None else bias - mean * s
    shape = [1, -1] + [1] * (x.ndim - 2)
    y: Tensor = ScaleShift.apply(x, s.view(shape), t.view(shape))
    return y


class LeanBatchNorm(TorchFunctionMode):
    """While inside, batch norm by running statistics is `batch_norm`; by those of the batch it is torch's."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Stand in for one function of torch."""
        if func is F.batch_norm:
            return self.chosen(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def chosen(
        self,
        input: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        """Return batch norm; the arguments are those of `torch.nn.functional.batch_norm`."""
        if training or running_mean is None or running_var is None:
            return F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
        return batch_norm(input, running_mean, running_var, weight, bias, eps)
