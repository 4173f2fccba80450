"""What a multirun does around its cells: one that fails is written down at once, and the end is summed up."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from defense.failure import MENDABLE, one_line
from defense.reporting.tables import markdown
from defense.reporting.work import stages_table
from defense.sweep import find_results, published

log = logging.getLogger(__name__)
RESULT, FAILED = "result.json", "failed.json"  # what a cell leaves when it ends: one of them
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
        (folder / FAILED).write_text(json.dumps(said, indent=2) + "\n")


class Report(Callback):
    """What Hydra calls when a multirun begins and has ended."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Look at the clock, and forget the failures of an earlier sweep into this folder."""
        self.begin = time.monotonic()
        for file in Path(config.hydra.sweep.dir).glob(f"*/{FAILED}"):
            file.unlink()

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Write the page of the sweep beside its cells, and sum up what was computed; exit 1 where a cell failed.

        Hydra takes an exception of a callback for a warning, so it is said here.
        """
        folder = Path(config.hydra.sweep.dir)
        try:
            if any(folder.rglob(RESULT)):
                print(published(find_results([folder]), folder))
            print(f"\n{summed_up(folder, time.monotonic() - self.begin)}")
        except Exception as error:
            print(f"defense: no page of this sweep: {one_line(error)}", file=sys.stderr)
            sys.exit(1)
        if failures := failed_cells(folder):
            for cell, found in failures.items():
                print(f"defense: cell {cell} failed: {found['error']}\n    {folder / cell / LOG}", file=sys.stderr)
            print("defense: the same command runs them again, and takes the rest from the store", file=sys.stderr)
            sys.exit(1)


def summed_up(folder: Path, seconds: float) -> str:
    """Return how many cells of a sweep ended how, and which of their stages were computed and which were there."""
    results = [json.loads(path.read_text()) for path in sorted(folder.glob(f"*/{RESULT}"))]
    header, rows = stages_table(results)
    count = len(failed_cells(folder))
    failed = f", {count} failed" if count else ""
    return "\n\n".join(
        [f"{len(results)} cells done{failed}, in {seconds:.0f} s", markdown(header, rows) if rows else ""]
    ).strip()


def failed_cells(folder: Path) -> dict[str, dict[str, Any]]:
    """Return what failed.json holds of each cell of a sweep that failed, by the name of its folder."""
    files = sorted(folder.glob(f"*/{FAILED}"), key=lambda file: (len(file.parent.name), file.parent.name))
    return {file.parent.name: json.loads(file.read_text()) for file in files}
