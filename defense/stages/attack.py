"""Attack a split at one model: validation for the objective, train for some of the scorers."""

from __future__ import annotations

import logging
from math import prod

from torch import nn

from defense.artifacts import AdversarialSet
from defense.config.schema import Attack, Threat
from defense.data.splits import Split
from defense.robustness.suite import perturb
from defense.runtime.checkpoint import Memory
from defense.runtime.distributed import ALONE, Crew
from defense.runtime.progress import Watch

VERSION = 4
LARGE = 8.0  # GiB

log = logging.getLogger(__name__)


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
    crew: Crew = ALONE,
) -> AdversarialSet:
    """Return `split` attacked at `model`; see `defense.robustness.suite.perturb`.

    All of it is one tensor in the memory of every process, and the log says how large where that may hurt.
    """
    taken = 4 * len(split) * prod(split.images.shape) / 2**30
    if taken > LARGE and crew.rank == 0:
        log.warning("the attacked pictures of %d samples take %.0f GiB in every process", len(split), taken)
    pictures = perturb(
        model,
        split,
        spec,
        threat,
        classes=classes,
        batch_size=batch_size,
        seed=seed,
        watch=watch,
        memory=memory,
        crew=crew,
    )
    return AdversarialSet({"pictures": pictures})
