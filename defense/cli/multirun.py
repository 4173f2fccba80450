"""What a multirun does around its cells: one that fails is written down at once, and the end is summed up."""

from __future__ import annotations

import logging
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from defense.cli.errors import IN_ONE_LINE, one_line
from defense.cli.folders import begin, uncounted
from defense.cli.leftovers import made, note
from defense.cli.preflight import NUMBERED, check_cells
from defense.cli.report import names_of, published
from defense.cli.results import FAILED, RESULT, cells_of, find_failures, find_results
from defense.cli.sweep_files import as_typed
from defense.errors import InputError
from defense.reporting.escaping import markdown
from defense.runtime.lock import Lock, seize

if TYPE_CHECKING:
    from defense.reporting.page import Failure

log = logging.getLogger(__name__)
LOG = "defense.log"
LOCK = ".lock"  # in the folder of a sweep with numbered cells
SWEEP_ID = "callbacks.report.sweep"  # where the name of a sweep is, below hydra
STAGES_HEADER = ("stage", "computed", "seconds", "reused", "seconds saved")
held: list[Lock] = []  # by this process, until it ends


@contextmanager
def failing_alone(folder: Path, overrides: list[str]) -> Iterator[None]:
    """Run a cell of a multirun: what it raises goes into its log, with the traceback, and into failed.json.

    What an earlier attempt has left in the folder is taken away first: it may be of another sweep.
    """
    for name in (RESULT, FAILED):
        (folder / name).unlink(missing_ok=True)
    try:
        yield
    except Exception as error:
        line = one_line(error)
        log.error("failed: %s", line, exc_info=None if isinstance(error, IN_ONE_LINE) else error)
        said = {"overrides": overrides, "error": line, "log": LOG}
        (folder / RESULT).unlink(missing_ok=True)  # as where it could not be tracked
        from defense.artifacts import write_json  # torch: not for --help

        try:
            write_json(said, folder / FAILED)
        except OSError as full:  # perhaps what the cell has failed of
            log.error("%s cannot be written: %s", folder / FAILED, full)


