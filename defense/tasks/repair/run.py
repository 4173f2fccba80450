"""Does treating the samples with the lowest scores help where nobody attacks: accuracy, or gaps between groups?

    data -> train -> score -> treat -> retrain -> measure -> report

Samples that others have attacked, if the data bring some, are measured beside the test samples: robustness is
then the accuracy on those.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from defense.config.schema import plain
from defense.pipeline.descent import descended, with_weights
from defense.pipeline.run import Run
from defense.robustness.checks import Learned, learned
from defense.tasks.repair.measures import measures_of
from defense.tasks.repair.report import Repair, write_repair


def repair(run: Run, output: Path, overrides: list[str]) -> dict[str, Any]:
    """Score, treat, retrain, and measure the baseline, the control and the defended arm on test."""
    which = measures_of(run.data)
    baseline = run.baseline()
    scores = run.scores(run.scored_models())
    descent = descended(run, scores)
    defended = run.treat(descent.scores, descent.spec)
    control = run.control(descent.scores, defended, descent.spec)
    models = {"baseline": baseline.model, "control": run.train("control", control)}
    models["defended"] = run.train("defended", defended)
    measured = {name: run.measure(name, model).table for name, model in models.items()}
    finished = Repair(
        **vars(run.summary(with_weights(scores, descent), overrides)),
        which=which,
        treatment=defended.table,
        descent=descent.rounds,
        measured=measured,
        histories={name: model.artifact.history for name, model in models.items()},
        arms_learned={name: plain(learned_of(table)) for name, table in measured.items()},
    )
    return write_repair(run.runtime, finished, output) if run.writes else {}


def learned_of(table: pd.DataFrame) -> Learned:
    """Return whether an arm has learned anything, by what it makes of every test sample as it is."""
    test = table[table["part"] == "test"]
    return learned(test["label"].to_numpy(), test["prediction"].to_numpy())
