"""The derivative of every training loss along one direction, in one forward-mode pass per batch.

    d/dt loss_i(theta + t u) at t = 0  =  u . grad loss_i

With u = grad v this is the alignment of sample i with the objective: a step of gradient descent on sample i moves
theta by -grad loss_i and so lowers v by it. Positive helps, negative harms. The pass is exact, forms no gradient
of a single sample, and does not depend on the size of the validation set.

It costs three forward passes where convolutions or products of matrices are all the work, for a layer y = W x has
dy = W dx + dW x beside it; `compiled` and `precision` are about the rest, and about less exact arithmetic.

Source: Yang et al., TMLR 2026, arXiv 2405.17490 (influence with the inverse Hessian replaced by I).
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import jvp
from torch.nn.attention import SDPBackend, sdpa_kernel

from defense.crew import ALONE, Crew
from defense.data.splits import Split
from defense.influence.batching import fitted, gathered
from defense.influence.finite import finite
from defense.influence.forward_mode import LeanBatchNorm, load_forward_mode
from defense.influence.layout import layout
from defense.influence.members import Member, Parameters, logits_at, masked
from defense.influence.per_sample import chunk_of, gradients_of_batch
from defense.memory import Forgetful, Memory
from defense.models.modes import evaluating
from defense.watch import Watch

log = logging.getLogger(__name__)
Derivative = Callable[[nn.Module, Member, Parameters, Tensor, Tensor], Tensor]  # as `forward_derivative`


def losses_at(model: nn.Module, member: Member, parameters: Parameters, x: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy (b,) of each sample, in float32 at least."""
    logits = logits_at(model, member, parameters, x)
    exact = logits if logits.dtype is torch.float64 else logits.float()
    return F.cross_entropy(exact, labels, reduction="none")


def forward_derivative(
    model: nn.Module, member: Member, direction: Parameters, x: Tensor, labels: Tensor
) -> Tensor:
    """Return the derivative (b,) by one Jacobian-vector product; the model is in eval mode.

    Fused attention has no forward mode, so attention runs in plain operations.
    """

    def losses(parameters: Parameters) -> Tensor:
        return losses_at(model, member, parameters, x, labels)

    load_forward_mode()
    with masked(model, member), LeanBatchNorm(), sdpa_kernel(SDPBackend.MATH):
        derivative: Tensor = jvp(losses, (member.parameters,), (direction,))[1]
    return derivative


@torch.no_grad()
def directional_derivatives(
    model: nn.Module,
    member: Member,
    split: Split,
    direction: Parameters,
    *,
    batch_size: int | None,
    watch: Watch,
    derivative: Derivative = forward_derivative,
    memory: Memory | None = None,
    part: str = "derivatives",
    crew: Crew = ALONE,
) -> Tensor:
    """Return d/dt loss_i(theta + t direction) at t = 0 for each sample of `split`: (n,), on the CPU.

    The model is in eval mode meanwhile and comes back untouched. derivative: how one batch is done, exactly and
    at once, or as `compiled` and `precision` have it. memory: keeps what is done so far, under `part`. crew: the
    processes that share the batches. An operator without forward mode is replaced by gradients per sample, which
    is said in the log. Raises FloatingPointError that names the id of the first sample whose derivative is not
    finite.
    """
    chosen = derivative

    def one_pass(size: int) -> Tensor:
        arranged = layout(model, member, split.images.take(torch.arange(min(2, len(split)))))

        def one_batch(rows: slice, x: Tensor, labels: Tensor) -> Tensor:
            nonlocal chosen
            try:
                values = chosen(model, member, direction, arranged(x), labels)
            except NotImplementedError as error:
                if chosen is gradient_derivative:
                    raise
                log.warning("no forward mode for this model, gradients per sample instead: %s", error)
                chosen = gradient_derivative
                values = chosen(model, member, direction, x, labels)
            return finite(values, split, rows, "the score of training sample")

        return gathered(split, size, one_batch, watch=watch, memory=memory or Forgetful(), part=part, crew=crew)

    with evaluating(model):
        return fitted(batch_size, split, one_pass)


def gradient_derivative(
    model: nn.Module, member: Member, direction: Parameters, x: Tensor, labels: Tensor
) -> Tensor:
    """Return the derivative (b,) as u . g_i, the gradients g_i formed for a part of the batch at a time."""
    chunk = chunk_of(member, len(x))
    with masked(model, member):
        parts = zip(x.split(chunk), labels.split(chunk), strict=True)
        return torch.cat([inner_products(gradients_of_batch(model, member, *part), direction) for part in parts])


def inner_products(gradients: Parameters, direction: Parameters) -> Tensor:
    """Return g_i . u (b,) for gradients (b, ...) by name."""
    return torch.stack([g.flatten(1) @ direction[name].flatten() for name, g in gradients.items()]).sum(0)
