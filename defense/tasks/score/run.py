"""Which training samples does the scorer suspect, and how accurate is the model that is trained on all of them?

    data -> train -> attack -> score -> evaluate -> check -> report

Nothing is treated, and no second model is trained: whether treating samples helps is the question of task=defend.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from defense.config.choices import Source
from defense.pipeline.run import Run
from defense.tasks.score.report import Scored, write_scored


def score(run: Run, output: Path, overrides: list[str]) -> dict[str, Any]:
    """Train, score, and evaluate the baseline on test: clean and under the suite, texts clean alone."""
    model, scores = run.baseline().model, run.scores(run.scored_models())
    checks: dict[str, dict[str, Any]] = {}
    if run.config.data.source is Source.text:  # no attack here moves texts
        tested = run.measure("baseline", model).table
    else:
        evaluation = run.evaluate("baseline", model)
        tested, checks = evaluation.table, run.check("baseline", model, evaluation)
    summary = run.summary(scores, overrides)
    finished = Scored(**vars(summary), tested=clean(tested), checks=checks, history=model.artifact.history)
    return write_scored(run.runtime, finished, output) if run.writes else {}


def clean(tested: pd.DataFrame) -> pd.DataFrame:
    """Return an evaluation as it is, and a measurement of test as one without attacks."""
    if "clean" in tested:
        return tested
    test = tested[tested["part"] == "test"]
    return test[["id", "prediction"]].assign(clean=test["prediction"] == test["label"])
