"""The weights of a model at one time of its training."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Checkpoint:
    """The weights of a model at one time of its training, and the weight of a score at them."""

    name: str
    weight: float
    state: dict[str, Tensor]  # as of state_dict
