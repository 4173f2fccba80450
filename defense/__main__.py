"""The command `defense`: compose the settings with Hydra, check them, run."""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path
from typing import NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from defense.config import CONF, checked, register
from defense.failure import MENDABLE, one_line
from defense.gpus import take_one
from defense.multirun import failing_alone
from defense.orphans import end_with_parent
from defense.place import one_writes

KEPT = "finished stages are kept, the next run goes on from them"


@hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")
def job(composed: DictConfig) -> None:
    """Run one cell; one of a multirun that fails is written down and does not stop the others."""
    hydra_config = HydraConfig.get()
    folder = Path(hydra_config.runtime.output_dir)
    overrides = [word for word in hydra_config.overrides.task if not word.startswith("launcher=")]
    if hydra_config.mode is RunMode.MULTIRUN:
        end_with_parent()
        with failing_alone(folder, overrides):
            cell(composed, folder, overrides, alone="BasicLauncher" in hydra_config.launcher["_target_"])
        return
    try:
        cell(composed, folder, overrides, alone=True)
    except MENDABLE as error:
        fail(error)


def cell(composed: DictConfig, folder: Path, overrides: list[str], *, alone: bool) -> None:
    """Check the settings before anything heavy is imported, and run; where not alone, on a GPU of its own."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # so that model._target_=my_file.Net finds a file beside the caller
    config = checked(composed)
    if not alone and config.fabric.processes == 1 and config.fabric.accelerator in ("auto", "cuda"):
        take_one()
    from defense.launch import launched

    launched(config, folder, overrides)


def main() -> None:
    """Run the command line: 0, 1 where a cell of a multirun failed; 2, in one line, for what a person can mend."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra's way of letting exceptions through to us
    sys.argv[1:] = [with_launcher(word) for word in sys.argv[1:]]
    register()
    try:
        with one_writes(sys.argv):
            job()
    except MENDABLE as error:
        fail(error)
    except KeyboardInterrupt:
        print(f"defense: stopped; {KEPT}", file=sys.stderr)
        sys.exit(130)
    except Exception as error:  # a defect, or a launcher that has lost a process
        traceback.print_exc()
        print(f"defense: {one_line(error)}; {KEPT}", file=sys.stderr)
        sys.exit(1)


def with_launcher(word: str) -> str:
    """Return hydra/launcher=NAME, as it is elsewhere, as launcher=NAME where conf/launcher has that."""
    group, _, name = word.partition("=")
    ours = group == "hydra/launcher" and (CONF / "launcher" / f"{name}.yaml").exists()
    return f"launcher={name}" if ours else word


def fail(error: Exception) -> NoReturn:
    """Say in one line what is wrong, and end."""
    print(f"defense: {one_line(error)}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
