"""The metasmoothness of a training run: how steadily its end moves with the weights of its samples.

    d_i = |theta_2h - theta_0|_i
    S = sum_i d_i / |d|_1  sign(theta_h - theta_0)_i  sign(theta_2h - theta_h)_i   in [-1, 1]

theta_0, theta_h and theta_2h are the ends of three trainings with weights 1, 1 + h v and 1 + 2 h v, and one seed.
At 1 every parameter goes on in the direction in which it began (Engstrom et al. 2025, arXiv 2503.13751).
"""

from __future__ import annotations

import torch
from torch import Tensor

from defense.influence.members import Parameters
from defense.randomness import generator

WEIGHT_STEP = 0.1  # h: a tenth of a weight up or down


def smoothness_of(start: Parameters, middle: Parameters, end: Parameters) -> float:
    """Return S of the weights that trainings end with, in [-1, 1]; 1 if the change of weights moves nothing."""
    total = moved = 0.0
    for name, value in start.items():
        if not value.is_floating_point():
            continue
        first, second = middle[name].double() - value.double(), end[name].double() - middle[name].double()
        distance = (first + second).abs()
        moved += float((distance * first.sign() * second.sign()).sum())
        total += float(distance.sum())
    return moved / total if total else 1.0


def directions(count: int, *, seed: int) -> Tensor:
    """Return v: +1 or -1 for each of `count` samples, float (n,)."""
    return 2.0 * torch.randint(0, 2, (count,), generator=generator(seed, "smoothness")) - 1
