"""A trained model as stages take it: how it is made, and its weights."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

from torch import nn

from defense.artifacts import Tensors, TrainedModel
from defense.models.build import Design
from defense.models.checkpoints import Checkpoint
from defense.store.fingerprint import canonical


class Model(Protocol):
    """What a stage computes with: a network on the device of the data, and its number of logits."""

    @property
    def network(self) -> nn.Module:
        """The network, in eval mode."""
        ...

    @property
    def classes(self) -> int:
        """The number of its logits."""
        ...


@dataclass(frozen=True)
class Trained:
    """A network of a run with the weights that its training ended with."""

    design: Design
    artifact: TrainedModel

    @property
    def network(self) -> nn.Module:
        """The network, in eval mode, where the data are; made anew by each look, so that none stays on the device.

        The seed of its design matters if it draws anything that is neither a parameter nor a buffer.
        """
        model = self.design.build()
        model.load_state_dict(self.artifact.weights)
        return model.to(self.design.data.train.labels.device).eval()

    @property
    def classes(self) -> int:
        """The number of its logits."""
        return self.design.data.classes

    @cached_property
    def identity(self) -> Any:
        """The design and the weights in canonical form, for keys."""
        return canonical({"design": self.design, "weights": self.artifact.weights}, "model")

    @property
    def kept(self) -> int:
        """The epoch that its weights are of, from 1."""
        history = self.artifact.history
        return int(history["epoch"][history["kept"]].item())

    @property
    def checkpoints(self) -> list[Checkpoint]:
        """The weights at some times of the training, in order; the last are those of the epoch that was kept.

        Each is weighed by the sum of the learning rates of the epochs that it stands for, those since the one
        before: a one-cycle schedule ends at zero, and the last checkpoint stands for more than that.
        """
        states: dict[int, Tensors] = {}
        for name, value in self.artifact.checkpoints.items():
            after, _, own = name.partition("/")
            states.setdefault(int(after), {})[own] = value
        rates = self.artifact.history.set_index("epoch")["learning_rate"]
        states = dict(sorted(states.items())) | {self.kept: self.artifact.weights}
        found, begin = [], 0
        for epoch, state in states.items():
            found.append(Checkpoint(f"epoch {epoch}", float(rates.loc[begin + 1 : epoch].sum()), state))
            begin = epoch
        return found


@dataclass(frozen=True)
class GivenNetwork:
    """A network of a notebook: it belongs to no run, and no store keeps what is computed with it."""

    network: nn.Module
    classes: int
