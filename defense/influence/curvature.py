"""The Gauss-Newton matrix G and the Hessian H of the mean training loss at a member, as linear operators.

Source of the linear algebra: curvlinops (Dangel et al. 2025, arXiv 2501.19183).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, cached_property
from math import ceil
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from defense.data.splits import Split
from defense.influence.alignment import disagreement
from defense.influence.forward_mode import load_forward_mode, scripting_in_silence
from defense.influence.gauss_newton import Rows, sampled_gauss_newton
from defense.influence.hessian import Tridiagonal, mean_hessian
from defense.influence.members import Member, Parameters, installed
from defense.influence.per_sample import COMPARED, Gradients, Way, reason
from defense.models.modes import evaluating, hooks_of

log = logging.getLogger(__name__)


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
    gradients: Way = field(default_factory=Gradients)  # of single samples

    def batches(self) -> Batches:
        """Return the training data as curvlinops takes it."""
        return Batches(self.train, self.batch_size)

    @cached_property
    def hessian(self) -> Tridiagonal:
        """The dense Hessian, ready to be inverted; computed once for all dampings."""
        return Tridiagonal.of(mean_hessian(self.model, self.member, self.train, batch_size=self.batch_size))

    @contextmanager
    def installed(self) -> Iterator[list[nn.Parameter]]:
        """Put the member into the model while inside, for curvlinops; yield the differentiated parameters.

        Attention runs in plain operations, since fused attention has no forward mode.
        """
        load_forward_mode()
        with (
            evaluating(self.model),
            hooks_of(self.model),
            sdpa_kernel(SDPBackend.MATH),
            installed(self.model, self.member) as parameters,
        ):
            yield parameters


@cache
def load_curvlinops() -> ModuleType:
    """Return curvlinops, imported on first use: it is slow to import, and few directions need it."""
    with scripting_in_silence():
        import curvlinops
        import curvlinops.examples
        import curvlinops.inverse
    return curvlinops


def damped_gauss_newton(
    curvature: Curvature, parameters: list[nn.Parameter], gradient: Parameters, damping: float
) -> Any:
    """Return G + lambda I as a linear operator of curvlinops; `gradient` is tried out on it."""
    shapes = [tuple(parameter.shape) for parameter in parameters]
    identity = load_curvlinops().examples.IdentityLinearOperator(shapes, parameters[0].device, parameters[0].dtype)
    return gauss_newton(curvature, parameters, gradient) + damping * identity


def gauss_newton(curvature: Curvature, parameters: list[nn.Parameter], gradient: Parameters) -> Any:
    """Return G as a linear operator: curvlinops', or a sum over gradients of samples if that fails."""

    def operator(train: Split) -> Any:
        batches = Batches(train, curvature.batch_size)
        return load_curvlinops().GGNLinearOperator(
            curvature.model, nn.CrossEntropyLoss(), parameters, batches, check_deterministic=False
        )

    few = curvature.train.subset(torch.arange(min(COMPARED, len(curvature.train))))
    x, labels = few.images.take(torch.arange(len(few))), few.labels
    try:
        operator(few) @ list(gradient.values())
        why = disagreement(curvature.model, curvature.member, gradient, x, labels, None)
    except Exception as error:  # torch.func and a user's network can raise anything
        why = reason(error)
    if not why:
        return operator(curvature.train)
    rows = Rows(curvature.model, curvature.member, curvature.train, curvature.batch_size, curvature.gradients)
    cost = f"{rows.classes} of each sample, {'once' if rows.kept is not None else 'for every product'}"
    log.warning("the Gauss-Newton matrix by gradients, %s, instead of forward mode: %s", cost, why)
    return sampled_gauss_newton(rows, parameters)
