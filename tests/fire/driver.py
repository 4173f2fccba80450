"""The command `defense` in a process of its own, which keeps whatever it can and writes down where it is.

python -m tests.fire.driver SIDE_FILE ARGUMENT...
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import defense.tasks.registry  # what a run imports, so that no kill falls into that
from defense.__main__ import main
from defense.runtime import checkpoint as memory
from defense.store.stage import Ledger


def noting(file: Path) -> None:
    """Write the label of every stage into `file` when it begins, and a dash when it is done."""
    once = Ledger.once

    def noted(self: Ledger, label: str, *arguments: Any, **more: Any) -> Any:
        with file.open("a") as side:
            side.write(f"{label}\n")
        stored = once(self, label, *arguments, **more)
        with file.open("a") as side:
            side.write("-\n")
        return stored

    Ledger.once = noted  # type: ignore[method-assign, assignment]


if __name__ == "__main__":
    assert defense.tasks.registry
    memory.KEPT_EVERY = 0.0
    noting(Path(sys.argv.pop(1)))
    print("ready", flush=True)
    main()
