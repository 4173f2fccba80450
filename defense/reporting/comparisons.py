"""The table of settings beside their rivals: as a page shows it, as plain numbers, and as a paper prints it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import inf
from typing import Any

import numpy as np
import pandas as pd

from defense.reporting.arms import arm_in_words, trusted_of
from defense.reporting.charts import Gain, forest, shared_limits
from defense.reporting.compare import BASELINE, CONTROL, DEFENDED, Comparison
from defense.reporting.exports import Printed, Text
from defense.reporting.frame import Setting, described, tidy
from defense.reporting.page import Section
from defense.reporting.statistics import deviation, mean_interval, p_value, points
from defense.reporting.verdicts import rival_of

COMPARED = (BASELINE, CONTROL, DEFENDED)
CHARTED = 40  # settings in one chart, at most
DISTINCT = 30  # values of a column: of more, rows are not chosen by it
ENDS = " (95 %)"
Columns = dict[str, list[str]]
ABOUT_PAPER = (
    "mean \N{PLUS-MINUS SIGN} standard deviation over seeds; in brackets the 95 % interval over seeds of the "
    "difference, paired by seed; p by Student's paired t test, after Holm's correction"
)


def comparison_section(
    name: str,
    heading: str,
    rows: Sequence[Comparison],
    text: str,
    *,
    data: pd.DataFrame | None = None,
    untreated: Sequence[Comparison] = (),
    limits: tuple[float, float] | None = None,
) -> Section:
    """Return a chart and a table of settings beside their rival, a row each.

    data: the table as plain numbers, if it is more than `numbers_of` every row. untreated: the same settings
    beside no treatment, if the table has a column of that. limits: of the chart, to be read beside others.
    """
    knobs = knobs_shown([row.setting for row in rows])
    columns = columns_of(rows, knobs)
    if untreated:
        columns[f"{DEFENDED} - {BASELINE}{ENDS}"] = [row.metric.change(row.difference) for row in untreated]
    beside = [tested_columns(f"gain_over_{BASELINE}", row) for row in untreated] or [{}] * len(rows)
    plain = [numbers_of(row) | more for row, more in zip(rows, beside, strict=True)]
    header, cells = printed(rows, knobs)
    return table_section(
        name,
        heading,
        text,
        columns,
        facets=("scorer", *knobs, judged_beside(rows)),
        chart=gains_chart(rows, knobs, limits),
        data=tidy(pd.DataFrame(plain)) if data is None else data,
        paper=(header, cells),
        caption=f"{heading}: {ABOUT_PAPER}.",
    )


def table_section(name: str, heading: str, text: str, columns: Columns, **more: Any) -> Section:
    """Return a section of a table, without empty columns; rows can be chosen by facets of a few values."""
    shown = {title: cells for title, cells in columns.items() if any(cell != "-" for cell in cells)}
    facets = [
        title for title in more.pop("facets", ()) if title in shown and 1 < len(set(shown[title])) <= DISTINCT
    ]
    return Section(
        name, heading, text, tuple(shown), list(zip(*shown.values(), strict=True)), facets=facets, **more
    )


def knobs_shown(settings: Sequence[Setting]) -> list[str]:
    """Return the names of everything that was swept beside the row and differs between settings."""
    names = dict.fromkeys(name for setting in settings for name in setting.knobs)
    return [name for name in names if len({setting.knobs.get(name) for setting in settings}) > 1]


def knob(setting: Setting, name: str) -> str:
    """Return the value of a swept setting as a cell that sorts by its number; '-' if it is not read."""
    value = setting.knobs.get(name)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return Text(f"{value:g}", value=value)
    return "-" if value is None else str(value)


def judged_beside(rows: Sequence[Comparison]) -> str:
    """Return the title of the column of judgements: 'against random removal'."""
    return f"against {rival_of(rows)}"


def columns_of(rows: Sequence[Comparison], knobs: Sequence[str]) -> Columns:
    """Return the cells of a page by column: settings, judgement, difference, arms."""
    metric, counts = rows[0].metric, {len(row.setting.runs) for row in rows}
    settings: Columns = {
        "scorer": [row.setting.row for row in rows],
        **{name: [knob(row.setting, name) for row in rows] for name in knobs},
        judged_beside(rows): [row.judgement for row in rows],
    }
    seeds = {"seeds": [str(len(row.setting.runs)) for row in rows]} if len(counts) > 1 else {}
    tested = {"p, Holm": [p_value(row.holm) for row in rows]}
    if not metric.arms:
        values = [metric.text(metric.mean(row.setting)) for row in rows]
        over = [metric.change(row.difference) for row in rows]
        return settings | {f"{metric.heading}{ENDS}": values, f"over {rows[0].over}{ENDS}": over} | seeds | tested
    means = {
        arm_in_words(arm): [mean_cell(row, arm) for row in rows]
        for arm in (*COMPARED, *trusted_of({arm for row in rows for arm in row.setting.arms}), "proxy")
    }
    change = {f"{DEFENDED} - {rows[0].over}{ENDS}": [metric.change(row.difference) for row in rows]}
    return settings | change | means | seeds | tested


def mean_cell(row: Comparison, arm: str = DEFENDED) -> str:
    """Return the mean over seeds of an arm as a cell; '-' if the setting has no such arm."""
    if arm not in row.setting.arms or not row.setting.has(row.metric.path, arm):
        return "-"
    mean = row.metric.mean(row.setting, arm).mean
    return Text(f"{mean:.{row.metric.decimals}f}", value=mean)


def gains_chart(
    rows: Sequence[Comparison], knobs: Sequence[str], limits: tuple[float, float] | None = None
) -> str:
    """Return the differences with their intervals as a chart; nothing of one setting, or of too many."""
    paired = [row for row in rows if row.pair is not None]
    if not 1 < len(paired) <= CHARTED:
        return ""
    metric = rows[0].metric
    gains = [
        Gain(
            ", ".join([row.setting.row, *(f"{name}={knob(row.setting, name)}" for name in knobs)]),
            row.pair.difference,
            row.differs,
            metric.lower_is_better,
        )
        for row in paired
        if row.pair
    ]
    way = "lower is better" if metric.lower_is_better else "higher is better"
    rival = f"{DEFENDED if metric.arms else 'scorer'} - {rows[0].over}"
    label = ", ".join(filter(None, (rival, metric.name, metric.step)))
    return forest(gains, xlabel=f"{label}\n{way}", limits=limits or shared_limits([gain.mean for gain in gains]))


def numbers_of(row: Comparison) -> dict[str, Any]:
    """Return one row as plain numbers, by column."""
    setting, metric = row.setting, row.metric
    numbers: dict[str, Any] = {
        "name": setting.runs[0]["name"],
        **described(setting),
        "seeds": len(setting.runs),
    }
    if metric.arms:
        for arm in setting.arms:
            if setting.has(metric.path, arm):
                numbers |= interval_columns(arm, metric.values(setting, arm), metric.limits)
        numbers["gain_std"] = deviation(differences(row))
    else:
        numbers |= interval_columns(metric.path.rpartition(".")[2], metric.values(setting), metric.limits)
    return numbers | tested_columns("gain", row) | {"judgement": row.word, "best": row.best}


def differences(row: Comparison) -> list[float]:
    """Return defended - rival, by run."""
    arms = (row.metric.values(row.setting, arm) for arm in (DEFENDED, row.over))
    return [points(defended - rival) for defended, rival in zip(*arms, strict=True)]


def interval_columns(
    name: str, values: Sequence[float], limits: tuple[float, float] = (-inf, inf)
) -> dict[str, float]:
    """Return a mean, the ends of its 95 % interval over seeds, and their standard deviation, by column.

    NaN of one seed, and ends of no spread. limits: of the values, which no interval leaves.
    """
    return mean_interval(values).within(*limits).columns(name) | {f"{name}_std": deviation(values)}


def tested_columns(name: str, row: Comparison) -> dict[str, float | None]:
    """Return a paired difference with its interval and p-values, by column; nothing without a rival."""
    if row.pair is None:
        return {}
    p_values = {f"{name}_p_t": row.pair.t, f"{name}_p_holm": row.holm, f"{name}_p_wilcoxon": row.pair.wilcoxon}
    return row.pair.difference.columns(name) | p_values


def printed(rows: Sequence[Comparison], knobs: Sequence[str]) -> Printed:
    """Return header and rows for a paper: setting, seeds, arms, difference, p, and trusted arms."""
    metric = rows[0].metric
    trusted = trusted_of({arm for row in rows for arm in row.setting.arms}) if metric.arms else []
    header = ["scorer", *knobs, "seeds", *(COMPARED if metric.arms else [metric.heading])]
    header += [f"{DEFENDED if metric.arms else 'scorer'} - {rows[0].over}{ENDS}", "p, Holm"]
    for arm in map(arm_in_words, trusted):
        header += [arm, f"defended - {arm}{ENDS}"]
    return header, [printed_row(row, knobs, trusted) for row in rows]


def printed_row(row: Comparison, knobs: Sequence[str], trusted: Sequence[str]) -> list[str]:
    """Return the row of one setting for a paper; '-' if there is no such arm."""
    setting, metric = row.setting, row.metric
    cells = [setting.row, *(knob(setting, name) for name in knobs), str(len(setting.runs))]
    cells += [spread(metric.values(setting, arm), metric.decimals) for arm in (COMPARED if metric.arms else ("",))]
    cells += [metric.change(row.difference), p_value(row.holm)]
    for arm in trusted:
        if arm in setting.arms:
            gain = mean_interval(differences(replace(row, over=arm)))
            cells += [spread(metric.values(setting, arm), metric.decimals), metric.change(gain)]
        else:
            cells += ["-", "-"]
    return cells


def spread(values: Sequence[float], decimals: int) -> str:
    """Return '61.2 \N{PLUS-MINUS SIGN} 1.3', the mean and the standard deviation; of one value itself."""
    mean = f"{np.mean(values):.{decimals}f}"
    return f"{mean} \N{PLUS-MINUS SIGN} {deviation(values):.{decimals}f}" if len(values) > 1 else mean
