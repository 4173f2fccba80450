"""Logits of a whole split."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from defense.data.splits import Split
from defense.models.modes import evaluating
from defense.runtime.distributed import ALONE, Crew, rows_of, together


@torch.no_grad()
def predict(model: nn.Module, split: Split, *, batch_size: int, crew: Crew = ALONE) -> Tensor:
    """Return the logits (n, classes) of `model` in eval mode, on the CPU. crew: shares the batches."""
    mine = rows_of(crew, len(split), batch_size)

    def own() -> Tensor:
        batches = split.batches(batch_size, start=mine.start, stop=mine.stop)
        logits = [model(x).cpu() for _, x, _ in batches]
        return torch.cat(logits) if logits else torch.empty(0)

    with evaluating(model):
        return crew.gather(together(crew, own))
