"""Samples in the plane and the angles of gradients, drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import rankdata

from defense.reporting.escaping import for_chart
from defense.reporting.figures import CLEAN, COLOURS_OF_MANY, INK, NOISY, STYLE, svg
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
    """Return training points, test points, influence and score side by side."""
    points, scorer = result["points"], result["config"]["scorer"]["name"]
    x, labels, truth = (np.array(points["train"][name]) for name in ("x", "label", "truth"))
    scores = {reference: points["reference"][f"{damping:g}"], scorer: points["score"]}
    lowest = max(1, round(result["config"]["order"]["share"] * len(labels)))
    with mpl.rc_context(STYLE | {"axes.grid": False}):
        figure = Figure(figsize=(10, 2.9))  # without a layout engine, which takes as long as the drawing
        figure.subplots_adjust(left=0.01, right=0.99, bottom=0.02, top=0.9, wspace=0.04)
        axes = figure.subplots(1, 4, sharex=True, sharey=True)
        coloured(axes[0], x, labels, "training set")
        wrong = x[labels != truth]
        axes[0].scatter(wrong[:, 0], wrong[:, 1], s=40, facecolors="none", edgecolors=NOISY, linewidths=1.2)
        coloured(axes[1], np.array(points["test"]["x"]), np.array(points["test"]["label"]), "test set")
        for panel, (name, values) in zip(axes[2:], scores.items(), strict=True):
            order = np.argsort(values, kind="stable")
            panel.scatter(x[:, 0], x[:, 1], c=rankdata(values), s=12, cmap="RdBu")
            low = x[order[:lowest]]
            panel.scatter(low[:, 0], low[:, 1], s=34, marker="x", color=INK, linewidths=0.9)
            panel.set_title(for_chart(name), fontsize=10)
        for panel in axes:
            panel.set(xticks=[], yticks=[])
        return svg(figure)


def coloured(axes: Axes, x: np.ndarray, labels: np.ndarray, title: str) -> None:
    """Draw points (n, 2), each in the colour of its label (n,)."""
    axes.scatter(x[:, 0], x[:, 1], c=[CLASSES[label % 2] for label in labels], s=12)
    axes.set_title(title, fontsize=10)


def rose(results: Sequence[Mapping[str, Any]]) -> str:
    """Return how many training gradients are at which angle to grad v, and where u is at each damping."""
    kinds = {"harmful": ("wrong label", NOISY), "others": ("others", CLEAN)}
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8, 3.4))
        axes: Any = figure.add_axes((0.06, -0.35, 0.62, 1.6), projection="polar")
        axes.set(thetamin=0, thetamax=180, rticks=[], ylim=(0, 1.05))
        for kind, (name, colour) in reversed(kinds.items()):
            each = [
                result["order"]["angles"][kind]["counts"]
                for result in results
                if kind in result["order"]["angles"]
            ]
            if each:
                counts = np.sum(each, axis=0)
                edges = np.radians(np.linspace(0, 180, len(counts) + 1))
                heights = np.sqrt(counts / counts.max())  # areas, not radii, are as many as there are samples
                axes.bar(
                    edges[:-1],
                    heights,
                    np.diff(edges),
                    align="edge",
                    color=colour,
                    alpha=0.65,
                    label=f"loss of {name}",
                )
        axes.annotate("", (0, 1), (0, 0), arrowprops={"arrowstyle": "-|>", "color": INK, "linewidth": 2})
        axes.plot([], [], color=INK, linewidth=2, label="grad v")
        dampings = [found["damping"] for found in results[0]["order"]["dampings"]]
        for number, (damping, colour) in enumerate(zip(dampings, COLOURS_OF_MANY[2:], strict=False)):
            angle = np.radians(np.mean([result["order"]["dampings"][number]["angle"] for result in results]))
            arrow = {"arrowstyle": "-|>", "color": colour, "linewidth": 1.6}
            axes.annotate("", (angle, 1), (0, 0), arrowprops=arrow)
            axes.plot([], [], color=colour, label=f"u, lambda {damping:g}")
        figure.legend(loc="upper right", fontsize=9)
        return svg(figure)
