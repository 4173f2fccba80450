"""What settings gain by one protocol or another: each of them with its p-value, and in the mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from defense.choices import Protocol, Way
from defense.reporting.settings import Setting
from defense.reporting.significance import Paired, compared, holm
from defense.reporting.statistics import ALPHA, Mean, mean_interval

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


@dataclass(frozen=True)
class Gains:
    """The gains of all settings by one column, with p-values corrected over them."""

    pairs: dict[str, Paired]  # by the label of the setting
    holm: dict[str, float | None]

    @classmethod
    def of(cls, settings: Sequence[Setting], column: Column) -> Gains:
        """Return the gains of `settings` by `column`, means over shares."""
        pairs = {setting.label: paired(setting, column) for setting in settings}
        corrected = holm([pair.t for pair in pairs.values()])
        return cls(pairs, dict(zip(pairs, corrected, strict=True)))

    def different(self, setting: Setting) -> bool:
        """Whether a setting is called better or worse."""
        p = self.holm[setting.label]
        return p is not None and p < ALPHA

    def counted(self, settings: Sequence[Setting]) -> str:
        """Return '3 better, 1 worse'."""
        found = [self.pairs[one.label].difference.mean > 0 for one in settings if self.different(one)]
        return f"{sum(found)} better, {len(found) - sum(found)} worse"


def paired(setting: Setting, column: Column, share: str = MEAN) -> Paired:
    """Return what the defended arm of a setting gains by one column."""
    key = f"{column.key}.{share}"
    return compared(setting.values("defended", key), setting.values(column.over, key))


def together(settings: Sequence[Setting], column: Column, share: str = MEAN) -> Mean:
    """Return the mean gain over settings, with its interval over the seeds that they share."""
    by_seed: dict[int, list[float]] = {}
    for setting in settings:
        key = f"{column.key}.{share}"
        own, others = setting.values("defended", key), setting.values(column.over, key)
        for run, first, second in zip(setting.runs, own, others, strict=True):
            by_seed.setdefault(run["seed"], []).append(first - second)
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
