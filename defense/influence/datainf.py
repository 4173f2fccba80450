r"""DataInf: the inverse of a sum replaced by the mean of inverses, one parameter tensor at a time.

    u_l = (1 / lambda_l) [ v_l - (1/n) sum_i  (v_l . g_il) / (lambda_l + |g_il|^2)  g_il ]

with v = grad v, g_il the gradient of loss_i with respect to tensor l, and lambda_l = damping * mean_i |g_il|^2
/ d_l, d_l being the number of entries of l. Source: Kwon et al., DataInf, ICLR 2024, equation 5 and its damping.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from defense.data.splits import Split
from defense.influence.members import Member, Parameters
from defense.influence.per_sample import Way, chunk_of, flat
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
    gradients: Way,
) -> Parameters:
    """Return u, in two passes over `train`: one for the damping, one for the sum.

    gradients: how those of single samples are formed. A complex entry counts as two real ones.
    """
    size = chunk_of(member, batch_size)
    v = {name: flat(value[None])[0] for name, value in gradient.items()}
    squares = {name: torch.zeros((), dtype=value.dtype, device=value.device) for name, value in v.items()}
    sums = {name: torch.zeros_like(value) for name, value in v.items()}
    with evaluating(model):
        for _, x, labels in train.batches(size):
            for name, g in gradients(model, member, x, labels).items():
                squares[name] += flat(g).square().sum() / len(train)
        dampings = {name: damping * total / v[name].numel() for name, total in squares.items()}
        for _, x, labels in train.batches(size):
            for name, gradient_of_each in gradients(model, member, x, labels).items():
                g = flat(gradient_of_each)
                weights = g @ v[name] / (dampings[name] + g.square().sum(1))
                sums[name] += weights @ g / len(train)
    found = {name: (v[name] - sums[name]) / dampings[name] for name in v}
    # of a tensor that no training loss depends on the damping is zero, and no score looks at its direction
    return {
        name: shaped(found[name] if squares[name] > 0 else torch.zeros_like(found[name]), value)
        for name, value in gradient.items()
    }


def shaped(values: Tensor, like: Tensor) -> Tensor:
    """Return real numbers (k,), as `flat` gives them, in the shape and type of `like`."""
    if like.is_complex():
        return torch.view_as_complex(values.view(*like.shape, 2)).to(like)
    return values.view(like.shape).to(like)
