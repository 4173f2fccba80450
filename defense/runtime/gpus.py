"""GPUs handed out to the jobs of one machine: one for each process, as long as there are enough of them."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from defense.runtime.lock import Lock, seize

log = logging.getLogger(__name__)
VISIBLE = "CUDA_VISIBLE_DEVICES"
LOCKS = Path(tempfile.gettempdir()) / f"defense-gpus-{os.getuid()}"
held: list[Lock] = []  # by this process, until it ends: a context on a GPU lasts as long


def take_one() -> None:
    """Make one GPU the only one that this process sees, if there are several: one that no other job has taken.

    To be called before CUDA is initialised; a process that has taken one keeps it. Where a launcher has given the
    process a GPU (Ray, SLURM), that is the one that it sees. Where all are taken, it shares one, which is said.
    """
    if held or len(ids := visible()) < 2:
        return
    os.environ[VISIBLE] = claimed(ids, LOCKS)


def visible() -> list[str]:
    """Return the ids of the GPUs that this process sees: indices, or UUIDs where they are named so."""
    if (given := os.environ.get(VISIBLE)) is not None:
        return [name.strip() for name in given.split(",") if name.strip()]
    import torch

    return [str(index) for index in range(torch.cuda.device_count())]


def claimed(ids: Sequence[str], folder: Path) -> str:
    """Return the first of `ids` whose lock in `folder` is free, and hold the lock; a dead holder's is free."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ids:
        if lock := seize(folder / f"{name}.lock"):
            held.append(lock)
            return name
    shared = ids[os.getpid() % len(ids)]
    log.warning("all %d GPUs are taken by other jobs: sharing GPU %s; run fewer at a time", len(ids), shared)
    return shared
