"""Do the samples that are known to be wrong score lowest?

data -> train -> attack -> score -> report
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from defense.pipeline.run import Run
from defense.tasks.detect.report import write_detection


def detect(run: Run, output: Path, overrides: list[str]) -> dict[str, Any]:
    """Do the samples that are known to be wrong score lowest?"""
    summary = run.summary(run.scores(run.scored_models()), overrides)
    return write_detection(run.runtime, summary, output) if run.writes else {}
