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
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.func import jvp
from torch.nn.attention import SDPBackend, sdpa_kernel

from defense.data.splits import Split
from defense.influence.batching import map_batches, with_auto_batch_size
from defense.influence.finite import finite
from defense.influence.forward_mode import LeanBatchNorm, load_forward_mode
from defense.influence.layout import layout
from defense.influence.members import Member, Parameters, logits_at, masked
from defense.influence.per_sample import (
    COMPARED,
    Gradients,
    chunk_of,
    closeness,
    inner_products,
    length_of,
    lengths,
    one_by_one,
    reason,
)
from defense.models.loss import cross_entropy
from defense.models.modes import evaluating
from defense.runtime.runtime import Runtime

log = logging.getLogger(__name__)
Derivative = Callable[[nn.Module, Member, Parameters, Tensor, Tensor], Tensor]  # as `forward_derivative`


def losses_at(model: nn.Module, member: Member, parameters: Parameters, x: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy (b,) of each sample, in float32 at least."""
    return cross_entropy(logits_at(model, member, parameters, x), labels)


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


@dataclass
class Derivatives:
    """Forward mode if this network takes it and it agrees with plain autograd, else gradients of single samples.

    fast: how forward mode is done, exactly and at once, or as `compiled` and `precision` have it. It is compared
    on the first batch; one object serves one scoring.
    """

    fast: Derivative = forward_derivative
    gradients: Gradients = field(default_factory=Gradients)
    chosen: Derivative | None = None

    def __call__(
        self, model: nn.Module, member: Member, direction: Parameters, x: Tensor, labels: Tensor
    ) -> Tensor:
        """Return the derivative (b,); the model is in eval mode. Raises InputError as `Gradients`."""
        if self.chosen is not None:
            return self.chosen(model, member, direction, x, labels)
        try:
            found = self.fast(model, member, direction, x, labels)
            rows = found.abs().topk(min(COMPARED, len(x))).indices
            exact = found[rows] if self.fast is forward_derivative else None
            why = disagreement(model, member, direction, x[rows], labels[rows], exact)
        except Exception as error:  # torch.func and a user's network can raise anything
            why = reason(error)
        self.chosen = self.by_gradients if why else self.fast
        if not why:
            return found
        log.warning("gradients per sample instead of forward mode, about a backward pass for each: %s", why)
        return self.by_gradients(model, member, direction, x, labels)

    def by_gradients(
        self, model: nn.Module, member: Member, direction: Parameters, x: Tensor, labels: Tensor
    ) -> Tensor:
        """Return the derivative (b,) as u . g_i, the gradients g_i formed for a part of the batch at a time."""
        chunk = chunk_of(member, len(x))
        parts = zip(x.split(chunk), labels.split(chunk), strict=True)
        return torch.cat([inner_products(self.gradients(model, member, *part), direction) for part in parts])


def disagreement(
    model: nn.Module, member: Member, direction: Parameters, x: Tensor, labels: Tensor, found: Tensor | None
) -> str | None:
    """Return in words that forward mode differentiates another function than autograd; None if it does not.

    found: the derivatives (b,) by forward mode in full precision; None computes them. Both differ if a hook
    changes gradients, or the rules of a function contradict each other.
    """
    forward = forward_derivative(model, member, direction, x, labels) if found is None else found
    exact = one_by_one(model, member, x, labels)
    off = (forward - inner_products(exact, direction)).abs()
    allowed = closeness(exact) * length_of(direction) * lengths(exact)
    return FUNCTION if bool((off > allowed).any()) else None


FUNCTION = "forward mode gives another derivative than autograd, as with a hook that changes gradients"


@torch.no_grad()
def directional_derivatives(
    model: nn.Module,
    member: Member,
    split: Split,
    direction: Parameters,
    *,
    batch_size: int | None,
    derivative: Derivative = forward_derivative,
    runtime: Runtime | None = None,
) -> Tensor:
    """Return d/dt loss_i(theta + t direction) at t = 0 for each sample of `split`: (n,), on the CPU.

    The model is in eval mode meanwhile and comes back untouched. derivative: computes one batch, see
    `Derivatives`, whose fallback is logged. runtime: see `map_batches`. Raises FloatingPointError that names the
    id of the first sample whose derivative is not finite.
    """
    formed = derivative if isinstance(derivative, Derivatives) else Derivatives(derivative)

    def one_pass(size: int) -> Tensor:
        arranged = layout(model, member, split.images.take(torch.arange(min(2, len(split)))))

        def one_batch(rows: slice, x: Tensor, labels: Tensor) -> Tensor:
            values = formed(model, member, direction, arranged(x), labels)
            return finite(values, split, rows, "the score of training sample")

        return map_batches(split, size, one_batch, runtime or Runtime(label="derivatives"))

    with evaluating(model):
        return with_auto_batch_size(batch_size, split, one_pass)
