"""Which of several processes this is, by what torchrun and srun leave in its environment."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from defense.errors import InputError
from defense.runtime.ranks import external_rank_info, without_terminal

STEP = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_NODELIST": "localhost",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
}
NONE = "4194399"  # an id that no process has


OURS = ("SLURM_", "TORCHELASTIC_", "RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_")


@pytest.fixture(autouse=True)
def outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away what the tests themselves were started with."""
    for name in list(os.environ):
        if name.startswith(OURS):
            monkeypatch.delenv(name)


def told(monkeypatch: pytest.MonkeyPatch, said: dict[str, str]) -> tuple[int, int] | None:
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    info = external_rank_info()
    return None if info is None else (info.rank, info.size)


SINGLE_PROCESS = {
    "no SLURM": {},
    "the shell of salloc": {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_JOB_NAME": "interactive"},
    "a script of sbatch": {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"},
    "a script of sbatch, its step told": STEP | {"SLURM_STEP_ID": "4294967291"},
    "the same of an older SLURM": STEP | {"SLURM_STEP_ID": "4294967294"},
    "the shell of salloc, its step told": STEP | {"SLURM_STEP_ID": "4294967290", "SLURM_JOB_NAME": "mine"},
    "one task of srun": STEP | {"SLURM_STEP_NUM_TASKS": "1"},
    "a shell of srun, named interactive": STEP | {"SLURM_JOB_NAME": "interactive"},
    "a shell of srun, named by its program": STEP | {"SLURM_JOB_NAME": "bash"},
    "the same with another": STEP | {"SLURM_JOB_NAME": "zsh"},
    "a notebook below such a shell": STEP | {"SLURM_JOB_NAME": "interactive", "SLURM_TASK_PID": NONE},
    "a terminal of srun under any name": STEP | {"SLURM_JOB_NAME": "mine", "SLURM_PTY_PORT": "4711"},
    "the same, of which the size is told": STEP | {"SLURM_JOB_NAME": "mine", "SLURM_PTY_WIN_COL": "80"},
    "a count without a rank": {"SLURM_STEP_NUM_TASKS": "4"},
    "one process of torchrun": {
        "TORCHELASTIC_RUN_ID": "x",
        "RANK": "0",
        "WORLD_SIZE": "1",
        "LOCAL_RANK": "0",
    },
}
SEVERAL = {
    "a task of srun": (STEP, (0, 4)),
    "another": (STEP | {"SLURM_PROCID": "3", "SLURM_LOCALID": "1"}, (3, 4)),
    "under a name of its own": (STEP | {"SLURM_JOB_NAME": "train"}, (0, 4)),
    "in the shell of salloc, the task itself": (
        STEP | {"SLURM_JOB_NAME": "interactive", "SLURM_TASK_PID": str(os.getpid())},
        (0, 4),
    ),
    "in the shell of salloc, one of the others": (
        STEP | {"SLURM_JOB_NAME": "interactive", "SLURM_PROCID": "2", "SLURM_PTY_PORT": "4711"},
        (2, 4),
    ),
    "of torchrun": ({"TORCHELASTIC_RUN_ID": "x", "RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}, (1, 2)),
}


@pytest.mark.parametrize("name", SINGLE_PROCESS)
def test_a_command_typed_in_a_shell_is_alone(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    assert told(monkeypatch, SINGLE_PROCESS[name]) is None


@pytest.mark.parametrize("name", SEVERAL)
def test_tasks_are_several(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    said, expected = SEVERAL[name]
    assert told(monkeypatch, said) == expected


def test_a_script_that_srun_starts_in_the_shell_of_salloc_is_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its process has no terminal, while a shell that a person types in has one."""
    started = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True)
    try:
        assert without_terminal(str(started.pid))
        said = STEP | {"SLURM_JOB_NAME": "interactive", "SLURM_TASK_PID": str(started.pid)}
        assert told(monkeypatch, said) == (0, 4)
    finally:
        started.communicate(b"\n")
    assert not without_terminal(NONE)
    assert not without_terminal("")


@pytest.mark.parametrize(
    ("said", "named"),
    [
        (STEP | {"SLURM_STEP_NUM_TASKS": "four"}, "SLURM_STEP_NUM_TASKS=four"),
        (STEP | {"SLURM_PROCID": "-1"}, "SLURM_PROCID=-1"),
        ({"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}, "RANK=unset"),
    ],
)
def test_what_is_no_number_is_named(monkeypatch: pytest.MonkeyPatch, said: dict[str, str], named: str) -> None:
    with pytest.raises(InputError, match=f"{named}: expected a whole number"):
        told(monkeypatch, said)
