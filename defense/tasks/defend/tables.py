"""The tables of settings and of cells as a page shows them, made of the plain numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from defense.reporting.cells import described, tidy
from defense.reporting.comparing import knobs_shown
from defense.reporting.exports import Text
from defense.reporting.judging import Judgement
from defense.reporting.page import Section
from defense.reporting.paper import ABOUT, printed
from defense.reporting.settings import WORST, Setting
from defense.reporting.significance import FEWEST, Paired
from defense.reporting.statistics import ALPHA, deviation, mean_interval, p_value, points
from defense.reporting.sweeps import FOLDER, LABEL
from defense.reporting.tables import arm_in_words, trusted_of
from defense.tasks.defend.trusting import ByArm, beside_trusted

DISTINCT = 30  # values of a column: of more, rows are not chosen by it
ENDS = " (95 %)"


def settings_section(judgements: Sequence[Judgement], data: pd.DataFrame) -> Section:
    """Return one row a setting: its judgement, accuracies, paired differences to other arms, p-values, costs."""
    knobs = knobs_of(data)
    trusted = trusted_of({arm for judgement in judgements for arm in judgement.setting.arms})
    tones = [judgement.word if judgement.holm is not None else "unjudged" for judgement in judgements]
    columns: dict[str, list[str]] = {
        **{name: [spoken(value) for value in data[name]] for name in ("scorer", *knobs)},
        "judgement": [Text(word, tone=tone) for word, tone in zip(data["judgement"], tones, strict=True)],
        f"defended - control{ENDS}": spans(data, "gain"),
        "seeds": numbers(data, "seeds", "{:.0f}"),
        "baseline": numbers(data, "baseline"),
        "control": numbers(data, "control"),
        "defended": numbers(data, "defended"),
        **{arm_in_words(arm): numbers(data, arm) for arm in trusted},
        "p, t": numbers(data, "gain_p_t", p_value),
        "p, Holm": numbers(data, "gain_p_holm", p_value),
        "p, Wilcoxon": numbers(data, "gain_p_wilcoxon", p_value),
        "seeds of McNemar p < 0.05": shares(data, "mcnemar_below", "mcnemar_seeds"),
        f"defended - baseline{ENDS}": spans(data, "gain_over_baseline"),
        "to baseline: p, t": numbers(data, "gain_over_baseline_p_t", p_value),
        "to baseline: p, Holm": numbers(data, "gain_over_baseline_p_holm", p_value),
        "to baseline: p, Wilcoxon": numbers(data, "gain_over_baseline_p_wilcoxon", p_value),
        **{name: cells for arm in trusted for name, cells in over_trusted(data, arm).items()},
        "clean": numbers(data, "defended_clean"),
        "triggered": numbers(data, "triggered"),
        "AUC": numbers(data, "auc", "{:.3f}"),
        "proxy": numbers(data, "proxy"),
        "own seconds": numbers(data, "seconds_own"),
        "all seconds": numbers(data, "seconds_all"),
    }
    shown = {name: cells for name, cells in columns.items() if any(cell != "-" for cell in cells)}
    facets = ["scorer", *knobs, "judgement"]
    caption = f"Accuracy on test under adaptive attack at worst, in percent: {ABOUT}."
    table = printed(judgements, knobs_shown([judgement.setting for judgement in judgements]))
    found = data_section("settings", "Every setting", about_settings(data), shown, data, facets)
    return replace(found, paper=table, caption=caption)


def over_trusted(data: pd.DataFrame, arm: str) -> dict[str, list[str]]:
    """Return the columns that say how the defended arm stands beside a trusted one; '-' where there is none."""
    column, other = f"gain_over_{arm}", arm_in_words(arm)
    words = [str(word) if isinstance(word, str) else "-" for word in data[f"judgement_over_{arm}"]]
    judged = data.get(f"{column}_p_holm", pd.Series(index=data.index, dtype=float)).notna()
    tones = [word if known else "unjudged" for word, known in zip(words, judged, strict=True)]
    return {
        f"defended - {other}{ENDS}": spans(data, column),
        f"to {other}: judgement": [Text(word, tone=tone) for word, tone in zip(words, tones, strict=True)],
        f"to {other}: p, t": numbers(data, f"{column}_p_t", p_value),
        f"to {other}: p, Holm": numbers(data, f"{column}_p_holm", p_value),
        f"to {other}: p, Wilcoxon": numbers(data, f"{column}_p_wilcoxon", p_value),
    }


def cells_section(data: pd.DataFrame) -> Section:
    """Return one row a run, with the link to its own page."""
    arms = {str(name).removesuffix(f".{WORST}") for name in data if str(name).endswith(f".{WORST}")}
    trusted = trusted_of(arms)
    columns: dict[str, list[str]] = {
        "run": runs_of(data),
        "scorer": [spoken(value) for value in data["scorer"]],
        **{name: [spoken(value) for value in data[name]] for name in knobs_of(data)},
        "seed": numbers(data, "seed", "{:.0f}"),
        "baseline": numbers(data, f"baseline.{WORST}"),
        "control": numbers(data, f"control.{WORST}"),
        "defended": numbers(data, f"defended.{WORST}"),
        **{arm_in_words(arm): numbers(data, f"{arm}.{WORST}") for arm in trusted},
        f"defended - control{ENDS}": spans(data, "gain"),
        "p, McNemar": numbers(data, "mcnemar_p", p_value),
        "clean": numbers(data, "defended.clean"),
        "transfer": numbers(data, "defended.transfer"),
        "own seconds": numbers(data, "seconds_own"),
        "all seconds": numbers(data, "seconds_all"),
    }
    text = (
        "One row a run; its name leads to its own page. In brackets the 95 % interval over test samples, and p of"
        " McNemar's exact test, of defended against control on the same test samples: both speak of the choice of"
        " test samples alone, not of the luck of retraining, and judge nothing here. Own seconds: of the stages "
        "that the run computed itself; all seconds: of every stage that it rests on, whoever computed it."
    )
    again = int((~data["counted"]).sum())
    text += f" {again} of the runs repeat others and count once." if again else ""
    shown = {name: cells for name, cells in columns.items() if any(cell != "-" for cell in cells)}
    return data_section("cells", "Every run", text, shown, data, ["scorer", *knobs_of(data), "seed"])


def data_section(
    name: str, heading: str, text: str, columns: dict[str, list[str]], data: pd.DataFrame, facets: Sequence[str]
) -> Section:
    """Return a section of the page, not of the terminal; rows can be chosen by a facet of a few values."""
    rows = list(zip(*columns.values(), strict=True))
    few = [facet for facet in facets if facet in columns and 1 < len(set(columns[facet])) <= DISTINCT]
    return Section(name, heading, text, tuple(columns), rows, data=data, facets=few, html_only=True)


def about_settings(data: pd.DataFrame) -> str:
    """Return what the columns of the table of settings are, and what they are not."""
    said = [
        "Accuracy on test under adaptive attack at worst, in percent, means over seeds; in brackets the 95 % "
        "interval of the difference, paired by seed. p, t: Student's paired t test over seeds; Holm: corrected "
        "for all rows that have a p-value, and what the judgement rests on. Best is the highest accuracy, and "
        "only if it is better than its control; whether it is better than the next one is not tested."
    ]
    if "gain_p_wilcoxon" in data:
        said.append("Wilcoxon: the signed-rank test over seeds, exact.")
        if (data["seeds"] < FEWEST).any():
            said.append(f"With fewer than {FEWEST} seeds it cannot reach 0.05, however large the difference is.")
    if any(str(name).startswith("judgement_over_trusted") for name in data):
        said.append(
            "Trusted: trained on the validation samples too, nothing treated; x3: if they weigh 3 times as much. "
            "Gains over it are judged like those over the control, and corrected for their own number."
        )
    if "mcnemar_seeds" in data and data["mcnemar_seeds"].any():
        said.append(
            "McNemar: within how many seeds defended and control differ on test samples; of those alone it speaks."
        )
    if (data["seeds"] < 2).any():
        said.append("A setting of one seed is not judged: it has no p-value.")
    said.append(
        "Seconds are means over seeds: own of the stages that a run computed itself, which the first run of a "
        "sweep does for others, all of every stage that it rests on."
    )
    return " ".join(said)


def knobs_of(data: pd.DataFrame) -> list[str]:
    """Return the columns that were swept, beside the scorer: those between it and the first number."""
    end = "seeds" if "seeds" in data else "counted"
    names = list(data.columns)
    swept = names[names.index("scorer") + 1 : names.index(end)]
    several = ["name"] if data["name"].nunique() > 1 else []
    return [*several, *(name for name in swept if data[name].nunique() > 1)]


def runs_of(data: pd.DataFrame) -> list[str]:
    """Return the cells that lead to the runs' own pages, by what the runs are called; '-' of a run without one."""
    if LABEL not in data:
        return ["-"] * len(data)
    return [
        Text(label, href=folder) if folder else "-"
        for label, folder in zip(data[LABEL], data[FOLDER], strict=True)
    ]


