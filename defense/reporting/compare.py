"""Settings beside a rival by a metric: paired by seed, tested, corrected for their number, in words."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf

import numpy as np

from defense.config.choices import Method
from defense.reporting.arms import lookup
from defense.reporting.exports import Text
from defense.reporting.frame import Setting, by
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

    @property
    def heading(self) -> str:
        """The name with the unit: 'accuracy, %'."""
        return f"{self.name}, {self.unit}" if self.unit else self.name

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
    """Return a setting beside its rival, paired by seed; None if there is no rival, or it is itself one."""
    if metric.arms:
        return (
            compared(metric.values(setting), metric.values(setting, over))
            if setting.has(metric.path, over)
            else None
        )
    rivals = [other for other in settings if other.scorer == over and other.where == setting.where]
    if not rivals or rivals[0] is setting:
        return None
    own, other = (dict(zip(one.seeds, metric.values(one), strict=True)) for one in (setting, rivals[0]))
    seeds = [seed for seed in own if seed in other]
    return compared([own[seed] for seed in seeds], [other[seed] for seed in seeds]) if seeds else None


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
    """Return, by comparison group, the judged row with the best mean value."""
    groups = by(judged(rows), lambda row: row.setting.group)
    return {
        name: max(own, key=lambda row: row.metric.sign * row.metric.mean(row.setting).mean)
        for name, own in groups.items()
    }


def tally(rows: Sequence[Comparison]) -> tuple[int, int]:
    """Return how many rows are called better than their rival, and how many worse."""
    better = sum(row.better for row in rows)
    return better, sum(row.differs for row in rows) - better


def rival_of(rows: Sequence[Comparison]) -> str:
    """Return the rival in words: 'random removal' if all settings remove samples."""
    if not rows[0].metric.arms:
        return rows[0].over
    if rows[0].over == BASELINE:
        return "no treatment"
    rivals = {row.setting.control for row in rows}
    return rivals.pop() if len(rivals) == 1 else "their random controls"


def answer(rows: Sequence[Comparison]) -> str:
    """Return how many settings are better than their rival and how many worse, and the best or the highest."""
    tested = judged(rows)
    if not tested:
        return " ".join(filter(None, (f"{why_unjudged(real(rows))}.", known(real(rows)))))
    text = how_many(tested)
    aside = dict.fromkeys(row.setting.method for row in rows if row.setting.is_rival and row not in tested)
    text += f" ({' and '.join(aside)} not counted)" if aside else ""
    corrected = sum(row.holm is not None for row in rows)
    text += f", corrected for {corrected} comparisons (Holm)" if corrected > 1 else ""
    return " ".join(filter(None, (f"{text}.", best_of(rows))))


def how_many(rows: Sequence[Comparison]) -> str:
    """Return how many settings are better than their rival and how many worse, a sentence without its end."""
    count, rival, (better, worse) = len(rows), rival_of(rows), tally(rows)
    noun = "setting" if rows[0].metric.arms else "scorer"
    if count == 1:
        outcome = "better than" if better else "worse than" if worse else "not distinguishable from"
        return f"{'The treatment' if noun == 'setting' else rows[0].setting.row} is {outcome} {rival}"
    if not better and not worse:
        return f"None of {count} {noun}s is distinguishable from {rival}"
    text = f"{better} of {count} {noun}s {'is' if better == 1 else 'are'} better than {rival}"
    return f"{text}, {worse} worse" if worse else text


def best_of(rows: Sequence[Comparison]) -> str:
    """Return the setting with the best value beside no treatment, in each of at most three comparison groups."""
    highest = highest_of(rows)
    if len({row.setting.group for row in rows}) > 3:
        return ""
    alone = len(highest) == 1
    if better := name_better(rows, but=[*highest.values()]):
        return " ".join([better, *(tell(top, tell_place(top, alone=alone)) for top in highest.values())])
    if alone and len(judged(rows)) == 1:
        return " ".join(tell(top, f"{top.setting.name} reaches") for top in highest.values())
    return " ".join(tell(top, tell_place(top, alone=alone)) for top in highest.values())


def name_better(rows: Sequence[Comparison], but: Sequence[Comparison], *, shown: int = 3) -> str:
    """Return the settings that are better than their rival if none of them has the best value; at most `shown`."""
    better = [row for row in judged(rows) if row.better]
    if not better or any(row in better for row in but):
        return ""
    more = f" and {len(better) - shown} more" if len(better) > shown else ""
    return f"Better: {'; '.join(f'{row.setting.name} {row.difference}' for row in better[:shown])}{more}."


def tell_place(top: Comparison, *, alone: bool) -> str:
    """Return 'Best: ip at', or 'Highest, perhaps by chance: ip at' if it is not better than its rival."""
    where = "" if alone or not top.setting.place else f" of {top.setting.place}"
    extreme = "Lowest" if top.metric.lower_is_better else "Highest"
    return f"{f'Best{where}' if top.better else f'{extreme}{where}, perhaps by chance'}: {top.setting.name} at"


def tell(row: Comparison, subject: str) -> str:
    """Return the value of a setting, its gain with interval, and the value without any treatment, a sentence."""
    setting, metric, gain = row.setting, row.metric, row.difference
    assert gain is not None
    value = f"{metric.mean(setting).mean:.{metric.decimals}f} {metric.unit}".rstrip()
    mean, _, ends = gain.text(metric.decimals).partition(" (")
    step = f"{mean} {metric.step}".rstrip()
    text = f"{subject} {value}, {step} over {rival_of([row])}"
    text += f" (95 % interval over {gain.count} seeds: {ends}" if ends else ""
    if not metric.arms:
        return f"{text}."
    return f"{text}; {metric.mean(setting, BASELINE).mean:.{metric.decimals}f} {metric.unit} without treatment."


def known(rows: Sequence[Comparison], *, shown: int = 3) -> str:
    """Return the differences of conclusive rows that cannot be judged, at most `shown`; nothing without any."""
    told = [
        f"{row.setting.name} {row.pair.difference.mean:+.{row.metric.decimals}f}"
        for row in rows
        if row.pair and not row.setting.inconclusive
    ]
    more = f" and {len(told) - shown} more" if len(told) > shown else ""
    from_what = ", ".join(filter(None, (f"Differences from {rival_of(rows)}", rows[0].metric.step)))
    return f"{from_what}: {'; '.join(told[:shown])}{more}." if told else ""


def why_unjudged(rows: Sequence[Comparison]) -> str:
    """Return why none of some rows is judged."""
    reasons = dict.fromkeys(row.setting.inconclusive for row in rows)
    if all(reasons):
        return f"No setting can be judged: {' or '.join(reasons)}"
    if all(row.pair is None or row.pair.difference.count < 2 for row in rows):
        return "One seed: the intervals that a judgement needs are over seeds, as in seed=range(5)"
    return "No setting can be judged: its seeds give one gain or no second one; more seeds would tell"


def caveat(rows: Sequence[Comparison]) -> str:
    """Return what the answer rests on: chance alone, settings that are not judged, shared controls."""
    parts = [unjudged(rows)] if judged(rows) else []
    if sum(row.holm is not None for row in rows) > 1:
        parts.append("If no setting differed from random, at most 5 % of such pages would report a difference.")
    parts += [by_luck(rows), *shared_control([row.setting for row in rows])]
    return " ".join(filter(None, parts))


def unjudged(rows: Sequence[Comparison]) -> str:
    """Return how many settings are not judged, and why; nothing if all are."""
    reasons = Counter(reason for row in rows if (reason := row.setting.inconclusive))
    others = [row for row in rows if row.pair is not None and not row.setting.inconclusive]
    single = sum(row.pair.difference.count < 2 for row in others if row.pair)
    flat = sum(row.holm is None for row in others) - single
    parts = [f"{single} of one seed" if single else "", f"{flat} with the same gain in every seed" if flat else ""]
    parts += [f"{count}, as {reason}" for reason, count in reasons.items()]
    return f"Not judged: {' and '.join(filter(None, parts))}." if any(parts) else ""


def by_luck(rows: Sequence[Comparison]) -> str:
    """Return which random scores are called better or worse than their random control; nothing if none is."""
    told = [
        f"{row.told} by {row.metric.name}"
        for row in rows
        if row.over == CONTROL and row.differs and row.setting.method == Method.random.value
    ]
    if not told:
        return ""
    return f"Random scores, too, are called different from a random control, by luck alone: {'; '.join(told)}."


def shared_control(settings: Sequence[Setting]) -> list[str]:
    """Return a line if settings of one column have one control: one whose accuracies are all the same."""
    controls = [
        (setting.column, run["seed"], json.dumps(run["arms"][CONTROL], sort_keys=True))
        for setting in settings
        for run in setting.runs
    ]
    text = "Settings share one random control for each seed: its luck is in all of their rows."
    return [text] if len(set(controls)) < len(controls) else []
