"""Settings beside a rival by a metric: paired by seed, tested, corrected for their number, in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf

import numpy as np

from defense.reporting.arms import lookup
from defense.reporting.exports import Text
from defense.reporting.frame import Setting, by, identity
from defense.reporting.statistics import ALPHA, Mean, Paired, compared, holm, mean_interval, points

CONTROL, BASELINE, DEFENDED = "control", "baseline", "defended"


@dataclass(frozen=True)
class Metric:
    """A number of a result that settings are compared by."""

    path: str  # its dotted name in an arm, or in the result if `arms` is False
    name: str  # in words
    unit: str = "%"
    over: str = CONTROL  # the rival: an arm of the same run; without arms, a scorer of the same sweep
    arms: bool = True
    lower_is_better: bool = False
    decimals: int = 1
    limits: tuple[float, float] = (-inf, inf)  # of its values, which no interval leaves
    signed: bool = False  # its values have a sign, as correlations
    within: str = ""  # the field of a setting whose values are comparable; else its group, or where it was swept

    @property
    def heading(self) -> str:
        """The name with the unit: 'accuracy, %'."""
        return f"{self.name}, {self.unit}" if self.unit else self.name

    def group_of(self, setting: Setting) -> str:
        """Return the comparison group of a setting: one group is comparable."""
        group: str = getattr(setting, self.within or ("group" if self.arms else "where"))
        return group

    @property
    def step(self) -> str:
        """The unit of differences."""
        return "points" if self.unit in ("%", "points") else ""

    @property
    def sign(self) -> int:
        """-1 if lower is better."""
        return -1 if self.lower_is_better else 1

    def values(self, setting: Setting, arm: str = DEFENDED) -> list[float]:
        """Return the values of a setting by run: of an arm, or of the results."""
        if self.arms:
            return setting.values(arm, self.path)
        return [lookup(run, self.path) for run in setting.runs]

    def mean(self, setting: Setting, arm: str = DEFENDED) -> Mean:
        """Return the mean over seeds with its interval, within the limits of the metric."""
        return mean_interval(self.values(setting, arm)).within(*self.limits)

    def text(self, mean: Mean | None) -> str:
        """Return a mean of values with its interval, as a cell: '0.912 (0.901 to 0.923)'."""
        return "-" if mean is None else Text(mean.text(self.decimals, signed=self.signed), value=mean.mean)

    def change(self, mean: Mean | None) -> str:
        """Return a mean difference with its interval, as a cell: '+5.2 (+1.3 to +9.1)'."""
        return "-" if mean is None else Text(mean.text(self.decimals), value=mean.mean)


@dataclass(frozen=True)
class Comparison:
    """A setting beside its rival by one metric."""

    setting: Setting
    metric: Metric
    over: str  # the rival
    pair: Paired | None  # the setting - the rival, by seed; None without a rival
    holm: float | None  # of pair.t, corrected over all settings that have one; None if it is not judged
    best: bool = False  # the best of its comparison group, and better than its rival

    @property
    def gain(self) -> float:
        """The mean difference, above 0 if it is one for the better."""
        return 0.0 if self.pair is None else self.metric.sign * self.pair.difference.mean

    @property
    def difference(self) -> Mean | None:
        """The mean difference with its interval; None without a rival."""
        return None if self.pair is None else self.pair.difference

    @property
    def differs(self) -> bool:
        """Whether the setting is called better or worse than its rival."""
        return self.holm is not None and self.holm < ALPHA

    @property
    def better(self) -> bool:
        """Whether the setting is called better than its rival."""
        return self.differs and self.gain > 0

    @property
    def word(self) -> str:
        """The judgement in a word or three."""
        if self.pair is None:
            return "-"
        if self.setting.inconclusive:
            return f"not judged: {self.setting.inconclusive}"
        if self.holm is None:
            return "not judged: one seed" if self.pair.difference.count < 2 else "not judged: no spread"
        if not self.differs:
            return "not distinguishable"
        return "best" if self.best else "better" if self.better else "worse"

    @property
    def judgement(self) -> Text:
        """The judgement as a cell."""
        return Text(self.word, tone=self.word if self.holm is not None else "unjudged")

    @property
    def told(self) -> str:
        """The setting with its difference and judgement: 'ip, remove +1.2 (+0.3 to +2.1; better)'."""
        if self.pair is None:
            return self.setting.name
        mean = self.pair.difference
        text = mean.text(self.metric.decimals)
        return f"{self.setting.name} " + (
            f"{text[:-1]}; {self.word})" if mean.judgeable else f"{text} ({self.word})"
        )


def compare(settings: Sequence[Setting], metric: Metric, over: str = "") -> list[Comparison]:
    """Return every setting beside its rival: paired t over seeds, after Holm's correction over all of them.

    over: another rival than the metric's own. A setting of which nothing can be said, as if nothing was learned,
    is not judged. In every comparison group the setting with the best mean of those judged, chance and perfect
    knowledge aside, is called best if it is better than the metric's own rival; if it is not, none is.
    """
    over = over or metric.over
    pairs = [pair_of(setting, settings, metric, over) for setting in settings]
    judged = [
        None if setting.inconclusive or pair is None else pair.t
        for setting, pair in zip(settings, pairs, strict=True)
    ]
    rows = [
        Comparison(setting, metric, over, pair, p)
        for setting, pair, p in zip(settings, pairs, holm(judged), strict=True)
    ]
    best = {id(row) for row in highest_of(rows).values() if row.better and over == metric.over}
    return [replace(row, best=id(row) in best) for row in rows]


def pair_of(setting: Setting, settings: Sequence[Setting], metric: Metric, over: str) -> Paired | None:
    """Return a setting beside its rival, paired by seed; None without a rival.

    Without arms the rival is the one setting of the scorer `over` that differs in nothing else: neither in device,
    nor in versions, nor in the objective if both scorers read it. A rival has none itself.
    """
    if metric.arms:
        there = setting.has(metric.path, over)
        return compared(metric.values(setting), metric.values(setting, over)) if there else None
    rivals = [
        one for one in settings if one.scorer.removesuffix(one.mark) == over and differ_in_scorer(one, setting)
    ]
    if len(rivals) != 1 or rivals[0] is setting:
        return None
    own, other = (dict(zip(one.seeds, metric.values(one), strict=True)) for one in (setting, rivals[0]))
    seeds = [seed for seed in own if seed in other]
    return compared([own[seed] for seed in seeds], [other[seed] for seed in seeds]) if seeds else None


def differ_in_scorer(first: Setting, second: Setting) -> bool:
    """Return whether settings differ in their scorer alone, or also in an objective that one does not read."""
    one, other = (identity(setting.runs[0]) for setting in (first, second))
    unread = {"scorer"} | ({"objective"} if None in (one["objective"], other["objective"]) else set())
    return all(one[name] == other[name] for name in one.keys() | other.keys() if name not in unread)


def mean_difference(settings: Sequence[Setting], metric: Metric, over: str = "") -> Mean:
    """Return the mean difference over settings, with its interval over the seeds that all of them have."""
    by_seed: dict[int, list[float]] = {}
    for setting in settings:
        own, others = (metric.values(setting, arm) for arm in (DEFENDED, over or metric.over))
        for seed, first, second in zip(setting.seeds, own, others, strict=True):
            by_seed.setdefault(seed, []).append(points(first - second))
    return mean_interval([float(np.mean(values)) for values in by_seed.values() if len(values) == len(settings)])


def real(rows: Sequence[Comparison]) -> list[Comparison]:
    """Return rows without chance and perfect knowledge, unless there is nothing else."""
    return [row for row in rows if not row.setting.is_rival] or list(rows)


def judged(rows: Sequence[Comparison]) -> list[Comparison]:
    """Return the real rows that are judged."""
    return [row for row in real(rows) if row.holm is not None]


def highest_of(rows: Sequence[Comparison]) -> dict[str, Comparison]:
    """Return, by comparison group, the row with the best mean value of those judged, and of the rival's own."""
    rivals = [row for row in real(rows) if not row.metric.arms and not row.setting.inconclusive]
    groups = by(rivals or judged(rows), lambda row: row.metric.group_of(row.setting))
    return {
        name: max(own, key=lambda row: row.metric.sign * row.metric.mean(row.setting).mean)
        for name, own in groups.items()
    }


def tally(rows: Sequence[Comparison]) -> tuple[int, int]:
    """Return how many rows are called better than their rival, and how many worse."""
    better = sum(row.better for row in rows)
    return better, sum(row.differs for row in rows) - better
