"""Locks between real processes."""

from __future__ import annotations

import errno
import fcntl
import logging
import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Iterator
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from defense.runtime import lock as locking
from defense.runtime.lock import free, holder, locked, seize

FORK = multiprocessing.get_context("fork")


def hold(path: Path, held: Event, *, forked: bool = False) -> None:
    with locked(path, "it"):
        if forked and os.fork() == 0:
            time.sleep(5)  # a worker that outlives its parent
            os._exit(0)
        held.set()
        time.sleep(60)


@pytest.fixture
def holding(tmp_path: Path) -> Iterator[tuple[Path, multiprocessing.process.BaseProcess]]:
    """A lock file, and the process that holds it."""
    path, held = tmp_path / "a.lock", FORK.Event()
    process = FORK.Process(target=hold, args=(path, held))
    process.start()
    assert held.wait(20)
    yield path, process
    process.kill()
    process.join()


def test_one_has_it_until_it_lets_go(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    lock = seize(path)
    assert lock
    assert holder(path) == f"process {os.getpid()} on {socket.gethostname()}"
    assert seize(path) is None
    assert not free(path)
    lock.release()
    assert free(path)
    assert free(tmp_path / "none")
    assert not (tmp_path / "none").exists()
    lock.release()  # nothing more
    again = seize(path)
    assert again
    again.remove()
    again.release()
    assert not path.exists()


def test_who_waits_says_for_whom(
    holding: tuple[Path, multiprocessing.process.BaseProcess],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path, process = holding
    monkeypatch.setattr(locking, "FIRST", 0.2)
    monkeypatch.setattr(locking, "AGAIN", 0.4)
    naps: list[float] = []
    sleep = time.sleep

    def nap(seconds: float) -> None:
        naps.append(seconds)
        sleep(seconds)
        if len(naps) == 11:
            process.kill()

    monkeypatch.setattr(locking.time, "sleep", nap)
    with caplog.at_level(logging.INFO), locked(path, "train/abc"):
        pass
    said = f"waiting for train/abc, locked by process {process.pid} on {socket.gethostname()}"
    assert [record.getMessage() for record in caplog.records] == [said] * 3  # after 0.2, 0.6 and 1.0 s


def test_a_lock_that_is_free_is_taken_without_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), locked(tmp_path / "a.lock", "it"):
        pass
    assert not caplog.records


def test_the_lock_of_a_killed_process_is_free(holding: tuple[Path, multiprocessing.process.BaseProcess]) -> None:
    path, process = holding
    assert seize(path) is None
    assert process.pid
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert str(process.pid) in path.read_text("utf-8")  # what the dead has left
    lock = seize(path)
    assert lock
    assert holder(path).startswith(f"process {os.getpid()} ")
    lock.release()


def test_a_worker_that_outlives_its_parent_does_not_hold_its_lock(tmp_path: Path) -> None:
    path, held = tmp_path / "a.lock", FORK.Event()
    process = FORK.Process(target=hold, args=(path, held), kwargs={"forked": True})
    process.start()
    assert held.wait(20)
    assert seize(path) is None
    process.kill()
    process.join()
    time.sleep(0.2)  # the worker's first steps
    lock = seize(path)
    assert lock
    lock.release()


def contend(path: Path, inside: Path, turns: int, found: multiprocessing.queues.Queue[int]) -> None:
    """Take the lock many times, and remove its file every time; count who else is inside."""
    locking.POLL = 0.0
    together = 0
    for _ in range(turns):
        with locked(path, "it") as lock:
            try:
                os.close(os.open(inside, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                together += 1
                continue
            time.sleep(0.0002)
            inside.unlink()
            lock.remove()
    found.put(together)


def test_removing_the_file_lets_nobody_in_twice(tmp_path: Path) -> None:
    found: multiprocessing.queues.Queue[int] = FORK.Queue()
    arguments = (tmp_path / "a.lock", tmp_path / "inside", 150, found)
    jobs = [FORK.Process(target=contend, args=arguments) for _ in range(6)]
    for job in jobs:
        job.start()
    assert [found.get(timeout=60) for _ in jobs] == [0] * 6
    for job in jobs:
        job.join()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.EACCES, errno.EAGAIN])
def test_what_a_file_system_says_of_a_lock_that_is_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def taken(*_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", taken)
    assert seize(tmp_path / "a.lock") is None


def test_what_it_says_otherwise_is_an_error_and_leaves_nothing_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", none)
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else None
    for _ in range(3):
        with pytest.raises(OSError, match="No locks available"):
            seize(tmp_path / "a.lock")
    assert before is None or len(os.listdir("/proc/self/fd")) == before
