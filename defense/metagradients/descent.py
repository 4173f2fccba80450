"""A step of the weights of training samples down an objective, along its metagradient.

    z = clip((d - mean d) / mean |d - mean d|, -STEEPEST, STEEPEST),  d_i = d phi / d w_i
    w <- w exp(-rate z), then rescaled to mean 1 and cut to HEAVIEST

after the metagradient descent of Engstrom et al. 2025, arXiv 2503.13751. Weights of mean 1 leave the length of a
training step as it is, so that the mean of d says nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor

STEEPEST = 3.0  # z of the samples with the largest derivatives: a few would else take the whole step
HEAVIEST = 5.0  # weight of a sample


def step_weights(weights: Tensor, derivative: Tensor, rate: float) -> Tensor:
    """Return weights (n,), of at least 0 and of mean 1, after a step against the derivative d phi / d w, (n,).

    rate: the change of log w of a sample whose derivative is as far from the mean as the average is. Equal
    derivatives change nothing.
    """
    apart = derivative.double() - derivative.double().mean()
    scale = apart.abs().mean()
    z = (apart / scale).clamp(-STEEPEST, STEEPEST) if scale > 0 else torch.zeros_like(apart)
    return rescale(weights.double() * torch.exp(-rate * z))


def rescale(weights: Tensor) -> Tensor:
    """Return min(c w, M) of weights w (n,) with c such that their mean is 1, M = HEAVIEST.

    With the k largest cut to M, c = (n - k M) / (sum of the others). Take the lowest k that leaves none above M.
    w: of at least 0, more than n / M of them above 0.
    """
    ordered = weights.sort(descending=True).values
    rest = ordered.flip(0).cumsum(0).flip(0)  # rest[k]: the sum without the k largest
    cut = torch.arange(len(ordered), device=ordered.device)
    scales = (len(ordered) - HEAVIEST * cut) / rest
    fewest = int((scales * ordered <= HEAVIEST).nonzero()[0])
    return (scales[fewest] * weights).clamp(max=HEAVIEST)
