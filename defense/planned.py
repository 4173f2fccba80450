"""What Hydra wrote of a sweep before its first cell: the command that started it, and the cells it will have."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from defense.errors import InputError

MULTIRUN = "multirun.yaml"
MODE = "hydra.mode=MULTIRUN"  # what Hydra makes of -m


def read_sweep(file: Path) -> dict[str, Any]:
    """Return what the `hydra` node of a multirun.yaml says of sweeper and overrides, as typed: ${...} stays.

    Raises InputError where the file is another.
    """
    try:
        content: Any = OmegaConf.to_container(OmegaConf.load(file))
        found: dict[str, Any] = {name: content["hydra"][name] for name in ("sweeper", "overrides")}
        [*found["overrides"]["task"], *found["overrides"]["hydra"], *found["sweeper"]]
    except (OSError, ValueError, KeyError, TypeError, YAMLError, OmegaConfBaseException) as error:
        raise InputError("PATH", file, "not what Hydra writes of a sweep; expected that, or none") from error
    return found


def command_of_sweep(file: Path) -> str:
    """Return the command that a sweep was started with; without where things were kept.

    Of several sweeps into one folder it is the last one's. Raises InputError where the file is another.
    """
    given = read_sweep(file)["overrides"]
    words = [str(word) for word in (*given["task"], *given["hydra"])]
    kept = ("hydra.sweep.dir=", "hydra.sweep.subdir=", "store=", MODE)
    mode = ["-m"] if MODE in words else []
    return shlex.join(["defense", *mode, *(word for word in words if not word.startswith(kept))])


def cells_of_sweep(file: Path) -> int | None:
    """Return how many cells a sweep was to have; None where that is not known beforehand.

    Hydra's own sweeper has a cell for every combination; what a glob stands for, or another sweeper does, is seen
    when they run. Raises InputError where the file is another.
    """
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    said = read_sweep(file)
    sweeper, task = said["sweeper"], said["overrides"]["task"]
    if not str(sweeper.get("_target_")).endswith(f".{BasicSweeper.__name__}"):
        return None
    words = [*(f"{name}={value}" for name, value in (sweeper.get("params") or {}).items()), *map(str, task)]
    try:
        return sum(map(len, BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(words), None)))
    except HydraException:
        return None


def missing_of(paths: Sequence[Path], left: Sequence[str]) -> int:
    """Return how many cells of the sweeps below `paths` have none of the files `left` that a cell leaves."""
    missing = 0
    for file in {file.resolve() for path in paths for file in path.rglob(MULTIRUN)}:
        ended = {found.parent for name in left for found in file.parent.rglob(name)}
        missing += max(0, (cells_of_sweep(file) or 0) - len(ended))
    return missing
