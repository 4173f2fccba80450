"""Charts as SVG text and pictures as PNG bytes; the same input gives the same bytes."""

from __future__ import annotations

import io
import textwrap
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import cycle
from math import ceil
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator
from PIL import Image
from torch import Tensor

from defense.reporting.arms import arm_in_words, arms_of, trusted_of
from defense.reporting.escaping import for_chart
from defense.reporting.statistics import Mean

COLOURS = {"baseline": "#6b7280", "control": "#b7791f", "defended": "#1d6f8a", "proxy": "#7c3aed"}
GREENS = ("#15803d", "#4ade80", "#84cc16", "#365314")  # of trusted arms, by their weight
NOISY, CLEAN, INK = "#c2410c", "#94a3b8", "#111827"
COLOURS_OF_MANY = ("#1d6f8a", "#c2410c", "#4d7c0f", "#7c3aed", "#b7791f", "#be185d", "#10b981", "#6b7280")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
KINDS = (("-", "o"), ("--", "s"), (":", "^"), ("-.", "D"))
STYLES = [(colour, dashes, marker) for dashes, marker in KINDS for colour in COLOURS_OF_MANY]
MARKED = 20  # points: a curve of more has no markers
BAND = 0.1  # opacity
SMALL = 9  # points: letters of names
WIDTH, LEFT, RIGHT, TOP, BOTTOM = 5.6, 0.6, 0.15, 0.3, 0.48  # inches: of a chart, and its margins
READABLE = 62  # pixels an inch: letters are too small below, and a page scrolls the chart instead
LINE, KEY, SPACE = 0.19, 0.28, 0.1  # inches: a line of names, a sample in a legend, and at least between names
COLUMNS = 3  # of a legend
ASIDE = 2.4  # inches: a name of a forest that needs more has several lines
OUTCOMES = {
    "better, after correction": COLOURS["defended"],
    "worse, after correction": NOISY,
    "not distinguishable, or not judged": COLOURS["baseline"],
}
STYLE = {
    "svg.hashsalt": "defense",
    "svg.fonttype": "none",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e5e7eb",
    "axes.edgecolor": "#9ca3af",
    "axes.axisbelow": True,
    "axes.titlelocation": "left",  # the name of the vertical axis is above it
    "xaxis.labellocation": "right",
    "axes.titlesize": 10,
    "axes.titley": 1.0,  # to find a place takes time
    "xtick.bottom": False,  # marks: the grid shows where numbers are
    "ytick.left": False,
    "ytick.major.size": 0,
}

Curve = Mapping[float, Mean | float]  # a plain number has no interval
Means = Mapping[float, Mean]


@dataclass(frozen=True)
class Axis:
    """What something is drawn against."""

    label: str
    lower_is_better: bool = False
    log: bool = False
    names: Sequence[str] = ()  # of 0, 1, 2 and so on, instead of numbers


@dataclass(frozen=True)
class Gain:
    """A row of a forest: its name, its mean, and whether it is called different from zero."""

    name: str
    mean: Mean
    differs: bool
    lower_is_better: bool = False


@dataclass(frozen=True)
class Spot:
    """A model between two measures, in percent or points, with its intervals."""

    colour: str  # the name that its colour is of: the scorer
    marker: str  # the name that its marker is of: what else was swept
    x: Mean
    y: Mean


