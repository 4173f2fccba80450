"""The direction u that training losses are differentiated along, made from grad v.

    identity   u = grad v                                 inner product (Yang et al. 2026)
    hessian    u = (H + lambda I)^-1 grad v               exact, dense (Koh and Liang 2017)
    cg         u = (G + lambda I)^-1 grad v               influence function by the Gauss-Newton matrix
    lissa      the same by a Neumann series               (Agarwal et al. 2017)
    ekfac      the same with G in Kronecker factors       (George et al. 2018, Grosse et al. 2023)
    datainf    the same with a mean of inverses           (Kwon et al. 2024)

H is the Hessian of the mean training loss, G its generalized Gauss-Newton matrix. The linear algebra of the latter
is curvlinops'.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from math import ceil, degrees
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from defense.choices import Direction
from defense.data.splits import Split
from defense.errors import InputError
from defense.influence.datainf import datainf_direction
from defense.influence.forward_mode import load_forward_mode, scripting_in_silence
from defense.influence.hessian import Tridiagonal, inverted, joined, mean_hessian
from defense.influence.members import Member, Parameters, masked
from defense.models.modes import evaluating
from defense.schema import Scorer

log = logging.getLogger(__name__)
Record = dict[str, float]


@dataclass(frozen=True)
class Batches:
    """(pictures, labels) of a split, made anew in each round: memory holds one batch at a time."""

    split: Split
    size: int

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches in order."""
        return ((x, labels) for _, x, labels in self.split.batches(self.size))

    def __len__(self) -> int:
        """Return the number of batches."""
        return ceil(len(self.split) / self.size)


@dataclass(frozen=True)
class Curvature:
    """What an inverse is made of: the model at a member, and the training data in batches."""

    model: nn.Module
    member: Member
    train: Split
    batch_size: int

    def batches(self) -> Batches:
        """Return the training data as curvlinops takes it."""
        return Batches(self.train, self.batch_size)

    @cached_property
    def hessian(self) -> Tridiagonal:
        """The dense Hessian, ready to be inverted; computed once for all dampings."""
        return Tridiagonal.of(mean_hessian(self.model, self.member, self.train, batch_size=self.batch_size))

    @contextmanager
    def installed(self) -> Iterator[list[nn.Parameter]]:
        """Put the member's parameters and masks into the model while inside; yield the differentiated ones."""
        load_forward_mode()
        named = dict(self.model.named_parameters())
        before = {name: parameter.data for name, parameter in named.items()}
        with evaluating(self.model), masked(self.model, self.member), torch.enable_grad():
            try:
                for name, value in self.member.parameters.items():
                    named[name].data = value.clone()
                yield [named[name] for name in self.member.parameters]
            finally:
                for name, parameter in named.items():
                    parameter.data = before[name]


@cache
def load_curvlinops() -> ModuleType:
    """Return curvlinops, imported on first use: it is slow to import, and few directions need it."""
    with scripting_in_silence():
        import curvlinops
        import curvlinops.examples
        import curvlinops.inverse
    return curvlinops


def identity(gradient: Parameters, curvature: Curvature, scorer: Scorer) -> tuple[Parameters, Record]:
    """u = grad v."""
    return gradient, {}


def hessian(gradient: Parameters, curvature: Curvature, scorer: Scorer) -> tuple[Parameters, Record]:
    """u = (H + lambda I)^-1 grad v; see `defense.influence.hessian`. Where the lowest eigenvalue of H is said."""
    return inverted(curvature.hessian, gradient, scorer.damping), {"lowest eigenvalue": curvature.hessian.lowest}


def cg(gradient: Parameters, curvature: Curvature, scorer: Scorer) -> tuple[Parameters, Record]:
    """u = (G + lambda I)^-1 grad v by conjugate gradient, to the relative residual `scorer.tolerance`."""
    with curvature.installed() as parameters:
        damped = damped_gauss_newton(curvature, parameters, scorer.damping)
        solver = load_curvlinops().CGInverseLinearOperator(
            damped,
            max_iter=scorer.iterations,
            max_tridiag_iter=0,  # its default does not allow fewer than 20 iterations
            tolerance=scorer.tolerance,
            stop_updating_after=scorer.tolerance,
            eps=torch.finfo(damped.dtype).tiny,  # at its default progress ends at a residual of 1e-5
        )
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="CG terminated")  # `solved` says so, with the residual
            return solved(solver, damped, gradient, scorer)


def lissa(gradient: Parameters, curvature: Curvature, scorer: Scorer) -> tuple[Parameters, Record]:
    """u = scale * sum_k (I - scale (G + lambda I))^k grad v, for k up to `scorer.iterations`.

    scale: `scorer.scale`, or one over the largest eigenvalue of G + lambda I; from two over it it diverges.
    """
    with curvature.installed() as parameters:
        damped = damped_gauss_newton(curvature, parameters, scorer.damping)
        scale = scorer.scale or 1 / largest_eigenvalue(damped, list(gradient.values()))
        solver = load_curvlinops().NeumannInverseLinearOperator(
            damped, num_terms=scorer.iterations, scale=scale, check_nan=False
        )
        direction, record = solved(solver, damped, gradient, scorer)
        return direction, record | {"scale": scale}


