"""Time calls that do the same work, each between two calls of one that they are compared with."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from defense.config.choices import Clock

Found = TypeVar("Found")
Seconds = Callable[[], float]
CLOCKS: dict[Clock, Seconds] = {Clock.processor: time.process_time, Clock.wall: time.perf_counter}
SHORTEST = 0.05  # seconds: what takes less is called as often as fills them


@dataclass(frozen=True)
class Timed(Generic[Found]):
    """How long a call takes, medians over `rounds`, and what it returned."""

    seconds: float
    factor: float  # times as long as the call that it is compared with, beside it
    rounds: int
    found: Found


def race(
    own: Callable[[], Found],
    rivals: Mapping[str, Callable[[], Found]],
    *,
    rounds: int,
    seconds: float,
    clock: Seconds,
) -> tuple[Timed[Found], dict[str, Timed[Found]]]:
    """Return how long `own` takes, and each of `rivals` beside it.

    In every round all are called in turn, each between two calls of `own`, and its factor is of its time and
    the mean of theirs: a machine that others load too is as slow for both. A rival whose calls have taken
    `seconds` or more is called in no further round. Call all once before: what is loaded on first use is no part.
    """
    took: dict[str, list[float]] = {name: [] for name in rivals}
    factors: dict[str, list[float]] = {name: [] for name in rivals}
    every: list[float] = []
    last: dict[str, Found] = {}
    for _ in range(rounds):
        running = [name for name in rivals if sum(took[name]) < seconds]
        before, ours = timed(own, clock)
        every.append(before)
        for name in running:
            took_now, last[name] = timed(rivals[name], clock)
            took[name].append(took_now)
            after, ours = timed(own, clock)
            every.append(after)
            factors[name].append(2 * took_now / (before + after))
            before = after
    return Timed(float(np.median(every)), 1.0, len(every), ours), {
        name: Timed(float(np.median(took[name])), float(np.median(factors[name])), len(took[name]), last[name])
        for name in rivals
    }


def timed(call: Callable[[], Found], clock: Seconds) -> tuple[float, Found]:
    """Return the seconds that `call` takes, the mean over as many calls as fill SHORTEST, and what it returned."""
    begin, count = clock(), 0
    while True:
        found = call()
        count += 1
        if (took := clock() - begin) >= SHORTEST:
            return took / count, found