def forest(gains: Sequence[Gain], *, xlabel: str, limits: tuple[float, float] | None = None) -> str:
    """Return means with their intervals, a row each. Charts with the same `limits` can be read side by side."""
    better, worse, neither = OUTCOMES
    outcomes = [
        neither if not gain.differs else better if (gain.mean.mean > 0) is not gain.lower_is_better else worse
        for gain in gains
    ]
    names = [wrapped(for_chart(gain.name), ASIDE) for gain in gains]
    pitch, left = 0.06 + LINE * max(map(lines_in, names)), 1.5 * RIGHT + max(map(inches, names))
    with mpl.rc_context(STYLE):
        figure, (axes,) = canvas(pitch * len(gains), left=left, below=lines_in(xlabel) - 1)
        across, start = axes.get_yaxis_transform(), (RIGHT - left) / (WIDTH - RIGHT - left)
        axes.hlines(range(len(gains)), 0, 1, colors=STYLE["grid.color"], linewidth=0.8, transform=across)
        for row, name in enumerate(names):
            axes.text(start, row, name, va="center", size=SMALL, transform=across)
        for name, colour in OUTCOMES.items():
            rows = [row for row, outcome in enumerate(outcomes) if outcome == name]
            if rows:
                axes.plot([gains[row].mean.mean for row in rows], rows, "o", color=colour, ms=5, label=name)
        ends = ends_of([gain.mean for gain in gains])
        axes.hlines(range(len(gains)), *ends, colors=[OUTCOMES[outcome] for outcome in outcomes])
        axes.axvline(0, color=INK, linewidth=1)
        axes.set(xlabel=xlabel, xlim=limits, ylim=(len(gains) - 0.5, -0.5), yticks=[])
        return svg(figure, axes)


def ends_of(means: Sequence[Mean]) -> tuple[list[float], list[float]]:
    """Return the lower and the upper ends of intervals; a mean without an interval is both of its ends."""
    low = [mean.low if mean.judgeable else mean.mean for mean in means]
    return low, [mean.high if mean.judgeable else mean.mean for mean in means]


def shared_limits(means: Sequence[Mean]) -> tuple[float, float]:
    """Return limits that all means fit into, zero too, and their intervals as far as four times that."""
    low, high = reach(means, [0.0, *(mean.mean for mean in means)], share=4, least=1.0)
    margin = 0.04 * max(high - low, 1.0)
    return low - margin, high + margin


def within(means: Sequence[Mean]) -> tuple[float, float]:
    """Return limits in percent around all means; of their intervals as much as leaves the means apart."""
    low, high = reach(means, [mean.mean for mean in means], share=1, least=2.0)
    margin = 0.05 * (high - low) + 0.2
    return max(low - margin, -1.0), min(high + margin, 101.0)


def reach(means: Sequence[Mean], centres: Sequence[float], *, share: float, least: float) -> tuple[float, float]:
    """Return the outer ends of intervals, no further from centres than `share` of their range, or of `least`."""
    room = share * max(max(centres) - min(centres), least)
    ends = [*centres, *(end for mean in means if mean.judgeable for end in (mean.low, mean.high))]
    return max(min(ends), min(centres) - room), min(max(ends), max(centres) + room)


def curves(
    lines: Mapping[str, Curve], x: Axis, y: Axis, *, level: float | None = None, diagonal: bool = False
) -> str:
    """Return curves by name, with intervals as bands.

    level: of a horizontal line. diagonal: whether the chart is the unit square with a dashed diagonal, for chance.
    """
    wide = WIDTH - LEFT - RIGHT
    names = [wrapped(for_chart(name), wide / len(x.names) - SPACE) for name in x.names]
    label = wrapped(for_chart(x.label), wide, size=10)
    with mpl.rc_context(STYLE):
        figure, (axes,) = canvas(2.8, below=max(map(lines_in, [label, *names])) - 1)
        for (name, curve), look in zip(lines.items(), cycle(STYLES)):
            line(axes, curve, look, name)
        if diagonal:
            axes.plot([0, 1], [0, 1], color=CLEAN, linestyle="--", linewidth=1)
            axes.set(xlim=(0, 1), ylim=(0, 1.01))
        if level is not None:
            axes.axhline(level, color=INK, linewidth=1)
        axes.set(xlabel=label, title=for_chart(y.label))
        if y.log:
            make_logarithmic(axes, "y")
        if x.log:
            make_logarithmic(axes, "x")
            mark(axes, {at for curve in lines.values() for at in curve})
        if names:
            axes.set_xticks(range(len(names)), names, fontsize=SMALL)
            axes.set_xlim(-0.5, len(names) - 0.5)
        return svg(figure, axes)


