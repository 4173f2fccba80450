"""Random crops and flips, drawn for every sample of an epoch and not for every batch.

A sample is then augmented in the same way whether or not others are removed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from defense.randomness import generator


@dataclass(frozen=True)
class Epoch:
    """What chance decides in one epoch, for all n samples of the training split."""

    order: Tensor  # int64 (n,): a permutation of the rows
    shifts: Tensor  # int64 (n, 2): where the crop starts, in [0, 2 * crop]
    flips: Tensor  # bool (n,)


def plan_epoch(count: int, *, crop: int, flip: bool, seed: int, epoch: int) -> Epoch:
    """Return the draws of one epoch; they depend on `seed`, `epoch` and `count` alone."""
    chance = generator(seed, "epoch", epoch)
    order = torch.randperm(count, generator=chance)
    shifts = torch.randint(0, 2 * crop + 1, (count, 2), generator=chance)
    flips = torch.rand(count, generator=chance) < (0.5 if flip else 0.0)
    return Epoch(order, shifts, flips)


def augment(x: Tensor, shifts: Tensor, flips: Tensor, *, crop: int) -> Tensor:
    """Return images (b, C, H, W) padded by `crop` zeros, cut out at `shifts` (b, 2), mirrored where `flips`."""
    shifts, flips = shifts.to(x.device), flips.to(x.device)
    if crop > 0:
        _, _, height, width = x.shape
        rows = shifts[:, 0, None] + torch.arange(height, device=x.device)
        columns = shifts[:, 1, None] + torch.arange(width, device=x.device)
        sample = torch.arange(len(x), device=x.device)[:, None, None]
        padded = F.pad(x, (crop,) * 4)
        x = padded[sample, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    return torch.where(flips.view(-1, 1, 1, 1), x.flip(-1), x)
