"""The two norms that a threat may be measured in."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from defense.config.choices import Norm

ORDERS = {Norm.Linf: math.inf, Norm.L2: 2}


def distance(before: Tensor, after: Tensor, norm: Norm) -> Tensor:
    """Return how far pictures (b, C, H, W) have been moved: (b,)."""
    return torch.linalg.vector_norm((after - before).flatten(1), ord=ORDERS[norm], dim=1)


def farthest(norm: Norm, shape: tuple[int, ...]) -> float:
    """Return the distance of the farthest two pictures of `shape` (C, H, W) with pixels in [0, 1]."""
    return {Norm.Linf: 1.0, Norm.L2: math.sqrt(math.prod(shape))}[norm]