def numbers(data: pd.DataFrame, column: str, form: str | Callable[[float], str] = "{:.1f}") -> list[str]:
    """Return a column as text that sorts by its number; '-' where there is none."""
    write = form if callable(form) else form.format
    if column not in data:
        return ["-"] * len(data)
    return ["-" if pd.isna(value) else Text(write(value), value=value) for value in data[column]]


def spans(data: pd.DataFrame, column: str) -> list[str]:
    """Return means with their intervals as text that sorts by the mean; '-' where there is none."""
    found: list[str] = []
    for row in data.to_dict("records"):
        if pd.isna(row[column]):
            found.append("-")
            continue
        low, high = row.get(f"{column}_low"), row.get(f"{column}_high")
        ends = "" if pd.isna(low) or pd.isna(high) else f" ({low:+.1f} to {high:+.1f})"
        found.append(Text(f"{row[column]:+.1f}{ends}", value=row[column]))
    return found


def shares(data: pd.DataFrame, column: str, total: str) -> list[str]:
    """Return '3 of 5'; '-' of nothing."""
    pairs = zip(data[column], data[total], strict=True)
    return [Text(f"{part} of {whole}", value=part / whole) if whole else "-" for part, whole in pairs]


def spoken(value: Any) -> str:
    """Return what was swept as text that sorts by its number, if it is one."""
    if value is None or pd.isna(value):
        return "-"
    return Text(f"{value:g}", value=value) if isinstance(value, float) else str(value)


