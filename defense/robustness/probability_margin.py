"""The probability margin attack: ascent on one term of the margin of probabilities, then on the whole of it.

Xie et al. 2025, Towards Million-Scale Adversarial Robustness Evaluation With Stronger Individual Attacks,
arXiv 2411.15210. The schedule of steps is that of the authors' code.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from defense.config.schema import Threat
from defense.robustness.ball import project, random_in_ball, steepest

Slope = Callable[[Tensor, Tensor], Tensor]  # logits (b, classes) and labels (b,) -> their direction (b, classes)


def away_from_label(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the gradient of -p_y by the logits over 1 - p_y, both (b, classes); p is their softmax.

    With q_j = p_j / (1 - p_y) for j other than y, and q_y = 0:

        d(-p_y) / dz = (1 - p_y) p_y (q - e_y)

    The factor 1 - p_y, left out, changes no direction. With it, float32 has no gradient left if the model is sure.
    """
    label, share, sure, _ = parts(logits, labels)
    return sure * (share - label)


def toward_runner_up(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the gradient of p_m by the logits over 1 - p_y, (b, classes); m is the likeliest class but y.

    dp_m / dz = (1 - p_y) q_m (e_m - (1 - p_y) q - p_y e_y)
    """
    label, share, sure, doubt = parts(logits, labels)
    most, runner_up = share.max(1, keepdim=True)
    target = torch.zeros_like(share).scatter_(1, runner_up, 1)
    return most * (target - doubt * share - sure * label)


def margin_slope(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the gradient of the margin p_m - p_y by the logits over 1 - p_y, (b, classes)."""
    return away_from_label(logits, labels) + toward_runner_up(logits, labels)


def parts(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return e_y and q (b, classes), p_y and 1 - p_y (b, 1), each exact to float32 however sure the model is."""
    label = F.one_hot(labels, logits.shape[1]).to(logits.dtype)
    others = logits.masked_fill(label.bool(), -torch.inf)
    odds = logits.gather(1, labels[:, None]) - others.logsumexp(1, keepdim=True)
    return label, others.softmax(1), odds.sigmoid(), (-odds).sigmoid()


def margin_attack(model: nn.Module, x: Tensor, labels: Tensor, threat: Threat, *, steps: int) -> Tensor:
    """Return pictures (b, C, H, W) within `threat`, attacked by two tries of `steps` steps, 2 at least.

    Each starts at random in the ball. Its first half climbs one term of the margin: -p_y in the first try, p_m in
    the second. Its second half climbs the margin. In each half steps shrink from 2 eps to 0 by a cosine. A sample
    that is mistaken leaves its try at once. If none of the two succeeds, the end of the second try comes back.
    The model is in eval mode and frozen.
    """
    out, rows = x.clone(), torch.arange(len(x), device=x.device)
    for term in (away_from_label, toward_runner_up):
        half = steps // 2
        phases: list[tuple[Slope, int]] = [(term, half), (margin_slope, steps - half)]
        schedule = [(slope, 1 + math.cos(math.pi * k / count)) for slope, count in phases for k in range(count)]
        rows = climb(model, x, labels, threat, schedule, rows, out)
    return out


def climb(
    model: nn.Module,
    x: Tensor,
    labels: Tensor,
    threat: Threat,
    schedule: Sequence[tuple[Slope, float]],
    rows: Tensor,
    out: Tensor,
) -> Tensor:
    """Attack the samples `rows` of `x` in one try, write their pictures into `out`; return the rows that stand.

    schedule: for each step the direction in logits, and the length in eps.
    """
    center, aims = x[rows], labels[rows]
    now = random_in_ball(center, threat)
    for slope, length in schedule:
        if not len(rows):
            return rows
        now.requires_grad_()
        logits = model(now)
        stands = logits.argmax(1) == aims
        ascent = slope(logits.detach(), aims)
        (gradient,) = torch.autograd.grad((ascent * logits).sum(), now)
        now = now.detach()
        if not bool(stands.all()):
            out[rows[~stands]] = now[~stands]
            rows, center, aims, now, gradient = (each[stands] for each in (rows, center, aims, now, gradient))
        now = project(center, now + length * threat.eps * steepest(gradient, threat.norm), threat)
    out[rows] = now
    with torch.no_grad():
        return rows[model(now).argmax(1) == aims] if len(rows) else rows
