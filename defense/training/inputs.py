"""What a training run is given beside its network and recipe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from defense.data.splits import Split
from defense.training.recipes import Losses

Measure = Callable[[nn.Module, int], dict[str, float]]  # network, epoch -> validation_<...>


@dataclass(frozen=True)
class TrainingSet:
    """Samples of which some are left out, and the others weighed."""

    split: Split
    keep: Tensor  # bool (n,), row by row as in `split`
    weights: Tensor  # float (n,), mean 1 over the kept samples

    @property
    def kept(self) -> Tensor:
        """The rows that are trained on, int64 and in order."""
        return self.keep.cpu().nonzero().flatten()

    @classmethod
    def of(cls, split: Split, keep: Tensor, weights: Tensor | None = None) -> TrainingSet:
        """Return the kept samples of `split`, of one weight unless weights are given."""
        return cls(split, keep, torch.ones(len(keep)) if weights is None else weights)


@dataclass(frozen=True)
class Criteria:
    """The losses that a training lowers, and what is measured of the network after each epoch."""

    losses: Losses
    measure: Measure
