"""Write what a run found: for machines, for spreadsheets and for people."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pandas as pd

from defense.artifacts import write_json
from defense.reporting.page import write_pages
from defense.reporting.record import Run
from defense.reporting.result import arms_table, result

log = logging.getLogger(__name__)


def write_report(run: Run, output: Path) -> dict[str, Any]:
    """Write result.json, scores, per_sample and the pages into `output`; return the content of result.json."""
    numbers = result(run)
    scores = run.scores.assign(treated=run.arms["defended"].treatment["treated"].to_numpy())
    scores.to_parquet(output / "scores.parquet", index=False)
    scores.to_csv(output / "scores.csv", index=False)
    samples = [arm.evaluation.assign(arm=name) for name, arm in run.arms.items()]
    pd.concat(samples).to_parquet(output / "per_sample.parquet", index=False)
    write_pages(run, numbers, output)
    write_json(numbers, output / "result.json")
    log.info("\n%s\n\n%s\n\nreport: %s", arms_table(run), numbers["verdict"], output / "report.html")
    return numbers
