"""The two norms that a threat may be measured in, and the ball around a picture, cut off at [0, 1]."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from defense.config.choices import Norm
from defense.config.schema import Threat


def length(ways: Tensor, norm: Norm) -> Tensor:
    """Return the norms (...) of vectors (..., n)."""
    return ways.abs().amax(-1) if norm is Norm.Linf else torch.linalg.vector_norm(ways, dim=-1)


def distance(before: Tensor, after: Tensor, norm: Norm) -> Tensor:
    """Return how far pictures (b, C, H, W) have been moved: (b,)."""
    return length((after - before).flatten(1), norm)


def check_inside(x: Tensor, adversarial: Tensor, threat: Threat) -> None:
    """Raise RuntimeError unless `adversarial` is finite, in [0, 1] and within the ball around `x` (b, ...)."""
    moved = distance(x, adversarial, threat.norm).max()
    tolerance = 1e-6 + 1e-5 * threat.eps
    if not bool(moved <= threat.eps + tolerance):  # written so that NaN fails
        raise RuntimeError(f"the attack moved a sample by {moved:g}, eps is {threat.eps:g}")
    if adversarial.min() < 0 or adversarial.max() > 1:
        raise RuntimeError("the attack left the pixel range [0, 1]")


def farthest(norm: Norm, shape: tuple[int, ...]) -> float:
    """Return the distance of the farthest two pictures of `shape` (C, H, W) with pixels in [0, 1]."""
    return {Norm.Linf: 1.0, Norm.L2: math.sqrt(math.prod(shape))}[norm]


def project(x: Tensor, moved: Tensor, threat: Threat) -> Tensor:
    """Return pictures (b, C, H, W) brought into the ball around `x`, and into [0, 1], which `x` is in.

    What leaves the ball is clipped pixel by pixel (Linf), or shortened (L2).
    """
    if threat.norm is Norm.Linf:
        return (x + (moved - x).clamp(-threat.eps, threat.eps)).clamp(0, 1)
    gone = broadcast(distance(x, moved, threat.norm), x).clamp_min(1e-12)
    return (x + (moved - x) * (threat.eps / gone).clamp_max(1)).clamp(0, 1)


def steepest(gradient: Tensor, norm: Norm) -> Tensor:
    """Return the direction of length 1 in `norm` along which gradients (b, C, H, W) rise most; 0 for one of 0."""
    if norm is Norm.Linf:
        return gradient.sign()
    largest = broadcast(gradient.flatten(1).abs().amax(1), gradient)  # squares of small numbers would be 0
    scaled = gradient / largest.clamp_min(torch.finfo(gradient.dtype).tiny)
    return scaled / broadcast(length(scaled.flatten(1), norm), gradient).clamp_min(1e-12)


def random_in_ball(x: Tensor, threat: Threat) -> Tensor:
    """Return pictures (b, C, H, W) drawn in the ball around `x` from the global generator, then cut off at [0, 1].

    Uniform in Linf; in L2 in a uniform direction, at a distance uniform in [0, eps].
    """
    if threat.norm is Norm.Linf:
        return (x + threat.eps * (2 * torch.rand_like(x) - 1)).clamp(0, 1)
    radius = threat.eps * broadcast(torch.rand(len(x), device=x.device), x)
    return (x + radius * steepest(torch.randn_like(x), threat.norm)).clamp(0, 1)


def broadcast(values: Tensor, pictures: Tensor) -> Tensor:
    """Return one value for each picture, (b,), in the shape (b, 1, 1, 1) that broadcasts over them."""
    return values.view(-1, *[1] * (pictures.ndim - 1))
