"""The table of settings beside their rivals: as a page shows it, as plain numbers, and as a paper prints it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from defense.reporting.arms import arm_in_words, trusted_of
from defense.reporting.charts import Gain, forest, shared_limits
from defense.reporting.compare import BASELINE, CONTROL, DEFENDED, Comparison, rival_of
from defense.reporting.exports import Printed, Text
from defense.reporting.frame import Setting, described, tidy
from defense.reporting.page import Section
from defense.reporting.statistics import Mean, deviation, mean_interval, p_value, points

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
) -> Section:
    """Return a chart and a table of settings beside their rival, a row each.

    data: the table as plain numbers, if it is more than `numbers_of` every row. untreated: the same settings
    beside no treatment, if the table has a column of that.
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
        chart=gains_chart(rows, knobs),
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
    """Return the title of the column of judgements: 'beside random removal'."""
    return f"beside {rival_of(rows)}"


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


def gains_chart(rows: Sequence[Comparison], knobs: Sequence[str]) -> str:
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
    return forest(gains, xlabel=f"{label}\n{way}", limits=shared_limits([gain.mean for gain in gains]))


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
                numbers |= interval_columns(arm, metric.values(setting, arm))
        numbers["gain_std"] = deviation(differences(row))
    else:
        numbers |= interval_columns(metric.path.rpartition(".")[2], metric.values(setting))
    return numbers | tested_columns("gain", row) | {"judgement": row.word, "best": row.best}


def differences(row: Comparison) -> list[float]:
    """Return defended - rival, by run."""
    arms = (row.metric.values(row.setting, arm) for arm in (DEFENDED, row.over))
    return [points(defended - rival) for defended, rival in zip(*arms, strict=True)]


def interval_columns(name: str, values: Sequence[float]) -> dict[str, float]:
    """Return a mean, the ends of its 95 % interval over seeds, and their standard deviation, by column.

    NaN of one seed, and ends of no spread.
    """
    return mean_interval(values).columns(name) | {f"{name}_std": deviation(values)}


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


def matched(setting: Setting, name: str) -> Mean | None:
    """Return the mean over seeds of a measure of the selection, within [0, 1]; None of unknown noise."""
    values = [run["selection"][name] for run in setting.runs if run["selection"].get(name) is not None]
    return mean_interval(values).within(0.0, 1.0) if values else None


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
    facets = ("scorer", *knobs)
    return [table_section("selection", "Wrong labels among the treated samples", text, columns, facets=facets)]


def share_cell(mean: Mean | None, decimals: int) -> str:
    """Return a mean share with its interval as a cell; '-' of none."""
    return "-" if mean is None else Text(mean.text(decimals, signed=False), value=mean.mean)


def numbers(data: pd.DataFrame, column: str, form: str | Callable[[float], str] = "{:.1f}") -> list[str]:
    """Return a column of plain numbers as cells that sort by them; '-' if there is none."""
    write = form if callable(form) else form.format
    if column not in data:
        return ["-"] * len(data)
    return ["-" if pd.isna(value) else Text(write(value), value=value) for value in data[column]]


def spans(data: pd.DataFrame, column: str) -> list[str]:
    """Return a column of means with their intervals as cells that sort by the mean; '-' if there is none."""
    if column not in data:
        return ["-"] * len(data)
    ends = (data.get(f"{column}_{end}", pd.Series(np.nan, index=data.index)) for end in ("low", "high"))
    return [
        "-" if pd.isna(mean) else Text(Mean(mean, low, high, 2).text(), value=mean)
        for mean, low, high in zip(data[column], *ends, strict=True)
    ]


def shares(data: pd.DataFrame, column: str, total: str) -> list[str]:
    """Return cells as '3 of 5'; '-' of nothing."""
    pairs = zip(data[column], data[total], strict=True)
    return [Text(f"{part} of {whole}", value=part / whole) if whole else "-" for part, whole in pairs]


def cell(value: Any) -> str:
    """Return a swept value as a cell that sorts by its number; '-' of none."""
    if value is None or pd.isna(value):
        return "-"
    return Text(f"{value:g}", value=value) if isinstance(value, float) else str(value)
