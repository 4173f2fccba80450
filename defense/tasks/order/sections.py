"""The tables and charts of the page of orders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from defense.reporting.charts import Axis, curves
from defense.reporting.page import Section
from defense.reporting.statistics import Mean, p_value
from defense.tasks.order.table import ALL, METRICS, Gain, Orders, shown
from defense.tasks.order.words import outcome, signed, words

MEASURED = ("scorer", "Spearman", "Kendall", "overlap, %", "AUC")  # columns
ANGLES = (
    "Angles in degrees, means: of u to grad v; of the gradients of samples with a wrong label and of the "
    "others to grad v. AUC: as above. Indefinite: of how many of the matrices that are inverted an "
    "eigenvalue is below zero, in %: their inverse does not tell what retraining would do."
)


def overall_section(orders: Orders) -> Section:
    """Return the table of every scorer over all settings."""
    rows = [
        (
            scorer,
            *(words(orders.mean(metric, scorer), metric) for metric in METRICS),
            words(orders.mean("auc", scorer), "auc"),
            cost(orders.table[orders.table["scorer"] == scorer]["seconds"]),
        )
        for scorer in orders.scorers
    ]
    main = orders.table[orders.table["scorer"] == orders.main]
    exact = (orders.reference, "-", "-", "-", words(orders.mean("reference_auc", orders.main), "auc"))
    text = (
        "AUC: the chance that a sample whose label is known to be wrong scores lower than another, over all runs "
        "with known noise; of the influence, over all dampings. Seconds of one scoring, the median; of the "
        "influence, at all dampings together."
    )
    header = ("scorer", "Spearman", "Kendall", "overlap, %", "AUC", "seconds")
    return Section("order", "Over all settings", text, header, [*rows, (*exact, cost(main["reference_seconds"]))])


def sections_by_factor(orders: Orders) -> list[Section]:
    """Return a table for each factor, and a chart of how the levels fare with damping."""
    sections = []
    for number, factor in enumerate(orders.grounds, start=1):
        rows = [
            (
                shown(level),
                scorer,
                *(words(orders.mean(metric, scorer, {factor: level}), metric) for metric in METRICS),
                *(words(orders.mean(name, scorer, {factor: level}), "auc") for name in ("auc", "reference_auc")),
                *(
                    plain(orders.mean(name, scorer, {factor: level}), ".0f")
                    for name in ("angle", "harmful", "others")
                ),
                f"{100 * indefinite(orders, factor, level):.0f}" if "lowest" in known(orders) else "-",
            )
            for level in orders.levels(factor)
            for scorer in orders.scorers
            if orders.mean("spearman", scorer, {factor: level})
        ]
        header = (factor, *MEASURED, f"AUC of {orders.reference}", "angle", "wrong", "others", "indefinite, %")
        drawn, facets = chart(orders, factor), ("scorer",)
        sections.append(Section(f"factor_{number}", f"By {factor}", ANGLES, header, rows, drawn, facets=facets))
    return sections


def chart(orders: Orders, factor: str) -> str:
    """Return Spearman's rho against damping by level, or by scorer; nothing for one damping or seed."""
    if "damping" not in orders.factors or len(orders.seeds) < 2:
        return ""
    main, dampings = orders.main, orders.levels("damping")
    if factor == "damping":
        places: list[tuple[str, str, dict[str, Any]]] = [(scorer, scorer, {}) for scorer in orders.scorers]
    else:
        places = [(f"{main}, {shown(level)}", main, {factor: level}) for level in orders.levels(factor)]
    lines = {
        name: {damping: orders.mean("spearman", scorer, place | {"damping": damping}) for damping in dampings}
        for name, scorer, place in places
    }
    found = {name: {x: mean for x, mean in line.items() if mean} for name, line in lines.items()}
    return curves(found, Axis("damping lambda", log=True), Axis("Spearman's rho"), level=0)


def gains_section(orders: Orders, gains: Sequence[Gain]) -> list[Section]:
    """Return the table of what other scorers have over ip; none where there is no other."""
    rows = [
        (
            gain.scorer,
            f"{gain.factor}={gain.level}" if gain.factor else ALL,
            signed(gain.spearman, "{:+.3f}", 1),
            signed(gain.overlap, "{:+.1f}", 100),
            p_value(gain.p),
            outcome(gain),
        )
        for gain in gains
    ]
    text = (
        "Differences of means, paired by seed, with 95 % intervals; p of Spearman's rho by the paired t test, "
        "after Holm's correction for the whole table."
    )
    header = ("scorer", "where", "Spearman - ip", "overlap - ip, points", "p", "order is")
    return [Section("gains", "Against ip", text, header, rows, facets=("scorer",))] if rows else []


def settings_section(orders: Orders) -> list[Section]:
    """Return every setting with the order of the main scorer, the worst first; none where there is one."""
    if not orders.factors:
        return []
    main = orders.table[orders.table["scorer"] == orders.main]
    grouped = main.groupby(list(orders.factors), sort=False)
    data = grouped[[*METRICS, "angle", "lowest"]].mean().join(grouped["seed"].nunique().rename("seeds"))
    data = data.sort_values("spearman", kind="stable").reset_index()
    rows = [
        (
            *(shown(row[factor]) for factor in orders.factors),
            *(
                f"{row[metric] * (100 if metric == 'overlap' else 1):.{0 if metric == 'overlap' else 2}f}"
                for metric in METRICS
            ),
            f"{row['angle']:.0f}",
            f"{row['lowest']:.2g}" if pd.notna(row["lowest"]) else "-",
        )
        for _, row in data.iterrows()
    ]
    header = (*orders.factors, "Spearman", "Kendall", "overlap, %", "angle", "lowest eigenvalue")
    text = f"Of {orders.main}, means over seeds, the worst first."
    facets = tuple(orders.factors)
    found = Section("settings", "Every setting", text, header, rows, data=data, facets=facets)
    return [replace(found, collapsed=True, html_only=True)]


def indefinite(orders: Orders, factor: str, level: Any) -> float:
    """Return the share of the matrices H + lambda I at a level that have an eigenvalue below zero."""
    rows = orders.table[orders.table[factor] == level].dropna(subset=["lowest"])
    return float((rows["lowest"] + rows["damping"] < 0).mean()) if len(rows) else 0.0


def known(orders: Orders) -> list[str]:
    """Return the columns that hold numbers."""
    return [str(name) for name in orders.table.columns if orders.table[name].notna().any()]


def plain(mean: Mean | None, form: str) -> str:
    """Return a mean without its interval."""
    return "-" if mean is None else format(mean.mean, form)


def cost(seconds: pd.Series) -> str:
    """Return the median of times; '-' where none is known."""
    found = seconds.dropna()
    return f"{found.median():.2f}" if len(found) else "-"
