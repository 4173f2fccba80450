"""How much of a gain under evasion survives: the published protocol beside a strict one, over one run or many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from defense.config.choices import Method, Protocol, Way
from defense.reporting.archive import ARM, Row, health_of_arm, leaves
from defense.reporting.charts import Axis, curves
from defense.reporting.comparing import knob, knobs_shown, settings_by
from defense.reporting.exports import Text
from defense.reporting.health import doubts, looking
from defense.reporting.judging import luck, shared_control, tally
from defense.reporting.page import Page, Section
from defense.reporting.run import Scoring, common, named
from defense.reporting.selection import selection
from defense.reporting.settings import Setting, facts_of, settings_of, treated
from defense.reporting.statistics import Mean, p_value, percent, points
from defense.reporting.sweeps import Result, command_of, made_of
from defense.runtime.runtime import Runtime
from defense.tasks.evade.gains import (
    BOUNDED,
    COLUMNS,
    MEAN,
    PUBLISHED,
    UNBOUNDED,
    ByColumn,
    by_column,
    of_same_seeds,
    real,
    together,
)
from defense.tasks.writing import written

ANEW = (Way.bounded, Way.adaptive)  # ways of an attacker who knows the model, and leaves alone what it has wrong
ABOUT = (
    "Gains in points of accuracy on test, of which a share is moved across the boundary; means over shares "
    "and seeds, in brackets 95 % intervals over seeds. Published: the attacked test set is the validation set "
    "that samples are scored by, and the attack stays the one made at the undefended model. Disjoint validation: "
    "scored by a validation set, attacked as test is. Strict: and the attack is made anew at the model that is "
    "measured; bounded: no point goes farther than the median validation point had to at the undefended model. "
    "What the model has wrong is left where it is: the published attack moves such points too, to the right "
    "side. Over random, as are all columns but the first: over as many samples treated at random."
)
OF_LINEAR = (
    "For a linear model an attack without a bound leaves no moved point right, so clean accuracy alone decides "
    "what it leaves."
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
            own[said(share)] = percent(right.sum(), len(right))
    for ways in arms.values():
        for shares in ways.values():
            shares[MEAN] = points(float(np.mean(list(shares.values()))))
    return arms


def said(share: float) -> str:
    """Return a share in percent, without a dot: '5', '12_5'."""
    return f"{100 * share:g}".replace(".", "_")


def evaded_page(results: Sequence[Result], title: str) -> Page:
    """Return the page: every setting's gain by both protocols side by side, share by share, and what survives."""
    settings = settings_of(results)
    gains = by_column(settings)
    full = of_same_seeds(settings)
    averaged = real(full)
    sections = [survival(averaged), *charts(full), *shares_section(averaged), *tables(settings, gains)]
    facts = [ABOUT, *shared_control(settings), *facts_of(settings, treated)]
    if any(setting.is_linear for setting in settings):
        facts.insert(1, OF_LINEAR)
    if left := len(settings) - len(full):
        facts.append(f"Of {len(settings)} settings {left} lack seeds that the others have, and are in no mean.")
    return Page(
        f"{title}: how much of a gain survives a strict protocol?",
        "\n".join(
            filter(None, (doubts(looking(results), "the scores of a trained model"), answer(averaged, gains)))
        ),
        command_of(results),
        sections,
        made_of(results),
        notes=facts,
    )


def answer(averaged: Sequence[Setting], gains: ByColumn) -> str:
    """Return how much of the published gains survives: the mean of those `averaged`, and one by one."""
    settings, count = [row.setting for row in gains[PUBLISHED].values()], len(averaged)
    counted = {setting.label for setting in real(settings)}
    found = {column: together(averaged, column) for column in COLUMNS}
    if not found[PUBLISHED].count > 1:
        told = "; ".join(f"{column.name}: {found[column].mean:+.1f}" for column in COLUMNS)
        return f"One seed: no interval, no judgement. Take several, as in seed=range(10). Points: {told}."
    seeds = found[PUBLISHED].count
    aside = " (chance aside)" if len(counted) < len(settings) else ""
    named = "one setting" if count == 1 else f"{count} settings"
    published, bounded, unbounded = (
        "{} better, {} worse".format(*tally([row for label, row in gains[column].items() if label in counted]))
        for column in (PUBLISHED, BOUNDED, UNBOUNDED)
    )
    said = (
        f"The mean gain of {named}{aside} is {found[PUBLISHED]} points as published, over the untreated model; by "
        f"the strict protocol, over random, {found[BOUNDED]} where the attack made anew is bounded and "
        f"{found[UNBOUNDED]} where it is not (95 % over {seeds} seeds). One by one, after Holm's correction: as "
        f"published {published}; strict and bounded {bounded}; unbounded {unbounded}."
    )
    return " ".join(filter(None, (said, by_luck(gains) if aside else "")))


def by_luck(gains: ByColumn) -> str:
    """Return where a random score is called different from the random control; nothing where it is nowhere."""
    return luck(
        [
            f"{row.setting.name} {row.pair.difference} by '{column.name}'"
            for column, by_label in gains.items()
            for row in by_label.values()
            if row.over == "control" and row.differs and row.setting.method == Method.random.value
        ]
    )


