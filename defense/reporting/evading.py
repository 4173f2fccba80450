"""How much of a gain under evasion survives: the published protocol beside a strict one, over one run or many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from defense.choices import Protocol, Way
from defense.errors import InputError
from defense.reporting.charts import steps
from defense.reporting.comparing import knobs_shown, settings_by
from defense.reporting.exports import Text
from defense.reporting.judging import shared_control
from defense.reporting.record import Evaded, Tables
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
    protocol: Protocol  # that it is scored by
    way: Way  # in which the moved points were moved
    over: str

    @property
    def key(self) -> str:
        """The name that its accuracies have in a result, before the share."""
        return f"{self.protocol}_{self.way}"


COLUMNS = (
    Column("published, over untreated", Protocol.published, Way.frozen, "baseline"),
    Column("published, over random", Protocol.published, Way.frozen, "control"),
    Column("disjoint validation", Protocol.strict, Way.frozen, "control"),
    Column("strict, bounded", Protocol.strict, Way.bounded, "control"),
    Column("strict, unbounded", Protocol.strict, Way.adaptive, "control"),
    Column("clean", Protocol.strict, Way.clean, "control"),
)
PUBLISHED, BOUNDED, STRICT = COLUMNS[0], COLUMNS[3], COLUMNS[4]
ANEW = (Way.bounded, Way.adaptive)  # ways of an attacker who knows the model, and leaves alone what it has wrong
ABOUT = (
    "Gains in points of accuracy on test, of which a share is moved across the boundary; means over shares "
    "and seeds, in brackets 95 % intervals over seeds. Published: the attacked test set is the validation set "
    "that samples are scored by, and the attack stays the one made at the undefended model. Disjoint validation: "
    "scored by a validation set, attacked as test is. Strict: and the attack is made anew at the model that is "
    "measured; bounded: no point goes farther than the median validation point had to at the undefended model. "
    "What the model has wrong is left where it is: the published attack moves such points too, to the right "
    "side. Over random, as are all columns but the first: over as many samples treated at random. An attack "
    "without a bound leaves no moved point right, so what it leaves is decided by clean accuracy alone."
)


def evaded_result(run: Evaded) -> dict[str, Any]:
    """Return what result.json holds: accuracies in percent by arm, protocol, way and share, and their mean."""
    arms = accuracies(run.tables, run.chosen)
    return {"arms": arms, "selection": selection(run, None), **common(run)}  # a treatment for every share


def accuracies(tables: Tables, chosen: Mapping[float, np.ndarray]) -> dict[str, dict[str, dict[str, float]]]:
    """Return the accuracy in percent by arm, protocol and way, and share of moved points, and their mean."""
    arms: dict[str, dict[str, dict[str, float]]] = {}
    for (share, protocol), by_arm in tables.items():
        for (arm, table), way in product(by_arm.items(), Way):
            clean, after = table[str(Way.clean)], table[str(way)]
            right = np.where(chosen[share], after & clean if way in ANEW else after, clean)
            own = arms.setdefault(arm, {}).setdefault(f"{protocol}_{way}", {})
            own[said(share)] = 100 * float(right.mean())
    for ways in arms.values():
        for shares in ways.values():
            shares[MEAN] = float(np.mean(list(shares.values())))
    return arms


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
        answer(real, gains, len(settings)),
        command_of(results),
        parts,
        made_of(results),
        facts=[ABOUT, *shared_control(settings), *facts_of(settings, treated)],
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
    whole = [values for values in by_seed.values() if len(values) == len(settings)]
    if not whole:
        raise InputError("PATH", "seeds", "no seed that all settings have; expected one at least")
    return mean_interval([float(np.mean(values)) for values in whole])


def answer(settings: Sequence[Setting], gains: Mapping[Column, Gains], among: int) -> str:
    """Return how much of the published gains survives, in two sentences; `among`: chance and oracle with them."""
    count = len(settings)
    found = {column: together(settings, column) for column in COLUMNS}
    if not found[PUBLISHED].count > 1:
        told = ", ".join(f"{column.name} {found[column].mean:+.1f}" for column in COLUMNS)
        return f"One seed: no interval, no judgement, for that takes several, as in seed=range(10) ({told})."
    seeds = found[PUBLISHED].count
    aside = " (chance aside)" if len(settings) < among else ""
    named = "one setting" if count == 1 else f"{count} settings"
    return (
        f"The mean gain of {named}{aside} is {found[PUBLISHED]} points as published, over the untreated model; by "
        f"the strict protocol, over random, {found[BOUNDED]} where the attack made anew is bounded and "
        f"{found[STRICT]} where it is not (95 % over {seeds} seeds). One by one, after Holm's correction: as "
        f"published {gains[PUBLISHED].counted(settings)}; strict and bounded {gains[BOUNDED].counted(settings)}; "
        f"unbounded {gains[STRICT].counted(settings)}."
    )


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
            numbers |= {
                f"{column.name}, {arm}, %": float(np.mean(setting.values(arm, f"{column.key}.{MEAN}")))
                for column in COLUMNS
                for arm in (column.over, "defended")
            }
            numbers |= {f"{column.name}, p, Holm": p for column, p in tests.items()}
            data.append({"scorer": setting.row, **knob, "seeds": len(setting.runs), **numbers})
        names = [*(column.name for column in COLUMNS), "p, bounded", "p, unbounded"]
        heading = f"Both protocols side by side{f': {place}' if place else ''}"
        parts.append(
            Part(
                f"protocols_{number}",
                heading,
                "p values are Holm's.",
                ("scorer", *knobs, *names),
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
