"""Attack a split at one model: validation for the objective, train for some of the scorers."""

from __future__ import annotations

import logging
from math import prod
from typing import Annotated

from defense import models, robustness
from defense.artifacts import AdversarialSet
from defense.config.choices import reads
from defense.config.schema import Attack, Threat
from defense.data.splits import Split
from defense.robustness.attacks import Attacker
from defense.robustness.suite import perturb
from defense.runtime.runtime import Runtime
from defense.stages.trained import Model
from defense.store.stage import stage

LARGE = 8.0  # GiB

log = logging.getLogger(__name__)


@stage(version=6, code=(models, robustness), shared=True)
def attack(
    runtime: Runtime,
    model: Model,
    split: Annotated[Split, reads("images", "labels")],
    spec: Attack,
    threat: Threat,
    *,
    batch_size: int,
    seed: int,
) -> AdversarialSet:
    """Return `split` attacked at `model`; see `defense.robustness.suite.perturb`.

    The pictures are one tensor in the memory of every process; the log warns if it is large.
    """
    taken = 4 * len(split) * prod(split.images.shape) / 2**30
    if taken > LARGE and runtime.ranks.rank == 0:
        log.warning("the attacked pictures of %d samples take %.0f GiB in every process", len(split), taken)
    attacker = Attacker(model.network, threat, model.classes, batch_size, seed)
    return AdversarialSet({"pictures": perturb(attacker, split, spec, runtime)})
