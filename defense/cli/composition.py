"""Compose the settings of many cells: what their groups choose once, and the values of each cell over that.

Hydra takes a quarter of a second for a composition, and most cells of a grid differ in values alone. Hydra applies
values after it has composed the groups, so that both ways give the same settings.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from defense.cli.sweep_files import as_typed

KEPT = 64  # choices of groups whose composition is kept: a third of a megabyte each


class CellComposer:
    """Composes the cells of one sweep, as `load_sweep_config` of Hydra does.

    loader: Hydra's. master: the settings of the sweep.
    """

    def __init__(self, loader: Any, master: DictConfig) -> None:
        self.loader = loader
        self.master = master
        self.parser = OverridesParser.create()
        self.composed: dict[tuple[str, ...], bytes] = {}

    def compose(self, cell: Sequence[str], number: int) -> DictConfig:
        """Return the settings of a cell by its overrides and its number in the sweep; raises what Hydra raises."""
        words = [*as_typed(self.master.hydra.overrides.hydra), *cell]
        parsed = self.parser.parse_overrides(words)
        values = [each for each in parsed if self.is_value(each)]
        written = {each.input_line for each in values}
        found = self.base(tuple(word for word in words if word not in written))
        ConfigLoaderImpl._apply_overrides_to_config(values, found)
        task = [each for each in parsed if not each.is_hydra_override()]
        found.hydra.overrides.task = [each.input_line for each in task]
        style = found.hydra.job.config.override_dirname
        with open_dict(found.hydra):
            found.hydra.job.id = found.hydra.job.num = number
            found.hydra.job.override_dirname = get_overrides_dirname(
                overrides=task, kv_sep=style.kv_sep, item_sep=style.item_sep, exclude_keys=style.exclude_keys
            )
        OmegaConf.copy_cache(from_config=self.master, to_config=found)  # the same ${now:}
        return found

    def is_value(self, override: Override) -> bool:
        """Return whether an override sets a value of the task, and chooses no file."""
        if override.is_hydra_override() or self.master.hydra.searchpath:  # where there may be other groups
            return False
        return isinstance(override.value(), dict) or not self.loader.repository.group_exists(override.key_or_group)

    def base(self, words: tuple[str, ...]) -> DictConfig:
        """Return a composition of the overrides that choose files; it is kept as bytes, faster to copy."""
        if words not in self.composed:
            if len(self.composed) == KEPT:
                self.composed.pop(next(iter(self.composed)))
            name = self.master.hydra.job.config_name
            found = self.loader.load_configuration(name, list(words), run_mode=RunMode.RUN)
            self.composed[words] = pickle.dumps(found)
        copied: DictConfig = pickle.loads(self.composed[words])
        return copied


def first_of_each(cells: Sequence[Sequence[str]]) -> list[Sequence[str]]:
    """Return the first cell with each override, so that an invalid override appears in one of them."""
    seen: set[str] = set()
    found = []
    for cell in cells:
        if not seen.issuperset(cell):
            seen |= set(cell)
            found.append(cell)
    return found
