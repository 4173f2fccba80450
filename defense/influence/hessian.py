r"""The Hessian of the mean training loss, dense, and exact influence by it.

    H = (1/n) sum_i  d^2 loss_i / d theta^2,     u = (H + lambda I)^-1 grad v

Source: Koh and Liang, Understanding black-box predictions via influence functions, ICML 2017. Away from a minimum
H has eigenvalues below zero, and where one of them is near -lambda u is large and along it: what is then exact is
the inverse, not what it says of retraining.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.linalg import LinAlgError, eigvalsh_tridiagonal, lapack, solve_banded
from torch import Tensor, nn
from torch.func import grad, vjp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from defense.data.splits import Split
from defense.errors import InputError
from defense.influence.members import Member, Parameters, logits_at, masked
from defense.models.loss import cross_entropy
from defense.models.modes import evaluating

LARGEST = 5000  # parameters: the matrix then takes 200 MB, and its rows as many backward passes as there are
ROWS = 16  # of the matrix at once: more of them leave the cache


def check_size(parameters: Parameters, field: str) -> None:
    """Raise InputError if there are more parameters than a dense matrix is made for."""
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
    check_symmetric(total, next(iter(member.parameters.values())).dtype, type(model).__name__)
    return (total + total.T) / 2


def check_symmetric(matrix: Tensor, dtype: torch.dtype, name: str) -> None:
    """Raise InputError if a Hessian (p, p) that was found in `dtype` is not symmetric up to rounding.

    That of weight_norm is not: the second derivative in torch 2.14 is wrong.
    """
    apart, largest = float((matrix - matrix.T).abs().max()), float(matrix.abs().max())
    if apart > torch.finfo(dtype).eps ** 0.5 * largest:
        found = f"torch's second derivative of {name} is not symmetric (by {apart / largest:.1g} of the largest)"
        raise InputError("scorer.direction", "hessian", f"{found}; expected another scorer")


def hessian_of_sum(model: nn.Module, member: Member, x: Tensor, labels: Tensor) -> Tensor:
    """Return the Hessian (p, p) of the sum of the losses of one batch: a vector-Jacobian product for each row."""

    def loss(values: Tensor) -> Tensor:
        logits = logits_at(model, member, apart(values, member.parameters), x)
        return cross_entropy(logits, labels).sum()

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


@dataclass(frozen=True)
class Tridiagonal:
    """A symmetric matrix H = Q T Q^T, T tridiagonal, of which H + lambda I is inverted for every lambda.

    By LAPACK's dsytrd; Q is kept as the reflectors that it is the product of.
    """

    reflectors: np.ndarray  # (p, p), below the diagonal
    scales: np.ndarray  # (p - 1,), of the reflectors
    diagonal: np.ndarray  # (p,), of T
    beside: np.ndarray  # (p - 1,), of T, beside its diagonal

    @classmethod
    def of(cls, matrix: Tensor) -> Tridiagonal:
        """Reduce a symmetric float64 matrix (p, p), p > 1."""
        space = int(lapack.dsytrd_lwork(len(matrix), lower=1)[0])
        reflectors, diagonal, beside, scales, _ = lapack.dsytrd(matrix.numpy(), lower=1, lwork=space)
        return cls(reflectors, scales, diagonal, beside)

    @property
    def lowest(self) -> float:
        """The lowest eigenvalue of H."""
        return float(eigvalsh_tridiagonal(self.diagonal, self.beside, select="i", select_range=(0, 0))[0])

    def solve(self, right: np.ndarray, damping: float) -> np.ndarray:
        """Return (H + damping I)^-1 right (p,). Raises InputError if the matrix is singular."""
        bands = np.zeros((3, len(right)))
        bands[0, 1:] = bands[2, :-1] = self.beside
        bands[1] = self.diagonal + damping
        try:
            return self.turned(solve_banded((1, 1), bands, self.turned(right, "T")), "N")
        except LinAlgError as error:
            raise InputError("scorer.damping", damping, "expected another: H + damping I is singular") from error

    def turned(self, vector: np.ndarray, trans: str) -> np.ndarray:
        """Return Q vector for trans 'N', Q^T vector for 'T'; Q leaves the first entry as it is."""
        below, count = self.reflectors[1:, :-1], len(vector)
        rest, _, _ = lapack.dormqr("L", trans, below, self.scales, vector[1:, None], lwork=count)
        return np.concatenate([vector[:1], rest[:, 0]])


def inverted(hessian: Tridiagonal, gradient: Parameters, damping: float) -> Parameters:
    """Return (H + damping I)^-1 gradient, solved in float64."""
    found = torch.from_numpy(hessian.solve(joined(gradient).cpu().double().numpy(), damping))
    return {name: value.to(gradient[name]) for name, value in apart(found, gradient).items()}
