"""Whether treatments helped where nobody attacks: accuracy and gaps between groups, over one run or many."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from defense.config.choices import Measure, ObjectiveName
from defense.reporting.charts import Axis, Spot, shared_limits, tradeoff
from defense.reporting.compare import BASELINE, Comparison, Metric, compare
from defense.reporting.comparisons import Columns, comparison_section, knob, knobs_shown, table_section
from defense.reporting.exports import Text
from defense.reporting.facts import about_runs, command_of, made_of, treated
from defense.reporting.frame import Setting, by, described, settings_of, tidy
from defense.reporting.page import Page, Section
from defense.reporting.reading import Result
from defense.reporting.run import Scoring, named
from defense.reporting.statistics import Mean, mean_interval
from defense.reporting.verdicts import answer, caveat, shared_control
from defense.runtime.runtime import Runtime
from defense.tasks.descent import descent_section, descents, rounds_as_json
from defense.tasks.health import doubts, health_of
from defense.tasks.repair.measures import AIMS, GAPS, MEASURES, measured
from defense.tasks.selection import of_one_class, one_class, one_class_said, one_sided, selection
from defense.tasks.writing import common, write_treatment, written

ABOUT = (
    "In brackets 95 % intervals over seeds. Differences are paired by seed; the control is treated alike, as many "
    "samples drawn at random. Judged by Student's paired t test, after Holm's correction over all rows of one "
    "measure. Intervals are not corrected: one may leave zero out if nothing is distinguishable."
)


@dataclass(frozen=True)
class Repair(Scoring):
    """One finished run of task=repair."""

    which: list[Measure]  # the measures
    treatment: pd.DataFrame  # as artifacts.Treatment, of the defended arm
    descent: pd.DataFrame | None  # as descent.Descent.rounds, of treatment=optimize
    measured: dict[str, pd.DataFrame]  # as artifacts.Measurement, by arm
    histories: dict[str, pd.DataFrame]  # as artifacts.TrainedModel, by arm
    arms_learned: dict[str, dict[str, Any]]  # of robustness.checks.Learned, on all test samples


def write_repair(runtime: Runtime, run: Repair, output: Path) -> dict[str, Any]:
    """Write the predictions of every arm on every test sample; return the content of result.json."""
    scores = run.scores.assign(**{name: run.treatment[name].to_numpy() for name in ("treated", "weight")})
    named(per_sample(run), run.data).to_parquet(output / "per_sample.parquet", index=False)
    write_treatment(run, run.treatment, output)
    numbers = repair_result(run)

    def page() -> Page:
        page = repair_page([numbers], run.config.name)
        return replace(page, sections=[*page.sections, *descent_section(run, run.descent)])

    return written(runtime, replace(run, scores=scores), numbers, page, output, run.histories)


def per_sample(run: Repair) -> pd.DataFrame:
    """Return the predictions of every arm on every sample, one row each."""
    return pd.concat([table.assign(arm=arm) for arm, table in run.measured.items()], ignore_index=True)


def repair_result(run: Repair) -> dict[str, Any]:
    """Return the content of result.json: every measure of every arm, and the treated samples."""
    taken = run.treatment["treated"].to_numpy()
    shared = common(run)
    return {
        "arms": {
            arm: measured(table, run.which, positive=run.config.data.positive)
            for arm, table in run.measured.items()
        },
        "selection": selection(run, taken),
        "one_class": one_class(run, taken),
        **({} if run.descent is None else {"descent": rounds_as_json(run.descent)}),
        **shared,
        "health": health_of(run.arms_learned, run.data.class_names),
        "sizes": shared["sizes"] | {"treated": int(taken.sum()), "of_one_class": of_one_class(run, taken)},
    }


def repair_page(results: Sequence[Result], title: str) -> Page:
    """Return the page: for every measure the gain of each setting over its random control and the baseline."""
    settings, what = settings_of(results), "treating the lowest scores"
    if all(result.get("descent") for result in results):
        what = "weighing samples by metagradient descent"
    tables = [
        compare([setting for setting in settings if setting.has(str(measure))], MEASURES[measure].metric)
        for measure in measures_in(results)
    ]
    sections = [
        section
        for measure, rows in zip(measures_in(results), tables, strict=True)
        for section in sections_of(measure, rows)
    ]
    classes = one_sided(settings) if len(results) > 1 else filter(None, [one_class_of(results[0])])
    return Page(
        f"{title}: does {what} help?",
        "\n".join(filter(None, (doubts(results), *map(answer_by_measure, tables)))),
        command_of(results),
        [*sections, *tradeoffs(settings), *matched_section(settings), *descents(settings)],
        made_of(results),
        notes=[
            ABOUT,
            *filter(
                None, (f"{capitalised(rows[0].metric.name)}: {text}" for rows in tables if (text := caveat(rows)))
            ),
            *shared_control(settings),
            *about_runs(settings, treated),
            *classes,
        ],
    )


def answer_by_measure(rows: Sequence[Comparison]) -> str:
    """Return the answer by one measure: 'Accuracy: 1 of 2 settings is better than random removal, ...'."""
    return f"{capitalised(rows[0].metric.name)}: {answer(rows)}"


def capitalised(text: str) -> str:
    """Return a text with its first letter as a capital."""
    return text[:1].upper() + text[1:]


def one_class_of(result: Result) -> str:
    """Return that most of the samples that one run treats are of one class; else nothing."""
    return one_class_said(result.get("one_class"), result["sizes"]["train"], result["config"]["treatment"])


def measures_in(results: Sequence[Result]) -> list[Measure]:
    """Return the measures that some results have at least, the aims of the objectives first."""
    names = {name for result in results for name in result["arms"]["baseline"]}
    there = [measure for measure in Measure if str(measure) in names]
    terms = dict.fromkeys(term for result in results for term in result["config"]["objective"]["weights"])
    aims = [AIMS[ObjectiveName(term)] for term in terms]
    return sorted(there, key=lambda measure: measure not in aims)


def sections_of(measure: Measure, rows: Sequence[Comparison]) -> list[Section]:
    """Return the table and chart of one measure for every comparison group, the highest gain first."""
    metric = MEASURES[measure].metric
    text = f"On test; {'lower' if metric.lower_is_better else 'higher'} is better."
    sections = []
    untreated = {row.setting.label: row for row in compare([row.setting for row in rows], metric, BASELINE)}
    limits = shared_limits([row.difference for row in rows if row.difference])
    for number, (place, own) in enumerate(by(rows, lambda row: row.setting.place).items(), start=1):
        heading = ": ".join(filter(None, (capitalised(metric.heading), place)))
        ranked = sorted(own, key=lambda row: -row.gain)
        beside = [untreated[row.setting.label] for row in ranked]
        sections.append(
            comparison_section(f"{measure}_{number}", heading, ranked, text, untreated=beside, limits=limits)
        )
    return sections


def tradeoffs(settings: Sequence[Setting]) -> list[Section]:
    """Return gaps against accuracy for every comparison group of data with groups: the cost of a smaller gap."""
    sections = []
    for number, (place, own) in enumerate(by(settings, lambda setting: setting.place).items(), start=1):
        for gap in GAPS:
            having = [setting for setting in own if setting.has(str(gap))]
            if having:
                heading = f"{capitalised(MEASURES[gap].metric.name)} against accuracy"
                heading = ": ".join(filter(None, (heading, place)))
                sections.append(tradeoff_section(f"pareto_{gap}_{number}", heading, having, MEASURES[gap].metric))
    return sections


def tradeoff_section(name: str, heading: str, settings: Sequence[Setting], gap: Metric) -> Section:
    """Return one gap against accuracy, beside the baseline, and the control if settings share one."""
    alike = len({json.dumps([run["arms"]["control"] for run in setting.runs]) for setting in settings}) == 1
    arms = ("baseline", *(["control"] if alike else []))
    accuracy = MEASURES[Measure.accuracy].metric
    chart = tradeoff(
        [spot(setting, "defended", accuracy, gap) for setting in settings],
        {arm: spot(settings[0], arm, accuracy, gap) for arm in arms},
        Axis(accuracy.heading),
        Axis(gap.heading, lower_is_better=True),
    )
    text = "Means over seeds with their intervals."
    text += "" if alike else " No control is drawn: settings have different ones."
    return Section(name, heading, text, chart=chart)


def spot(setting: Setting, arm: str, x: Metric, y: Metric) -> Spot:
    """Return the place of an arm between two metrics."""
    return Spot(setting.row, setting.column or "all", x.mean(setting, arm), y.mean(setting, arm))


def matched_section(settings: Sequence[Setting]) -> list[Section]:
    """Return how well treated samples match the known noise, a row a setting; no section of unknown noise."""
    knobs = knobs_shown(settings)
    columns: Columns = {
        "scorer": [setting.row for setting in settings],
        **{name: [knob(setting, name) for setting in settings] for name in knobs},
        "AUC (95 %)": [share_cell(matched(setting, "auc"), 3) for setting in settings],
        "precision (95 %)": [share_cell(matched(setting, "precision"), 2) for setting in settings],
    }
    if not any(cell != "-" for name in ("AUC (95 %)", "precision (95 %)") for cell in columns[name]):
        return []
    text = (
        "AUC: the chance that a sample with a wrong label scores lower than another. Precision: the share of "
        "wrong labels among the treated samples. In brackets 95 % intervals over seeds."
    )
    data = tidy(pd.DataFrame([matched_numbers(setting) for setting in settings]))
    heading, facets = "Wrong labels among the treated samples", ("scorer", *knobs)
    return [table_section("selection", heading, text, columns, facets=facets, data=data)]


def matched_numbers(setting: Setting) -> dict[str, Any]:
    """Return how well the treated samples of a setting match the known noise, as plain numbers."""
    means = {name: matched(setting, name) for name in ("auc", "precision")}
    known = {name: mean.columns(name) for name, mean in means.items() if mean is not None}
    return described(setting) | {column: value for columns in known.values() for column, value in columns.items()}


def share_cell(mean: Mean | None, decimals: int) -> str:
    """Return a mean share with its interval as a cell; '-' of none."""
    return "-" if mean is None else Text(mean.text(decimals, signed=False), value=mean.mean)


def matched(setting: Setting, name: str) -> Mean | None:
    """Return the mean over seeds of a measure of the selection, within [0, 1]; None of unknown noise."""
    values = [run["selection"][name] for run in setting.runs if run["selection"].get(name) is not None]
    return mean_interval(values).within(0.0, 1.0) if values else None
