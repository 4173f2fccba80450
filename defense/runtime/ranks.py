"""Where a process stands among those that share a run, as whoever started it says; nothing heavy is imported."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from defense.errors import InputError

TASKS = "SLURM_STEP_NUM_TASKS"  # of srun alone: what sbatch runs itself is one process
NO_TASKS_FROM = 4294967290  # ids of steps from here on are scripts of sbatch and shells, of one process
SHELLS = ("interactive", "bash", "sh", "zsh", "fish", "tcsh", "csh", "ksh")  # names of jobs that are a shell
TERMINAL = ("SLURM_PTY_PORT", "SLURM_PTY_WIN_COL")  # of srun --pty


@dataclass(frozen=True)
class RankInfo:
    """Where a process stands among those that share a run."""

    rank: int
    size: int
    local_rank: int  # on its machine
    init_method: str  # where all meet, as torch.distributed.rendezvous takes it
    external: bool = False  # started by torchrun or srun
    variable: str = ""  # the variable without which it would count as started alone


def external_rank_info() -> RankInfo | None:
    """Return the place that torchrun or srun has given this process; None where it was started alone.

    Raises InputError if what they say is no number.
    """
    said = os.environ
    if "TORCHELASTIC_RUN_ID" in said:
        rank, size, local_rank = (whole(said, name) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
        return RankInfo(rank, size, local_rank, "env://", True, "TORCHELASTIC_RUN_ID") if size > 1 else None
    if TASKS not in said or whole(said, TASKS) <= 1 or in_shell(said):
        return None
    from lightning_fabric.plugins.environments import SLURMEnvironment

    nodes = said.get("SLURM_STEP_NODELIST") or said.get("SLURM_NODELIST", "127.0.0.1")
    address = said.get("MASTER_ADDR") or SLURMEnvironment.resolve_root_node_address(nodes)
    job, step = (whole(said, name) if name in said else 0 for name in ("SLURM_JOB_ID", "SLURM_STEP_ID"))
    port = said.get("MASTER_PORT") or str(15000 + (job + 97 * step) % 15000)  # the same for all, without talking
    rank, size, local_rank = (whole(said, name) for name in ("SLURM_PROCID", TASKS, "SLURM_LOCALID"))
    return RankInfo(rank, size, local_rank, f"tcp://{address}:{port}", True, TASKS)


def in_shell(said: Mapping[str, str]) -> bool:
    """Return whether a command was typed in a shell, or a notebook, that is itself the task of SLURM.

    Its variables are inherited: they count the tasks of the shell's step, of which one alone has the terminal.
    """
    if "SLURM_PROCID" not in said or "SLURM_LOCALID" not in said:
        return True
    if said.get("SLURM_STEP_ID", "0").isdigit() and whole(said, "SLURM_STEP_ID", 0) >= NO_TASKS_FROM:
        return True
    if whole(said, "SLURM_PROCID") > 0 or said.get("SLURM_TASK_PID") == str(os.getpid()):
        return False  # of several tasks one that has no terminal, or the task itself
    if any(name in said for name in TERMINAL):
        return True
    return said.get("SLURM_JOB_NAME") in SHELLS and not without_terminal(said.get("SLURM_TASK_PID", ""))


def without_terminal(pid: str) -> bool:
    """Return whether the process of that id runs here and has no terminal, as a script that srun has started."""
    try:
        fields = (
            Path(f"/proc/{int(pid)}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        )
    except (OSError, ValueError):
        return False
    return fields[4] == "0"  # tty_nr, the seventh of all


def whole(said: Mapping[str, str], name: str, default: int | None = None) -> int:
    """Return the whole number that a variable holds; raises InputError if it is none, or not set."""
    text = said.get(name, "" if default is None else str(default))
    if not text.isdecimal():
        raise InputError(name, text or "unset", "expected a whole number, as torchrun and srun set it")
    return int(text)


@contextmanager
def one_writes(arguments: list[str]) -> Iterator[None]:
    """Let Hydra make no folder and no log for a process that is not the first, by what it adds to `arguments`."""
    info = external_rank_info()
    if info is None or info.rank == 0:
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
