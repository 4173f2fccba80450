"""Datasets of torch as a user makes them, by their dotted paths."""

from __future__ import annotations

import torch
from torch.utils.data import TensorDataset


def noise(count: int = 60, seed: int = 0) -> dict[str, TensorDataset]:
    """Return grey pictures of 8x8 in three classes, to train on and for test."""
    chance = torch.Generator().manual_seed(seed)
    return {
        part: TensorDataset(torch.rand(size, 1, 8, 8, generator=chance), torch.arange(size) % 3)
        for part, size in (("train", count), ("test", count // 2))
    }


def other_noise(count: int = 60, seed: int = 0) -> dict[str, TensorDataset]:
    """Return others of the same kind."""
    return noise(count, seed + 1)
