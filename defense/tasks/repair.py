"""Does treating the samples with the lowest scores help where nobody attacks: accuracy, or gaps between groups?

    data -> train -> score -> treat -> retrain -> measure -> report

Samples that others have attacked, where the data bring some, are measured beside the test samples: robustness is
then the accuracy on those.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from defense.config.schema import plain
from defense.pipeline.arms import Arms
from defense.pipeline.cell import Cell
from defense.reporting.measures import measures_of
from defense.reporting.record import Repair
from defense.robustness.checks import Learned, learned
from defense.stages import treat
from defense.stages.report import write_repair
from defense.tasks.scoring import scoring


def repair(cell: Cell, output: Path, overrides: list[str]) -> dict[str, Any]:
    """Score, treat, retrain, and measure the baseline, the control and the defended arm on test."""
    which = measures_of(cell.data)
    baseline = cell.baseline()
    scores = cell.scores(cell.scored_at())
    make = Arms(cell, cell.config.treatment)
    defended = make.treat(scores)
    treatments = {
        "baseline": treat.untreated(cell.data.train),
        "control": make.control(scores, defended),
        "defended": defended.artifact,
    }
    measured, histories = {}, {}
    for name, treatment in treatments.items():
        trained = baseline.trained if name == "baseline" else cell.train(name, treatment)
        measured[name] = make.measure(name, trained).artifact.table
        histories[name] = trained.artifact.history
    run = Repair(
        **vars(scoring(cell, scores.artifact, overrides)),
        which=which,
        treatment=defended.artifact.table,
        measured=measured,
        histories=histories,
        arms_learned={name: plain(learned_of(table)) for name, table in measured.items()},
    )
    return write_repair(run, output) if cell.crew.rank == 0 else {}


def learned_of(table: pd.DataFrame) -> Learned:
    """Return whether an arm has learned anything, by what it makes of every test sample as it is."""
    test = table[table["part"] == "test"]
    return learned(test["label"].to_numpy(), test["prediction"].to_numpy())
