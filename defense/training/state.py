"""What changes from step to step of a training run, and so is what a killed run goes on from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from lightning_fabric.plugins import Precision
from torch import Tensor, nn
from torch.optim import SGD
from torch.optim.lr_scheduler import OneCycleLR
from torch.optim.swa_utils import AveragedModel


@dataclass(frozen=True)
class TrainingState:
    """The parts of a training run that have a state. Everything else follows from its settings and the epoch."""

    model: nn.Module
    optimizer: SGD
    scheduler: OneCycleLR
    average: AveragedModel | None
    precision: Precision  # which scales the loss, in 16-mixed

    def state(self, done: int) -> dict[str, Any]:
        """Return the state after so many epochs, or steps: of this moment, not copied."""
        return {"epoch": done} | {name: part.state_dict() for name, part in vars(self).items() if part is not None}

    def begin(self, state: dict[str, Any] | None) -> int:
        """Take over a state, if there is one; return how many epochs, or steps, it is after."""
        if state is None:
            return 0
        for name, part in vars(self).items():
            if part is not None:
                part.load_state_dict(state[name])
        for parameter, own in self.optimizer.state.items():  # in the layout of the parameter, as they were made
            for name, value in own.items():
                if isinstance(value, Tensor):
                    own[name] = torch.empty_like(parameter.detach()).copy_(value)
        return int(state["epoch"])
