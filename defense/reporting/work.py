"""What the cells of a sweep have computed, and what they found in the store."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

HEADER = ("stage", "computed", "seconds", "reused", "seconds saved")


def stages_table(results: Sequence[dict[str, Any]]) -> tuple[Sequence[str], list[tuple[str, ...]]]:
    """Return header and rows of a table over the stages that `results` were made of; none where they say nothing.

    computed: by one of the runs, with the seconds that it took; reused: taken from the store, computed by another
    of them or before, with the seconds that it took then; report: the pages of the runs. The last row sums up.
    """
    computed: dict[str, list[float]] = {}
    reused: dict[str, list[float]] = {}
    for result in results:
        for label, key in result.get("keys", {}).items():
            stage, seconds = key.partition("/")[0], result["seconds"][label]
            into, other = (reused, computed) if label in result["reused"] else (computed, reused)
            into.setdefault(stage, []).append(seconds)
            other.setdefault(stage, [])
        if "report_seconds" in result:
            computed.setdefault("report", []).append(result["report_seconds"])
    reused |= {"report": []} if "report" in computed else {}  # a page is always written
    rows = [row(stage, computed[stage], reused[stage]) for stage in computed]
    if rows:
        rows.append(row("together", list(chain(*computed.values())), list(chain(*reused.values()))))
    return HEADER, rows


def row(name: str, computed: Sequence[float], reused: Sequence[float]) -> tuple[str, ...]:
    """Return one row."""
    return name, str(len(computed)), f"{sum(computed):.1f}", str(len(reused)), f"{sum(reused):.1f}"
