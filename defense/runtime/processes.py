"""Start processes on this machine that do one work together, watch over them, and raise here what one raises.

They are started as any program is, so that it works from wherever this one runs: a terminal, a notebook, a worker
of joblib. What they are given and what they answer are files in a folder of their own.
"""

from __future__ import annotations

import logging
import os
import pickle
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from defense.errors import USER_ERRORS
from defense.runtime.devices import leave_process_group
from defense.runtime.distributed import sendable
from defense.runtime.ranks import RankInfo

Work = Callable[..., Any]  # (info, *arguments) of a process; to be found by its name in its module
SETTLING = 1.0  # seconds in which the others may say what they died of, before the first is believed
LOOKING = 0.02  # seconds between two looks
MEMBER = "import sys; from defense.runtime.processes import member; member(sys.argv[1])"


@dataclass(frozen=True)
class Given:
    """What a process is given."""

    info: RankInfo
    threads: int
    logs: list[Log]
    work: Work
    arguments: tuple[Any, ...]


@dataclass(frozen=True)
class Report:
    """What a process says when it ends."""

    when: float  # on the clock of the machine
    result: Any = None
    error: Exception | None = None
    trace: str = ""  # of an error that a person cannot mend


def spawned(work: Work, size: int, *arguments: Any) -> Any:
    """Return work(info, *arguments) of the process of rank 0, of `size` that are started for it.

    The first error of any is raised here as it was there, or as RuntimeError with its traceback where it is none
    that a person can mend. None of the processes outlives the call, nor this process.
    """
    threads = max(1, torch.get_num_threads() // size)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
    members: list[subprocess.Popen[bytes]] = []
    with TemporaryDirectory(prefix="defense-") as name:
        folder = Path(name)
        try:
            for rank in range(size):
                info = RankInfo(rank, size, rank, f"file://{folder}/meeting")
                given = Given(info, threads, logs_here(), work, arguments)
                (folder / str(rank)).write_bytes(pickle.dumps(given))
                command = [sys.executable, "-c", MEMBER, str(folder / str(rank))]
                members.append(subprocess.Popen(command, stdin=subprocess.PIPE, env=environment))
            return collected(members, folder)
        finally:
            for process in members:
                process.kill()
            for process in members:
                process.wait()
                assert process.stdin is not None
                process.stdin.close()


def collected(members: list[subprocess.Popen[bytes]], folder: Path) -> Any:
    """Return the result of the first of `members` once all have ended; raise what the first to fail did."""
    reports: dict[int, Report] = {}
    until: float | None = None  # when to believe a failure
    while len(reports) < len(members) and (until is None or time.monotonic() < until):
        time.sleep(LOOKING)
        for rank, process in enumerate(members):
            if rank not in reports and process.poll() is not None:
                reports[rank] = answer(rank, process.returncode, folder)
        if until is None and any(report.error for report in reports.values()):
            until = time.monotonic() + SETTLING
    failed = [report for report in reports.values() if report.error is not None]
    if not failed:
        return reports[0].result
    cause = min(failed, key=lambda report: report.when)
    if cause.trace:
        failure = RuntimeError(f"a process of the run failed: {type(cause.error).__name__}: {cause.error}")
        failure.add_note(cause.trace)
        raise failure
    assert cause.error is not None
    raise cause.error


def answer(rank: int, code: int, folder: Path) -> Report:
    """Return what a process has said, or that it died without a word: that is the cause of what others say."""
    path = folder / f"{rank}.answer"
    if not path.exists():
        return Report(-1.0, error=RuntimeError(f"process {rank} died with exit code {code}"))
    report: Report = pickle.loads(path.read_bytes())
    return report


def member(path: str) -> None:
    """Do the work of one process and say what came of it; of the processes one is heard, the others warn."""
    given: Given = pickle.loads(Path(path).read_bytes())
    threading.Thread(target=follow_parent, daemon=True).start()
    torch.set_num_threads(given.threads)
    write_logs(given.logs, logging.INFO if given.info.rank == 0 else logging.WARNING)
    try:
        said = pickle.dumps(Report(time.monotonic(), result=given.work(given.info, *given.arguments)))
        leave_process_group()
    except USER_ERRORS as error:
        said = pickle.dumps(Report(time.monotonic(), error=sendable(error)))
    except KeyboardInterrupt:
        os._exit(130)
    except Exception as error:
        said = pickle.dumps(Report(time.monotonic(), error=sendable(error), trace=traceback.format_exc()))
    unfinished = Path(f"{path}.unfinished")
    unfinished.write_bytes(said)
    unfinished.rename(f"{path}.answer")
    leave(0)


def follow_parent() -> None:
    """End this process when the one that started it has ended, however that was: our input ends then."""
    sys.stdin.buffer.read()
    os._exit(1)


def leave(code: int) -> None:
    """End this process without waiting for those that may wait for it."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


@dataclass(frozen=True)
class Log:
    """Where a process writes its log, and how: a file, or the terminal if there is none."""

    file: str | None
    form: str | None


def logs_here() -> list[Log]:
    """Return where this process writes its log."""
    handlers = [each for each in logging.getLogger().handlers if type(each) in (logging.StreamHandler, FILE)]
    return [Log(getattr(each, "baseFilename", None), form_of(each.formatter)) for each in handlers]


FILE = logging.FileHandler


def form_of(formatter: logging.Formatter | None) -> str | None:
    """Return the form of a line of the log."""
    return None if formatter is None else formatter._fmt


def write_logs(logs: list[Log], level: int) -> None:
    """Write the log where the process that started this one does."""
    for log in logs:
        handler = FILE(log.file) if log.file else logging.StreamHandler(sys.stdout)
        handler.setFormatter(logging.Formatter(log.form))
        logging.getLogger().addHandler(handler)
    logging.getLogger().setLevel(level)
