"""How much of a gain under evasion survives: the published protocol beside a strict one, over one run or many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from defense.config.choices import Protocol, Way
from defense.reporting.archive import ARM, Row, leaves
from defense.reporting.charts import Axis, curves
from defense.reporting.compare import Comparison, Metric, compare, judged, mean_difference, tally
from defense.reporting.comparisons import knob, knobs_shown, table_section
from defense.reporting.facts import about_runs, command_of, is_linear, made_of, treated
from defense.reporting.frame import Setting, by, settings_of, tidy
from defense.reporting.page import Page, Section
from defense.reporting.reading import Result
from defense.reporting.run import Scoring, named
from defense.reporting.statistics import Mean, p_value, percent, points
from defense.reporting.verdicts import by_luck, shared_control
from defense.runtime.runtime import Runtime
from defense.tasks.health import doubts, looking
from defense.tasks.rows import health_of_arm
from defense.tasks.selection import selection
from defense.tasks.writing import common, written

MEAN = "mean"  # over the shares of moved points
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
Tables = dict[tuple[float, Protocol], dict[str, pd.DataFrame]]  # artifacts.Evasion by share, protocol and arm


def gain_by(name: str, protocol: Protocol, way: Way, over: str = "control") -> Metric:
    """Return the metric of a protocol that scores samples and a way in which points are moved, over all shares."""
    return Metric(f"{protocol}_{way}.{MEAN}", name, over=over)


PUBLISHED = gain_by("published, over untreated", Protocol.published, Way.frozen, "baseline")
BOUNDED = gain_by("strict, bounded", Protocol.strict, Way.bounded)
UNBOUNDED = gain_by("strict, unbounded", Protocol.strict, Way.adaptive)
METRICS = (
    PUBLISHED,
    gain_by("published, over random", Protocol.published, Way.frozen),
    gain_by("disjoint validation", Protocol.strict, Way.frozen),
    BOUNDED,
    UNBOUNDED,
    gain_by("clean", Protocol.strict, Way.clean),
)
OTHERS = tuple(metric for metric in METRICS if metric not in (PUBLISHED, BOUNDED, UNBOUNDED))
SHOWN = (PUBLISHED, BOUNDED, UNBOUNDED, *OTHERS)  # the order of a table: the answer first
ByMetric = dict[Metric, dict[str, Comparison]]  # and by the label of the setting


@dataclass(frozen=True)
class Evaded(Scoring):
    """One finished run of task=evade; its scores are those of the largest share, by the strict protocol."""

    tables: Tables
    chosen: dict[float, np.ndarray]  # by share: which test points are moved, bool (n,)


def write_evaded(runtime: Runtime, run: Evaded, output: Path) -> dict[str, Any]:
    """Write the predictions of every arm on every test point, moved or not; return the content of result.json."""
    every = [
        table.assign(share=share, protocol=str(protocol), arm=arm, moved=run.chosen[share])
        for (share, protocol), tables in run.tables.items()
        for arm, table in tables.items()
    ]
    named(pd.concat(every), run.data).to_parquet(output / "per_sample.parquet", index=False)
    numbers = evaded_result(run)
    return written(runtime, run, numbers, lambda: evaded_page([numbers], run.config.name), output)


def evaded_result(run: Evaded) -> dict[str, Any]:
    """Return the content of result.json: accuracies in percent by arm, protocol, way and share, and their mean."""
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
            own[name_of_share(share)] = percent(right.sum(), len(right))
    for ways in arms.values():
        for shares in ways.values():
            shares[MEAN] = points(float(np.mean(list(shares.values()))))
    return arms


def name_of_share(share: float) -> str:
    """Return a share in percent, without a dot: '5', '12_5'."""
    return f"{100 * share:g}".replace(".", "_")


def evaded_page(results: Sequence[Result], title: str) -> Page:
    """Return the page: the gain of every setting by both protocols side by side, share by share."""
    settings = settings_of(results)
    gains: ByMetric = {metric: {row.setting.label: row for row in compare(settings, metric)} for metric in METRICS}
    full = of_same_seeds(settings)
    averaged = real(full)
    sections = [survival(averaged), *charts(full), *shares_section(averaged), *tables(settings, gains)]
    facts = [
        one_by_one(gains),
        *filter(None, [luck(gains)]),
        ABOUT,
        *shared_control(settings),
        *about_runs(settings, treated),
    ]
    if any(is_linear(setting.config["model"]) for setting in settings):
        facts.insert(facts.index(ABOUT) + 1, OF_LINEAR)
    if left := len(settings) - len(full):
        facts.append(f"Of {len(settings)} settings {left} lack seeds that the others have, and are in no mean.")
    headline = (doubts(looking(results), "the scores of a trained model"), answer(averaged, gains))
    return Page(
        f"{title}: how much of a gain survives a strict protocol?",
        "\n".join(filter(None, headline)),
        command_of(results),
        sections,
        made_of(results),
        notes=facts,
    )


def real(settings: Sequence[Setting]) -> list[Setting]:
    """Return settings without chance and perfect knowledge, unless there is nothing else."""
    return [setting for setting in settings if not setting.is_rival] or list(settings)


def of_same_seeds(settings: Sequence[Setting]) -> list[Setting]:
    """Return the settings that means are over: those with all seeds of one of them, so as to be most runs."""
    seeds = {setting.label: set(setting.seeds) for setting in settings}
    sharing = ([one for one in settings if seeds[one.label] >= own] for own in seeds.values())
    return max(sharing, key=lambda alike: len(alike) * len(set.intersection(*(seeds[one.label] for one in alike))))


def answer(averaged: Sequence[Setting], gains: ByMetric) -> str:
    """Return whether the published gain survives the strict protocol, in the mean and setting by setting."""
    means = {metric: mean_difference(averaged, metric) for metric in METRICS}
    count, seeds = len(averaged), means[PUBLISHED].count
    if not seeds > 1:
        points_by = "; ".join(f"{metric.name}: {mean.mean:+.1f}" for metric, mean in means.items())
        return f"One seed: no interval, no judgement. Take several, as in seed=range(10). Points: {points_by}."
    rivals = [row.setting for row in gains[PUBLISHED].values() if row.setting.is_rival]
    aside = dict.fromkeys(setting.row for setting in rivals if setting not in averaged)
    left_out = f" ({', '.join(aside)} aside)" if aside else ""
    which = "" if count == 1 else f", of {count} settings{left_out}"
    return (
        f"{survives(means)} As published: {means[PUBLISHED]} points over no treatment. By the strict protocol, "
        f"over a random control: {means[BOUNDED]} against a bounded attack, {means[UNBOUNDED]} against an "
        f"unbounded one. These are means over shares of moved points and {seeds} seeds{which}, with 95 % "
        "intervals."
    )


def one_by_one(gains: ByMetric) -> str:
    """Return how many settings are better and worse by the published protocol and the strict one."""
    counts = [
        f"{metric.name} {better} better, {worse} worse"
        for metric in (PUBLISHED, BOUNDED, UNBOUNDED)
        for better, worse in [tally(judged([*gains[metric].values()]))]
    ]
    return f"Setting by setting, after Holm's correction: {'; '.join(counts)}."


def survives(means: Mapping[Metric, Mean]) -> str:
    """Return in one sentence whether the published gain survives the strict protocol, bounded or not."""
    left = {name: means[metric] for name, metric in (("bounded", BOUNDED), ("unbounded", UNBOUNDED))}
    gains = [name for name, mean in left.items() if is_gain(mean)]
    losses = [name for name, mean in left.items() if mean.differs_from_zero and mean.mean < 0]
    against = f"against the {' and the '.join(losses)} attack"
    if not is_gain(means[PUBLISHED]):
        text = "The published protocol itself shows no gain that chance does not explain"
        return f"{text}, and the strict one a loss {against}." if losses else f"{text}."
    if len(gains) == len(left):
        return "A gain survives the strict protocol."
    if gains:
        (lost,) = set(left) - set(gains)
        return (
            f"Under the strict protocol a gain is left against the {gains[0]} attack, none against the {lost} one."
        )
    if losses:
        return f"Under the strict protocol the gain turns into a loss {against}."
    return "Under the strict protocol no gain is left that chance does not explain."


def is_gain(mean: Mean) -> bool:
    """Return whether a mean gain is above 0 with its whole interval."""
    return mean.differs_from_zero and mean.mean > 0


def luck(gains: ByMetric) -> str:
    """Return which random scores are called different from the random control by any metric."""
    return by_luck([row for by_label in gains.values() for row in by_label.values()])


def survival(settings: Sequence[Setting]) -> Section:
    """Return the mean gain over settings by every metric, all scorers together and apart."""
    rows = [
        (name, str(len(own)), *(metric.change(mean_difference(own, metric)) for metric in SHOWN))
        for name, own in {"all": list(settings), **by(settings, lambda setting: setting.row)}.items()
    ]
    text = "Means over all settings of a scorer: data, model, treatment, share."
    header = ("scorer", "settings", *(metric.name for metric in SHOWN))
    return Section("survival", "What survives", text, header, rows)


def tables(settings: Sequence[Setting], gains: ByMetric) -> list[Section]:
    """Return every setting in a row, its gains side by side; a table for each comparison group."""
    sections = []
    for number, (place, own) in enumerate(by(settings, lambda setting: setting.place).items(), start=1):
        knobs = knobs_shown(own)
        ranked = sorted(own, key=lambda setting: -gains[PUBLISHED][setting.label].gain)
        rows = [{metric: gains[metric][setting.label] for metric in SHOWN} for setting in ranked]
        columns = {
            "scorer": [setting.row for setting in ranked],
            **{name: [knob(setting, name) for setting in ranked] for name in knobs},
            **{metric.name: [metric.change(row[metric].difference) for row in rows] for metric in SHOWN},
            "p, bounded": [p_value(row[BOUNDED].holm) for row in rows],
            "p, unbounded": [p_value(row[UNBOUNDED].holm) for row in rows],
        }
        heading = f"Both protocols side by side{f': {place}' if place else ''}"
        facets = ("scorer", *knobs)
        data = tidy(pd.DataFrame([numbers_of(row, knobs) for row in rows]))
        sections.append(
            table_section(
                f"protocols_{number}", heading, "p values are Holm's.", columns, facets=facets, data=data
            )
        )
    return sections


def numbers_of(row: Mapping[Metric, Comparison], knobs: Sequence[str]) -> dict[str, Any]:
    """Return one setting by every metric as plain numbers, by column."""
    setting = row[PUBLISHED].setting
    numbers: dict[str, Any] = {"scorer": setting.row, **{name: setting.knobs.get(name) for name in knobs}}
    numbers["seeds"] = len(setting.runs)
    for metric, compared in row.items():
        if compared.difference:
            ends = zip(("", " low", " high"), compared.difference.columns("").values(), strict=True)
            numbers |= {f"{metric.name}{end}": value for end, value in ends}
        numbers |= {
            f"{metric.name}, {arm}, %": setting.mean(arm, metric.path) for arm in (metric.over, "defended")
        }
        numbers[f"{metric.name}, p, Holm"] = compared.holm
    return numbers


def charts(settings: Sequence[Setting]) -> list[Section]:
    """Return the mean gain of every scorer from protocol to protocol, a chart for each comparison group."""
    sections, protocols = [], Axis("", names=[metric.name for metric in METRICS])
    for number, (place, own) in enumerate(by(settings, lambda setting: setting.place).items(), start=1):
        lines: dict[str, dict[float, Mean]] = {
            name: {at: mean_difference(alike, metric) for at, metric in enumerate(METRICS)}
            for name, alike in by(own, lambda setting: setting.row).items()
        }
        chart = curves(lines, protocols, Axis("gain, points of accuracy"), level=0)
        heading = f"From protocol to protocol{f': {place}' if place else ''}"
        sections.append(Section(f"steps_{number}", heading, "Means over treatments and shares.", chart=chart))
    return sections


def shares_section(settings: Sequence[Setting]) -> list[Section]:
    """Return the mean gain over settings for every share of moved points that all of them have; none without."""
    key = UNBOUNDED.path.partition(".")[0]
    known = [setting.runs[0]["arms"]["baseline"][key] for setting in settings]
    shares = [share for share in known[0] if share != MEAN and all(share in own for own in known)]
    if not shares:
        return []
    rows = [
        (
            f"{share.replace('_', '.')} %",
            *(metric.change(mean_difference(settings, at_share(metric, share))) for metric in SHOWN),
        )
        for share in shares
    ]
    header = ("moved", *(metric.name for metric in SHOWN))
    return [Section("shares", "By the share of points that are moved", "Means over settings.", header, rows)]


def at_share(metric: Metric, share: str) -> Metric:
    """Return a metric at one share of moved points."""
    return replace(metric, path=f"{metric.path.partition('.')[0]}.{share}")


def by_share(result: Result) -> list[Row]:
    """Return a row an arm and share of moved points: accuracy by protocol and way, and its mean over shares."""
    health = dict(leaves({"health": health_of_arm(result, None)}))
    return [
        {
            ARM: arm,
            "share": share,
            **{way: values[name_of_share(share)] for way, values in ways.items()},
            **{f"{MEAN}.{way}": values[MEAN] for way, values in ways.items()},
            **health,
        }
        for arm, ways in result["arms"].items()
        for share in result["config"]["evade"]["shares"]
    ]