def largest_eigenvalue(operator: Any, start: list[Tensor], *, steps: int = 20) -> float:
    """Return the largest eigenvalue of a positive definite operator, from below, by power iteration."""
    vector, value = start, 0.0
    for _ in range(steps):
        length = torch.cat([part.flatten() for part in vector]).norm()
        vector = operator @ [part / length for part in vector]
        value = float(torch.cat([part.detach().flatten() for part in vector]).norm())
    return value


def ekfac(gradient: Parameters, curvature: Curvature, scorer: Scorer) -> tuple[Parameters, Record]:
    """u = (G + lambda I)^-1 grad v, G approximated layer by layer by its eigenvalue-corrected Kronecker factors.

    Only linear and 2d convolution layers have such factors: choose them with `scorer.parameters`, or the others
    (batch norm) keep grad v / lambda, as if they had no curvature.
    """
    curvlinops = load_curvlinops()
    supported = {
        f"{name}.{part}" if name else part
        for name, module in curvature.model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
        for part, _ in module.named_parameters(recurse=False)
    }
    inside = [name for name in gradient if name in supported]
    if len(inside) < len(gradient):
        count = len(gradient) - len(inside)
        log.info("%d parameter tensors have no Kronecker factors: grad v / damping for them", count)
    with curvature.installed() as parameters:
        chosen = [parameter for name, parameter in zip(gradient, parameters, strict=True) if name in supported]
        loss = nn.CrossEntropyLoss()
        factors = curvlinops.EKFACLinearOperator(
            curvature.model,
            loss,
            chosen,
            curvature.batches(),
            check_deterministic=False,
            fisher_type=curvlinops.FisherType.TYPE2,
        )
        inverse = curvlinops.inverse.KFACInverseLinearOperator(
            factors, damping=scorer.damping, use_exact_damping=True
        )
        moved = inverse @ [gradient[name] for name in inside]
    direction = {name: value / scorer.damping for name, value in gradient.items()}
    return direction | {name: value.detach() for name, value in zip(inside, moved, strict=True)}, {}


def datainf(gradient: Parameters, curvature: Curvature, scorer: Scorer) -> tuple[Parameters, Record]:
    """u by swapping the inverse of the mean for the mean of inverses; see `defense.influence.datainf`."""
    model, member, train, size = curvature.model, curvature.member, curvature.train, curvature.batch_size
    return datainf_direction(model, member, train, gradient, damping=scorer.damping, batch_size=size), {}


def damped_gauss_newton(curvature: Curvature, parameters: list[nn.Parameter], damping: float) -> Any:
    """Return G + lambda I as a linear operator of curvlinops."""
    curvlinops = load_curvlinops()
    loss, batches = nn.CrossEntropyLoss(), curvature.batches()
    gauss_newton = curvlinops.GGNLinearOperator(
        curvature.model, loss, parameters, batches, check_deterministic=False
    )
    shapes = [tuple(parameter.shape) for parameter in parameters]
    return gauss_newton + damping * curvlinops.examples.IdentityLinearOperator(
        shapes, parameters[0].device, parameters[0].dtype
    )


def solved(solver: Any, operator: Any, gradient: Parameters, scorer: Scorer) -> tuple[Parameters, Record]:
    """Return the solution u of operator u = grad v, and its relative residual; a poor one is said in the log."""
    right = list(gradient.values())
    solution = [value.detach() for value in solver @ right]
    left = operator @ solution
    norm = torch.cat([value.flatten() for value in right]).norm()
    residual = float(torch.cat([(a - b).flatten() for a, b in zip(left, right, strict=True)]).norm() / norm)
    if not residual < float("inf"):
        raise InputError(
            "scorer.scale", scorer.scale, "the series diverges; expected less than 2 / largest eigenvalue, or null"
        )
    if residual > scorer.tolerance:
        log.warning(
            "the inverse has not converged: relative residual %.2g, wanted %.2g", residual, scorer.tolerance
        )
    return dict(zip(gradient, solution, strict=True)), {
        "residual": residual,
        "iterations": float(scorer.iterations),
    }


def direction_of(gradient: Parameters, curvature: Curvature, scorer: Scorer) -> tuple[Parameters, Record]:
    """Return u for grad v, and how it was found; of an inverse, the angle between both in degrees, too."""
    direction, record = DIRECTIONS[scorer.direction](gradient, curvature, scorer)
    if scorer.direction is not Direction.identity:
        record = record | {"angle to grad v": angle_between(direction, gradient)}
    return direction, record


def angle_between(first: Parameters, second: Parameters) -> float:
    """Return the angle in degrees, 0 to 180, between two vectors of parameters."""
    one, other = (joined(vector).cpu().double() for vector in (first, {name: second[name] for name in first}))
    cosine = one @ other / (one.norm() * other.norm()).clamp_min(torch.finfo(torch.float64).tiny)
    return degrees(float(cosine.clamp(-1, 1).arccos()))


DIRECTIONS: dict[Direction, Callable[[Parameters, Curvature, Scorer], tuple[Parameters, Record]]] = {
    Direction.identity: identity,
    Direction.hessian: hessian,
    Direction.cg: cg,
    Direction.lissa: lissa,
    Direction.ekfac: ekfac,
    Direction.datainf: datainf,
}
