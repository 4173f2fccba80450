"""The rows of one result in cells.parquet: of its arms, and the health that every row has."""

from __future__ import annotations

from typing import Any

from defense.reporting.archive import ARM, Row, Units, leaves
from defense.reporting.reading import Result


def health_of_arm(result: Result, arm: str | None) -> dict[str, Any]:
    """Return what is said of the health of a result, and of one arm; without arms of the model that was scored."""
    health = result.get("health", {})
    arms = health.get("arms", {})
    own = arms.get(arm, {}) if arm is not None else next(iter(arms.values()), {})
    return {name: value for name, value in health.items() if name != "arms"} | own


def by_arm(result: Result) -> list[Row]:
    """Return a row an arm: its numbers, what its checks found, and whether it has learned."""
    rows = []
    for arm, numbers in result["arms"].items():
        checks = {
            name: {key: found[key] for key in ("found", "of", "allowed", "flagged")}
            for name, found in result.get("checks", {}).get(arm, {}).items()
        }
        more = {"checks": checks, "health": health_of_arm(result, arm)}
        rows.append({ARM: arm, **dict(leaves(numbers)), **dict(leaves({k: v for k, v in more.items() if v}))})
    return rows


def scored(rows: Units) -> Units:
    """Return the function that adds the health of the model that was scored to every row."""
    return lambda result: [
        {ARM: None, **row, **dict(leaves({"health": health_of_arm(result, None)}))} for row in rows(result)
    ]