def survival(settings: Sequence[Setting]) -> Section:
    """Return the mean gain over settings by every column, the scorers apart."""
    rows = []
    groups = settings_by(settings, lambda setting: setting.row)
    for name, own in {"all": list(settings), **groups}.items():
        means = [together(own, column) for column in COLUMNS]
        rows.append((name, str(len(own)), *(Text(str(mean), value=mean.mean) for mean in means)))
    text = "Means over all settings of a scorer: data, model, treatment, share."
    header = ("scorer", "settings", *(column.name for column in COLUMNS))
    return Section("survival", "What survives", text, header, rows)


def tables(settings: Sequence[Setting], gains: ByColumn) -> list[Section]:
    """Return every setting in a row, its gains side by side; a table for each ground."""
    sections = []
    for number, (place, own) in enumerate(settings_by(settings, lambda setting: setting.place).items(), start=1):
        knobs = knobs_shown(own)
        ranked = sorted(own, key=lambda setting: -gains[PUBLISHED][setting.label].gain)
        rows, data = [], []
        for setting in ranked:
            found = {column: by_label[setting.label].pair.difference for column, by_label in gains.items()}
            own_knobs = {name: knob(setting, name) for name in knobs}
            tests = {column: by_label[setting.label].holm for column, by_label in gains.items()}
            cells = [Text(str(mean), value=mean.mean) for mean in found.values()]
            shown = [p_value(tests[column]) for column in (BOUNDED, UNBOUNDED)]
            rows.append((setting.row, *own_knobs.values(), *cells, *shown))
            numbers: dict[str, float | None] = {
                f"{column.name}{end}": value
                for column, mean in found.items()
                for end, value in zip(("", " low", " high"), mean.columns("").values(), strict=True)
            }
            numbers |= {
                f"{column.name}, {arm}, %": float(np.mean(setting.values(arm, column.measure())))
                for column in COLUMNS
                for arm in (column.over, "defended")
            }
            numbers |= {f"{column.name}, p, Holm": p for column, p in tests.items()}
            data.append({"scorer": setting.row, **own_knobs, "seeds": len(setting.runs), **numbers})
        names = [*(column.name for column in COLUMNS), "p, bounded", "p, unbounded"]
        heading = f"Both protocols side by side{f': {place}' if place else ''}"
        sections.append(
            Section(
                f"protocols_{number}",
                heading,
                "p values are Holm's.",
                ("scorer", *knobs, *names),
                rows,
                data=pd.DataFrame(data),
                facets=("scorer", *knobs),
            )
        )
    return sections


def charts(settings: Sequence[Setting]) -> list[Section]:
    """Return the mean gain of every scorer from protocol to protocol, a chart for each ground."""
    sections, protocols = [], Axis("", names=[column.name for column in COLUMNS])
    for number, (place, own) in enumerate(settings_by(settings, lambda setting: setting.place).items(), start=1):
        lines: dict[str, dict[float, Mean]] = {
            name: {at: together(alike, column) for at, column in enumerate(COLUMNS)}
            for name, alike in settings_by(own, lambda setting: setting.row).items()
        }
        chart = curves(lines, protocols, Axis("gain, points of accuracy"), level=0)
        heading = f"From protocol to protocol{f': {place}' if place else ''}"
        sections.append(Section(f"steps_{number}", heading, "Means over treatments and shares.", chart=chart))
    return sections


def shares_section(settings: Sequence[Setting]) -> list[Section]:
    """Return the mean gain over settings for every share of moved points that all of them have; none without."""
    known = [setting.runs[0]["arms"]["baseline"][UNBOUNDED.key] for setting in settings]
    shares = [share for share in known[0] if share != MEAN and all(share in own for own in known)]
    if not shares:
        return []
    rows = [
        (f"{share.replace('_', '.')} %", *(str(together(settings, column, share)) for column in COLUMNS))
        for share in shares
    ]
    header = ("moved", *(column.name for column in COLUMNS))
    return [Section("shares", "By the share of points that are moved", "Means over settings.", header, rows)]


Tables = dict[tuple[float, Protocol], dict[str, pd.DataFrame]]  # artifacts.Evasion by share, protocol and arm


@dataclass(frozen=True)
class Evaded(Scoring):
    """One finished run of task=evade; its scores are those of the largest share, by the strict protocol."""

    tables: Tables
    chosen: dict[float, np.ndarray]  # by share: which test points are moved, bool (n,)


def write_evaded(runtime: Runtime, run: Evaded, output: Path) -> dict[str, Any]:
    """Write what every arm makes of every test point, moved or not; return the content of result.json."""
    every = [
        table.assign(share=share, protocol=str(protocol), arm=arm, moved=run.chosen[share])
        for (share, protocol), tables in run.tables.items()
        for arm, table in tables.items()
    ]
    named(pd.concat(every), run.data).to_parquet(output / "per_sample.parquet", index=False)
    numbers = evaded_result(run)
    return written(runtime, run, numbers, lambda: evaded_page([numbers], run.config.name), output)


def by_share(result: Result) -> list[Row]:
    """Return a row an arm and share of moved points: accuracy by protocol and way, and its mean over shares."""
    health = dict(leaves({"health": health_of_arm(result, None)}))
    return [
        {
            ARM: arm,
            "share": share,
            **{way: found[said(share)] for way, found in ways.items()},
            **{f"{MEAN}.{way}": found[MEAN] for way, found in ways.items()},
            **health,
        }
        for arm, ways in result["arms"].items()
        for share in result["config"]["evade"]["shares"]
    ]
