r"""The alignment of every training sample with the gradient of an objective, from one forward-mode derivative.

    score_i = grad v . grad loss_i = d/dt loss_i(theta + t grad v) at t = 0

The derivative of all losses of a batch along one direction is a single Jacobian-vector product: it is exact,
forms no gradient of a single sample, and does not depend on the size of the validation set. A step of gradient
descent on sample i moves theta by -grad loss_i and so lowers v by score_i: positive helps, negative harms.

Source: Yang et al., TMLR 2026, arXiv 2405.17490 (influence with the inverse Hessian replaced by I).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, jvp

from defense.data.splits import Split
from defense.errors import out_of_memory_names
from defense.models.modes import evaluating

Parameters = dict[str, Tensor]


def trainable(model: nn.Module) -> Parameters:
    """Return the parameters that training changes, by name, detached."""
    return {name: value.detach() for name, value in model.named_parameters() if value.requires_grad}


def losses(model: nn.Module, parameters: Parameters, x: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy (b,) of each sample at the given parameters."""
    return F.cross_entropy(functional_call(model, parameters, (x,)), labels, reduction="none")


def mean_loss_gradient(model: nn.Module, split: Split, *, batch_size: int) -> tuple[float, Parameters]:
    """Return v = mean_j loss_j over `split` in eval mode, and grad v; exact for any batch size."""
    parameters = {name: value.clone().requires_grad_() for name, value in trainable(model).items()}
    value = 0.0
    gradient = {name: torch.zeros_like(tensor) for name, tensor in parameters.items()}
    with evaluating(model), torch.enable_grad(), out_of_memory_names("scorer.batch_size", batch_size):
        for _, x, labels in split.batches(batch_size):
            part = losses(model, parameters, x, labels).sum() / len(split)
            value += part.item()
            added = torch.autograd.grad(part, list(parameters.values()), materialize_grads=True)
            for total, add in zip(gradient.values(), added, strict=True):
                total += add
    return value, gradient


def forward_derivative(
    function: Callable[[Parameters], Tensor], at: Parameters, direction: Parameters
) -> tuple[Tensor, Tensor]:
    """Return function(at) and its derivative along `direction`, in one forward pass.

    Torch loads its own rules for forward mode on first use, and warns of its own use of torch.jit.script.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit.script", category=FutureWarning)
        value, derivative = jvp(function, (at,), (direction,))[:2]
    return value, derivative


@torch.no_grad()
def directional_derivatives(
    model: nn.Module, split: Split, direction: Parameters, *, batch_size: int, watch: Callable[..., None]
) -> Tensor:
    """Return d/dt loss_i(theta + t direction) at t = 0 for each sample of `split`: (n,), on the CPU.

    The model is in eval mode meanwhile and comes back untouched. Raises FloatingPointError that names the id
    of the first sample whose derivative is not finite.
    """
    parameters = trainable(model)
    out = []
    with evaluating(model), out_of_memory_names("scorer.batch_size", batch_size):
        for rows, x, labels in split.batches(batch_size):

            def at(values: Parameters, x: Tensor = x, labels: Tensor = labels) -> Tensor:
                return losses(model, values, x, labels)

            _, derivative = forward_derivative(at, parameters, direction)
            finite = derivative.isfinite()
            if not bool(finite.all()):
                first = split.ids[rows][int((~finite).nonzero()[0])]
                raise FloatingPointError(f"the score of training sample {int(first)} is not finite")
            out.append(derivative.cpu())
            watch(rows.stop, len(split))
    return torch.cat(out)
