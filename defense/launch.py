"""Run one cell in this process, or in several that share it: those started here, or by torchrun or srun.

Processes started here are watched over: the first that fails ends all, and what it raised is raised here. Those
started from outside end themselves, and whoever started them ends the others.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from defense.crew import sendable
from defense.devices import joined, make_fabric, part
from defense.errors import InputError
from defense.pipeline import run
from defense.place import Place, place_outside
from defense.schema import Config

Result = dict[str, Any]
Work = Callable[..., Any]  # (place, *arguments) of a process; to be found by its name in its module
SETTLING = 1.0  # seconds in which the others may say what they died of, before the first is believed


def launched(config: Config, output: Path, overrides: list[str]) -> Result:
    """Run one cell in as many processes as `config.fabric` asks for; see `defense.pipeline.run`.

    Raises InputError where it was started in another number of them, and RuntimeError where one dies of something
    that nobody foresaw.
    """
    place, wanted = place_outside(), config.fabric.processes
    if place is not None and place.size != wanted:
        found = f"{place.size} processes were started; expected devices x num_nodes to be as many"
        raise InputError("fabric.devices", config.fabric.devices, found)
    if place is not None:
        with ending_all():
            return shared(place, config, output, overrides)
    if wanted == 1:
        return run(config, output, overrides)
    if config.fabric.num_nodes > 1:
        found = "expected srun or torchrun to start a process for each device on every machine"
        raise InputError("fabric.num_nodes", config.fabric.num_nodes, found)
    make_fabric(config.fabric)  # fails here where the devices are not there
    result: Result = spawned(shared, wanted, config, output, overrides)
    return result


def shared(place: Place, config: Config, output: Path, overrides: list[str]) -> Result:
    """Run one cell as one of its processes."""
    fabric = make_fabric(config.fabric, place)
    return run(config, output, overrides, fabric, joined(place, fabric.device))


@contextmanager
def ending_all() -> Iterator[None]:
    """Let an error end this process, though a sweep would go on: the others may wait for it."""
    try:
        yield
    except (InputError, FloatingPointError) as error:
        print(f"defense: {error}", file=sys.stderr)
        leave(2)
    except Exception:
        traceback.print_exc()
        leave(1)


def leave(code: int) -> None:
    """End the process without waiting for those that wait for it."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


@dataclass(frozen=True)
class Report:
    """What a process says when it ends."""

    when: float  # on the clock of the machine
    result: Any = None
    error: Exception | None = None
    trace: str = ""


def spawned(work: Work, size: int, *arguments: Any) -> Any:
    """Return work(place, *arguments) of the process of rank 0, of `size` that are started for it.

    The first error of any is raised here as it was there, or as RuntimeError with its traceback where it is none
    that a person can mend. None of the processes outlives the call, nor this process.
    """
    context = multiprocessing.get_context("spawn")
    threads = max(1, torch.get_num_threads() // size)
    members: dict[Connection, BaseProcess] = {}
    with TemporaryDirectory(prefix="defense-") as folder:
        try:
            for rank in range(size):
                here, there = context.Pipe(duplex=False)
                place = Place(rank, size, rank, f"file://{folder}/meeting")
                given = (there, place, threads, heard(), work, arguments)
                process: BaseProcess = context.Process(target=member, args=given, name=f"process {rank}")
                process.start()
                there.close()  # so that its end is seen from here when the process has ended
                members[here] = process
            return collected(members)
        finally:
            for process in members.values():
                process.kill()
            for connection, process in members.items():
                process.join()
                connection.close()


def collected(members: dict[Connection, BaseProcess]) -> Any:
    """Return the result of the first of `members` once all have ended; raise what the first to fail did."""
    reports: dict[Connection, Report] = {}
    until: float | None = None  # when to believe a failure
    while len(reports) < len(members) and (until is None or time.monotonic() < until):
        waiting = [connection for connection in members if connection not in reports]
        for connection in wait(waiting, None if until is None else max(0.0, until - time.monotonic())):
            assert isinstance(connection, Connection)
            reports[connection] = received(connection, members[connection])
        if until is None and any(report.error for report in reports.values()):
            until = time.monotonic() + SETTLING
    failed = [report for report in reports.values() if report.error is not None]
    if failed:
        cause = min(failed, key=lambda report: report.when)
        if cause.trace:
            raise RuntimeError(f"a process of the run failed\n{cause.trace}") from cause.error
        raise cause.error or AssertionError
    return reports[next(iter(members))].result


def received(connection: Connection, process: BaseProcess) -> Report:
    """Return what a process has said, or that it died without a word: that is the cause of what others say."""
    try:
        report: Report = pickle.loads(connection.recv_bytes())
    except EOFError:
        process.join()
        return Report(-1.0, error=RuntimeError(f"{process.name} died with exit code {process.exitcode}"))
    return report


def member(
    connection: Connection, place: Place, threads: int, logs: list[Log], work: Work, arguments: tuple[Any, ...]
) -> None:
    """Do the work of one process and report what came of it; of the processes one is heard, the others warn."""
    threading.Thread(target=follow_parent, daemon=True).start()
    torch.set_num_threads(threads)
    speak(logs, logging.INFO if place.rank == 0 else logging.WARNING)
    sys.path.append(os.getcwd())  # as the command does: for a user's own network
    try:
        report = Report(0.0, result=work(place, *arguments))
        part()
    except (InputError, FloatingPointError) as error:
        report = Report(time.monotonic(), error=sendable(error))
    except KeyboardInterrupt:
        os._exit(130)
    except Exception as error:
        report = Report(time.monotonic(), error=sendable(error), trace=traceback.format_exc())
    connection.send_bytes(pickle.dumps(report))  # send would share the memory of tensors, which ends with us
    logging.shutdown()


def follow_parent() -> None:
    """End this process when the one that started it has ended, however that was."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@dataclass(frozen=True)
class Log:
    """Where a process writes its log, and how: a file, or the terminal where there is none."""

    file: str | None
    form: str | None


def heard() -> list[Log]:
    """Return where this process writes its log."""
    handlers = [handler for handler in logging.getLogger().handlers if type(handler) in HANDLERS]
    return [Log(getattr(each, "baseFilename", None), form_of(each.formatter)) for each in handlers]


def form_of(formatter: logging.Formatter | None) -> str | None:
    """Return the form of a line of the log."""
    return None if formatter is None else formatter._fmt


HANDLERS = (logging.StreamHandler, logging.FileHandler)


def speak(logs: list[Log], level: int) -> None:
    """Write the log where the process that started this one does."""
    for log in logs:
        handler = logging.FileHandler(log.file) if log.file else logging.StreamHandler(sys.stdout)
        handler.setFormatter(logging.Formatter(log.form))
        logging.getLogger().addHandler(handler)
    logging.getLogger().setLevel(level)