def line(axes: Axes, curve: Curve, look: tuple[str, str, str], label: str = "") -> None:
    """Draw a curve, and its band if there are intervals; look: colour, dashes and marker."""
    colour, dashes, marker = look
    at = sorted(curve)
    means = [mean.mean if isinstance(mean, Mean) else mean for mean in map(curve.__getitem__, at)]
    curved = axes.plot(at, means, color=colour, linestyle=dashes, markersize=4, label=for_chart(label))
    curved[0].set_marker(marker if len(at) <= MARKED else "")
    wide = {x: mean for x in at if isinstance(mean := curve[x], Mean) and mean.judgeable}
    low, high = ends_of(list(wide.values()))
    axes.fill([*wide, *reversed(wide)], [*low, *reversed(high)], color=colour, alpha=BAND, linewidth=0)


def budget_curves(lines: Mapping[str, Means], references: Mapping[str, Means], gains: Mapping[str, Means]) -> str:
    """Return accuracy against budget, by scorer and by arm, and the paired gains over the control, with bands."""
    with mpl.rc_context(STYLE):
        figure, (upper, lower) = canvas(4.6, rows=2)
        for arm, colour in colours_of(references).items():
            line(upper, references[arm], (colour, "--", ""), arm_in_words(arm))
        for axes, drawn in ((upper, lines), (lower, gains)):
            for (name, curve), look in zip(drawn.items(), cycle(STYLES)):
                line(axes, curve, look, name)
        every = [mean for curve in (*lines.values(), *references.values()) for mean in curve.values()]
        upper.set(title="adaptive accuracy at worst, %", ylim=within(every))
        paired = [mean for curve in gains.values() for mean in curve.values()]
        lower.axhline(0, color=INK, linewidth=1)
        lower.set(title="defended - control, points", ylim=shared_limits(paired))
        lower.set_xlabel("budget: fraction of the training samples treated")
        mark(lower, {budget for curve in lines.values() for budget in curve})
        return svg(figure, upper)


def points(values: Mapping[str, tuple[float, float, float]], *, xlabel: str, ylabel: str) -> str:
    """Return points (x, y, half an interval in y) with their names, x on a logarithmic axis."""
    with mpl.rc_context(STYLE):
        figure, (axes,) = canvas(2.8)
        for (name, (x, y, half)), (colour, _, marker) in zip(values.items(), cycle(STYLES)):
            axes.plot(x, y, marker, color=colour, markersize=5, label=for_chart(name))
            axes.plot([x, x], [y - half, y + half], color=colour, linewidth=1)
        axes.axhline(0, color=INK, linewidth=1)
        axes.set(xlabel=xlabel, title=ylabel)
        make_logarithmic(axes, "x")
        return svg(figure, axes)


def tradeoff(places: Sequence[Spot], references: Mapping[str, Spot], x: Axis, y: Axis) -> str:
    """Return one measure against another, with intervals, and the line of those that none beats in both."""
    colours = dict(zip(dict.fromkeys(place.colour for place in places), cycle(COLOURS_OF_MANY)))
    markers = dict(zip(dict.fromkeys(place.marker for place in places), cycle(MARKERS)))
    arms = colours_of(references)
    every = [*places, *(references[arm] for arm in arms)]
    shades = [*(colours[place.colour] for place in places), *arms.values()]
    horizontal, vertical = [spot.x for spot in every], [spot.y for spot in every]
    spots = np.array([[mean.mean for mean in means] for means in (horizontal, vertical)]).T
    best = np.unique(spots[front(spots * [-1 if axis.lower_is_better else 1 for axis in (x, y)])], axis=0)
    with mpl.rc_context(STYLE):
        figure, (axes,) = canvas(3.4)
        axes.hlines(spots[:, 1], *ends_of(horizontal), colors=shades, linewidth=0.8, alpha=0.3)
        axes.vlines(spots[:, 0], *ends_of(vertical), colors=shades, linewidth=0.8, alpha=0.3)
        if len(best) > 1:
            axes.step(*best.T, where="pre", color=INK, linewidth=1.4, linestyle="--", label="Pareto front")
        for arm, at in zip(arms, spots[len(places) :], strict=True):
            axes.plot(*at, "*", color=arms[arm], markersize=12, label=arm_in_words(arm))
        for name, colour in colours.items():
            axes.plot([], [], "o", color=colour, label=for_chart(name))
        for name, marker in markers.items():
            rows = [row for row, place in enumerate(places) if place.marker == name]
            at, shade = spots[rows], [shades[row] for row in rows]
            axes.scatter(at[:, 0], at[:, 1], s=36, marker=marker, c=shade, zorder=3)
            if len(markers) > 1:
                axes.plot([], [], marker, color=INK, fillstyle="none", label=for_chart(name))
        axes.set(xlabel=x.label, xlim=within(horizontal), title=y.label, ylim=within(vertical))
        return svg(figure, axes)


