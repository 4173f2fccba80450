"""Plan a sweep before it runs: which cells are done, run or have failed, what is left to do, and for how long.

defense -m 'seed=range(5)' scorer=ip,loss launcher=plan
"""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import setup_globals
from hydra.types import HydraContext
from omegaconf import DictConfig, open_dict

from defense.cli.caller import enter_folder_of_caller
from defense.cli.composition import CellComposer
from defense.cli.errors import IN_ONE_LINE, one_line
from defense.cli.results import FAILED
from defense.cli.sweep_files import as_typed
from defense.config.compose import checked
from defense.config.reads import unread
from defense.reporting.escaping import for_terminal, markdown
from defense.store.fingerprint import differences
from defense.store.store import MANIFEST, keyed
from defense.tasks.planning import Plan, PlannedStage, plan

log = logging.getLogger(__name__)
OTHER = re.compile(r'\bseed: |"[0-9a-f]{64}"')  # of other data or another seed: nothing has changed since
NEAR = 3  # parts of a key: an entry that differs in more is of something else
HEADER = ("cell", "settings", "state", "stages left", "shared", "seconds")
LEFT_HEADER = ("stage", "left", "seconds, guessed")
UNLIKE_HEADER = ("stage", "cells", "nearest in the store", "differs in: there, here")
ABOUT = ("launcher=", "hydra.")  # overrides that say how and where a cell runs


@dataclass(frozen=True)
class PlannedCell:
    """One cell of a sweep, and what is known of it before it runs."""

    number: int
    overrides: list[str]
    plan: Plan | None
    refused: str = ""  # why it cannot run
    failed: str = ""  # how an earlier attempt has failed

    @property
    def state(self) -> str:
        """Whether it is done, runs now, has failed, cannot run, was begun or is left to do."""
        if self.plan is None:
            return f"refused: {self.refused}"
        if not self.plan.left and self.plan.complete:
            return "done"
        for stage in self.plan.left:
            if stage.running:
                return f"running: {stage.label}, {stage.running}"
        if self.failed:
            return f"failed: {self.failed}"
        kept = next((stage.label for stage in self.plan.left if stage.kept), "")
        return f"left, goes on within {kept}" if kept else "left"

    @property
    def left(self) -> list[PlannedStage]:
        """The stages that the store does not hold."""
        return self.plan.left if self.plan else []

    @property
    def complete(self) -> bool:
        """Whether all its stages are known."""
        return self.plan is None or self.plan.complete


@dataclass(frozen=True)
class Nearest:
    """The entry of the store that is most like a stage, and how they differ."""

    entry: str  # as in train/<key>
    seconds: float
    differ: list[str]  # a part of the key a line: there, here


