"""Measure one arm on the test split: clean, under a frozen (transfer) and under its own (adaptive) attacks."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import pandas as pd
from torch import Tensor

from defense import models, robustness
from defense.artifacts import Evaluation
from defense.config.choices import reads
from defense.config.schema import Evaluation as Suite
from defense.config.schema import Threat
from defense.data.images import TensorImages
from defense.data.splits import Split
from defense.models.predict import predict
from defense.robustness.attacks import Attacker
from defense.robustness.suite import run_suite
from defense.runtime.runtime import Runtime
from defense.stages.trained import Model
from defense.store.stage import stage, unread


@stage(version=7, code=(models, robustness), shared=True)
def evaluate(
    runtime: Runtime,
    model: Model,
    test: Annotated[Split, reads("ids", "images", "labels")],
    suite: Annotated[Suite, unread("checked", "trusted", "trusted_weights", "controls")],
    threat: Threat,
    *,
    frozen: Tensor | None = None,
    stamped: Annotated[Split | None, reads("images")] = None,
    keep: bool = False,
    seed: int,
) -> Evaluation:
    """Return, per test sample, whether `model` is right: clean, transfer, and adaptive after each attack.

    Beside it stands the class that the model gives to the sample as it is.

    frozen: the test pictures (n, C, H, W) as the suite attacked them at the baseline; None if `model` is that
    baseline, whose own attacks are the frozen ones. stamped: the test samples with a planted trigger, if there
    is one; `triggered` is whether the model is right on those. keep: return the pictures. The attacks of a suite
    come in turn, each on the samples that those before it have left standing, so adaptive.<attack> is the accuracy
    after this attack and all before it, and adaptive.worst the accuracy after all. A sample counts as right under
    attack only if it is right without one, since staying put is open to every attacker.
    """
    network = model.network
    attacker = Attacker(network, threat, model.classes, suite.batch_size, seed)
    attacked = run_suite(attacker, test, suite.attacks, runtime, masked=suite.masked)
    predicted = partial(predict, network, batch_size=suite.batch_size, ranks=runtime.ranks)
    labels = test.labels.cpu()
    adaptive = {f"adaptive.{name}": stands.numpy() for name, stands in attacked.standing.items()}
    worst = next(reversed(adaptive.values()))
    transfer = worst
    if frozen is not None:
        moved = test.with_images(TensorImages(frozen.to(test.labels.device)))
        right = predicted(moved).argmax(1) == labels
        transfer = (attacked.clean & right).numpy()
    given = predicted(test).argmax(1).cpu()
    columns = {"id": test.ids.numpy(), "prediction": given.numpy(), "clean": attacked.clean.numpy()}
    columns["transfer"] = transfer
    if stamped is not None:
        columns["triggered"] = (predicted(stamped).argmax(1) == labels).numpy()
    table = pd.DataFrame({**columns, **adaptive, "adaptive.worst": worst})
    return Evaluation(table, {"pictures": attacked.pictures} if keep else {})
