from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from defense.runtime import gpus

HOLDER = "import sys, time; from pathlib import Path; from defense.runtime.gpus import claimed; {}; time.sleep(60)"


def claiming(folder: Path) -> tuple[subprocess.Popen[str], str]:
    """Start a process that claims one of two GPUs and lives on; return it with what it got."""
    program = HOLDER.format(f"print(claimed(['0', '1'], Path({str(folder)!r})), flush=True)")
    job = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert job.stdout is not None
    return job, job.stdout.readline().strip()


@pytest.fixture(autouse=True)
def _nothing_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "held", [])


def test_every_job_gets_one_of_its_own_and_that_of_a_dead_one_is_free(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    jobs = [claiming(tmp_path), claiming(tmp_path)]
    try:
        assert [got for _, got in jobs] == ["0", "1"]
        with caplog.at_level(logging.WARNING):
            assert gpus.claimed(["0", "1"], tmp_path) in ("0", "1")
        assert "all 2 GPUs are taken" in caplog.text
        assert gpus.held == []
        jobs[0][0].send_signal(signal.SIGKILL)
        jobs[0][0].wait()
        assert gpus.claimed(["0", "1"], tmp_path) == "0"
        assert len(gpus.held) == 1
    finally:
        for job, _ in jobs:
            job.kill()
            job.wait()
        for lock in gpus.held:
            lock.release()


def test_one_of_several_is_made_the_only_one_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "LOCKS", tmp_path)
    monkeypatch.setenv(gpus.VISIBLE, "GPU-aa, GPU-bb")
    gpus.take_one()
    gpus.take_one()
    assert os.environ[gpus.VISIBLE] == "GPU-aa"
    assert len(gpus.held) == 1
    gpus.held[0].release()


@pytest.mark.parametrize("seen", ["", "3"])
def test_what_a_launcher_has_given_stays(seen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "LOCKS", tmp_path / "none")
    monkeypatch.setenv(gpus.VISIBLE, seen)
    gpus.take_one()
    assert os.environ[gpus.VISIBLE] == seen
    assert not (tmp_path / "none").exists()
