"""Whether treatments helped where nobody attacks: accuracy and gaps between groups, over one run or many."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from defense.config.choices import Measure, ObjectiveName
from defense.reporting.charts import Axis, Gain, Spot, forest, shared_limits, tradeoff
from defense.reporting.comparing import (
    answer_of,
    compared_table,
    knob,
    knobs_shown,
    noise_found,
    row_of_table,
    settings_by,
)
from defense.reporting.descent import descent_section, descents, rounds_as_json
from defense.reporting.health import doubts, health_of
from defense.reporting.judging import Compared, shared_control
from defense.reporting.page import Page, Section
from defense.reporting.paper import ABOUT, printed
from defense.reporting.run import Scoring, common, named
from defense.reporting.selection import of_one_class, one_class, one_class_said, selection
from defense.reporting.settings import Setting, facts_of, one_sided, settings_of, treated
from defense.reporting.statistics import mean_interval
from defense.reporting.sweeps import Result, command_of, made_of
from defense.runtime.runtime import Runtime
from defense.tasks.repair.measures import AIMS, GAPS, MEASURES, measured
from defense.tasks.writing import written

CHARTED = 40  # settings in one chart, at most


def repair_result(run: Repair) -> dict[str, Any]:
    """Return what result.json holds: every measure of every arm, and what was treated."""
    taken = run.treatment["treated"].to_numpy()
    found = common(run)
    return {
        "arms": {
            arm: measured(table, run.which, positive=run.config.data.positive)
            for arm, table in run.measured.items()
        },
        "selection": selection(run, taken),
        "one_class": one_class(run, taken),
        **({} if run.descent is None else {"descent": rounds_as_json(run.descent)}),
        **found,
        "health": health_of(run.arms_learned, run.data.class_names),
        "sizes": found["sizes"] | {"treated": int(taken.sum()), "of_one_class": of_one_class(run, taken)},
    }


def repair_page(results: Sequence[Result], title: str) -> Page:
    """Return the page: for every measure what each setting gains over its random control and the baseline."""
    settings, what = settings_of(results), "treating the lowest scores"
    if all(result.get("descent") for result in results):
        what = "weighing samples by metagradient descent"
    sections, answers = [], []
    for measure in measures_in(results):
        kind = MEASURES[measure]
        own = [setting for setting in settings if setting.has(measure)]
        rows = Compared.all(own, str(measure), lower_is_better=kind.lower_is_better)
        answers.append(answer_of(rows, kind.spoken.partition(",")[0]))
        for number, (place, here) in enumerate(settings_by(rows, lambda row: row.setting.place).items(), start=1):
            sections.append(measure_section(measure, number, place, here))
    sections += [*tradeoffs(settings), *descents(settings)]
    text = (
        "In brackets 95 % intervals over seeds. Differences are paired by seed; the control is treated alike, as "
        "many samples drawn at random. Judged by Student's paired t test, after Holm's correction over all rows "
        "of one measure; intervals are not corrected: one may leave zero out where nothing is distinguishable."
    )
    return Page(
        f"{title}: does {what} help?",
        "\n".join(filter(None, (doubts(results), *answers))),
        command_of(results),
        sections,
        made_of(results),
        notes=[
            text,
            *shared_control(settings),
            *facts_of(settings, treated),
            *(one_sided(settings) if len(results) > 1 else filter(None, [one_class_of(results[0])])),
            *noise_found(settings),
        ],
    )


def one_class_of(result: Result) -> str:
    """Return that most of the samples that one run treats are of one class; else nothing."""
    return one_class_said(result.get("one_class"), result["sizes"]["train"], result["config"]["treatment"])


def measures_in(results: Sequence[Result]) -> list[Measure]:
    """Return what was measured of some results at least, the aims of the objectives first."""
    found = {name for result in results for name in result["arms"]["baseline"]}
    there = [measure for measure in Measure if str(measure) in found]
    terms = dict.fromkeys(term for result in results for term in result["config"]["objective"]["weights"])
    aims = [AIMS[ObjectiveName(term)] for term in terms]
    return sorted(there, key=lambda measure: measure not in aims)


def measure_section(measure: Measure, number: int, place: str, rows: Sequence[Compared]) -> Section:
    """Return the table and chart of one measure on one ground."""
    kind = MEASURES[measure]
    way = "lower is better" if kind.lower_is_better else "higher is better"
    knobs = knobs_shown([row.setting for row in rows])
    ranked = sorted(rows, key=lambda row: -row.sign * row.pair.difference.mean)
    table = [row_of_table(row, knobs) for row in ranked]
    shown = [name for name in table[0] if any(cells[name] != "-" for cells in table)]
    chart = ""
    if 1 < len(ranked) <= CHARTED:
        names = [", ".join([row.setting.row, *(knob(row.setting, name) for name in knobs)]) for row in ranked]
        gains = [
            Gain(name, row.pair.difference, row.differs, row.sign < 0)
            for name, row in zip(names, ranked, strict=True)
        ]
        limits = shared_limits([gain.mean for gain in gains])
        unit = kind.spoken.partition(",")[0]
        chart = forest(gains, xlabel=f"defended - control, {unit}, points\n{way}", limits=limits)
    return Section(
        f"{measure}_{number}",
        ": ".join(filter(None, (kind.spoken, place))),
        f"On test; {way}.",
        shown,
        [tuple(cells[name] for name in shown) for cells in table],
        chart,
        data=compared_table(ranked, knobs),
        facets=[name for name in ("scorer", *knobs) if name in shown],
        paper=printed(ranked, knobs),
        caption=f"{': '.join(filter(None, (kind.spoken, place)))}: {ABOUT}.",
    )


def tradeoffs(settings: Sequence[Setting]) -> list[Section]:
    """Return gaps against accuracy, on every ground that has groups: what a smaller gap costs, what none beats."""
    sections = []
    for number, (place, here) in enumerate(settings_by(settings, lambda setting: setting.place).items(), start=1):
        for gap in GAPS:
            own = [setting for setting in here if setting.has(gap)]
            if not own:
                continue
            alike = len({json.dumps([run["arms"]["control"] for run in setting.runs]) for setting in own}) == 1
            places = [spot(setting, "defended", gap) for setting in own]
            references = {arm: spot(own[0], arm, gap) for arm in ("baseline", *(["control"] if alike else []))}
            chart = tradeoff(
                places,
                references,
                Axis("accuracy, %"),
                Axis(MEASURES[gap].spoken, lower_is_better=True),
            )
            heading = ": ".join(
                filter(None, (f"{MEASURES[gap].spoken.partition(',')[0]} against accuracy", place))
            )
            text = "Means over seeds with their intervals."
            text += "" if alike else " No control is drawn: settings have different ones."
            sections.append(Section(f"pareto_{gap}_{number}", heading, text, chart=chart))
    return sections


def spot(setting: Setting, arm: str, gap: Measure) -> Spot:
    """Return where an arm is between accuracy and a gap."""
    first, second = (mean_interval(setting.values(arm, str(name))) for name in (Measure.accuracy, gap))
    return Spot(setting.row, setting.column or "all", first, second)


def per_sample(run: Repair) -> pd.DataFrame:
    """Return what every arm makes of every sample, one row each."""
    return pd.concat([table.assign(arm=arm) for arm, table in run.measured.items()], ignore_index=True)


@dataclass(frozen=True)
class Repair(Scoring):
    """One finished run of task=repair."""

    which: list[Measure]  # what is measured
    treatment: pd.DataFrame  # as artifacts.Treatment, of the defended arm
    descent: pd.DataFrame | None  # as descent.Descent.rounds, of treatment=optimize
    measured: dict[str, pd.DataFrame]  # as artifacts.Measurement, by arm
    histories: dict[str, pd.DataFrame]  # as artifacts.TrainedModel, by arm
    arms_learned: dict[str, dict[str, Any]]  # of robustness.checks.Learned, on all test samples


def write_repair(runtime: Runtime, run: Repair, output: Path) -> dict[str, Any]:
    """Write what every arm makes of every test sample; return the content of result.json."""
    scores = run.scores.assign(**{name: run.treatment[name].to_numpy() for name in ("treated", "weight")})
    named(per_sample(run), run.data).to_parquet(output / "per_sample.parquet", index=False)
    numbers = repair_result(run)

    def page() -> Page:
        page = repair_page([numbers], run.config.name)
        return replace(page, sections=[*page.sections, *descent_section(run, run.descent)])

    return written(runtime, replace(run, scores=scores), numbers, page, output, run.histories)
