"""Samples in the plane and the angles of gradients, drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from scipy.stats import rankdata

from defense.reporting.charts import CLEAN, COLOURS_OF_MANY, INK, NOISY, RIGHT, STYLE, canvas, svg
from defense.reporting.escaping import for_chart
from defense.reporting.page import Section
from defense.reporting.reading import Result, is_rival
from defense.tasks.order.table import ALL, Orders, shown

CASES = 4  # of which pictures are drawn, at most
CLASSES = ("#1d6f8a", "#b7791f")


def planes_sections(orders: Orders) -> list[Section]:
    """Return, for each level of the first factor, the points of its first run and the angles of all its runs.

    The page of a single run has none if it is not to draw, or if its scorer is chance or perfect knowledge.
    """
    first = orders.results[0]["config"]
    if len(orders.results) == 1 and (not first["order"]["draw"] or is_rival(first)):
        return []
    sections = []
    for number, (level, results) in enumerate(by_level(orders).items(), start=1):
        name, drawn = f": {level}" if level != ALL else "", [result for result in results if "points" in result]
        if drawn and number <= CASES:
            spec, scorer = drawn[0]["config"]["order"], drawn[0]["config"]["scorer"]["name"]
            damping = sorted(spec["dampings"])[(len(spec["dampings"]) - 1) // 2]  # the middle one
            text = (
                f"By {scorer}, seed {drawn[0]['seed']}, lambda {damping:g}. A point has the colour of its label, "
                "and a ring if that is wrong. Scores are by rank: red is low, and the lowest "
                f"{100 * spec['share']:g} % are crossed."
            )
            picture = panels(drawn[0], damping, orders.reference)
            sections.append(Section(f"points_{number}", f"Points{name}", text, chart=picture, html_only=True))
        text = (
            "Bars count the gradients of training samples at each angle to grad v, over all runs. Arrows are u at "
            "each lambda, a mean over runs. 0 degrees is the same direction; a sample below 90 helps."
        )
        picture = rose(results)
        sections.append(Section(f"angles_{number}", f"Angles{name}", text, chart=picture, html_only=True))
    return sections


def by_level(orders: Orders) -> dict[str, list[Result]]:
    """Return the results of the main scorer by level of the first factor beside damping, or of ALL."""
    factor = next((name for name in orders.factors if name != "damping"), ALL)
    runs = orders.table[orders.table["scorer"] == orders.main].groupby(factor, observed=True)["run"]
    return {shown(level): [orders.results[run] for run in numbers.unique()] for level, numbers in runs}


def panels(result: Mapping[str, Any], damping: float, reference: str) -> str:
    """Return training points and test points, and below them influence and score."""
    points, scorer = result["points"], result["config"]["scorer"]["name"]
    x, labels, truth = (np.array(points["train"][name]) for name in ("x", "label", "truth"))
    scores = {reference: points["reference"][f"{damping:g}"], scorer: points["score"]}
    lowest = max(1, round(result["config"]["order"]["share"] * len(labels)))
    with mpl.rc_context(STYLE | {"axes.grid": False}):
        figure, axes = canvas(5, rows=2, columns=2, left=RIGHT, below=-1, xticks=[], yticks=[])
        for panel in axes[1:]:
            panel.sharey(axes[0])
        coloured(axes[0], x, labels, "training set")
        wrong = x[labels != truth]
        axes[0].scatter(wrong[:, 0], wrong[:, 1], s=40, facecolors="none", edgecolors=NOISY, linewidths=1.2)
        coloured(axes[1], np.array(points["test"]["x"]), np.array(points["test"]["label"]), "test set")
        for panel, (name, values) in zip(axes[2:], scores.items(), strict=True):
            order = np.argsort(values, kind="stable")
            panel.scatter(x[:, 0], x[:, 1], c=rankdata(values), s=12, cmap="RdBu")
            low = x[order[:lowest]]
            panel.scatter(low[:, 0], low[:, 1], s=34, marker="x", color=INK, linewidths=0.9)
            panel.set(title=for_chart(name))
        return svg(figure)


def coloured(axes: Axes, x: np.ndarray, labels: np.ndarray, title: str) -> None:
    """Draw points (n, 2), each in the colour of its label (n,)."""
    axes.scatter(x[:, 0], x[:, 1], c=[CLASSES[label % 2] for label in labels], s=12)
    axes.set(title=title)


def rose(results: Sequence[Mapping[str, Any]]) -> str:
    """Return how many training gradients are at which angle to grad v, and where u is at each damping."""
    kinds = {"others": ("loss of others", CLEAN), "harmful": ("loss of wrong label", NOISY)}
    angles = [result["order"]["angles"] for result in results]
    with mpl.rc_context(STYLE):
        figure, (axes,) = canvas(2.5, left=RIGHT, below=-1, aspect="equal", xlim=(-1.2, 1.2), ylim=(0, 1.2))
        axes.set_axis_off()
        for degrees in range(0, 181, 30):
            x, y = towards(np.radians(degrees))
            axes.plot([0, x], [0, y], color=CLEAN, linewidth=0.8)
            axes.text(1.1 * x, 1.1 * y, f"{degrees}°", ha="center", va="center")
        for kind, (name, colour) in kinds.items():
            each = [counts[kind]["counts"] for counts in angles if kind in counts]
            if each:
                counts = np.sum(each, axis=0)
                edges = np.radians(np.linspace(0, 180, len(counts) + 1)).repeat(2)[1:-1]
                # areas, not radii, are as many as there are samples
                x, y = np.sqrt(counts / counts.max()).repeat(2) * towards(edges)
                axes.fill([0, *x], [0, *y], color=colour, alpha=0.65, linewidth=0, label=name)
        point_at(axes, 0.0, INK, "grad v")
        dampings = [found["damping"] for found in results[0]["order"]["dampings"]]
        for number, (damping, colour) in enumerate(zip(dampings, COLOURS_OF_MANY[2:], strict=False)):
            angle = np.mean([result["order"]["dampings"][number]["angle"] for result in results])
            point_at(axes, float(np.radians(angle)), colour, f"u, lambda {damping:g}")
        return svg(figure, axes)


def point_at(axes: Axes, angle: float, colour: str, label: str) -> None:
    """Draw an arrow of length 1 at an angle in radians."""
    arrow = {"arrowstyle": "-|>", "color": colour, "linewidth": 2, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", tuple(towards(angle)), (0, 0), arrowprops=arrow)
    axes.plot([], [], color=colour, linewidth=2, label=label)


def towards(angle: float | np.ndarray) -> np.ndarray:
    """Return the points of the unit circle at angles in radians, (2,) or (2, n)."""
    return np.array([np.cos(angle), np.sin(angle)])
