"""How much of a gain under evasion survives: the published protocol beside a strict one, over one run or many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from defense.reporting.charts import steps
from defense.reporting.comparing import knobs_shown, settings_by
from defense.reporting.exports import Text
from defense.reporting.record import Evaded
from defense.reporting.result import common, selection
from defense.reporting.settings import Setting, facts_of, settings_of, treated
from defense.reporting.sheet import Part, Sheet
from defense.reporting.significance import Paired, compared, holm
from defense.reporting.statistics import ALPHA, Mean, mean_interval, p_value
from defense.reporting.sweeps import Result, command_of, made_of

MEAN = "mean"  # over the shares


@dataclass(frozen=True)
class Column:
    """One way to say what a treatment gains: by which protocol, measured how, over which arm."""

    name: str
    protocol: str  # that it is scored by
    way: str  # in which the moved points were moved; clean: nothing is moved
    over: str

    @property
    def key(self) -> str:
        """The name that its accuracies have in a result, before the share."""
        return f"{self.protocol}_{self.way}"


COLUMNS = (
    Column("published, over the untreated", "published", "frozen", "baseline"),
    Column("published, over random", "published", "frozen", "control"),
    Column("disjoint validation, frozen", "strict", "frozen", "control"),
    Column("strict, bounded", "strict", "bounded", "control"),
    Column("strict, as far as it takes", "strict", "adaptive", "control"),
    Column("clean", "strict", "clean", "control"),
)
PUBLISHED, BOUNDED, STRICT = COLUMNS[0], COLUMNS[3], COLUMNS[4]
ANEW = ("bounded", "adaptive")  # ways of an attacker who knows the model, and leaves alone what it has wrong
ABOUT = (
    "Gains in points of accuracy on test, of which a share is moved across the boundary; means over shares "
    "and seeds, in brackets 95 % intervals over seeds. Published: the attacked test set is the validation set "
    "that samples are scored by, and the attack stays the one made at the undefended model; such gains are "
    "over the untreated model. Disjoint validation: scored by a validation set, attacked as test is. Strict: "
    "and the attack is made anew at the model that is measured; bounded: no point goes farther than the "
    "median validation point had to at the undefended model. What the model has wrong is left where it is: the "
    "published attack moves such points too, to the right side. Over random: over as many samples treated at "
    "random. An attack that goes as far as it takes leaves no moved point right, so what it leaves is decided "
    "by clean accuracy alone."
)


def evaded_result(run: Evaded) -> dict[str, Any]:
    """Return what result.json holds: accuracies in percent by arm, protocol, way and share, and their mean."""
    arms: dict[str, dict[str, dict[str, float]]] = {}
    for (share, protocol), tables in run.tables.items():
        for arm, table in tables.items():
            for way in ("clean", "frozen", "bounded", "adaptive"):
                moved = run.chosen[share] & (way != "clean")
                after = table[way] & table["clean"] if way in ANEW else table[way]
                right = np.where(moved, after, table["clean"])
                own = arms.setdefault(arm, {}).setdefault(f"{protocol}_{way}", {})
                own[said(share)] = 100 * float(right.mean())
    for ways in arms.values():
        for shares in ways.values():
            shares[MEAN] = float(np.mean(list(shares.values())))
    nothing = np.zeros(len(run.scores), dtype=bool)
    return {"arms": arms, "selection": selection(run, nothing), **common(run)}


def said(share: float) -> str:
    """Return a share in percent, without a dot: '5', '12_5'."""
    return f"{100 * share:g}".replace(".", "_")


def evaded_sheet(results: Sequence[Result], title: str) -> Sheet:
    """Return the page: every setting's gain by both protocols side by side, share by share, and what survives."""
    settings = settings_of(results)
    real = [setting for setting in settings if not setting.is_rival] or settings
    gains = {column: Gains.of(settings, column) for column in COLUMNS}
    parts = [survival(real), *charts(settings), by_share(real), *tables(settings, gains)]
    return Sheet(
        f"{title}: how much of a gain survives a strict protocol?",
        answer(real, gains),
        command_of(results),
        parts,
        made_of(results),
        facts=[ABOUT, *facts_of(settings, treated)],
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

    def differs(self, setting: Setting, *, better: bool) -> bool:
        """Whether a setting is called better, or worse."""
        p = self.holm[setting.label]
        return p is not None and p < ALPHA and (self.pairs[setting.label].difference.mean > 0) is better

    def counted(self, settings: Sequence[Setting]) -> str:
        """Return '3 better, 1 worse'."""
        better, worse = (sum(self.differs(one, better=good) for one in settings) for good in (True, False))
        return f"{better} better, {worse} worse"


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
    return mean_interval([float(np.mean(values)) for values in by_seed.values()])


def answer(settings: Sequence[Setting], gains: Mapping[Column, Gains]) -> str:
    """Return how much of the published gains survives, in two sentences."""
    count = len(settings)
    found = {column: together(settings, column) for column in COLUMNS}
    if not found[PUBLISHED].count > 1:
        told = ", ".join(f"{column.name} {found[column].mean:+.1f}" for column in COLUMNS)
        return f"One seed: no interval, no judgement, for that takes several, as in seed=range(10) ({told})."
    seeds = found[PUBLISHED].count
    text = (
        f"The mean gain of {count} settings (chance aside) is {found[PUBLISHED]} points as published, over the "
        f"untreated model; by the strict protocol, over random, {found[BOUNDED]} where the attack made anew is "
        f"bounded and {found[STRICT]} where it goes as far as it takes (95 % over {seeds} seeds). "
        f"Judged one by one, after Holm's correction over the settings of a column: "
    )
    return text + "; ".join(f"{column.name} {gains[column].counted(settings)}" for column in COLUMNS) + "."


def survival(settings: Sequence[Setting]) -> Part:
    """Return the mean gain over settings by every column, the scorers apart."""
    rows = []
    groups = settings_by(settings, lambda setting: setting.row)
    for name, own in {"all": list(settings), **groups}.items():
        means = [together(own, column) for column in COLUMNS]
        rows.append((name, str(len(own)), *(Text(str(mean), value=mean.mean) for mean in means)))
    text = "Means over all settings of a scorer: data, model, treatment, share."
    header = ("scorer", "settings", *(column.name for column in COLUMNS))
    return Part("survival", "What survives", text, header, rows)


def tables(settings: Sequence[Setting], gains: Mapping[Column, Gains]) -> list[Part]:
    """Return every setting in a row, its gains side by side; a table for each ground."""
    parts = []
    for number, (place, own) in enumerate(settings_by(settings, lambda setting: setting.place).items(), start=1):
        knobs = knobs_shown(own)
        ranked = sorted(own, key=lambda setting: -gains[PUBLISHED].pairs[setting.label].difference.mean)
        rows, data = [], []
        for setting in ranked:
            found = {column: gains[column].pairs[setting.label].difference for column in COLUMNS}
            knob = {name: str(setting.knobs.get(name)) for name in knobs}
            tests = {column: gains[column].holm[setting.label] for column in (BOUNDED, STRICT)}
            cells = [Text(str(mean), value=mean.mean) for mean in found.values()]
            rows.append((setting.row, *knob.values(), *cells, *map(p_value, tests.values())))
            numbers: dict[str, float | None] = {
                f"{column.name}{end}": value
                for column, mean in found.items()
                for end, value in (("", mean.mean), (" low", mean.low), (" high", mean.high))
            }
            numbers |= {f"{column.name}, p, Holm": p for column, p in tests.items()}
            data.append({"scorer": setting.row, **knob, "seeds": len(setting.runs), **numbers})
        header = ("scorer", *knobs, *(column.name for column in COLUMNS), "bounded: p, Holm", "far: p, Holm")
        heading = f"Both protocols side by side{f': {place}' if place else ''}"
        parts.append(
            Part(
                f"protocols_{number}",
                heading,
                "",
                header,
                rows,
                data=pd.DataFrame(data),
                facets=("scorer", *knobs),
            )
        )
    return parts


def charts(settings: Sequence[Setting]) -> list[Part]:
    """Return the mean gain of every scorer from protocol to protocol, a chart for each ground."""
    parts = []
    for number, (place, own) in enumerate(settings_by(settings, lambda setting: setting.place).items(), start=1):
        lines = {
            name: [together(alike, column) for column in COLUMNS]
            for name, alike in settings_by(own, lambda setting: setting.row).items()
        }
        chart = steps([column.name for column in COLUMNS], lines, ylabel="gain, points of accuracy")
        heading = f"From protocol to protocol{f': {place}' if place else ''}"
        parts.append(Part(f"steps_{number}", heading, "Means over treatments and shares.", chart=chart))
    return parts


def by_share(settings: Sequence[Setting]) -> Part:
    """Return the mean gain over settings for every share of moved points."""
    shares = [share for share in settings[0].runs[0]["arms"]["baseline"][STRICT.key] if share != MEAN]
    rows = [
        (f"{share.replace('_', '.')} %", *(str(together(settings, column, share)) for column in COLUMNS))
        for share in shares
    ]
    header = ("moved", *(column.name for column in COLUMNS))
    return Part("shares", "By the share of points that are moved", "Means over settings.", header, rows)
