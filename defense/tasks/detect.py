"""Do the samples that are known to be wrong score lowest?

data -> train -> attack -> score -> report
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from defense.pipeline.cell import Cell
from defense.stages.report import write_detection
from defense.tasks.scoring import scoring


def detect(cell: Cell, output: Path, overrides: list[str]) -> dict[str, Any]:
    """Do the samples that are known to be wrong score lowest?"""
    scores = cell.scores(cell.scored_at())
    run = scoring(cell, scores.artifact, overrides)
    return write_detection(run, output) if cell.crew.rank == 0 else {}
