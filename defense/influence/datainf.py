r"""DataInf: the inverse of a sum replaced by the mean of inverses, one parameter tensor at a time.

    u_l = (1 / lambda_l) [ v_l - (1/n) sum_i  (v_l . g_il) / (lambda_l + |g_il|^2)  g_il ]

with v = grad v, g_il the gradient of loss_i with respect to tensor l, and lambda_l = damping * mean_i |g_il|^2
/ d_l, d_l being the number of entries of l. Source: Kwon et al., DataInf, ICLR 2024, equation 5 and its damping.
"""

from __future__ import annotations

import torch
from torch import nn

from defense.data.splits import Split
from defense.influence.members import Member, Parameters, masked
from defense.influence.per_sample import chunk_of, gradients_of_batch
from defense.models.modes import evaluating


@torch.no_grad()
def datainf_direction(
    model: nn.Module,
    member: Member,
    train: Split,
    gradient: Parameters,
    *,
    damping: float,
    batch_size: int,
) -> Parameters:
    """Return u, in two passes over `train`: one for the damping, one for the sum."""
    size = chunk_of(member, batch_size)
    mean_squares = {
        name: torch.zeros((), dtype=value.dtype, device=value.device) for name, value in gradient.items()
    }
    sums = {name: torch.zeros_like(value) for name, value in gradient.items()}
    with evaluating(model), masked(model, member):
        for _, x, labels in train.batches(size):
            for name, g in gradients_of_batch(model, member, x, labels).items():
                mean_squares[name] += g.square().sum() / len(train)
        dampings = {name: damping * total / gradient[name].numel() for name, total in mean_squares.items()}
        for _, x, labels in train.batches(size):
            for name, g in gradients_of_batch(model, member, x, labels).items():
                flat = g.flatten(1)
                weights = flat @ gradient[name].flatten() / (dampings[name] + flat.square().sum(1))
                sums[name] += (weights @ flat).view_as(sums[name]) / len(train)
    return {name: (value - sums[name]) / dampings[name] for name, value in gradient.items()}