class Report(Callback):
    """What Hydra calls when a run begins, and when a multirun begins and has ended.

    sweep: the name of the sweep, the same in all of its processes, and another for every start; without a name its
    cells are all that are in its folder.
    """

    def __init__(self, sweep: str | None = None) -> None:
        self.sweep = sweep
        self.cells: int | None = None
        self.begin = time.monotonic()

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Remember which folders the run makes: one that never begins leaves none."""
        say_where(config)
        with suppress(OmegaConfBaseException):  # Hydra says so in a moment
            note(Path(config.hydra.run.dir))

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Check the folders of the cells, name the sweep in its own, and take away how numbered cells there ended.

        They are of an earlier sweep. Stages stay in the store: one that goes on has its cells again in a moment.
        Hydra takes an exception of a callback for a warning, so it is said here, and ends the command.
        """
        say_where(config)
        made.clear()  # of an earlier run of this process
        try:
            folder = Path(config.hydra.sweep.dir)
            self.cells = check_cells(config)
            if is_plan(config):
                check_planner(config)
                return
            alone_in(folder, as_typed(config.hydra.sweep)["subdir"])
            if self.sweep is not None:
                begin(folder, self.sweep, self.cells)
        except IN_ONE_LINE as error:
            print(f"defense: {one_line(error)}", file=sys.stderr)
            sys.exit(2)
        for name in (RESULT, FAILED):
            for file in folder.glob(f"*/{name}"):
                if file.parent.name.isdigit():
                    file.unlink()

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Write the page of the sweep beside its cells, and sum up what was computed; exit 1 if a cell failed."""
        if is_plan(config):
            return
        folder = Path(config.hydra.sweep.dir)
        page = True
        failures: list[Failure] = []
        try:
            results, failures = find_results([folder], self.sweep), find_failures([folder], self.sweep)
            missing = max(0, (self.cells or 0) - len(results) - len(failures))
            others = uncounted([folder], (RESULT, FAILED), self.sweep)
            print(published(cells_of(results, failures, missing, others), folder))
            print(f"\n{summed_up(results, len(failures), time.monotonic() - self.begin)}")
        except Exception as error:
            page = False
            if not isinstance(error, IN_ONE_LINE):
                traceback.print_exc()
            print(f"defense: no page of this sweep: {one_line(error)}", file=sys.stderr)
        for name, cell in zip(names_of(failures), failures, strict=True):
            print(f"defense: cell {name} failed: {cell.error}", file=sys.stderr)
            print(f"    {cell.folder / cell.log}", file=sys.stderr)
        if failures:
            print("defense: the same command runs them again, and takes the rest from the store", file=sys.stderr)
        while held:
            lock = held.pop()
            lock.remove()
            lock.release()
        if failures or not page:
            sys.exit(1)


def is_plan(config: DictConfig) -> bool:
    """Return whether a sweep runs no cell, and only says what it would do."""
    return str(config.hydra.launcher["_target_"]).endswith(".PlanLauncher")


def check_planner(config: DictConfig) -> None:
    """Raise InputError unless the sweeper of a plan is ours: others make a folder, and wait for results."""
    if not str(config.hydra.sweeper["_target_"]).endswith(".GridSweeper"):
        raise InputError("launcher", "plan", "not of this sweeper; expected hydra/sweeper=grid")


def in_this_process(launcher: Any) -> bool:
    """Return whether a launcher, by its settings, runs cells one after another in the process of the sweep."""
    return launcher["_target_"].endswith((".BasicLauncher", ".SerialLauncher"))


def say_where(config: DictConfig) -> None:
    """Say what relative paths are of, if Hydra is told to change the folder."""
    if config.hydra.job.chdir:
        print("hydra.job.chdir: relative paths stay those of the folder that the command was given in")


def alone_in(folder: Path, subdir: str) -> None:
    """Hold the folder of a sweep whose cells are numbered until this process ends.

    Raises InputError if another sweep numbers its cells there now: both would write into the same folders.
    """
    while held:  # of a sweep of this process that did not come to its end
        held.pop().release()
    if not NUMBERED.search(subdir):
        return
    folder.mkdir(parents=True, exist_ok=True)
    if (lock := seize(folder / LOCK)) is None:
        said = "another sweep is writing numbered cells into it; expected another folder, or that it has ended"
        raise InputError("hydra.sweep.dir", folder, said)
    held.append(lock)


def summed_up(results: Sequence[dict[str, Any]], failed: int, seconds: float) -> str:
    """Return how many cells of a sweep ended how, and which of their stages were computed and which were there."""
    header, rows = stages_table(results)
    failures = f", {failed} failed" if failed else ""
    said = f"{len(results)} cell{'s' * (len(results) != 1)} done{failures}, in {seconds:.0f} s"
    return f"{said}\n\n{markdown(header, rows)}" if rows else said


def stages_table(results: Sequence[dict[str, Any]]) -> tuple[Sequence[str], list[tuple[str, ...]]]:
    """Return header and rows of a table over the stages that `results` were made of; none where they say nothing.

    computed: by one of the runs, with the seconds that it took; reused: taken from the store, computed by another
    of them or before, with the seconds that it took then; report: the pages of the runs. The last row sums up.
    """
    computed: dict[str, list[float]] = {}
    reused: dict[str, list[float]] = {}
    for result in results:
        for label, key in result.get("keys", {}).items():
            stage, seconds = key.partition("/")[0], result["seconds"][label]
            into, other = (reused, computed) if label in result["reused"] else (computed, reused)
            into.setdefault(stage, []).append(seconds)
            other.setdefault(stage, [])
        if "report_seconds" in result:
            computed.setdefault("report", []).append(result["report_seconds"])
    reused |= {"report": []} if "report" in computed else {}  # a page is always written
    rows = [stage_row(stage, computed[stage], reused[stage]) for stage in computed]
    if rows:
        rows.append(stage_row("together", list(chain(*computed.values())), list(chain(*reused.values()))))
    return STAGES_HEADER, rows


def stage_row(name: str, computed: Sequence[float], reused: Sequence[float]) -> tuple[str, ...]:
    """Return one row."""
    return name, str(len(computed)), f"{sum(computed):.1f}", str(len(reused)), f"{sum(reused):.1f}"
