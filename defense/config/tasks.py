"""Settings of single tasks; a leaf, and a part of `defense.config.schema`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from defense.config.choices import Clock, Direction, Dropping, Peer, Subsets


@dataclass
class Faithfulness:
    """The retrainings that scores are compared with, for task=faithfulness."""

    subsets: Subsets
    dropped: float
    by: Dropping
    fresh: bool
    count: int | None
    targets: int
    singles: int


@dataclass
class Evade:
    """The points that are moved across the boundary, for task=evade."""

    shares: list[float]
    ratio: float


@dataclass
class Order:
    """The influence that the order of scores is compared with, for task=order."""

    reference: Direction
    dampings: list[float]
    share: float
    draw: bool


@dataclass
class Speed:
    """The scores whose time is compared with that of the run's own scorer, and on what, for task=speed."""

    scorers: dict[str, Any]  # of schema.Scorer, by the name they have in the report
    peers: list[Peer] | None
    works: list[list[int]]
    clock: Clock
    rounds: int
    seconds: float
