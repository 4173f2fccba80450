"""The end of an epoch, and the epoch that a training run keeps."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from defense.config.choices import Keep, Recipe
from defense.config.schema import Train

log = logging.getLogger(__name__)

COLUMNS = {  # whose highest value says which epoch is kept
    Keep.last: "epoch",
    Keep.clean: "validation_accuracy",
    Keep.robust: "validation_robust_accuracy",
}

# Points of robust accuracy. Training on one step can all at once learn to mislead that step: robust accuracy then
# falls to about zero within an epoch or two; otherwise falls are a few points. Wong et al. 2020 stop at as many.
COLLAPSE = 20.0


@dataclass(frozen=True)
class EpochEnd:
    """What one epoch ends with."""

    numbers: dict[str, float]  # epoch, train_loss, train_accuracy, learning_rate, and those of validation
    weights: Mapping[str, Tensor]  # as of state_dict: those that were validated; they change in the next epoch
    state: Callable[[], dict[str, Any]] = dict  # what the next epoch begins with; of this moment, as `weights`


@dataclass
class Best:
    """The epoch with the highest value in one column so far; of equal ones the later."""

    column: str
    value: float = float("-inf")
    epoch: int = 0
    weights: dict[str, Tensor] = field(default_factory=dict)

    def look(self, end: EpochEnd) -> None:
        """Take `end` where it is as good or better."""
        if (value := end.numbers[self.column]) >= self.value:
            self.value, self.epoch = value, int(end.numbers["epoch"])
            self.weights = {name: tensor.clone() for name, tensor in end.weights.items()}


class EpochSelection:
    """The choice of the epoch to keep, by `recipe`; `until`: that epoch, whatever the recipe says."""

    def __init__(self, recipe: Train, until: int | None = None) -> None:
        self.until = until
        self.best = Best(COLUMNS[Keep.last if until else recipe.kept])
        self.robust = Best(COLUMNS[Keep.robust]) if recipe.recipe is Recipe.fast and not until else None

    def look(self, end: EpochEnd) -> bool:
        """Take in the end of an epoch; return whether training ends with it. Then `best` is the one that is kept.

        The recipe fast ends with the epoch in which robust accuracy on validation falls by more than `COLLAPSE`
        below its highest, and keeps that one, whatever else was asked for.
        """
        self.best.look(end)
        if self.robust is None:
            return end.numbers["epoch"] == self.until
        self.robust.look(end)
        found = end.numbers[self.robust.column]
        if self.robust.value - found <= COLLAPSE:
            return False
        log.warning(
            "stopped after epoch %d: robust accuracy on validation fell from %.1f to %.1f %%, as happens "
            "to training on one step; epoch %d is kept",
            end.numbers["epoch"],
            self.robust.value,
            found,
            self.robust.epoch,
        )
        self.best = self.robust
        return True

    def state(self) -> dict[str, Any]:
        """Return what was looked at so far."""
        return {name: vars(best) for name, best in vars(self).items() if isinstance(best, Best)}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a `state`."""
        for name, best in state.items():
            setattr(self, name, Best(**best))
