"""Logits of a whole split."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from defense.data.splits import Split
from defense.models.modes import evaluating
from defense.runtime.distributed import SINGLE_PROCESS, Ranks, raise_on_all, shard_batches


@torch.no_grad()
def predict(model: nn.Module, split: Split, *, batch_size: int, ranks: Ranks = SINGLE_PROCESS) -> Tensor:
    """Return the logits (n, classes) of `model` in eval mode, on the CPU. ranks: shares the batches."""
    mine = shard_batches(ranks, len(split), batch_size)

    def own() -> Tensor:
        batches = split.batches(batch_size, start=mine.start, stop=mine.stop)
        logits = [model(x).cpu() for _, x, _ in batches]
        return torch.cat(logits) if logits else torch.empty(0)

    with evaluating(model):
        return ranks.gather(raise_on_all(ranks, own))
