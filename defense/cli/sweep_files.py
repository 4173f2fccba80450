"""What Hydra wrote of a sweep before its first cell: the command that started it, and the cells it will have."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from defense.cli.folders import SWEEP, left, noted
from defense.errors import InputError

MULTIRUN = "multirun.yaml"
MODE = "hydra.mode=MULTIRUN"  # what Hydra makes of -m


def read_sweep(file: Path) -> dict[str, Any]:
    """Return what the `hydra` node of a multirun.yaml says of sweeper and overrides, as typed: ${...} stays.

    Raises InputError if the file is another.
    """
    try:
        content: Any = OmegaConf.to_container(OmegaConf.load(file))
        found: dict[str, Any] = {name: content["hydra"][name] for name in ("sweeper", "overrides")}
        [*found["overrides"]["task"], *found["overrides"]["hydra"], *found["sweeper"]]
    except (OSError, ValueError, KeyError, TypeError, YAMLError, OmegaConfBaseException) as error:
        raise InputError("PATH", file, "not what Hydra writes of a sweep; expected that, or none") from error
    return found


def as_typed(node: Any) -> Any:
    """Return a part of a config as plain lists, mappings and words, as typed: ${...} stays."""
    return OmegaConf.to_container(node, resolve=False)


def command_of_sweep(file: Path) -> str:
    """Return the command that a sweep was started with; without where things were kept.

    Of several sweeps into one folder it is the last one's. Raises InputError if the file is another.
    """
    given = read_sweep(file)["overrides"]
    words = [str(word) for word in (*given["task"], *given["hydra"])]
    kept = ("hydra.sweep.dir=", "hydra.sweep.subdir=", "store=", MODE)
    mode = ["-m"] if MODE in words else []
    return shlex.join(["defense", *mode, *(word for word in words if not word.startswith(kept))])


def cells_of_sweep(file: Path) -> int | None:
    """Return how many cells a sweep was to have; None if that is not known beforehand.

    Raises InputError if the file is another.
    """
    said = read_sweep(file)
    cells = planned(said["sweeper"], said["overrides"]["task"])
    return None if cells is None else len(cells)


def planned(sweeper: Mapping[str, Any], task: Sequence[str], loader: Any = None) -> list[list[str]] | None:
    """Return the overrides of each cell of a sweep; None if they are not known beforehand.

    `grid` and Hydra's `basic` run every combination. The cells of other sweepers are unknown beforehand. A loader
    of configs knows what a glob stands for.
    """
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    if not str(sweeper.get("_target_")).endswith((".BasicSweeper", ".GridSweeper")):
        return None
    words = [*(f"{name}={value}" for name, value in (sweeper.get("params") or {}).items()), *map(str, task)]
    try:
        (cells,) = BasicSweeper.split_arguments(OverridesParser.create(loader).parse_overrides(words), None)
    except HydraException:
        return None
    return cells


def missing_of(paths: Sequence[Path], names: Sequence[str]) -> int:
    """Return how many cells of the sweeps below `paths` have none of the files `names` that a cell leaves."""
    missing = 0
    for file in {file.resolve() for path in paths for file in path.rglob(MULTIRUN)}:
        folder = file.parent
        ended = {found.parent for name in names for found in left([folder], name)}
        cells = noted(folder / SWEEP).get("cells") or cells_of_sweep(file)
        missing += max(0, (cells or 0) - len(ended))
    return missing
