"""Where a process stands among those that share a run, as whoever started it says; nothing heavy is imported."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from tempfile import TemporaryDirectory


@dataclass(frozen=True)
class Place:
    """Where a process stands among those that share a run."""

    rank: int
    size: int
    local_rank: int  # on its machine
    meeting: str  # where all meet, as torch.distributed.rendezvous takes it
    outside: bool = False  # started by torchrun or srun


def place_outside() -> Place | None:
    """Return the place that torchrun or srun has given this process; None where it was started alone."""
    said = os.environ
    if "TORCHELASTIC_RUN_ID" in said:
        rank, size, local_rank = (int(said[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
        return Place(rank, size, local_rank, "env://", outside=True) if size > 1 else None
    size = int(said.get("SLURM_STEP_NUM_TASKS", 1))  # of srun alone: what sbatch runs itself is one process
    if size == 1:
        return None
    from lightning_fabric.plugins.environments import SLURMEnvironment

    nodes = said.get("SLURM_STEP_NODELIST") or said.get("SLURM_NODELIST", "127.0.0.1")
    address = said.get("MASTER_ADDR") or SLURMEnvironment.resolve_root_node_address(nodes)
    job, step = int(said.get("SLURM_JOB_ID", 0)), int(said.get("SLURM_STEP_ID", 0))
    port = said.get("MASTER_PORT") or str(15000 + (job + 97 * step) % 15000)  # the same for all, without talking
    meeting = f"tcp://{address}:{port}"
    return Place(int(said["SLURM_PROCID"]), size, int(said["SLURM_LOCALID"]), meeting, outside=True)


@contextmanager
def one_writes(arguments: list[str]) -> Iterator[None]:
    """Let Hydra make no folder and no log for a process that is not the first, by what it adds to `arguments`."""
    place = place_outside()
    if place is None or place.rank == 0:
        yield
        return
    with TemporaryDirectory(prefix="defense-") as folder:
        folders = [f"hydra.run.dir={folder}", f"hydra.sweep.dir={folder}", "hydra.output_subdir=null"]
        settings = [index + 1 for index, word in enumerate(arguments) if "=" in word and not word.startswith("-")]
        beside = settings[-1] if settings else len(arguments)  # the last word counts; all have to stand together
        arguments[beside:beside] = [
            *folders,
            "hydra/job_logging=none",
            "hydra/hydra_logging=none",
            "~hydra.callbacks.report",
        ]
        yield
