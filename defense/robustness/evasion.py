"""Evasion: a point of two classes is moved across the boundary of a classifier, and a little beyond.

    x' = x - ratio f(x) / |grad f(x)|^2 grad f(x),      f = z_1 - z_0

For a linear f = w . x + b that is x - ratio (w . x + b) / (w . w) w: with ratio 1 the point lands on the
boundary. For others the way to the boundary is found by such steps (DeepFool, Moosavi-Dezfooli et al. 2016),
and all of it is lengthened by `ratio`. It has no bound but `reach`, if that is given, and leaves the
range of features. Source: the evasion attack
of Yang et al., TMLR 2026, arXiv 2405.17490, where ratio is 1.3.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

STEPS = 50  # at most, to the boundary of what is not linear
NEAR = 1e-5  # of |f| at the start: as good as on the boundary


def evade(model: nn.Module, x: Tensor, *, ratio: float, reach: float | None = None) -> Tensor:
    """Return points (b, C, H, W) moved across the boundary of `model`, which is in eval mode and of two classes.

    Each is moved from the side that it is on, whatever its label; where the gradient is zero it stays. reach: how
    far at most, in L2: what would go farther stops there. Raises FloatingPointError if a way is not finite.
    """
    with torch.enable_grad():
        start = margins(model, x.detach())[0].abs().clamp_min(torch.finfo(x.dtype).tiny)
        at = x.detach().clone()
        under_way = torch.ones(len(x), dtype=torch.bool, device=x.device)
        side = margins(model, at)[0].sign()
        for _ in range(STEPS):
            value, gradient = margins(model, at)
            under_way &= (value * side > 0) & (value.abs() > NEAR * start)
            if not bool(under_way.any()):
                break
            squared = gradient.flatten(1).square().sum(1)
            under_way &= squared > 0
            step = torch.where(under_way, value / squared, torch.zeros_like(value))
            at = at - step.view(-1, 1, 1, 1) * gradient
    moved = ratio * (at - x)
    if not bool((moved.isfinite().flatten(1).all(1) & value.isfinite()).all()):
        raise FloatingPointError("the way to the boundary is not finite")
    if reach is not None:
        length = moved.flatten(1).norm(dim=1).clamp_min(torch.finfo(x.dtype).tiny)
        moved = moved * (reach / length).clamp_max(1).view(-1, 1, 1, 1)
    return (x + moved).detach()


def margins(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return f(x) (b,) and its gradient by x (b, C, H, W)."""
    x = x.detach().requires_grad_()
    logits = model(x)
    value = logits[:, 1] - logits[:, 0]
    (gradient,) = torch.autograd.grad(value.sum(), x)
    return value.detach(), gradient
