"""Folders as sweeps leave them, for tests of what is made of them: small, and with numbers that are known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from tests.cli.test_report import swept

SAMPLES = 20  # of the test set


def leave(folder: Path, cell: dict[str, Any], *, right: tuple[int, int] = (8, 12)) -> Path:
    """Leave what a run leaves: its result, its page, and the samples that control and defended get right."""
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(cell))
    for form in ("html", "md"):
        (folder / f"report.{form}").write_text("a page")
    tables = [
        pd.DataFrame({"id": range(SAMPLES), "adaptive.worst": [i < count for i in range(SAMPLES)], "arm": arm})
        for arm, count in zip(("control", "defended"), right, strict=True)
    ]
    pd.concat([tables[0], tables[1][::-1]]).to_parquet(folder / "per_sample.parquet")  # in another order
    return folder


def fail(folder: Path, *overrides: str, error: str = "data.path=x: no such file") -> Path:
    """Leave what a cell leaves that has failed."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "defense.log").write_text("what happened")
    (folder / "failed.json").write_text(json.dumps({"overrides": overrides, "error": error, "log": "defense.log"}))
    return folder


def grid(folder: Path, *, seeds: int = 5) -> Path:
    """Leave a sweep over three scorers, two budgets and seeds; loss gains, others do not, one cell failed."""
    number = 0
    for seed in range(seeds):
        for scorer, gain in (("ip", (-1) ** seed * 2.0), ("loss", 8.0 + seed % 2), ("random", (-1) ** seed * 0.5)):
            for budget in (0.05, 0.1):
                cell = swept(
                    seed,
                    gain + (scorer == "loss") * 10 * budget,
                    scorer,
                    f"treatment.budget={budget}",
                    budget=budget,
                )
                cell["arms"]["defended"]["clean"] = 90 - 20 * budget - (scorer == "loss")
                leave(folder / str(number), cell)
                number += 1
    fail(folder / str(number), "seed=9", "scorer=ip", "treatment.budget=0.9")
    return folder
