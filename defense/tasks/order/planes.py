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
from defense.reporting.reading import is_rival
from defense.reporting.sweeps import swept
from defense.tasks.order.table import Orders, factor_of, shown

CASES = 4  # of which pictures are drawn, at most
CLASSES = ("#1d6f8a", "#b7791f")


def planes_sections(orders: Orders) -> list[Section]:
    """Return, by level of the first factor, the points of its first run, and the angles of all of its runs.

    On the page of a single run nothing where that is not wanted, nor for chance, which has nothing to show.
    """
    first = orders.results[0]["config"]
    if len(orders.results) == 1 and (not first["order"]["draw"] or is_rival(first)):
        return []
    sections = []
    for number, (name, results) in enumerate(by_case(orders).items(), start=1):
        where = f": {name}" if name else ""
        drawn = [result for result in results if "points" in result]
        if drawn and number <= CASES:
            one = drawn[0]
            damping = middle(one)
            text = (
                f"Of {one['config']['scorer']['name']}, seed {one['seed']}, lambda {damping:g}. Training and "
                "test points by their label, wrong labels ringed; scores by their rank, the lowest red, and the "
                f"lowest {100 * one['config']['order']['share']:g} % crossed."
            )
            sections.append(
                Section(
                    f"points_{number}",
                    f"Points{where}",
                    text,
                    chart=panels(one, damping, orders.reference),
                    html_only=True,
                )
            )
        text = (
            "Of the gradients of training samples to grad v, counted over all runs (each model once), and of u to "
            "grad v at each lambda, the mean: an angle of 0 is the same direction, and below 90 a sample helps."
        )
        sections.append(Section(f"angles_{number}", f"Angles{where}", text, chart=rose(results), html_only=True))
    return sections


def by_case(orders: Orders) -> dict[str, list[dict[str, Any]]]:
    """Return the results of the main scorer by the level of the first factor beside damping; '' where none is."""
    factors = [factor for factor in orders.factors if factor != "damping"]
    cases: dict[str, list[dict[str, Any]]] = {}
    for result in orders.results:
        if result["config"]["scorer"]["name"] == orders.main:
            levels = dict(factor_of(part) for part in swept(result, orders.results)) | {"name": result["name"]}
            cases.setdefault(shown(levels.get(factors[0], "-")) if factors else "", []).append(result)
    return cases


def middle(result: Mapping[str, Any]) -> float:
    """Return the damping that is drawn, of several the middle one."""
    dampings = result["config"]["order"]["dampings"]
    return float(sorted(dampings)[(len(dampings) - 1) // 2])


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
