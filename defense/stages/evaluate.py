"""Measure one arm on the test split: clean, under a frozen (transfer) and under its own (adaptive) attacks."""

from __future__ import annotations

import pandas as pd
from torch import Tensor, nn

from defense.artifacts import Evaluation
from defense.config.schema import Evaluation as Suite
from defense.config.schema import Threat
from defense.data.images import TensorImages
from defense.data.splits import Split
from defense.models.predict import predict
from defense.robustness.suite import in_turn
from defense.runtime.checkpoint import Memory
from defense.runtime.distributed import ALONE, Crew
from defense.runtime.progress import Watch

VERSION = 5


def evaluate(
    model: nn.Module,
    test: Split,
    suite: Suite,
    threat: Threat,
    frozen: Tensor | None,
    *,
    stamped: Split | None = None,
    classes: int,
    seed: int,
    keep: bool = False,
    watch: Watch,
    memory: Memory | None = None,
    crew: Crew = ALONE,
) -> Evaluation:
    """Return, per test sample, whether `model` is right: clean, transfer, and adaptive after each attack.

    Beside it stands the class that the model gives to the sample as it is.

    frozen: the test pictures (n, C, H, W) as the suite attacked them at the baseline; None where `model` is that
    baseline, whose own attacks are the frozen ones. stamped: the test samples with a planted trigger, where there
    is one; `triggered` is whether the model is right on those. keep: return the pictures. The attacks of a suite
    come in turn, each on the samples that those before it have left standing, so adaptive.<attack> is the accuracy
    after this attack and all before it, and adaptive.worst the accuracy after all. A sample counts as right under
    attack only where it is right without one, since staying put is open to every attacker. crew: the processes
    that share the samples.
    """
    attacked = in_turn(
        model,
        test,
        suite.attacks,
        threat,
        classes=classes,
        batch_size=suite.batch_size,
        seed=seed,
        watch=watch,
        memory=memory,
        crew=crew,
    )
    labels = test.labels.cpu()
    adaptive = {f"adaptive.{name}": stands.numpy() for name, stands in attacked.standing.items()}
    worst = next(reversed(adaptive.values()))
    transfer = worst
    if frozen is not None:
        moved = test.with_images(TensorImages(frozen.to(test.labels.device)))
        right = predict(model, moved, batch_size=suite.batch_size, crew=crew).argmax(1) == labels
        transfer = (attacked.clean & right).numpy()
    given = predict(model, test, batch_size=suite.batch_size, crew=crew).argmax(1).cpu()
    columns = {"id": test.ids.numpy(), "prediction": given.numpy(), "clean": attacked.clean.numpy()}
    columns["transfer"] = transfer
    if stamped is not None:
        columns["triggered"] = (
            predict(model, stamped, batch_size=suite.batch_size, crew=crew).argmax(1) == labels
        ).numpy()
    table = pd.DataFrame({**columns, **adaptive, "adaptive.worst": worst})
    return Evaluation(table, {"pictures": attacked.pictures} if keep else {})
