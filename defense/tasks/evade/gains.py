"""What settings gain by one protocol or another: each of them judged, and in the mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from defense.config.choices import Protocol, Way
from defense.reporting.judging import Compared
from defense.reporting.settings import Setting
from defense.reporting.statistics import Mean, mean_interval, points

MEAN = "mean"  # over the shares


@dataclass(frozen=True)
class Column:
    """One way to say what a treatment gains: by which protocol, measured how, over which arm."""

    name: str
    protocol: Protocol  # that it is scored by
    way: Way  # in which the moved points were moved
    over: str

    @property
    def key(self) -> str:
        """The name that its accuracies have in a result, before the share."""
        return f"{self.protocol}_{self.way}"

    def measure(self, share: str = MEAN) -> str:
        """Return the name that its accuracy has in a result at one share of moved points, or over all."""
        return f"{self.key}.{share}"


PUBLISHED = Column("published, over untreated", Protocol.published, Way.frozen, "baseline")
BOUNDED = Column("strict, bounded", Protocol.strict, Way.bounded, "control")
UNBOUNDED = Column("strict, unbounded", Protocol.strict, Way.adaptive, "control")
COLUMNS = (
    PUBLISHED,
    Column("published, over random", Protocol.published, Way.frozen, "control"),
    Column("disjoint validation", Protocol.strict, Way.frozen, "control"),
    BOUNDED,
    UNBOUNDED,
    Column("clean", Protocol.strict, Way.clean, "control"),
)


ByColumn = dict[Column, dict[str, Compared]]  # and by the label of the setting


def by_column(settings: Sequence[Setting]) -> ByColumn:
    """Return every setting, by its label, judged by every column: means over shares, corrected within a column."""
    return {
        column: {row.setting.label: row for row in Compared.all(settings, column.measure(), over=column.over)}
        for column in COLUMNS
    }


def together(settings: Sequence[Setting], column: Column, share: str = MEAN) -> Mean:
    """Return the mean gain over settings, with its interval over the seeds that they share."""
    by_seed: dict[int, list[float]] = {}
    for setting in settings:
        own, others = (setting.values(arm, column.measure(share)) for arm in ("defended", column.over))
        for run, first, second in zip(setting.runs, own, others, strict=True):
            by_seed.setdefault(run["seed"], []).append(points(first - second))
    whole = [values for values in by_seed.values() if len(values) == len(settings)]
    return mean_interval([float(np.mean(values)) for values in whole])


def real(settings: Sequence[Setting]) -> list[Setting]:
    """Return settings without chance and perfect knowledge, unless there is nothing else."""
    return [setting for setting in settings if not setting.is_rival] or list(settings)


def of_same_seeds(settings: Sequence[Setting]) -> list[Setting]:
    """Return the settings that means are over: those that have all seeds of one of them, so as to be most runs."""
    seeds = {setting.label: {run["seed"] for run in setting.runs} for setting in settings}
    sharing = ([one for one in settings if seeds[one.label] >= own] for own in seeds.values())
    return max(sharing, key=lambda alike: len(alike) * len(set.intersection(*(seeds[one.label] for one in alike))))