def settings_table(judgements: Sequence[Judgement], cells: pd.DataFrame) -> pd.DataFrame:
    """Return one row a setting: means with 95 % intervals over seeds, p-values, costs.

    Accuracies are adaptive at worst unless named otherwise, in percent; gains in points.
    """
    rows = []
    beside = beside_trusted([judgement.setting for judgement in judgements])
    for number, judgement in enumerate(judgements, start=1):
        setting = judgement.setting
        own = cells[(cells["setting"] == number) & cells["counted"]]
        within = own.get("mcnemar_p", pd.Series(dtype=float)).dropna()
        rows.append(
            {
                "setting": number,
                "name": setting.runs[0]["name"],
                **described(setting),
                "seeds": len(setting.runs),
                **interval("baseline", setting.values("baseline", WORST)),
                **interval("control", setting.values("control", WORST)),
                **interval("defended", setting.values("defended", WORST)),
                **tested("gain", judgement.pair, judgement.holm),
                "gain_std": deviation(differences(setting, WORST)),
                "judgement": judgement.word,
                "best": judgement.best,
                "mcnemar_seeds": len(within),
                "mcnemar_below": int((within < ALPHA).sum()),
                **tested("gain_over_baseline", judgement.baseline, judgement.baseline_holm),
                **trusted_numbers(setting, beside),
                **interval("defended_clean", setting.values("defended", "clean")),
                **interval("gain_clean", differences(setting, "clean")),
                **interval("gain_transfer", differences(setting, "transfer")),
                "triggered": mean_of(own, "defended.triggered"),
                "auc": mean_of(own, "selection.auc"),
                "proxy": mean_of(own, f"proxy.{WORST}") if "proxy" in setting.arms else np.nan,
                "seconds_own": mean_of(own, "seconds_own"),
                "seconds_all": mean_of(own, "seconds_all"),
            }
        )
    return tidy(pd.DataFrame(rows))


def trusted_numbers(setting: Setting, beside: ByArm) -> dict[str, Any]:
    """Return every trusted arm of a setting, and the gain over it with its judgement, by column."""
    found: dict[str, Any] = {}
    for arm, rows in beside.items():
        for row in rows:
            if row.setting is setting:
                found |= interval(arm, setting.values(arm, WORST))
                found |= tested(f"gain_over_{arm}", row.pair, row.holm) | {f"judgement_over_{arm}": row.word}
    return found


def tested(name: str, pair: Paired, corrected: float | None) -> dict[str, float | None]:
    """Return a paired difference with its interval and p-values, by column."""
    p_values = {f"{name}_p_t": pair.t, f"{name}_p_holm": corrected, f"{name}_p_wilcoxon": pair.wilcoxon}
    return pair.difference.columns(name) | p_values


def mean_of(table: pd.DataFrame, column: str) -> float:
    """Return the mean of a column; NaN where there is none or nothing in it."""
    return float(table[column].astype(float).mean()) if column in table else float("nan")


def interval(name: str, values: Sequence[float]) -> dict[str, float]:
    """Return a mean, the ends of its 95 % interval over seeds, and their standard deviation, by column.

    NaN of one seed, and ends of no spread.
    """
    return mean_interval(values).columns(name) | {f"{name}_std": deviation(values)}


def differences(setting: Setting, metric: str) -> list[float]:
    """Return defended - control in points, by run."""
    pairs = zip(setting.values("defended", metric), setting.values("control", metric), strict=True)
    return [points(defended - control) for defended, control in pairs]
