"""Logits of a whole split."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from defense.data.splits import Split
from defense.models.modes import evaluating


@torch.no_grad()
def predict(model: nn.Module, split: Split, *, batch_size: int) -> Tensor:
    """Return the logits (n, classes) of `model` in eval mode, on the CPU."""
    with evaluating(model):
        return torch.cat([model(x).cpu() for _, x, _ in split.batches(batch_size)])
