"""Targeted FAB: the shortest way to a mistake (Croce and Hein 2020, arXiv:1907.02044).

Each step linearises the margin of the target over the label, and goes to where that is zero. Two things differ
from the paper, and neither changes what is broken. A picture that is mistaken within eps is finished, since
nobody asks for its shortest way. Projections take a few of Newton's steps in place of a sort.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from defense.config.choices import Norm
from defense.config.schema import Threat
from defense.robustness.aiming import margin
from defense.robustness.ball import distance, length

ALPHA_MAX = 0.1  # most that the projection of the picture itself counts, beside that of the point reached
ETA = 1.05  # of the way to the hyperplane, so that it is crossed
BETA = 0.9  # of the way from the picture, kept after a mistake


def fab(model: nn.Module, x: Tensor, labels: Tensor, targets: Tensor, threat: Threat, *, steps: int) -> Tensor:
    """Return pictures (b, C, H, W) that `model` mistakes within `threat`, and the others as they were.

    Take at most `steps` steps from pictures in [0, 1] toward the classes `targets` (b,); every mistake counts.
    Expect a frozen model in eval mode that is right about all of them. Nothing is drawn at random.
    """
    out, rows, point = x.clone(), torch.arange(len(x), device=x.device), x
    for _ in range(steps):
        point = step(x, point, *linearised(model, point, labels, targets), threat.norm)
        with torch.no_grad():  # most points beyond eps are mistaken: no gradient is asked for there
            mistaken = model(point).argmax(1) != labels
        broken = mistaken & (distance(x, point, threat.norm) <= threat.eps)
        if broken.any():
            out[rows[broken]] = point[broken]
            stands = ~broken
            x, point, labels, targets = x[stands], point[stands], labels[stands], targets[stands]
            rows, mistaken = rows[stands], mistaken[stands]
            if not len(rows):
                break
        point = torch.where(mistaken.view(-1, 1, 1, 1), x + BETA * (point - x), point)
    return out


def linearised(model: nn.Module, x: Tensor, labels: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return the margins z_t - z_y (b,) at pictures (b, C, H, W), and their gradients (b, C, H, W)."""
    leaf = x.detach().requires_grad_()
    with torch.enable_grad():
        margins = margin(model(leaf), labels, targets=targets)
    (gradients,) = torch.autograd.grad(margins.sum(), leaf)
    return margins.detach(), gradients


def step(x: Tensor, point: Tensor, margins: Tensor, gradients: Tensor, norm: Norm) -> Tensor:
    """Return the points (b, C, H, W) after one step from `point`, biased toward the pictures `x`.

        clip((1 - a) (p + eta d_p) + a (x + eta d_x)),   a = min(|d_p| / (|d_p| + |d_x|), alpha_max)

    d_p and d_x lead from the point p and from x to the hyperplane of zero margin (equation 9 of the paper).
    """
    normals = gradients.flatten(1)
    both = torch.stack([point.flatten(1), x.flatten(1)])
    gaps = torch.stack([-margins, torch.linalg.vecdot(normals, both[0] - both[1]) - margins])
    ways = to_hyperplane(both, normals, gaps, norm)
    lengths = length(ways, norm).clamp_min(1e-8)
    bias = (lengths[0] / lengths.sum(0)).clamp_max(ALPHA_MAX)
    ahead = both + ETA * ways
    return torch.lerp(ahead[0], ahead[1], bias.unsqueeze(1)).clamp(0, 1).view_as(x)


def to_hyperplane(points: Tensor, normals: Tensor, gaps: Tensor, norm: Norm) -> Tensor:
    """Return the shortest ways d (k, b, n) from `points` p (k, b, n) to hyperplanes, within the box [0, 1].

        minimise |d|   subject to   <w, d> = gap,   0 <= p_i + d_i <= 1
        d_i = sign(gap w_i) min(t u_i, r_i),   t such that   sum_i |w_i| min(t u_i, r_i) = |gap|

    u_i is 1 in Linf and |w_i| in L2; r_i is the room of p_i in that direction. If no point of the box solves it,
    go to the corner nearest to the hyperplane. `normals` w (b, n) serve all k points; gaps: (k, b).
    """
    weights = normals.abs()
    rates = weights if norm is Norm.L2 else weights.new_ones(())
    directions = normals.sign() * gaps.sign().unsqueeze(2)
    room = directions.clamp_min(0) - directions * points
    return directions * filled(room, rates, weights, gaps.abs())


def filled(room: Tensor, rates: Tensor, weights: Tensor, needs: Tensor) -> Tensor:
    """Return min(t u, r) (k, b, n) with the t >= 0 of each row at which sum(w min(t u, r)) is `needs` (k, b).

    The sum is concave and piecewise linear in t, so Newton's method from t = 0 never overshoots. It ends once no
    more entries reach their `room` r (k, b, n), mostly after three steps. All do if `needs` is too much.
    weights: w (b, n), not negative; rates: u (b, n), or one number.
    """
    limits, growth = torch.finfo(room.dtype), rates * weights
    level, amounts, slope = torch.zeros_like(needs), torch.zeros_like(room), torch.full_like(needs, torch.inf)
    while True:
        free = (room - amounts).sign()  # 1 or 0; as numbers this is much faster than with masks
        before, slope = slope, torch.linalg.vecdot(free, growth)
        if not (slope < before).any():  # written so that NaN ends it
            return amounts
        missing = (needs - torch.linalg.vecdot(weights, amounts)).clamp_min(0)
        level = (level + missing / slope.clamp_min(limits.tiny)).clamp_max(limits.max)
        amounts = torch.minimum(level.unsqueeze(2) * rates, room)
