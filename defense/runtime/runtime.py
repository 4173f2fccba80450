"""How a computation is run: its device, the processes that share it, its progress and its checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

import torch

from defense.runtime.checkpoint import Checkpointer, NoCheckpoint
from defense.runtime.distributed import SINGLE_PROCESS, Ranks
from defense.runtime.progress import Progress, no_progress

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class Runner(Protocol):
    """Runs declared stages, or takes their results from where it keeps them."""

    def run_stage(self, stage: Any, runtime: Runtime, arguments: Mapping[str, Any]) -> Any:
        """Return the artifact of a stage, called with these arguments by name."""
        ...


@cache
def cpu_fabric() -> Fabric:
    """Return the CPU as a device, in full precision, whatever a launcher says of processes."""
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments import LightningEnvironment

    return Fabric(accelerator="cpu", devices=1, plugins=[LightningEnvironment()])


@dataclass(frozen=True)
class Runtime:
    """The device, ranks, progress and checkpoint of a stage; without a runner it is computed in place."""

    fabric: Fabric = field(default_factory=cpu_fabric)
    ranks: Ranks = SINGLE_PROCESS
    progress: Progress = no_progress
    checkpoint: Checkpointer = field(default_factory=NoCheckpoint)
    runner: Runner | None = None
    label: str = ""  # of the next stage, behind its name in logs and result.json; of the next part of a checkpoint

    @property
    def device(self) -> torch.device:
        """The device of this process."""
        return self.fabric.device

    @property
    def key(self) -> dict[str, Any]:
        """Its part of every key: rounding depends on the kind of device and on the precision."""
        return {"device": self.device.type, "precision": self.fabric.strategy.precision.precision}

    def named(self, *label: str) -> Runtime:
        """Return the same for a stage with this label, its non-empty parts joined by underscores."""
        return replace(self, label="_".join(filter(None, label)))

    def alone(self) -> Runtime:
        """Return the same for a computation of this process alone, without progress and checkpoints."""
        return Runtime(self.fabric)
