"""A step of the weights of training samples down an objective, along its metagradient.

    z = clip((d - mean d) / mean |d - mean d|, -3, 3),  d_i = d phi / d w_i
    w <- bounded(w exp(-rate z)):  of mean 1, and none above 5

after the metagradient descent of Engstrom et al. 2025, arXiv 2503.13751. Weights of mean 1 leave the length of a
training step as it is, so that the mean of d says nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor

STEEPEST = 3.0  # z of the samples with the largest derivatives: a few would else take the whole step
HEAVIEST = 5.0  # weight of a sample


def stepped(weights: Tensor, derivative: Tensor, rate: float) -> Tensor:
    """Return weights (n,), above 0 and of mean 1, after a step against the derivative d phi / d w, (n,).

    rate: the change of log w of a sample whose derivative is as far from the mean as the average is. Equal
    derivatives change nothing.
    """
    apart = derivative.double() - derivative.double().mean()
    scale = apart.abs().mean()
    z = (apart / scale).clamp(-STEEPEST, STEEPEST) if scale > 0 else torch.zeros_like(apart)
    return bounded(weights.double() * torch.exp(-rate * z))


def bounded(weights: Tensor) -> Tensor:
    """Return min(c w, 5) of weights w (n,) above 0, with c such that their mean is 1.

    With the k largest cut to 5, c = (n - 5 k) / (sum of the others). Take the lowest k that leaves none above 5.
    """
    ordered = weights.sort(descending=True).values
    rest = ordered.flip(0).cumsum(0).flip(0)  # rest[k]: the sum without the k largest
    cut = torch.arange(len(ordered), device=ordered.device)
    scales = (len(ordered) - HEAVIEST * cut) / rest
    fewest = int((scales * ordered <= HEAVIEST).nonzero()[0])
    return (scales[fewest] * weights).clamp(max=HEAVIEST)
