"""What a multirun does around its cells: one that fails is written down at once, and the end is summed up."""

from __future__ import annotations

import logging
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from defense.failure import MENDABLE, one_line
from defense.planned import missing_of
from defense.reporting.tables import markdown
from defense.reporting.work import stages_table
from defense.sweep import FAILED, RESULT, find_failures, find_results, published, sheet_of

if TYPE_CHECKING:
    from defense.reporting.sheet import Failure

log = logging.getLogger(__name__)
LOG = "defense.log"


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
        log.error("failed: %s", line, exc_info=None if isinstance(error, MENDABLE) else error)
        said = {"overrides": overrides, "error": line, "log": LOG}
        (folder / RESULT).unlink(missing_ok=True)  # as where it could not be tracked
        from defense.artifacts import write_json  # torch: not for --help

        try:
            write_json(said, folder / FAILED)
        except OSError as full:  # perhaps what the cell has failed of
            log.error("%s cannot be written: %s", folder / FAILED, full)


class Report(Callback):
    """What Hydra calls when a multirun begins and has ended."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Look at the clock, and take away how numbered cells of an earlier sweep into this folder have ended.

        They are not of this sweep. Stages stay in the store: one that goes on has its cells again in a moment.
        """
        self.begin = time.monotonic()
        for name in (RESULT, FAILED):
            for file in Path(config.hydra.sweep.dir).glob(f"*/{name}"):
                if file.parent.name.isdigit():
                    file.unlink()

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Write the page of the sweep beside its cells, and sum up what was computed; exit 1 where a cell failed.

        Hydra takes an exception of a callback for a warning, so it is said here.
        """
        folder = Path(config.hydra.sweep.dir)
        page = True
        failures: list[Failure] = []
        try:
            results, failures = find_results([folder]), find_failures([folder])
            sheet = sheet_of(results, failures, missing_of([folder], (RESULT, FAILED)))
            print(published(sheet, folder))
            print(f"\n{summed_up(results, len(failures), time.monotonic() - self.begin)}")
        except Exception as error:
            page = False
            if not isinstance(error, MENDABLE):
                traceback.print_exc()
            print(f"defense: no page of this sweep: {one_line(error)}", file=sys.stderr)
        for cell in failures:
            print(f"defense: cell {cell.folder.name} failed: {cell.error}", file=sys.stderr)
            print(f"    {cell.folder / cell.log}", file=sys.stderr)
        if failures:
            print("defense: the same command runs them again, and takes the rest from the store", file=sys.stderr)
        if failures or not page:
            sys.exit(1)


def summed_up(results: Sequence[dict[str, Any]], failed: int, seconds: float) -> str:
    """Return how many cells of a sweep ended how, and which of their stages were computed and which were there."""
    header, rows = stages_table(results)
    failures = f", {failed} failed" if failed else ""
    said = f"{len(results)} cell{'s' * (len(results) != 1)} done{failures}, in {seconds:.0f} s"
    return f"{said}\n\n{markdown(header, rows)}" if rows else said
