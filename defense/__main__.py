"""The command `defense`: compose the settings with Hydra, check them, run."""

from __future__ import annotations

import os
import sys
from dataclasses import is_dataclass
from pathlib import Path
from typing import NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from defense.config import CONF, checked, register
from defense.errors import InputError
from defense.place import one_writes

MENDABLE = (
    InputError,
    FloatingPointError,  # numbers of a model or a sample: nothing to debug in this project, so no traceback
    HydraException,
    OmegaConfBaseException,
    NotADirectoryError,
    PermissionError,
    FileExistsError,
)


@hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")
def job(composed: DictConfig) -> None:
    """Run one cell: check its settings before anything heavy is imported."""
    hydra_config = HydraConfig.get()
    try:
        config = checked(composed)
        from defense.launch import launched

        launched(config, Path(hydra_config.runtime.output_dir), list(hydra_config.overrides.task))
    except MENDABLE as error:
        if hydra_config.mode is RunMode.MULTIRUN:
            raise  # Hydra says which cell it was
        fail(error)


def main() -> None:
    """Run the command line; what a person can mend is one line on stderr and exit code 2."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra's way of letting exceptions through to us
    sys.path.append(os.getcwd())  # so that model._target_=my_file.Net finds a file beside the caller
    register()
    try:
        with one_writes(sys.argv):
            job()
    except MENDABLE as error:
        fail(error)
    except KeyboardInterrupt:
        print("defense: stopped; finished stages are kept, the next run goes on from them", file=sys.stderr)
        sys.exit(130)


def fail(error: Exception) -> NoReturn:
    """Say in one line what is wrong, and end."""
    print(f"defense: {one_line(error)}", file=sys.stderr)
    sys.exit(2)


def one_line(error: Exception) -> str:
    """Return what is wrong and what would be valid, without Hydra's advice on how to debug Hydra."""
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else None
    lines = [*str(error).splitlines(), *str(cause or "").splitlines()]
    noise = ["Config search path", "provider=", "reference_type", "object_type", "full_key", "See https"]
    if isinstance(error, OverrideParseException):
        lines[0] = f"{error.override}: {lines[0]}"
    parent = cause.parent_node if isinstance(cause, ConfigKeyError | ConfigAttributeError) else None
    if isinstance(parent, DictConfig) and is_dataclass(OmegaConf.get_type(parent)):
        lines.append(f"expected one of {', '.join(map(str, parent))}")
        noise.append("To append to your config")  # a field that is not in the schema cannot be appended
    said = dict.fromkeys(line.strip() for line in lines if line.strip())  # each once, in order
    return " ".join(line for line in said if not line.startswith(tuple(noise)))


if __name__ == "__main__":
    main()
