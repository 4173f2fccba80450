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
from collections.abc import Callable
from math import degrees
from typing import Any

import torch
from torch import Tensor, nn

from defense.config.choices import Direction
from defense.config.schema import Scorer
from defense.errors import InputError
from defense.influence.curvature import Curvature, as_operator, gauss_newton, load_curvlinops
from defense.influence.datainf import datainf_direction
from defense.influence.ekfac import kronecker_solve, with_factors
from defense.influence.hessian import apart, inverted, joined
from defense.influence.members import Parameters
from defense.influence.per_sample import flat

log = logging.getLogger(__name__)
Record = dict[str, float]


def identity(gradient: Parameters, curvature: Curvature, scorer: Scorer) -> tuple[Parameters, Record]:
    """u = grad v."""
    return gradient, {}


def hessian(gradient: Parameters, curvature: Curvature, scorer: Scorer) -> tuple[Parameters, Record]:
    """u = (H + lambda I)^-1 grad v; see `defense.influence.hessian`. Where the lowest eigenvalue of H is said."""
    return inverted(curvature.hessian, gradient, scorer.damping), {"lowest eigenvalue": curvature.hessian.lowest}


def cg(gradient: Parameters, curvature: Curvature, scorer: Scorer) -> tuple[Parameters, Record]:
    """u = (G + lambda I)^-1 grad v by conjugate gradient, to the relative residual `scorer.tolerance`."""
    with curvature.installed() as parameters:
        damped = damped_gauss_newton(curvature, parameters, gradient, scorer.damping)
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
        damped = damped_gauss_newton(curvature, parameters, gradient, scorer.damping)
        scale = scorer.scale or 1 / largest_eigenvalue(damped, joined(gradient))
        solver = load_curvlinops().NeumannInverseLinearOperator(
            damped, num_terms=scorer.iterations, scale=scale, check_nan=False
        )
        direction, record = solved(solver, damped, gradient, scorer)
        return direction, record | {"scale": scale}


def damped_gauss_newton(
    curvature: Curvature, parameters: list[nn.Parameter], gradient: Parameters, damping: float
) -> Any:
    """Return G + lambda I as a linear operator of curvlinops; `gradient` is tried out on it."""
    product = gauss_newton(curvature, parameters, gradient)
    return as_operator(lambda vectors: product(vectors) + damping * vectors, joined(gradient))


def largest_eigenvalue(operator: Any, start: Tensor, *, steps: int = 20) -> float:
    """Return the largest eigenvalue of a positive definite operator, from below, by power iteration."""
    vector = start
    for _ in range(steps):
        vector = operator @ (vector / vector.norm())
    return float(vector.norm())


def ekfac(gradient: Parameters, curvature: Curvature, scorer: Scorer) -> tuple[Parameters, Record]:
    """u = (G + lambda I)^-1 grad v, G in Kronecker factors; see `defense.influence.ekfac`.

    Parameters without factors, as of batch norm, keep grad v / lambda, as if they had no curvature: choose the
    others with `scorer.parameters`.
    """
    example = curvature.train.images.take(torch.arange(min(2, len(curvature.train))))
    chosen = with_factors(curvature.model, curvature.member, example)
    if left := [name for name in gradient if name not in chosen]:
        log.info("%d parameter tensors have no Kronecker factors: grad v / damping for them", len(left))
    direction = {name: value / scorer.damping for name, value in gradient.items()}
    if not chosen:
        return direction, {}
    with curvature.installed() as parameters:
        inside = {name: value for name, value in zip(gradient, parameters, strict=True) if name in chosen}
        return direction | kronecker_solve(
            load_curvlinops(),
            curvature.model,
            curvature.batches(),
            inside,
            gradient,
            damping=scorer.damping,
        ), {}


def datainf(gradient: Parameters, curvature: Curvature, scorer: Scorer) -> tuple[Parameters, Record]:
    """u by swapping the inverse of the mean for the mean of inverses; see `defense.influence.datainf`."""
    model, member, train, size = curvature.model, curvature.member, curvature.train, curvature.batch_size
    return datainf_direction(
        model,
        member,
        train,
        gradient,
        damping=scorer.damping,
        batch_size=size,
        gradients=curvature.gradients,
    ), {}


def check_real(parameters: Parameters, direction: Direction) -> None:
    """Raise InputError if an inverse that is defined for real parameters is asked for complex ones."""
    complex_ones = [name for name, value in parameters.items() if value.is_complex()]
    if complex_ones and direction not in (Direction.identity, Direction.datainf):
        found = f"{complex_ones[0]} is complex; expected identity or datainf, or other scorer.parameters"
        raise InputError("scorer.direction", direction, found)


def solved(solver: Any, operator: Any, gradient: Parameters, scorer: Scorer) -> tuple[Parameters, Record]:
    """Return the solution u of operator u = grad v, and its relative residual; a poor one is said in the log."""
    right = joined(gradient)
    solution = solver @ right
    residual = float((operator @ solution - right).norm() / right.norm())
    if not residual < float("inf"):
        setting, why = DIVERGES[scorer.direction]
        raise InputError(f"scorer.{setting}", getattr(scorer, setting), why)
    if residual > scorer.tolerance:
        log.warning(
            "the inverse has not converged: relative residual %.2g, wanted %.2g", residual, scorer.tolerance
        )
    found = {name: value.to(gradient[name]) for name, value in apart(solution, gradient).items()}
    return found, {"residual": residual, "iterations": float(scorer.iterations)}


def direction_of(gradient: Parameters, curvature: Curvature, scorer: Scorer) -> tuple[Parameters, Record]:
    """Return u for grad v, and how it was found; of an inverse, the angle between both in degrees, too."""
    direction, record = DIRECTIONS[scorer.direction](gradient, curvature, scorer)
    if scorer.direction is not Direction.identity:
        record = record | {"angle to grad v": angle_between(direction, gradient)}
    return direction, record


def angle_between(first: Parameters, second: Parameters) -> float:
    """Return the angle in degrees, 0 to 180, between two vectors of parameters."""
    one, other = (
        torch.cat([flat(vector[name][None])[0] for name in first]).cpu().double() for vector in (first, second)
    )
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

DIVERGES = {  # the setting of an iteration whose numbers grow without end, and how to mend it
    Direction.cg: ("damping", "conjugate gradient diverges; expected a larger number"),
    Direction.lissa: ("scale", "the series diverges; expected less than 2 / largest eigenvalue, or null"),
}
