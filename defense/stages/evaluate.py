"""Measure one arm on the test split: clean, under frozen (transfer) and under its own (adaptive) attacks."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
from torch import nn

from defense.artifacts import AdversarialSet, Evaluation
from defense.data.images import TensorImages
from defense.data.splits import Split
from defense.models.predict import predict
from defense.randomness import derive
from defense.robustness.attacks import perturb
from defense.schema import Evaluation as Suite
from defense.schema import Threat

VERSION = 1


def evaluate(
    model: nn.Module,
    test: Split,
    suite: Suite,
    threat: Threat,
    frozen: dict[str, AdversarialSet],
    *,
    at_source: bool,
    classes: int,
    seed: int,
    watch: Callable[..., None],
) -> Evaluation:
    """Return, per test sample, whether `model` is right: clean, transfer, adaptive, and at worst.

    frozen: the test split attacked at the baseline, by name of the attack. at_source: `model` is that baseline,
    so that the frozen attacks are its adaptive ones. A sample counts as right under an attack only where it is
    right without one too, since staying put is open to every attacker; worst is taken per sample over attacks.
    """

    def right(split: Split) -> pd.Series:
        logits = predict(model, split, batch_size=suite.batch_size)
        return pd.Series((logits.argmax(1) == split.labels.cpu()).numpy())

    def attacked(set_: AdversarialSet) -> Split:
        return test.with_images(TensorImages(set_.tensors["pictures"].to(test.labels.device)))

    clean = right(test)
    columns = {"id": pd.Series(test.ids.numpy()), "clean": clean}
    columns |= {f"transfer.{name}": clean & right(attacked(set_)) for name, set_ in frozen.items()}
    for name, spec in suite.attacks.items():
        if at_source:
            columns[f"adaptive.{name}"] = columns[f"transfer.{name}"]
            continue
        pictures = perturb(
            model,
            test,
            spec,
            threat,
            classes=classes,
            batch_size=suite.batch_size,
            seed=derive(seed, "attack", name),
            watch=watch,
        )
        columns[f"adaptive.{name}"] = clean & right(attacked(AdversarialSet({"pictures": pictures})))
    table = pd.DataFrame(columns)
    table["adaptive.worst"] = table[[f"adaptive.{name}" for name in suite.attacks]].all(axis=1)
    return Evaluation(table)
