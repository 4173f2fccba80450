"""The times of one model over seeds, work by work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from defense.reporting.statistics import Mean, geometric


@dataclass(frozen=True)
class Work:
    """So many training and validation samples."""

    train: int
    validation: int

    def __str__(self) -> str:
        return f"{self.train:,} x {self.validation:,}"


@dataclass(frozen=True)
class Timings:
    """What `defense.tasks.speed.run` found at one model, under every seed."""

    column: str  # what it is called
    found: Sequence[dict[str, Any]]  # by seed

    @property
    def count(self) -> int:
        """The number of seeds."""
        return len(self.found)

    @property
    def parameters(self) -> int:
        """The number of parameters of the model."""
        return int(self.found[0]["parameters"])

    @property
    def missing(self) -> dict[str, str]:
        """The libraries that were not installed, and the package that each needs."""
        return dict(self.found[0]["missing"])

    @property
    def exact(self) -> list[str]:
        """The libraries that compute the very scores that they are timed beside."""
        return list(self.found[0]["exact"])

    @property
    def rivals(self) -> list[str]:
        """The names of all that were timed beside the scorer."""
        return list(self.found[0]["works"][0]["rivals"])

    @property
    def works(self) -> list[Work]:
        """The works, in the order that they were given."""
        return [Work(work["train"], work["validation"]) for work in self.found[0]["works"]]

    @property
    def growing_train(self) -> list[Work]:
        """The works with as many validation samples as the first."""
        return [work for work in self.works if work.validation == self.works[0].validation]

    @property
    def growing_validation(self) -> list[Work]:
        """The works with one number of training samples: that of which there are the most."""
        trains = [work.train for work in self.works]
        most = max(trains, key=trains.count)
        return [work for work in self.works if work.train == most]

    def all(self, name: str, what: str) -> list[float]:
        """Return a number of a rival on all works under all seeds; nothing where it was not run or has none."""
        return [value for work in self.works for value in self.values(name, work, what)]

    def values(self, name: str, work: Work, what: str) -> list[float]:
        """Return a number of a rival on one work, by seed."""
        place = self.works.index(work)
        each = (found["works"][place]["rivals"].get(name, {}).get(what) for found in self.found)
        return [value for value in each if value is not None]

    def own(self, work: Work) -> Mean:
        """Return the seconds of the scorer itself."""
        place = self.works.index(work)
        return geometric([found["works"][place]["seconds"] for found in self.found])

    def seconds(self, name: str, work: Work) -> Mean | None:
        """Return the seconds of a rival, or under another name of the scorer itself; None where it was not run."""
        if name not in self.rivals:
            return self.own(work)
        values = self.values(name, work, "seconds")
        return geometric(values) if values else None

    def factor(self, name: str, work: Work) -> Mean | None:
        """Return how many times as long as the scorer a rival takes; None where it was not run."""
        values = self.values(name, work, "factor") if work in self.works else []
        return geometric(values) if values else None

    def numbers(self, own: str) -> pd.DataFrame:
        """Return all factors in plain numbers, those of the scorer itself under the name `own`."""
        rows = []
        for work in self.works:
            for name in (own, *self.rivals):
                factor = Mean(1, 1, 1, self.count) if name == own else self.factor(name, work)
                seconds = self.seconds(name, work)
                if factor and seconds:
                    ends = {"low": factor.low, "high": factor.high} if factor.judgeable else {}
                    sizes = {"train": work.train, "validation": work.validation}
                    numbers = {"seconds": seconds.mean, "factor": factor.mean, **ends, "seeds": factor.count}
                    rows.append({"scorer": name, **sizes, **numbers})
        return pd.DataFrame(rows)

    def cell(self, name: str, work: Work) -> str:
        """Return a factor as a table shows it; of one that was run under some seeds, under how many."""
        factor = self.factor(name, work)
        if factor is None:
            return "not run"
        few = f", {factor.count} of {self.count} seeds" if factor.count < self.count else ""
        return said(factor) + few


def said(found: Mean) -> str:
    """Return '310 (300 to 320)'; without the interval where there is one value."""
    interval = f" ({number(found.low)} to {number(found.high)})" if found.judgeable else ""
    return number(found.mean) + interval


def number(value: float) -> str:
    """Return a number above 0 in two or three digits: '1,240', '310', '31.0', '3.10', '0.031'."""
    if value >= 100:
        return f"{float(f'{value:.3g}'):,.0f}"
    return f"{value:.3g}" if value >= 1 else f"{value:.2g}"


def spoken(work: Work) -> str:
    """Return '256 training and 64 validation samples'."""
    return f"{work.train:,} training and {work.validation:,} validation samples"
