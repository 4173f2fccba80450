"""Slow, obvious versions of what defense/ does fast."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, jacrev, vmap

from defense.data.splits import Split


def per_sample_gradients(model: nn.Module, x: Tensor, labels: Tensor) -> Tensor:
    """Return the gradient of each sample's loss (n, p), by vmap(grad), the model being in eval mode.

    p: of the parameters that are not frozen.
    """
    parameters = {name: value.detach() for name, value in model.named_parameters() if value.requires_grad}
    buffers = dict(model.named_buffers())

    def loss(values: dict[str, Tensor], picture: Tensor, label: Tensor) -> Tensor:
        logits = functional_call(model, (values, buffers), (picture[None],))
        return F.cross_entropy(logits, label[None])

    gradients = vmap(grad(loss), in_dims=(None, 0, 0))(parameters, x, labels)
    return torch.cat([value.flatten(1) for value in gradients.values()], dim=1)


def inner_products(model: nn.Module, train: Split, validation: Split) -> Tensor:
    """Return grad v . grad loss_i for every training sample, v the mean loss on `validation`: (n,)."""
    model = model.eval()
    everything = [part.images.take(torch.arange(len(part))) for part in (train, validation)]
    dtype = next(model.parameters()).dtype
    direction = per_sample_gradients(model, everything[1].to(dtype), validation.labels).mean(0)
    return per_sample_gradients(model, everything[0].to(dtype), train.labels) @ direction


def gauss_newton(model: nn.Module, split: Split) -> Tensor:
    """Return G = mean_i J_i^T (diag(p_i) - p_i p_i^T) J_i, dense (p, p), for cross-entropy."""
    x = split.images.take(torch.arange(len(split)))
    parameters = {name: value.detach() for name, value in model.named_parameters()}
    total = torch.zeros(0)
    for row in range(len(split)):
        jacobians = jacrev(lambda values, row=row: functional_call(model, values, (x[row : row + 1],))[0])(
            parameters
        )
        jacobian = torch.cat([value.flatten(1) for value in jacobians.values()], dim=1)
        p = functional_call(model, parameters, (x[row : row + 1],))[0].softmax(0).detach()
        part = jacobian.T @ (p.diag() - p.outer(p)) @ jacobian / len(split)
        total = part if row == 0 else total + part
    return total


def flat(values: dict[str, Tensor]) -> Tensor:
    """Return all values in one vector."""
    return torch.cat([value.flatten() for value in values.values()])
