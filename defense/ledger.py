"""The store as one run sees it: what was computed, what was there, and how long each stage took."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from defense.artifacts import Artifact
from defense.reporting.progress import watching
from defense.schema import plain
from defense.store import Progress, Store, Stored
from defense.watch import Watch

log = logging.getLogger(__name__)


class Ledger:
    """Takes stages from the store or has them computed, in sight, and keeps their times."""

    def __init__(self, root: Path, common: dict[str, Any]) -> None:
        """Keep the store at `root`; `common` are the settings that every stage of the run depends on."""
        self.store, self.common = Store(root), common
        self.keys: dict[str, str] = {}  # of each stage, as in train/<key>
        self.seconds: dict[str, float] = {}
        self.reused: list[str] = []

    def once(
        self,
        label: str,
        kind: type[Artifact],
        *,
        version: int,
        settings: dict[str, Any],
        inputs: dict[str, str],
        compute: Callable[[Watch, Progress], Artifact],
    ) -> Stored[Artifact]:
        """Return the artifact of the stage that `label` begins with, as in train_baseline."""
        spoken, stage = label.replace("_", " "), label.partition("_")[0]
        with watching(spoken) as watch:
            stored = self.store.once(
                stage,
                kind,
                settings=plain(settings) | self.common,
                inputs=inputs,
                stage_version=version,
                compute=lambda progress: compute(watch, progress),
            )
        self.keys[label] = f"{stage}/{stored.key}"
        self.seconds[label] = stored.seconds
        if stored.reused:
            self.reused.append(label)
        log.info("%-20s %s", spoken, "from the store" if stored.reused else f"{stored.seconds:.1f} s")
        return stored
