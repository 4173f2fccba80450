"""The command `defense` in a process of its own, which keeps whatever it can and writes down where it is.

python -m tests.fire.driver SIDE_FILE ARGUMENT...
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import defense.tasks.registry  # what a run imports, so that no kill falls into that
from defense.__main__ import main
from defense.runtime import checkpoint as checkpoint
from defense.runtime.runtime import Runtime
from defense.store.stage import Stage, StageRunner


def noting(file: Path) -> None:
    """Write the label of every stage into `file` when it begins, and a dash when it is done."""
    run_stage = StageRunner.run_stage

    def noted(self: StageRunner, stage: Stage, runtime: Runtime, arguments: Any) -> Any:
        with file.open("a") as side:
            side.write(f"{stage.name}_{runtime.label}\n")
        artifact = run_stage(self, stage, runtime, arguments)
        with file.open("a") as side:
            side.write("-\n")
        return artifact

    StageRunner.run_stage = noted  # type: ignore[method-assign]


if __name__ == "__main__":
    assert defense.tasks.registry
    checkpoint.KEPT_EVERY = 0.0
    noting(Path(sys.argv.pop(1)))
    print("ready", flush=True)
    main()
