"""Which settings differ from another arm by more than chance, with as many looked at as a page has."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from defense.config.choices import Method
from defense.reporting.settings import WORST, Setting
from defense.reporting.significance import Paired, compared, holm
from defense.reporting.statistics import ALPHA


@dataclass(frozen=True)
class Compared:
    """A setting by one measure: its defended arm beside another, paired by seed."""

    setting: Setting
    measure: str  # the name that the arms of a result have it under
    over: str  # the other arm
    sign: int  # -1 where lower is better
    pair: Paired  # defended - the other arm
    holm: float | None  # of pair.t, corrected over all settings that have one

    @classmethod
    def all(
        cls, settings: Sequence[Setting], measure: str, *, over: str = "control", lower_is_better: bool = False
    ) -> list[Compared]:
        """Return every setting beside the arm `over`: paired t over seeds, Holm's correction over all of them.

        A setting of which nothing can be said, as where nothing was learned, is not judged.
        """
        pairs = [over_arm(setting, measure, over) for setting in settings]
        rows = zip(settings, pairs, corrected(settings, pairs), strict=True)
        return [
            Compared(setting, measure, over, -1 if lower_is_better else 1, pair, p) for setting, pair, p in rows
        ]

    @property
    def baseline(self) -> Paired:
        """Defended - baseline, not judged here."""
        return over_arm(self.setting, self.measure, "baseline")

    @property
    def differs(self) -> bool:
        """Whether the setting is called better or worse than the other arm."""
        return self.holm is not None and self.holm < ALPHA

    @property
    def gain(self) -> float:
        """Defended - the other arm, above zero where it is one for the better."""
        return self.sign * self.pair.difference.mean

    @property
    def better(self) -> bool:
        """Whether the setting is called better than the other arm."""
        return self.differs and self.gain > 0

    @property
    def word(self) -> str:
        """The judgement in a word or three."""
        if self.setting.inconclusive:
            return f"not judged: {self.setting.inconclusive}"
        if self.holm is None:
            return "not judged: one seed" if self.pair.difference.count < 2 else "not judged: no spread"
        if not self.differs:
            return "not distinguishable"
        return "better" if self.better else "worse"

    @property
    def told(self) -> str:
        """The setting with its gain and what is said of it: 'ip, remove +1.2 (+0.3 to +2.1; better)'."""
        found = self.pair.difference
        ends = f"{found.low:+.1f} to {found.high:+.1f}; " if found.judgeable else ""
        return f"{self.setting.name} {found.mean:+.1f} ({ends}{self.word})"


@dataclass(frozen=True)
class Judgement(Compared):
    """A setting by adaptive accuracy at worst."""

    baseline_holm: float | None  # of baseline.t
    best: bool = False  # the highest of its ground, and better than its control

    @property
    def word(self) -> str:
        """The judgement in a word or three."""
        return "best" if self.best else super().word


def corrected(settings: Sequence[Setting], pairs: Sequence[Paired]) -> list[float | None]:
    """Return the p-values of settings that can be judged, by Student's t after Holm's correction over them."""
    both = zip(settings, pairs, strict=True)
    return holm([None if setting.inconclusive else pair.t for setting, pair in both])


def over_arm(setting: Setting, measure: str, arm: str) -> Paired:
    """Return the defended arm of a setting beside another by one measure, paired by seed."""
    return compared(setting.values("defended", measure), setting.values(arm, measure))


def judge(settings: Sequence[Setting]) -> list[Judgement]:
    """Return a judgement of every setting: paired t over seeds, Holm's correction over all that have a p-value.

    On every ground the setting of the highest mean accuracy among those judged, chance and perfect knowledge
    aside, is the best if it is better than its control; if it is not, none is.
    """
    rows = Compared.all(settings, WORST)
    beside = corrected(settings, [row.baseline for row in rows])
    judgements = [Judgement(**vars(row), baseline_holm=p) for row, p in zip(rows, beside, strict=True)]
    highest = {id(top) for top in highest_of(judgements).values() if top.better}
    return [replace(judgement, best=id(judgement) in highest) for judgement in judgements]


def highest_of(judgements: Sequence[Judgement]) -> dict[str, Judgement]:
    """Return, by ground, the judged setting whose defended arm has the highest mean accuracy."""
    highest: dict[str, Judgement] = {}
    for judgement in counted(judgements):
        known = highest.setdefault(judgement.setting.ground, judgement)
        if accuracy(judgement.setting) > accuracy(known.setting):
            highest[judgement.setting.ground] = judgement
    return highest


def accuracy(setting: Setting) -> float:
    """Return the mean adaptive accuracy of the defended arm, in percent."""
    values = setting.values("defended", WORST)
    return sum(values) / len(values)


def counted(judgements: Sequence[Judgement]) -> list[Judgement]:
    """Return the judgements with a p-value; chance and perfect knowledge alone where there is nothing else."""
    real = [judgement for judgement in judgements if not judgement.setting.is_rival]
    return [judgement for judgement in real or judgements if judgement.holm is not None]


def answer(judgements: Sequence[Judgement]) -> str:
    """Return how many settings are better than random and how many worse, and the best or the highest one."""
    tested = counted(judgements)
    if not tested:
        return f"{why_unjudged(judgements)}."
    better, worse = tally(tested)
    aside = dict.fromkeys(j.setting.method for j in judgements if j.setting.is_rival)
    left = "" if all(judgement.setting.is_rival for judgement in judgements) else " and ".join(aside)
    said = how_many(len(tested), better, worse, rival_of(tested))
    said += f" ({left} not counted)" if left else ""
    rows = sum(judgement.holm is not None for judgement in judgements)
    said += f", corrected for {rows} comparisons (Holm)" if rows > 1 else ""
    return " ".join(filter(None, (f"{said}.", best_of(judgements))))


def how_many(count: int, better: int, worse: int, rival: str) -> str:
    """Return how many settings are better than a rival and how many worse, a sentence without its end."""
    if count == 1:
        outcome = "better than" if better else "worse than" if worse else "not distinguishable from"
        return f"The treatment is {outcome} {rival}"
    if not better and not worse:
        return f"None of {count} settings is distinguishable from {rival}"
    said = f"{better} of {count} settings {'is' if better == 1 else 'are'} better than {rival}"
    return f"{said}, {worse} worse" if worse else said


def rival_of(judgements: Sequence[Judgement]) -> str:
    """Return what the settings are compared with, in words: 'random removal' if all of them remove samples."""
    rivals = {judgement.setting.rival for judgement in judgements}
    return rivals.pop() if len(rivals) == 1 else "their random controls"


def tally(rows: Sequence[Compared]) -> tuple[int, int]:
    """Return how many rows are called better than the other arm, and how many worse."""
    better = sum(row.better for row in rows)
    return better, sum(row.differs for row in rows) - better


def why_unjudged(rows: Sequence[Compared]) -> str:
    """Return why none of some rows is judged."""
    reasons = dict.fromkeys(row.setting.inconclusive for row in rows)
    if all(reasons):
        return f"No setting can be judged: {' or '.join(reasons)}"
    if all(row.pair.difference.count < 2 for row in rows):
        return "One seed: the intervals that a judgement needs are over seeds, as in seed=range(5)"
    return "No setting can be judged: its seeds give one gain or no second one; more seeds would tell"


def by_luck(rows: Sequence[Compared]) -> str:
    """Return which random scores are called better or worse than their random control; nothing where none is."""
    return luck([row.told for row in rows if row.differs and row.setting.method == Method.random.value])


def luck(said: Sequence[str]) -> str:
    """Return what a page says where random scores, each in words, are called different from a random control."""
    if not said:
        return ""
    return f"Random scores, too, are called different from a random control, by luck alone: {'; '.join(said)}."


def caveat(judgements: Sequence[Judgement]) -> str:
    """Return what the answer rests on: what chance alone would do, what is not judged, what is shared."""
    parts = [unjudged(judgements)] if counted(judgements) else []
    if sum(judgement.holm is not None for judgement in judgements) > 1:
        parts.append(
            "Were all settings as good as random, at most one such page in twenty would call any different."
        )
    parts += [by_luck(judgements), *shared_control([judgement.setting for judgement in judgements])]
    return " ".join(filter(None, parts))


def best_of(judgements: Sequence[Judgement]) -> str:
    """Return the setting with the highest accuracy beside no treatment, on each of at most three grounds."""
    highest = highest_of(judgements)
    if len({judgement.setting.ground for judgement in judgements}) > 3:
        return ""
    return " ".join(told_highest(top, alone=len(highest) == 1) for top in highest.values())


def told_highest(top: Judgement, *, alone: bool) -> str:
    """Return the highest setting of a ground: its accuracy, its gain, and what stands without any treatment."""
    setting, gain = top.setting, top.setting.gain()
    where = "" if alone or not setting.place else f" of {setting.place}"
    word = f"Best{where}" if top.better else f"Highest{where}, perhaps by chance"
    untreated = setting.values("baseline", WORST)
    return (
        f"{word}: {setting.name} at {accuracy(setting):.1f} %, {gain.mean:+.1f} points over {setting.rival} "
        f"({gain.low:+.1f} to {gain.high:+.1f}); {sum(untreated) / len(untreated):.1f} % without treatment."
    )


def unjudged(judgements: Sequence[Judgement]) -> str:
    """Return how many settings are not judged, and why; nothing where all are."""
    reasons = Counter(reason for judgement in judgements if (reason := judgement.setting.inconclusive))
    others = [judgement for judgement in judgements if not judgement.setting.inconclusive]
    single = sum(judgement.pair.difference.count < 2 for judgement in others)
    flat = sum(judgement.holm is None for judgement in others) - single
    said = [f"{single} of one seed" if single else "", f"{flat} with the same gain in every seed" if flat else ""]
    said += [f"{count}, as {reason}" for reason, count in reasons.items()]
    return f"Not judged: {' and '.join(filter(None, said))}." if any(said) else ""


def shared_control(settings: Sequence[Setting]) -> list[str]:
    """Return a line where settings of one column have one control: one whose accuracies are all the same."""
    controls = [
        (setting.column, run["seed"], json.dumps(run["arms"]["control"], sort_keys=True))
        for setting in settings
        for run in setting.runs
    ]
    said = "Settings share one random control for each seed: its luck is in all of their rows."
    return [said] if len(set(controls)) < len(controls) else []
