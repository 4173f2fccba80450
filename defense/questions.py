"""The settings that single tasks have of their own; a leaf, like `defense.schema`, which they are a part of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from defense.choices import Clock, Peer, Subsets


@dataclass
class Faithfulness:
    """The retrainings that scores are compared with, for task=faithfulness."""

    subsets: Subsets
    count: int | None
    targets: int


@dataclass
class Evade:
    """The points that are moved across the boundary, for task=evade."""

    shares: list[float]
    ratio: float


@dataclass
class Speed:
    """The scores whose time is compared with that of the run's own scorer, and on what, for task=speed."""

    scorers: dict[str, Any]  # of schema.Scorer, by the name they have in the report
    peers: list[Peer] | None
    works: list[list[int]]
    clock: Clock
    rounds: int
    seconds: float
