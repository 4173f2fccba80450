"""The command in several processes: started by itself, by torchrun, and as srun would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from defense.cli.launch import launched
from defense.config.compose import composed
from defense.errors import InputError
from defense.runtime.ranks import external_rank_info, one_writes
from tests.conftest import TINY

ROOT = Path(__file__).resolve().parents[2]
TWO = [*TINY, "fabric.accelerator=cpu", "fabric.devices=2", "evaluation.batch_size=16", "scorer.batch_size=32"]
Command = Callable[..., tuple[int, str, str]]


def only(pattern: str) -> Path:
    """The one path of that pattern below the current folder."""
    (path,) = Path().glob(pattern)
    return path


@pytest.mark.slow
def test_a_run_in_two_processes_is_that_of_one(command: Command) -> None:
    code, out, _ = command(*TWO, "name=two", "evaluation.checked=20")
    assert code == 0
    assert "not distinguishable" in out or "random" in out
    command(*TWO, "name=one", "evaluation.checked=20", "store=elsewhere", "fabric.devices=1")
    two, one = (json.loads(only(f"runs/{name}/*/result.json").read_text("utf-8")) for name in ("two", "one"))
    for arm, numbers in one["arms"].items():  # rounding may move a sample of 80 over the boundary
        assert two["arms"][arm]["clean"] == pytest.approx(numbers["clean"], abs=1.3)
        assert two["arms"][arm]["adaptive"]["worst"] == pytest.approx(numbers["adaptive"]["worst"], abs=1.3)
    scores = [pd.read_parquet(only(f"runs/{name}/*/scores.parquet")) for name in ("two", "one")]
    pd.testing.assert_frame_equal(*scores, rtol=1e-3, atol=1e-4)
    assert "train baseline" in only("runs/two/*/defense.log").read_text("utf-8")  # of one process, once
    assert only("runs/two/*/defense.log").read_text("utf-8").count("train baseline") == 1
    command(*TWO, "name=again", "evaluation.checked=20")
    again = json.loads(only("runs/again/*/result.json").read_text("utf-8"))
    assert again["reused"] == [stage for stage in again["seconds"] if stage != "pages"]  # of another name


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        pytest.param(
            ["data=npz", "data.path=nowhere"],
            "defense: data.path=nowhere: no such path",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ["train.learning_rate=1e9"],
            "defense: train.learning_rate=1000000000.0: the training loss is nan",
            marks=pytest.mark.slow,
        ),
        (["fabric.devices=0"], "defense: fabric.devices=0: expected a whole number of at least 1"),
        (["fabric.num_nodes=0"], "defense: fabric.num_nodes=0: expected a whole number of at least 1"),
        (["fabric.num_nodes=2"], "defense: fabric.num_nodes=2: expected srun or torchrun to start a process"),
        (["fabric.strategy=fsdp"], "defense: fabric.strategy=fsdp: expected one of auto, ddp"),
        (["train.batch_size=1"], "defense: train.batch_size=1: expected at least 2, a sample for each of"),
    ],
)
def test_what_can_be_mended_is_one_line(command: Command, arguments: list[str], expected: str) -> None:
    code, _, error = command(*TWO, *arguments)
    assert code == 2
    assert error.startswith(expected)
    assert error.count("\n") == 1


@pytest.mark.slow
def test_numbers_that_are_not_finite_are_one_line(command: Command) -> None:
    code, _, error = command(*TWO, "model={_target_: tests.nets.Fading}")
    assert (code, error.count("\n")) == (2, 1)
    assert error.startswith("defense: the model gives logits that are not finite")


def in_processes(environments: list[dict[str, str]], *arguments: str) -> list[subprocess.CompletedProcess[str]]:
    """Run the command in several processes at once, each in an environment of its own."""
    start = [sys.executable, "-m", "defense", *arguments]
    common = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen(
            start, env=common | own, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=os.getcwd()
        )
        for own in environments
    ]
    said = [process.communicate(timeout=120) for process in running]
    return [
        subprocess.CompletedProcess(start, process.returncode, *pair)
        for process, pair in zip(running, said, strict=True)
    ]


def slurm(rank: int, size: int, job: int) -> dict[str, str]:
    """What srun tells a task, on a machine of its own."""
    return {
        "SLURM_JOB_ID": str(job),
        "SLURM_STEP_ID": "0",
        "SLURM_STEP_NUM_TASKS": str(size),
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_NTASKS": str(size),
        "SLURM_PROCID": str(rank),
        "SLURM_LOCALID": "0",
        "SLURM_NODEID": str(rank),
    }


@pytest.mark.slow
def test_tasks_of_srun_share_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    places = [slurm(rank, 2, os.getpid()) for rank in range(2)]
    arguments = ["-m", *TWO, "fabric.devices=1", "fabric.num_nodes=2", "task=detect", "seed=0,1"]
    found = in_processes(places, *arguments)
    assert [process.returncode for process in found] == [0, 0], found
    assert "seed=1" in found[0].stdout
    assert found[1].stdout == ""
    assert [path.parent.name for path in sorted(tmp_path.glob("runs/digits/*/*/result.json"))] == ["0", "1"]


@pytest.mark.slow
def test_machines_without_a_common_store_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    program = "import defense.store.stage as l; l.SEEN_AFTER = 0.5; from defense.__main__ import main; main()"
    arguments = [*TWO, "fabric.devices=1", "fabric.num_nodes=2", "task=detect"]
    running = [
        subprocess.Popen(
            [sys.executable, "-c", program, *arguments, f"store=store{rank}"],
            env=os.environ | {"PYTHONPATH": str(ROOT)} | slurm(rank, 2, os.getpid() + 1),
            text=True,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
        )
        for rank in range(2)
    ]
    _, error = running[1].communicate(timeout=100)
    running[0].kill()
    running[0].communicate()
    assert running[1].returncode == 2
    assert error.startswith("defense: store=store1: process 1, on ")
    assert error.endswith("expected a folder that all machines share\n")


@pytest.mark.slow
def test_torchrun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    start = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "defense", *TWO]
    done = subprocess.run(
        start, env=os.environ | {"PYTHONPATH": str(ROOT)}, text=True, capture_output=True, timeout=200, check=True
    )
    assert done.stdout.count("report: ") == 1
    assert len(list(tmp_path.glob("runs/digits/*"))) == 1


@pytest.mark.slow
def test_cells_of_joblib_start_processes_of_their_own(command: Command) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    code, _, _ = command("-m", *TWO, "seed=0,1", "task=detect", "hydra/launcher=joblib")
    assert code == 0
    assert len(list(Path().glob("runs/digits/*/*/result.json"))) == 2


def test_another_number_of_processes_than_was_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in slurm(1, 4, 7).items():
        monkeypatch.setenv(name, value)
    said = r"fabric.devices=2: 4 processes were started; .* if only this one was, unset SLURM_STEP_NUM_TASKS"
    with pytest.raises(InputError, match=said):
        launched(composed("fabric.devices=2"), tmp_path, [])


def test_places(monkeypatch: pytest.MonkeyPatch) -> None:
    assert external_rank_info() is None
    monkeypatch.setenv("SLURM_NTASKS", "8")  # what sbatch says to a script, which is one process
    assert external_rank_info() is None
    for name, value in {**slurm(3, 4, 123456), "SLURM_STEP_NODELIST": "gpu[07-10]", "SLURM_LOCALID": "1"}.items():
        monkeypatch.setenv(name, value)
    info = external_rank_info()
    assert info is not None
    assert (info.rank, info.size, info.local_rank, info.external) == (3, 4, 1, True)
    assert info.init_method.startswith("tcp://gpu07:")
    torchrun = {"RANK": "5", "WORLD_SIZE": "6", "LOCAL_RANK": "2", "TORCHELASTIC_RUN_ID": "none"}
    for name, value in torchrun.items():
        monkeypatch.setenv(name, value)
    info = external_rank_info()
    assert info is not None
    assert (info.rank, info.size, info.local_rank, info.init_method) == (5, 6, 2, "env://")


def test_what_is_added_for_a_process_that_is_not_the_first_counts_last(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "TORCHELASTIC_RUN_ID": "x"}.items():
        monkeypatch.setenv(name, value)
    arguments = ["defense", "-m", "seed=0,1", "hydra.sweep.dir=mine", "--cfg", "job"]
    with one_writes(arguments):
        said = [word for word in arguments if word.startswith("hydra.sweep.dir=")]
        assert said[0] == "hydra.sweep.dir=mine"
        assert len(said) == 2
        assert Path(said[1].partition("=")[2]).is_dir()
        assert arguments[-2:] == ["--cfg", "job"]