def front(points: np.ndarray) -> np.ndarray:
    """Return which `points` (n, 2) are on the Pareto front, bool (n,): none is as high in both, higher in one."""
    no_lower = np.all(points[:, None] <= points[None], axis=2)  # (i, j): j is as high as i in both
    higher = np.any(points[:, None] < points[None], axis=2)
    return ~np.any(no_lower & higher, axis=1)


def colours_of(arms: Collection[str]) -> dict[str, str]:
    """Return the colour of each arm."""
    colours = COLOURS | dict(zip(trusted_of(arms), cycle(GREENS)))
    return {arm: colours[arm] for arm in arms_of(arms)}


def canvas(
    height: float, *, rows: int = 1, columns: int = 1, left: float = LEFT, below: int = 0, **options: Any
) -> tuple[Figure, list[Axes]]:
    """Return a figure and its axes, `height` inches in all; rows share their horizontal axis.

    Margins are fixed, since to find room for labels takes longer than to draw. The title of axes names what is
    vertical. below: lines of labels beside the first. options: of all axes.
    """
    bottom = BOTTOM + LINE * below
    wide, tall = (WIDTH - left - RIGHT - LEFT * (columns - 1)) / columns, (height - TOP * (rows - 1)) / rows
    figure = Figure(figsize=(WIDTH, TOP + height + bottom))
    high = figure.get_figheight()
    figure.subplots_adjust(left / WIDTH, bottom / high, 1 - RIGHT / WIDTH, 1 - TOP / high, LEFT / wide, TOP / tall)
    every = list(figure.subplots(rows, columns, squeeze=False, sharex=rows > 1, subplot_kw=options).flat)
    for axes in every:
        axes.xaxis.set_label_coords(1, -0.56 * BOTTOM / tall)
        axes.yaxis.set_label_coords(0, 0)  # of no label, but it would be placed
        axes.locator_params(nbins=3)
    return figure, every


def make_logarithmic(axes: Axes, which: str) -> None:
    """Make the axis `which`, x or y, logarithmic, with numbers at powers of ten, or closer if these are few."""
    axes.set(**{f"{which}scale": "log"})
    axis = getattr(axes, f"{which}axis")
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1,) if high > 100 * low else (1, 2, 5)))
    axis.set_major_formatter("{x:,g}")
    axes.minorticks_off()


def mark(axes: Axes, values: Collection[float]) -> None:
    """Number the horizontal axis at some values, but for numbers that would touch the one before, or be cut."""
    at = sorted(values)
    axes.autoscale_view()
    places = axes.get_xaxis_transform().transform([(value, 0) for value in at])[:, 0] / axes.figure.dpi
    ticks, end = {}, -np.inf
    for value, place in zip(at, places, strict=True):
        number = f"{value:,.10g}"
        half = inches(number, 10) / 2
        if place - half >= end and place + half < WIDTH:
            ticks[value], end = number, place + half + SPACE
    axes.set_xticks(list(ticks), list(ticks.values()))


