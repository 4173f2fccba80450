"""Attack a split at one model: validation for the objective, train for some of the scorers."""

from __future__ import annotations

from torch import nn

from defense.artifacts import AdversarialSet
from defense.data.splits import Split
from defense.memory import Memory
from defense.robustness.suite import perturb
from defense.schema import Attack, Threat
from defense.watch import Watch

VERSION = 3


def attack(
    model: nn.Module,
    split: Split,
    spec: Attack,
    threat: Threat,
    *,
    classes: int,
    batch_size: int,
    seed: int,
    watch: Watch,
    memory: Memory | None = None,
) -> AdversarialSet:
    """Return `split` attacked at `model`; see `defense.robustness.suite.perturb`."""
    pictures = perturb(
        model, split, spec, threat, classes=classes, batch_size=batch_size, seed=seed, watch=watch, memory=memory
    )
    return AdversarialSet({"pictures": pictures})
