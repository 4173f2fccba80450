r"""The Hessian of the mean training loss, dense, and exact influence by it.

    H = (1/n) sum_i  d^2 loss_i / d theta^2,     u = (H + lambda I)^-1 grad v

Source: Koh and Liang, Understanding black-box predictions via influence functions, ICML 2017. Away from a minimum
H has eigenvalues below zero, and where one of them is near -lambda u is large and along it: what is then exact is
the inverse, not what it says of retraining.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import grad, vjp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from defense.data.splits import Split
from defense.errors import InputError
from defense.influence.members import Member, Parameters, logits_at, masked
from defense.models.modes import evaluating

LARGEST = 5000  # parameters: the matrix then takes 200 MB, and its rows as many backward passes as there are
ROWS = 16  # of the matrix at once: more of them leave the cache


def check_size(parameters: Parameters, field: str) -> None:
    """Raise InputError where there are more parameters than a dense matrix is made for."""
    count = sum(value.numel() for value in parameters.values())
    if count > LARGEST:
        found = f"the dense Hessian of {count} parameters is too large; expected at most {LARGEST}, or cg"
        raise InputError(field, "hessian", found)


def mean_hessian(model: nn.Module, member: Member, train: Split, *, batch_size: int) -> Tensor:
    """Return H (p, p), symmetric, float64 on the CPU; entries of parameters are in the order of the member.

    Its products are in the precision of the model: in float32 they take a quarter of the time, and the entries are
    exact to some 1e-7 of the largest.
    """
    check_size(member.parameters, "scorer.direction")
    size = sum(value.numel() for value in member.parameters.values())
    total = torch.zeros((size, size), dtype=torch.float64)
    with evaluating(model), masked(model, member), sdpa_kernel(SDPBackend.MATH):
        for _, x, labels in train.batches(batch_size):
            total += hessian_of_sum(model, member, x, labels).cpu().double() / len(train)
    return (total + total.T) / 2


def hessian_of_sum(model: nn.Module, member: Member, x: Tensor, labels: Tensor) -> Tensor:
    """Return the Hessian (p, p) of the sum of the losses of one batch: a vector-Jacobian product for each row."""

    def loss(values: Tensor) -> Tensor:
        logits = logits_at(model, member, apart(values, member.parameters), x)
        return F.cross_entropy(logits, labels, reduction="sum")

    flat = joined(member.parameters)
    back = vjp(grad(loss), flat)[1]
    rows: Tensor = vmap(lambda row: back(row)[0], chunk_size=ROWS)(torch.eye(len(flat)).to(flat))
    return rows


def joined(parameters: Parameters) -> Tensor:
    """Return all entries (p,) in one vector."""
    return torch.cat([value.flatten() for value in parameters.values()])


def apart(values: Tensor, like: Parameters) -> Parameters:
    """Return the entries (p,) by name, in the shapes of `like`."""
    parts = values.split([value.numel() for value in like.values()])
    return {name: part.view(value.shape) for (name, value), part in zip(like.items(), parts, strict=True)}


def inverted(hessian: Tensor, gradient: Parameters, damping: float) -> Parameters:
    """Return (H + damping I)^-1 gradient, solved in float64. Raises InputError where the matrix is singular."""
    right = joined(gradient).cpu().double()
    try:
        found = torch.linalg.solve(hessian + damping * torch.eye(len(right), dtype=torch.float64), right)
    except torch.linalg.LinAlgError as error:
        raise InputError(
            "scorer.damping", damping, f"expected another: H + damping I is singular ({error})"
        ) from error
    return {name: value.to(gradient[name]) for name, value in apart(found, gradient).items()}
