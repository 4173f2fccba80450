"""Look at one arm for signs that its robust accuracy is not to be believed."""

from __future__ import annotations

from typing import Annotated

from defense import models, robustness
from defense.artifacts import Checks
from defense.config.choices import reads
from defense.config.schema import Threat
from defense.data.splits import Split
from defense.robustness.attacks import Attacker
from defense.robustness.probe import chosen, probe
from defense.runtime.runtime import Runtime
from defense.stages.trained import Model
from defense.store.stage import stage


@stage(version=5, code=(models, robustness))
def check(
    runtime: Runtime,
    model: Model,
    test: Annotated[Split, reads("ids", "images", "labels")],
    threat: Threat,
    *,
    count: int,
    batch_size: int,
    seed: int,
) -> Checks:
    """Return how `model` behaves on `count` test samples, every class in its share; the same for every arm.

    `defense.robustness.checks.judge` draws conclusions, beside the evaluation of the same arm.
    """
    part = test.subset(chosen(test.labels, count, seed=seed))
    return Checks(*probe(Attacker(model.network, threat, model.classes, batch_size, seed), part, runtime))
