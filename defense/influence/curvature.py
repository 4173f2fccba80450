"""The Gauss-Newton matrix G and the Hessian H of the mean training loss at a member, as linear operators.

Source of the linear algebra: curvlinops (Dangel et al. 2025, arXiv 2501.19183).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
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
from defense.influence.gauss_newton import Rows
from defense.influence.hessian import Tridiagonal, joined, mean_hessian
from defense.influence.members import Member, Parameters, installed, shares_modules
from defense.influence.per_sample import COMPARED, Gradients, Way, reason
from defense.models.modes import evaluating, hooks_of

log = logging.getLogger(__name__)
Product = Callable[[Tensor], Tensor]  # of a symmetric matrix with vectors (p, k)


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


@cache
def operator_class() -> type:
    """Return the class of `as_operator`, made on first use."""
    from curvlinops._torch_base import PyTorchLinearOperator

    class Symmetric(PyTorchLinearOperator):
        """A symmetric matrix (p, p), given by its products."""

        SELF_ADJOINT = True

        def __init__(self, product: Product, like: Tensor) -> None:
            super().__init__([tuple(like.shape)], [tuple(like.shape)])
            self.product, self.like = product, like

        def _matmat(self, X: list[Tensor]) -> list[Tensor]:
            return [self.product(X[0])]

        @property
        def device(self) -> torch.device:
            return self.like.device

        @property
        def dtype(self) -> torch.dtype:
            return self.like.dtype

    return Symmetric


def as_operator(product: Product, like: Tensor) -> Any:
    """Return a symmetric matrix as the solvers of curvlinops take it; like: a vector (p,)."""
    load_curvlinops()
    return operator_class()(product, like)


def gauss_newton(curvature: Curvature, parameters: list[nn.Parameter], gradient: Parameters) -> Product:
    """Return the products with G: curvlinops', or by gradients of samples if those fail on `gradient`."""

    def product(train: Split) -> Product:
        batches = Batches(train, curvature.batch_size)
        operator = load_curvlinops().GGNLinearOperator(
            curvature.model, nn.CrossEntropyLoss(), parameters, batches, check_deterministic=False
        )
        return lambda vectors: (operator @ vectors).detach()

    few = curvature.train.subset(torch.arange(min(COMPARED, len(curvature.train))))
    x, labels = few.images.take(torch.arange(len(few))), few.labels
    try:
        if shares_modules(curvature.model):
            raise NotImplementedError("a layer stands in two places")  # curvlinops would leave tensors in it
        product(few)(joined(gradient)[:, None])
        why = disagreement(curvature.model, curvature.member, gradient, x, labels, None)
    except Exception as error:  # torch.func and a user's network can raise anything
        why = reason(error)
    if not why:
        return product(curvature.train)
    rows = Rows(curvature.model, curvature.member, curvature.train, curvature.batch_size, curvature.gradients)
    cost = f"{rows.classes} of each sample, {'once' if rows.kept is not None else 'for every product'}"
    log.warning("the Gauss-Newton matrix by gradients, %s, instead of forward mode: %s", cost, why)
    return rows.product
