"""What the report of every task begins with."""

from __future__ import annotations

from defense.artifacts import Scores
from defense.config.schema import plain
from defense.pipeline.cell import Cell
from defense.reporting.record import Scoring
from defense.robustness.checks import learned


def scoring(cell: Cell, scores: Scores, overrides: list[str]) -> Scoring:
    """Return what the report of every task begins with."""
    return Scoring(
        config=cell.config,
        settings=plain(cell.config),
        overrides=overrides,
        data=cell.data,
        scores=scores.table,
        record=dict(zip(scores.record["name"], scores.record["value"], strict=True)),
        keys=cell.ledger.keys,
        seconds=cell.ledger.seconds,
        reused=cell.ledger.reused,
        device=str(cell.fabric.device),
        learned=plain(learned(*(scores.table[name].to_numpy() for name in ("label", "prediction")))),
    )
