"""Randomness that is named, not global: every draw comes from the run's seed and the name of its purpose."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


def derive(seed: int, *purpose: str | int) -> int:
    """Return a seed in [0, 2^32) for one purpose, independent of every other purpose."""
    text = "/".join(map(str, (seed, *purpose)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def generator(seed: int, *purpose: str | int) -> torch.Generator:
    """Return a CPU generator for one purpose: the same numbers on every device."""
    return torch.Generator().manual_seed(derive(seed, *purpose))


def random_scores(count: int, *, seed: int) -> Tensor:
    """Return `count` scores drawn uniformly from [-1, 1)."""
    return 2 * torch.rand(count, generator=generator(seed, "random scores")) - 1


@contextmanager
def global_seed(seed: int, *purpose: str | int) -> Iterator[None]:
    """Seed torch's global generators for code that draws from them, and put their state back afterwards."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(derive(seed, *purpose))
        yield
