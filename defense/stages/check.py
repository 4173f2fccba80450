"""Look at one arm for signs that its robust accuracy is not to be believed."""

from __future__ import annotations

from torch import nn

from defense.artifacts import Checks
from defense.config.schema import Threat
from defense.data.splits import Split
from defense.robustness.probe import chosen, probe
from defense.runtime.progress import Watch

VERSION = 3


def check(
    model: nn.Module,
    test: Split,
    threat: Threat,
    *,
    count: int,
    classes: int,
    batch_size: int,
    seed: int,
    watch: Watch,
) -> Checks:
    """Return how `model` behaves on `count` test samples, every class in its share; the same for every arm.

    What that means is for `defense.robustness.checks.judge` to say, beside the evaluation of the same arm.
    """
    part = test.subset(chosen(test.labels, count, seed=seed))
    samples, curve = probe(model, part, threat, classes=classes, batch_size=batch_size, seed=seed, watch=watch)
    return Checks(samples, curve)
