"""What a score is aligned with: a scalar of the parameters on the validation set, lower is better."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from defense.data.splits import Split
from defense.schema import ObjectiveName


@dataclass(frozen=True)
class Validation:
    """The validation set as it is, and attacked at the model that is scored."""

    clean: Split
    adversarial: Split


def utility(validation: Validation) -> Split:
    """v = mean loss on clean validation data."""
    return validation.clean


def robustness(validation: Validation) -> Split:
    """v = mean loss on adversarial validation data."""
    return validation.adversarial


OBJECTIVES: dict[ObjectiveName, Callable[[Validation], Split]] = {
    ObjectiveName.utility: utility,
    ObjectiveName.robustness: robustness,
}
