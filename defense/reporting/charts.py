"""The charts of a sweep: gains with their intervals, accuracy against budget, robust against clean accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from defense.reporting.arms import arm_in_words
from defense.reporting.escaping import for_chart
from defense.reporting.figures import COLOURS, COLOURS_OF_MANY, INK, NOISY, STYLE, STYLES, colours_of, svg
from defense.reporting.statistics import Mean

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
BAND = 0.1  # opacity


Curve = Mapping[float, Mean]  # by budget


@dataclass(frozen=True)
class Gain:
    """A line of a forest: its name, its mean, and whether it is called different from zero."""

    name: str
    mean: Mean
    differs: bool
    lower_is_better: bool = False


@dataclass(frozen=True)
class Spot:
    """A model between two measures, in percent or points, with its intervals."""

    colour: str  # what its colour stands for: the scorer
    marker: str  # what its marker stands for: what else was swept
    x: Mean
    y: Mean


@dataclass(frozen=True)
class Axis:
    """A measure that models are drawn against."""

    label: str
    lower_is_better: bool = False


def forest(gains: Sequence[Gain], *, xlabel: str, limits: tuple[float, float] | None = None) -> str:
    """Return means with their intervals, one line each; a single value has no interval.

    limits: of the horizontal axis, so that several charts can be read beside each other.
    """
    kinds = {
        "better, after correction": COLOURS["defended"],
        "worse, after correction": NOISY,
        "not distinguishable, or not judged": COLOURS["baseline"],
    }
    better, worse, neither = kinds.values()
    drawn = set()
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8, 1.4 + 0.3 * len(gains)), layout="constrained")
        axes = figure.subplots()
        for height, gain in enumerate(reversed(gains)):
            good = (gain.mean.mean > 0) is not gain.lower_is_better
            colour = neither if not gain.differs else better if good else worse
            drawn.add(colour)
            axes.plot(gain.mean.mean, height, "o", color=colour, markersize=4)
            if gain.mean.judgeable:
                axes.plot([gain.mean.low, gain.mean.high], [height, height], color=colour)
        axes.axvline(0, color=INK, linewidth=1)
        axes.set_yticks(range(len(gains)), [for_chart(gain.name) for gain in reversed(gains)])
        axes.set(xlabel=xlabel, xlim=limits, ylim=(-0.6, len(gains) - 0.4))
        handles = [
            Line2D([], [], color=colour, marker="o", markersize=4, label=name)
            for name, colour in kinds.items()
            if colour in drawn
        ]
        figure.legend(handles=handles, loc="outside upper center", ncols=len(kinds), fontsize=9)
        return svg(figure)


def shared_limits(means: Sequence[Mean]) -> tuple[float, float]:
    """Return limits that all means fit into, zero too, and their intervals as far as four times that."""
    centres = [0.0, *(mean.mean for mean in means)]
    room = 4 * max(max(centres) - min(centres), 1.0)
    ends = [end for mean in means if mean.judgeable for end in (mean.low, mean.high)]
    low = max(min([*centres, *ends]), min(centres) - room)
    high = min(max([*centres, *ends]), max(centres) + room)
    margin = 0.04 * max(high - low, 1.0)
    return low - margin, high + margin


def budget_curves(lines: Mapping[str, Curve], references: Mapping[str, Curve], gains: Mapping[str, Curve]) -> str:
    """Return accuracy against budget, and the paired gain over the control, with intervals as bands.

    lines and gains: by scorer; references: by arm.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8, 6.4), layout="constrained")
        upper, lower = figure.subplots(2, 1, sharex=True)
        for arm, colour in colours_of(references).items():
            line(upper, references[arm], colour, "--", "", arm_in_words(arm))
        for axes, curves in ((upper, lines), (lower, gains)):
            for (name, curve), (colour, dashes, marker) in zip(curves.items(), cycle(STYLES)):
                line(axes, curve, colour, dashes, marker, name if axes is upper else "")
        every = [mean for curve in (*lines.values(), *references.values()) for mean in curve.values()]
        upper.set(ylabel="adaptive accuracy at worst, %", ylim=within(every))
        paired = [mean for curve in gains.values() for mean in curve.values()]
        lower.axhline(0, color=INK, linewidth=1)
        lower.set(ylabel="defended - control, points", ylim=shared_limits(paired))
        ticks = sorted({budget for curve in lines.values() for budget in curve})
        lower.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        lower.set_xlabel("budget: fraction of the training samples treated")
        figure.legend(loc="outside right upper", fontsize=9)
        return svg(figure)


