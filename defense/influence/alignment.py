"""The derivative of every training loss along one direction, in one forward-mode pass per batch.

    d/dt loss_i(theta + t u) at t = 0  =  u . grad loss_i

With u = grad v this is the alignment of sample i with the objective: a step of gradient descent on sample i moves
theta by -grad loss_i and so lowers v by it. Positive helps, negative harms. The pass is exact, forms no gradient
of a single sample, and does not depend on the size of the validation set.

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

from defense.data.splits import Split
from defense.errors import out_of_memory_names
from defense.influence.forward_mode import load_forward_mode
from defense.influence.members import Member, Parameters, logits_at, masked
from defense.influence.per_sample import gradients_of_batch
from defense.models.modes import evaluating

log = logging.getLogger(__name__)
Watch = Callable[..., None]


def losses_at(model: nn.Module, member: Member, parameters: Parameters, x: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy (b,) of each sample."""
    return F.cross_entropy(logits_at(model, member, parameters, x), labels, reduction="none")


@torch.no_grad()
def directional_derivatives(
    model: nn.Module, member: Member, split: Split, direction: Parameters, *, batch_size: int, watch: Watch
) -> Tensor:
    """Return d/dt loss_i(theta + t direction) at t = 0 for each sample of `split`: (n,), on the CPU.

    The model is in eval mode meanwhile and comes back untouched. An operator without forward mode is replaced by
    gradients per sample, which is said in the log. Raises FloatingPointError that names the id of the first sample
    whose derivative is not finite.
    """
    out, forward_mode = [], True
    with evaluating(model), masked(model, member), out_of_memory_names("scorer.batch_size", batch_size):
        for rows, x, labels in split.batches(batch_size):
            if forward_mode:
                try:
                    derivative = forward_derivative(model, member, direction, x, labels)
                except NotImplementedError as error:
                    log.warning("no forward mode for this model, gradients per sample instead: %s", error)
                    forward_mode = False
            if not forward_mode:
                derivative = inner_products(gradients_of_batch(model, member, x, labels), direction)
            out.append(finite(derivative, split, rows).cpu())
            watch(rows.stop, len(split))
    return torch.cat(out)


def forward_derivative(
    model: nn.Module, member: Member, direction: Parameters, x: Tensor, labels: Tensor
) -> Tensor:
    """Return the derivative (b,) by one Jacobian-vector product.

    Fused attention has no forward mode, so attention runs in plain operations.
    """

    def losses(parameters: Parameters) -> Tensor:
        return losses_at(model, member, parameters, x, labels)

    load_forward_mode()
    with sdpa_kernel(SDPBackend.MATH):
        derivative: Tensor = jvp(losses, (member.parameters,), (direction,))[1]
    return derivative


def inner_products(gradients: Parameters, direction: Parameters) -> Tensor:
    """Return g_i . u (b,) for gradients (b, ...) by name."""
    return torch.stack([g.flatten(1) @ direction[name].flatten() for name, g in gradients.items()]).sum(0)


def finite(values: Tensor, split: Split, rows: slice) -> Tensor:
    """Return `values`; raises FloatingPointError that names the first sample for which they are not finite."""
    good = values.isfinite()
    if not bool(good.all()):
        first = split.ids[rows][int((~good).nonzero()[0])]
        raise FloatingPointError(f"the score of training sample {int(first)} is not finite")
    return values
