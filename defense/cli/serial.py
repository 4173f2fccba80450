"""Run the cells of a sweep one after another in this process."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from hydra.core.utils import JobReturn, configure_log, filter_overrides, run_job, setup_globals
from hydra.types import HydraContext, TaskFunction

from defense.cli.composition import CellComposer

log = logging.getLogger(__name__)


def run_cells(
    context: HydraContext, job: TaskFunction, composer: CellComposer, cells: Sequence[Sequence[str]], first: int
) -> list[JobReturn]:
    """Run cells by their overrides, the first with the number `first`; return how each has ended.

    What Hydra returns of a cell holds its settings twice. They are left out: a sweep of thousands has no room for
    them.
    """
    config = composer.master
    setup_globals()
    configure_log(config.hydra.hydra_logging, config.hydra.verbose)
    Path(str(config.hydra.sweep.dir)).mkdir(parents=True, exist_ok=True)
    log.info("Launching %d jobs locally", len(cells))
    ended = []
    for number, cell in enumerate(cells, first):
        log.info("\t#%d : %s", number, " ".join(filter_overrides(cell)))
        found = run_job(
            hydra_context=context,
            task_function=job,
            config=composer.compose(cell, number),
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )
        found.cfg = found.hydra_cfg = None
        ended.append(found)
        configure_log(config.hydra.hydra_logging, config.hydra.verbose)
    return ended
