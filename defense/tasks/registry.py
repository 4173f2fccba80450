"""Every task by its name, and a run of one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric

from defense.config.choices import Task
from defense.config.schema import Config
from defense.pipeline.load import load_run
from defense.pipeline.run import Run
from defense.runtime.distributed import SINGLE_PROCESS, Ranks
from defense.tasks.defend.run import defend
from defense.tasks.detect.run import detect
from defense.tasks.evade.run import evade
from defense.tasks.faithfulness.run import faithfulness
from defense.tasks.order.run import order
from defense.tasks.repair.run import repair
from defense.tasks.score.run import score
from defense.tasks.speed.run import speed

TASKS: dict[Task, Callable[[Run, Path, list[str]], dict[str, Any]]] = {
    Task.defend: defend,
    Task.detect: detect,
    Task.faithfulness: faithfulness,
    Task.repair: repair,
    Task.evade: evade,
    Task.order: order,
    Task.speed: speed,
    Task.score: score,
}


def run(
    config: Config, output: Path, overrides: list[str], fabric: Fabric | None = None, ranks: Ranks = SINGLE_PROCESS
) -> dict[str, Any]:
    """Run every stage that the store does not hold yet, write the report into `output`, return its result.

    fabric, ranks: the device of this process, and the processes that share the run. Each of them calls this; that
    of rank 0 writes the report, and the others return an empty result.
    """
    return TASKS[config.task](load_run(config, fabric, ranks), output, overrides)
