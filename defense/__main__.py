"""The command `defense`: compose the settings with Hydra, check them, run."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from pathlib import Path
from typing import NoReturn, cast

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from defense.cli.arguments import arguments, several
from defense.cli.caller import enter_folder_of_caller
from defense.cli.errors import IN_ONE_LINE, of_hydra, one_line
from defense.cli.folders import below, enter, own
from defense.cli.leftovers import remove_unbegun
from defense.cli.multirun import SWEEP_ID, failing_alone, in_this_process
from defense.cli.sweep_files import as_typed
from defense.config.compose import CONF, checked, register
from defense.config.reads import unread
from defense.runtime.gpus import take_one
from defense.runtime.orphans import end_with_parent
from defense.runtime.ranks import one_writes

log = logging.getLogger(__name__)
KEPT = "finished stages are kept, the next run goes on from them"


@hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")
def job(composed: DictConfig) -> None:
    """Run one cell; one of a multirun that fails is written down and does not stop the others."""
    hydra_config = HydraConfig.get()
    folder = Path(hydra_config.runtime.output_dir)
    overrides = [word for word in as_typed(hydra_config.overrides.task) if not word.startswith("launcher=")]
    try:
        if hydra_config.mode is RunMode.MULTIRUN:
            end_with_parent()
            sweep, number = OmegaConf.select(cast(DictConfig, hydra_config), SWEEP_ID), hydra_config.job.num
            below(str(hydra_config.sweep.subdir))
            own(folder, sweep, number)
            with failing_alone(folder, overrides):
                enter(folder, sweep, number)
                cell(composed, folder, overrides, alone=in_this_process(hydra_config.launcher))
        else:
            cell(composed, folder, overrides, alone=True)
    except IN_ONE_LINE as error:
        remove_unbegun(hydra_config.output_subdir)
        fail(error)


def cell(composed: DictConfig, folder: Path, overrides: list[str], *, alone: bool) -> None:
    """Check the settings before anything heavy is imported, and run; where not alone, on a GPU of its own."""
    enter_folder_of_caller()
    config = checked(composed)
    for line in unread(config, overrides):
        log.warning("%s", line)
    if not alone and config.fabric.processes == 1 and config.fabric.accelerator in ("auto", "cuda"):
        take_one()
    from defense.cli.launch import launched

    launched(config, folder, overrides)


def main() -> None:
    """Run the command line: 0, 1 where a cell of a multirun failed; 2, in one line, for what a person can mend."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra's way of letting exceptions through to us
    register()
    try:
        sys.argv[1:] = arguments(sys.argv[1:])
        with one_writes(sys.argv):
            job()
    except IN_ONE_LINE as error:
        fail(several(error, sys.argv[1:]))
    except BrokenPipeError:  # whoever reads has read enough, as head does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        print(f"defense: stopped; {KEPT}", file=sys.stderr)
        sys.exit(130)
    except Exception as error:  # a defect, or a launcher that has lost a process
        if of_hydra(error):
            fail(error)
        traceback.print_exc()
        print(f"defense: {one_line(error)}; {KEPT}", file=sys.stderr)
        sys.exit(1)


def fail(error: Exception) -> NoReturn:
    """Say in one line what is wrong, and end."""
    print(f"defense: {one_line(error)}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
