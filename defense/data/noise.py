"""Label noise with known truth."""

from __future__ import annotations

import torch
from torch import Tensor


def flip_symmetric(labels: Tensor, rate: float, classes: int, generator: torch.Generator) -> Tensor:
    """Return a copy of `labels` (n,) in which round(rate * n) are another class, each other class as likely."""
    flipped = labels.clone()
    rows = torch.randperm(len(labels), generator=generator)[: round(rate * len(labels))]
    step = torch.randint(1, classes, (len(rows),), generator=generator)
    flipped[rows] = (labels[rows] + step) % classes
    return flipped
