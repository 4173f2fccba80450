"""The cells of a sweep before it begins: how many there will be, and that each has a folder of its own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig

from defense.cli.composition import CellComposer
from defense.cli.folders import below, shared
from defense.cli.sweep_files import as_typed, planned
from defense.errors import InputError

NUMBERED = re.compile(r"hydra[.:]job\.(num|id)\b")  # in the name of a cell's folder: no two are alike
BY_SETTINGS = "${hydra.job.override_dirname}"


def check_cells(config: DictConfig) -> int | None:
    """Return how many cells a sweep will have, None if that is not known beforehand.

    Raises HydraException if it has none, and InputError if two would have one folder, or launchers of their own.
    """
    hydra = GlobalHydra.instance().hydra
    assert hydra is not None
    task = as_typed(config.hydra.overrides.task)
    cells = planned(config.hydra.sweeper, task, hydra.config_loader)
    if cells is None:
        return None
    if not cells:
        raise HydraException(f"{' '.join(task)}: a sweep without cells; expected a value or more for each setting")
    launchers = {word.partition("=")[2] for cell in cells for word in cell if word.startswith("launcher=")}
    if len(launchers) > 1:
        raise InputError("launcher", ",".join(sorted(launchers)), "swept; expected one for all cells")
    raw = as_typed(config.hydra.sweep)["subdir"]
    if not NUMBERED.search(raw):
        check_folders(config, cells, raw, hydra.config_loader)
    return len(cells)


def check_folders(config: DictConfig, cells: Sequence[Sequence[str]], raw: str, loader: Any) -> None:
    """Raise InputError if two cells of a sweep would have one folder, or one that is not below the sweep's."""
    excluded = config.hydra.job.config.override_dirname.exclude_keys
    by_settings = raw == BY_SETTINGS and not excluded
    composer = CellComposer(loader, config)
    seen: dict[str, int] = {}
    for number, cell in enumerate(cells):
        name = " ".join(cell) if by_settings else folder_of(composer.compose(cell, number))
        if not by_settings:
            below(name)
        if name in seen:
            raise shared(name, seen[name], number)
        seen[name] = number


def folder_of(composed: DictConfig) -> str:
    """Return the name of the folder that a cell of these settings will have, below that of the sweep."""
    before = HydraConfig.instance().cfg
    try:
        HydraConfig.instance().set_config(composed)  # for ${hydra:...}
        return str(composed.hydra.sweep.subdir)
    finally:
        HydraConfig.instance().cfg = before