class Entries:
    """The finished entries of a store, read once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.manifests: dict[str, dict[str, dict[str, Any]]] = {}

    def of(self, stage: str) -> dict[str, dict[str, Any]]:
        """Return the manifests of a stage by entry; one that cannot be read is computed again, and left out."""
        if stage not in self.manifests:
            found = self.manifests[stage] = {}
            for file in sorted((self.root / stage).glob(f"*/{MANIFEST}")):
                with suppress(OSError, ValueError):
                    found[f"{stage}/{file.parent.name}"] = json.loads(file.read_text(encoding="utf-8"))
        return self.manifests[stage]

    def nearest(self, stage: PlannedStage) -> Nearest | None:
        """Return the entry of the same stage that differs in the fewest parts of the key; None without any."""
        found = (
            Nearest(entry, manifest["seconds"], differences(keyed(manifest), stage.identity))
            for entry, manifest in self.of(stage.name).items()
        )
        return min(found, key=lambda each: len(each.differ), default=None)


class SweepPlan:
    """All cells of a sweep before they run."""

    def __init__(self, cells: Sequence[PlannedCell], store: Path) -> None:
        self.cells = cells
        self.store = store
        self.counts = Counter(stage.entry for cell in cells for stage in cell.left)
        self.stages = {stage.entry: stage for cell in cells for stage in cell.left}
        entries = Entries(store)
        self.nearest = {entry: entries.nearest(stage) for entry, stage in self.stages.items()}

    def seconds(self, stages: Iterable[PlannedStage], *, complete: bool = True) -> str:
        """Return how long stages take if each takes as long as the nearest entry.

        'or more' if one has no such entry, or further stages are not known.
        """
        nearest = [self.nearest[stage.entry] for stage in stages]
        known = [each.seconds for each in nearest if each]
        if not known:
            return "not known" if nearest else ""
        total, more = sum(known), not complete or len(known) < len(nearest)
        return f"{total:.{0 if total >= 10 else 1}f}{' or more' * more}"

    def rows(self) -> list[tuple[str, ...]]:
        """Return a row a cell; shared: stages that an earlier cell or another would compute, too."""
        return [
            (
                str(cell.number),
                " ".join(cell.overrides),
                cell.state,
                f"{len(cell.left)}{' or more' * (not cell.complete)}" if cell.left or not cell.complete else "",
                str(sum(self.counts[stage.entry] > 1 for stage in cell.left) or ""),
                self.seconds(cell.left, complete=cell.complete),
            )
            for cell in self.cells
        ]

    def left_rows(self) -> list[tuple[str, ...]]:
        """Return a row a kind of stage: how many are left, each counted once, and how long they take."""
        by_name: dict[str, list[PlannedStage]] = {}
        for stage in self.stages.values():
            by_name.setdefault(stage.name, []).append(stage)
        return [(name, str(len(stages)), self.seconds(stages)) for name, stages in by_name.items()]

    def unlike_rows(self) -> list[tuple[str, ...]]:
        """Return a row for each first stage of a cell that is left, with the entry that it nearly is."""
        cells: dict[str, list[str]] = {}
        for cell in self.cells:
            if cell.left:
                cells.setdefault(cell.left[0].entry, []).append(str(cell.number))
        rows: list[tuple[str, ...]] = []
        for entry, numbers in cells.items():
            near = self.nearest[entry]
            if near and len(near.differ) <= NEAR and not any(OTHER.search(line) for line in near.differ):
                differ = "; ".join(near.differ)
                rows.append((self.stages[entry].label, ", ".join(numbers), near.entry, differ))
        return rows

    def text(self) -> str:
        """Return the plan as a terminal shows it."""
        kinds = Counter(cell.state.partition(":")[0].partition(",")[0] for cell in self.cells)
        counted = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
        count = f"{len(self.cells)} cell{'s' * (len(self.cells) != 1)}"
        said = [f"{count}, store {self.store}: {counted}. Nothing was computed."]
        said.append(markdown(HEADER, self.rows()))
        if self.stages:
            complete = all(cell.complete for cell in self.cells)
            total = self.seconds(self.stages.values(), complete=complete)
            more = "" if complete else ", and stages that depend on numbers that are not there yet"
            said.append(f"Left: at most {len(self.stages)} stages beside pages{more}.")
            said.append(
                f"Seconds, if each takes as long as the most similar entry of the store: {total}. In the rows of "
                "cells a shared stage counts for each; here it counts once."
            )
            said.append(markdown(LEFT_HEADER, self.left_rows()))
        if rows := self.unlike_rows():
            said.append("Entries of the store that nearly match, and the parts of the key in which they do not:")
            said.append(markdown(UNLIKE_HEADER, rows))
        return "\n\n".join(said)


def plan_cells(context: HydraContext, config: DictConfig, cells: Sequence[Sequence[str]]) -> list[SweepPlan]:
    """Print what is known of the cells of a sweep, by their overrides, before they run; return it, by store."""
    setup_globals()
    composer = CellComposer(context.config_loader, config)
    failures = earlier_failures(Path(str(config.hydra.sweep.dir)))
    planned: dict[str, list[PlannedCell]] = {}
    for number, cell in enumerate(cells):
        store, found = planned_cell(composer.compose(cell, number), number, failures)
        planned.setdefault(store, []).append(found)
    plans = [SweepPlan(found, Path(store)) for store, found in planned.items()]
    for each in plans:
        print(for_terminal(each.text()))
    return plans


def planned_cell(
    composed: DictConfig, number: int, failures: dict[frozenset[str], str]
) -> tuple[str, PlannedCell]:
    """Return the store of a cell, and what is known of it; failures: of earlier attempts, by their overrides."""
    HydraConfig.instance().set_config(composed)
    given = [word for word in as_typed(composed.hydra.overrides.task) if not word.startswith(ABOUT)]
    overrides = [word for word in given if not word.startswith("store=")]
    failed = failures.get(frozenset(given), "")
    with open_dict(composed):
        task = composed.copy()
        del task["hydra"]
    try:
        enter_folder_of_caller()
        config = checked(task)
        for line in unread(config, given):
            log.warning("%s", line)
        return str(task.store), PlannedCell(number, overrides, plan(config), failed=failed)
    except IN_ONE_LINE as error:
        return str(task.store), PlannedCell(number, overrides, None, refused=one_line(error))


def earlier_failures(sweep: Path) -> dict[frozenset[str], str]:
    """Return how cells have failed below the folders of sweeps beside one, the last time, by their overrides."""
    found: dict[frozenset[str], str] = {}
    files = [*sweep.parent.glob(f"*/*/{FAILED}"), *sweep.glob(f"*/{FAILED}")]
    for file in sorted(files, key=lambda file: file.stat().st_mtime):
        with suppress(OSError, ValueError, KeyError):
            said = json.loads(file.read_text(encoding="utf-8"))
            words = frozenset(word for word in said["overrides"] if not word.startswith(ABOUT))
            found[words] = f"{said['error']} ({file.parent / said['log']})"
    return found