def svg(figure: Figure, *named: Axes) -> str:
    """Return a figure as <svg> without date or fixed size, under a legend of `named`; `savefig` draws twice."""
    legend(figure, [pair for axes in named for pair in zip(*axes.get_legend_handles_labels(), strict=True)])
    buffer = io.StringIO()
    with warnings.catch_warnings():  # names in signs that matplotlib has no font for: a browser has
        warnings.filterwarnings("ignore", message="Glyph .* missing from font", category=UserWarning)
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None, "Creator": None})
    _, element, rest = buffer.getvalue().partition("<svg")
    return f'{element} style="min-width: {READABLE * WIDTH:.0f}px"{rest}'


def legend(figure: Figure, entries: Sequence[tuple[Any, str]]) -> None:
    """Name lines and areas above all else; the figure grows by the room that this takes.

    A long name takes several columns. `Figure.legend` would take a fifth of the time of a page.
    """
    room, sample = WIDTH - 2 * RIGHT, 1.3 * KEY
    labels = [wrapped(label, room - sample) for _, label in entries]
    cells: list[tuple[int, int]] = []
    free = 0
    for label in labels:
        span = min(COLUMNS, ceil((sample + inches(label) + SPACE) * COLUMNS / room))
        free += -free % COLUMNS if free % COLUMNS + span > COLUMNS else 0
        cells.append(divmod(free, COLUMNS))
        free += span
    pitch = LINE * max(map(lines_in, labels), default=0)
    high, margins = figure.get_figheight(), figure.subplotpars
    figure.set_figheight(grown := high + pitch * ceil(free / COLUMNS))
    figure.subplots_adjust(bottom=margins.bottom * high / grown, top=margins.top * high / grown)
    for (handle, _), label, (row, column) in zip(entries, labels, cells, strict=True):
        x, y = RIGHT + column * room / COLUMNS, grown - pitch * (row + 0.5)
        key = Line2D([x, x + KEY / 2, x + KEY], [y] * 3, linewidth=8, solid_capstyle="butt")
        if isinstance(handle, Line2D):
            key.update_from(handle)
        else:  # an area
            key.set_color(tuple(np.atleast_2d(handle.get_facecolor())[0]))
        key.set(transform=figure.dpi_scale_trans, clip_on=False, markevery=[1])
        figure.add_artist(key)
        figure.text(x + sample, y, label, va="center", fontsize=SMALL, transform=figure.dpi_scale_trans)


def wrapped(text: str, room: float, *, size: float = SMALL) -> str:
    """Return a text in lines of at most `room` inches."""
    lines, most = text, int(len(text) * room / max(inches(text, size), room))
    while inches(lines, size) > room and most > 0:
        lines, most = textwrap.fill(text, most, break_on_hyphens=False), most - 1
    return lines


def lines_in(text: str) -> int:
    """Return how many lines a text has."""
    return text.count("\n") + 1


def inches(text: str, size: float = SMALL) -> float:
    """Return how wide the longest line of a text is in letters of a size."""
    return max(sum(map(advance, row)) for row in text.split("\n")) * size / 72


@cache
def advance(letter: str) -> float:
    """Return the width of a letter in the size of its font; a letter that matplotlib does not have is square."""
    font = get_font(findfont("DejaVu Sans"))
    if not font.get_char_index(ord(letter)):
        return 1.0
    font.set_size(100, 72)
    return float(font.load_char(ord(letter)).linearHoriAdvance) / 65536 / 100


def png(picture: Tensor) -> bytes:
    """Return a picture (C, H, W) in [0, 1] as PNG; grey for any number of channels but three."""
    pixels = (picture.clamp(0, 1) * 255).round().to(torch.uint8).cpu()
    array = pixels.permute(1, 2, 0).numpy() if len(pixels) == 3 else pixels.float().mean(0).byte().numpy()
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format="PNG")
    return buffer.getvalue()
