"""Run one cell in this process, or in several that share it: those started here, or by torchrun or srun.

Processes started here are watched over: the first that fails ends all, and what it raised is raised here. Those
started from outside end themselves on an error, and whoever started them ends the others.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from defense.config.schema import Config
from defense.errors import USER_ERRORS, InputError
from defense.runtime.devices import join_process_group, make_fabric
from defense.runtime.processes import leave, spawned
from defense.runtime.ranks import RankInfo, external_rank_info
from defense.tasks.registry import run

Result = dict[str, Any]


def launched(config: Config, output: Path, overrides: list[str]) -> Result:
    """Run one cell in as many processes as `config.fabric` asks for; see `defense.tasks.registry.run`.

    Raises InputError if it was started in another number of them, and RuntimeError if one dies of something
    that nobody can mend.
    """
    info, wanted = external_rank_info(), config.fabric.processes
    if info is not None:
        if info.size != wanted:
            found = f"{info.size} processes were started; expected devices x num_nodes to be as many"
            alone = f"if only this one was, unset {info.variable}"
            raise InputError("fabric.devices", config.fabric.devices, f"{found}; {alone}")
        with ending_all():
            return shared(info, config, output, overrides)
    if wanted == 1:
        return run(config, output, overrides)
    if config.fabric.num_nodes > 1:
        found = "expected srun or torchrun to start a process for each device on every machine"
        raise InputError("fabric.num_nodes", config.fabric.num_nodes, found)
    make_fabric(config.fabric)  # fails here where the devices are not there
    result: Result = spawned(shared, wanted, config, output, overrides)
    return result


def shared(info: RankInfo, config: Config, output: Path, overrides: list[str]) -> Result:
    """Run one cell as one of its processes."""
    fabric = make_fabric(config.fabric, info)
    return run(config, output, overrides, fabric, join_process_group(info, fabric.device))


@contextmanager
def ending_all() -> Iterator[None]:
    """Let an error end this process, though a sweep would go on: the others may wait for it."""
    try:
        yield
    except USER_ERRORS as error:
        print(f"defense: {error}", file=sys.stderr)
        leave(2)
    except Exception:
        traceback.print_exc()
        leave(1)
