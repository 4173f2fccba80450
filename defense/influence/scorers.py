"""The scorers: each gives every training sample a number; positive helps the objective, negative harms it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from defense.data.splits import Split
from defense.influence.alignment import directional_derivatives, mean_loss_gradient
from defense.randomness import generator
from defense.schema import ScorerName


@dataclass(frozen=True)
class Problem:
    """What a scorer may look at."""

    model: nn.Module
    train: Split
    objective: Split  # the samples whose mean loss is the objective
    batch_size: int
    seed: int
    watch: Callable[..., None]


def ip(problem: Problem) -> Tensor:
    """score_i = grad v . grad loss_i, by one Jacobian-vector product per batch: (n,)."""
    _, direction = mean_loss_gradient(problem.model, problem.objective, batch_size=problem.batch_size)
    return directional_derivatives(
        problem.model, problem.train, direction, batch_size=problem.batch_size, watch=problem.watch
    )


def random(problem: Problem) -> Tensor:
    """score_i uniform in [-1, 1): the rival that every scorer must beat: (n,)."""
    return random_scores(len(problem.train), seed=problem.seed)


def random_scores(count: int, *, seed: int) -> Tensor:
    """Return `count` scores drawn uniformly from [-1, 1)."""
    return 2 * torch.rand(count, generator=generator(seed, "random scores")) - 1


SCORERS: dict[ScorerName, Callable[[Problem], Tensor]] = {ScorerName.ip: ip, ScorerName.random: random}