def growth(lines: Mapping[str, Curve], *, xlabel: str, ylabel: str, level: float | None = None) -> str:
    """Return curves on two logarithmic axes, with intervals as bands; level: where a horizontal line is drawn."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8, 4.6), layout="constrained")
        axes = figure.subplots()
        for (name, curve), (colour, dashes, marker) in zip(lines.items(), cycle(STYLES)):
            line(axes, curve, colour, dashes, marker, name)
        if level is not None:
            axes.axhline(level, color=INK, linewidth=1)
        axes.set(xlabel=xlabel, ylabel=ylabel, xscale="log", yscale="log")
        ticks = sorted({x for curve in lines.values() for x in curve})
        axes.set_xticks(ticks, [f"{tick:,g}" for tick in ticks])
        axes.minorticks_off()
        figure.legend(loc="outside right upper", fontsize=9)
        return svg(figure)


def line(axes: Axes, curve: Curve, colour: str, dashes: str, marker: str, label: str) -> None:
    """Draw one curve, and its band where there are several seeds."""
    at = sorted(curve)
    axes.plot(
        at,
        [curve[x].mean for x in at],
        color=colour,
        linestyle=dashes,
        marker=marker,
        markersize=4,
        label=for_chart(label),
    )
    wide = [x for x in at if curve[x].judgeable]
    low, high = ([getattr(curve[x], end) for x in wide] for end in ("low", "high"))
    axes.fill_between(wide, low, high, color=colour, alpha=BAND, linewidth=0)


def within(means: Sequence[Mean]) -> tuple[float, float]:
    """Return limits in percent around all means; of their intervals as much as leaves the means apart."""
    centres = [mean.mean for mean in means]
    ends = [end for mean in means if mean.judgeable for end in (mean.low, mean.high)]
    room = max(max(centres) - min(centres), 2.0)
    low, high = max(min([*centres, *ends]), min(centres) - room), min(max([*centres, *ends]), max(centres) + room)
    margin = 0.05 * (high - low) + 0.2
    return max(low - margin, -1.0), min(high + margin, 101.0)


def tradeoff(places: Sequence[Spot], references: Mapping[str, Spot], x: Axis, y: Axis) -> str:
    """Return one measure against another, with intervals, and the line of those that none beats in both."""
    colours = dict(zip(dict.fromkeys(place.colour for place in places), cycle(COLOURS_OF_MANY)))
    markers = dict(zip(dict.fromkeys(place.marker for place in places), cycle(MARKERS)))
    every = [*places, *references.values()]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8, 5), layout="constrained")
        axes = figure.subplots()
        for place in places:
            point(axes, place, colours[place.colour], markers[place.marker])
        for arm, colour in colours_of(references).items():
            point(axes, references[arm], colour, "*", size=12)
        spots = np.array([[place.x.mean, place.y.mean] for place in every])
        best = spots[front(spots * [-1 if axis.lower_is_better else 1 for axis in (x, y)])]
        best = best[np.argsort(best[:, 0])]
        axes.step(best[:, 0], best[:, 1], where="pre", color=INK, linewidth=1.4, linestyle="--")
        axes.set(
            xlabel=x.label,
            ylabel=y.label,
            xlim=within([place.x for place in every]),
            ylim=within([place.y for place in every]),
        )
        handles = [Line2D([], [], color=INK, linewidth=1.4, linestyle="--", label="Pareto front")]
        handles += [
            mark(colour, "*", arm_in_words(arm), size=12) for arm, colour in colours_of(references).items()
        ]
        handles += [mark(colour, "o", name) for name, colour in colours.items()]
        handles += [mark("none", marker, name) for name, marker in markers.items() if len(markers) > 1]
        figure.legend(handles=handles, loc="outside right upper", fontsize=9)
        return svg(figure)


def point(axes: Axes, place: Spot, colour: str, marker: str, *, size: int = 6) -> None:
    """Draw one model with thin intervals."""
    halves = [[mean.high - mean.mean] if mean.judgeable else [0.0] for mean in (place.x, place.y)]
    at = (place.x.mean, place.y.mean)
    _, _, bars = axes.errorbar(*at, xerr=halves[0], yerr=halves[1], color=colour, elinewidth=0.8)
    for bar in bars:
        bar.set_alpha(0.3)
    axes.plot(*at, marker, color=colour, markersize=size)


def mark(colour: str, marker: str, label: str, *, size: int = 6) -> Line2D:
    """Return a line of a legend: a marker; hollow where its colour says nothing."""
    edge = INK if colour == "none" else colour
    return Line2D(
        [],
        [],
        linestyle="",
        marker=marker,
        color=edge,
        markerfacecolor=colour,
        markersize=size,
        label=for_chart(label),
    )


def front(points: np.ndarray) -> np.ndarray:
    """Return which `points` (n, 2) are on the Pareto front, bool (n,): none is as high in both, higher in one."""
    no_lower = np.all(points[:, None] <= points[None], axis=2)  # (i, j): j is as high as i in both
    higher = np.any(points[:, None] < points[None], axis=2)
    return ~np.any(no_lower & higher, axis=1)


def steps(names: Sequence[str], lines: Mapping[str, Sequence[Mean]], *, ylabel: str) -> str:
    """Return the means of each line at every one of `names`, in order, with their intervals."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8, 4.6), layout="constrained")
        axes = figure.subplots()
        for number, ((name, means), (colour, dashes, marker)) in enumerate(zip(lines.items(), cycle(STYLES))):
            at = np.arange(len(names)) + 0.06 * (number - (len(lines) - 1) / 2)  # beside each other
            axes.plot(
                at, [mean.mean for mean in means], dashes, color=colour, marker=marker, label=for_chart(name)
            )
            for x, mean in zip(at, means, strict=True):
                if mean.judgeable:
                    axes.plot([x, x], [mean.low, mean.high], color=colour, linewidth=0.8)
        axes.axhline(0, color=INK, linewidth=1)
        axes.set_xticks(range(len(names)), [for_chart(name).replace(", ", ",\n") for name in names], fontsize=8)
        axes.set(ylabel=ylabel)
        figure.legend(loc="outside right upper", fontsize=9)
        return svg(figure)


def lines_with_bands(lines: Mapping[str, Curve], *, xlabel: str, ylabel: str) -> str:
    """Return means against a number on a logarithmic axis, with intervals as bands; by name."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8, 4), layout="constrained")
        axes = figure.subplots()
        for (name, curve), (colour, dashes, marker) in zip(lines.items(), cycle(STYLES)):
            line(axes, curve, colour, dashes, marker, name)
        axes.axhline(0, color=INK, linewidth=1)
        axes.set(xscale="log", xlabel=xlabel, ylabel=ylabel)
        figure.legend(loc="outside right upper", fontsize=9)
        return svg(figure)
