"""The store as one run sees it: what was computed, what was there, and how long each stage took."""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from defense.artifacts import Artifact
from defense.errors import InputError
from defense.runtime.distributed import ALONE, Crew
from defense.runtime.progress import Watch, silent, watching
from defense.store.store import Progress, Store, Stored, read

log = logging.getLogger(__name__)
SEEN_AFTER = 30.0  # seconds in which a shared folder shows one machine what another has written


class Ledger:
    """Takes stages from the store or has them computed, in sight, and keeps their times."""

    def __init__(self, root: Path, common: dict[str, Any], crew: Crew = ALONE) -> None:
        """Keep the store at `root`; `common` are the settings that every stage of the run depends on.

        Of a crew the process of rank 0 has the store; the others compute with it where a stage is shared, and read
        what it has stored.
        """
        self.store, self.common, self.crew = Store(root), common, crew
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
        shared: bool = False,
    ) -> Stored[Artifact]:
        """Return the artifact of the stage that `label` begins with, as in train_baseline.

        shared: all processes of the crew compute it together; else that of rank 0 does.
        """
        spoken, stage = label.replace("_", " "), label.partition("_")[0]

        def led(watch: Watch, progress: Progress) -> Artifact:
            if shared:
                self.crew.broadcast(str(progress.folder))
            return compute(watch, progress)

        if self.crew.rank > 0:
            stored = self.followed(stage, kind, compute)
        else:
            with watching(spoken) as watch:
                stored = self.store.once(
                    stage,
                    kind,
                    settings=settings | self.common,
                    inputs=inputs,
                    stage_version=version,
                    compute=lambda progress: led(watch, progress),
                )
            self.crew.broadcast((stored.key, stored.seconds, stored.reused))
        self.keys[label] = f"{stage}/{stored.key}"
        self.seconds[label] = stored.seconds
        if stored.reused:
            self.reused.append(label)
        log.info("%-20s %s", spoken, "from the store" if stored.reused else f"{stored.seconds:.1f} s")
        return stored

    def followed(
        self, stage: str, kind: type[Artifact], compute: Callable[[Watch, Progress], Artifact]
    ) -> Stored[Artifact]:
        """Return the artifact that the process of rank 0 finds or computes, with help where it asks for it.

        Raises InputError where what it has stored is not seen here.
        """
        said: Any = self.crew.broadcast(None)
        if isinstance(said, str):  # where the parts of an unfinished stage are
            compute(silent, Progress(Path(said)))
            said = self.crew.broadcast(None)
        key, seconds, reused = said
        entry = self.store.root / stage / key
        until = time.monotonic() + SEEN_AFTER
        while not entry.is_dir():
            if time.monotonic() > until:
                found = f"process {self.crew.rank}, on {platform.node()}, does not see {stage}/{key} there"
                raise InputError("store", self.store.root, f"{found}; expected a folder that all machines share")
            time.sleep(0.1)
        return Stored(read(kind, entry), key, seconds, reused)
