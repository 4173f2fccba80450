"""Attacks that aim at one class after the other: the losses, and the loop over targets."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


def margin(logits: Tensor, labels: Tensor, *, targets: Tensor) -> Tensor:
    """Return z_t - z_y (b,) of logits (b, classes)."""
    return (logits.gather(1, targets[:, None]) - logits.gather(1, labels[:, None])).squeeze(1)


def margin_ratio(logits: Tensor, labels: Tensor, *, targets: Tensor) -> Tensor:
    """Return the margin (b,) over the spread of the highest logits, so that scaling them changes nothing."""
    highest = logits.topk(4, dim=1).values
    spread = highest[:, 0] - (highest[:, 2] + highest[:, 3]) / 2
    return margin(logits, labels, targets=targets) / (spread + 1e-12)


def at_each_target(
    model: nn.Module, attack: Callable[[Tensor, Tensor, Tensor], Tensor], count: int, x: Tensor, labels: Tensor
) -> Tensor:
    """Return pictures (b, C, H, W) attacked toward the `count` likeliest other classes, the likeliest first.

    Pairs of a sample and a target go b at a time; once a sample is mistaken its other pairs are left out. It
    comes back as it was if none succeeds, and where it was mistaken from the start.
    """
    with torch.no_grad():
        logits: Tensor = model(x)
    out, standing = x.clone(), logits.argmax(1) == labels
    likeliest = logits.scatter(1, labels[:, None], -torch.inf).topk(count, dim=1).indices
    rows, targets = torch.arange(len(x), device=x.device).repeat(count), likeliest.T.flatten()
    rows, targets = rows[standing[rows]], targets[standing[rows]]
    while len(rows):
        now, aims = rows[: len(x)], targets[: len(x)]
        moved = attack(x[now], labels[now], aims)
        with torch.no_grad():
            broken = model(moved).argmax(1) != labels[now]
        out[now[broken]] = moved[broken]
        standing[now[broken]] = False
        rows, targets = rows[len(x) :], targets[len(x) :]
        rows, targets = rows[standing[rows]], targets[standing[rows]]
    return out
