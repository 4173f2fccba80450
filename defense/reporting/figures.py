"""Charts as SVG text and pictures as PNG bytes; the same input gives the same bytes."""

from __future__ import annotations

import io
import warnings
from collections.abc import Collection, Mapping
from itertools import cycle

import matplotlib as mpl
import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.collections import Collection as Area
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from PIL import Image
from torch import Tensor

from defense.reporting.arms import arms_of, trusted_of
from defense.reporting.escaping import for_chart

COLOURS = {"baseline": "#6b7280", "control": "#b7791f", "defended": "#1d6f8a", "proxy": "#7c3aed"}
GREENS = ("#15803d", "#4ade80", "#84cc16", "#365314")  # of trusted arms, by their weight
NOISY, CLEAN, INK = "#c2410c", "#94a3b8", "#111827"
COLOURS_OF_MANY = ("#1d6f8a", "#c2410c", "#4d7c0f", "#7c3aed", "#b7791f", "#be185d", "#10b981", "#6b7280")
KINDS = (("-", "o"), ("--", "s"), (":", "^"), ("-.", "D"))
WIDTH, LEFT, RIGHT, TOP, BOTTOM = 5.6, 0.7, 0.15, 0.1, 0.5  # inches: of a chart of one run, and its margins
READABLE = 62  # pixels an inch: letters are too small below, and a page scrolls the chart instead
GAP, LINE, KEY = 0.75, 0.2, 0.28  # inches: between charts side by side; of a legend, a line and a sample in it
STYLES = [(colour, dashes, marker) for dashes, marker in KINDS for colour in COLOURS_OF_MANY]
STYLE = {
    "svg.hashsalt": "defense",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "legend.fontsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e5e7eb",
    "axes.edgecolor": "#9ca3af",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "xtick.bottom": False,  # marks: the grid shows where numbers are
    "ytick.left": False,
}


def colours_of(arms: Collection[str]) -> dict[str, str]:
    """Return the colour of each arm."""
    colours = COLOURS | dict(zip(trusted_of(arms), cycle(GREENS)))
    return {arm: colours[arm] for arm in arms_of(arms)}


def descent_curves(rounds: pd.DataFrame) -> str:
    """Return the objective and the accuracy by round of a descent, on either part of validation."""
    colours = {"driving": COLOURS["baseline"], "deciding": COLOURS["defended"]}
    chosen = np.flatnonzero(rounds["chosen"]).tolist()
    with mpl.rc_context(STYLE):
        figure, (objective, accuracy) = canvas(1.9, columns=2)
        for part, colour in colours.items():
            for axes, column in ((objective, part), (accuracy, f"{part}_accuracy")):
                axes.plot(
                    rounds["round"], rounds[column], "o-", color=colour, markevery=chosen, markersize=4, label=part
                )
        objective.set(xlabel="round", ylabel="objective")
        accuracy.set(xlabel="round; dot: taken", ylabel="validation accuracy, %")
        for axes in (objective, accuracy):
            axes.xaxis.set_major_locator(MaxNLocator(3, integer=True))
        legend_above(figure, objective)
        return svg(figure)


def curves(x: np.ndarray, lines: Mapping[str, np.ndarray], *, xlabel: str, ylabel: str) -> str:
    """Return curves over the unit square, with the diagonal for chance."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8, 4.6), layout="constrained")
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color="#9ca3af", linestyle="--", linewidth=1)
        for (name, values), (colour, dashes, _) in zip(lines.items(), cycle(STYLES)):
            axes.plot(x, values, color=colour, linestyle=dashes, linewidth=1.4, label=for_chart(name))
        axes.set(xlabel=xlabel, ylabel=ylabel, xlim=(0, 1), ylim=(0, 1.01))
        figure.legend(loc="outside right upper")
        return svg(figure)


def points(values: Mapping[str, tuple[float, float, float]], *, xlabel: str, ylabel: str) -> str:
    """Return points (x, y, half an interval in y) with their names, x on a logarithmic axis."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8, 4.6), layout="constrained")
        axes = figure.subplots()
        for (name, (x, y, half)), (colour, _, marker) in zip(values.items(), cycle(STYLES)):
            axes.errorbar(
                x, y, yerr=half, fmt=marker, color=colour, markersize=5, capsize=2, label=for_chart(name)
            )
        axes.set(xlabel=xlabel, ylabel=ylabel, xscale="log")
        axes.axhline(0, color="#9ca3af", linewidth=1)
        figure.legend(loc="outside right upper")
        return svg(figure)


def canvas(height: float, *, rows: int = 1, columns: int = 1) -> tuple[Figure, list[Axes]]:
    """Return a figure of axes, `height` inches in all; rows share their horizontal axis.

    Margins and the places of labels are fixed: to find them takes longer than to draw.
    """
    figure = Figure(figsize=(WIDTH, TOP + height + BOTTOM))
    wide, high = WIDTH - LEFT - RIGHT - GAP * (columns - 1), height - TOP * (rows - 1)
    figure.subplots_adjust(wspace=GAP * columns / wide, hspace=TOP * rows / high)
    set_margins(figure, TOP)
    every = list(figure.subplots(rows, columns, squeeze=False, sharex=rows > 1).flat)
    for axes in every:
        axes.xaxis.set_label_coords(0.5, -0.55 * BOTTOM * rows / high)
        axes.yaxis.set_label_coords(-0.7 * LEFT * columns / wide, 0.5)
        axes.locator_params(nbins=3)
    return figure, every


def set_margins(figure: Figure, top: float) -> None:
    """Leave room for labels around the axes of a figure, and `top` inches above them."""
    high = figure.get_figheight()
    figure.subplots_adjust(LEFT / WIDTH, BOTTOM / high, 1 - RIGHT / WIDTH, 1 - top / high)


def legend_above(figure: Figure, *every: Axes, columns: int = 3) -> None:
    """Name what is drawn in some axes above them; the figure grows by the lines that this takes.

    Names stand in columns of one width: `Figure.legend`, which measures each, is a fifth of the time of a page.
    """
    named = [pair for axes in every for pair in zip(*axes.get_legend_handles_labels(), strict=True)]
    room = LINE * -(-len(named) // columns)
    figure.set_figheight(figure.get_figheight() + room)
    set_margins(figure, TOP + room)
    for number, (handle, label) in enumerate(named):
        x = RIGHT + number % columns * (WIDTH - 2 * RIGHT) / columns
        y = figure.get_figheight() - TOP / 2 - LINE * (number // columns + 0.5)
        key = Line2D([x, x + KEY / 2, x + KEY], [y] * 3, linewidth=8, solid_capstyle="butt")
        if isinstance(handle, Area):  # an area
            key.set_color(tuple(handle.get_facecolor()[0]))
        else:
            key.update_from(handle)
        key.set(transform=figure.dpi_scale_trans, clip_on=False, markevery=[1])
        figure.add_artist(key)
        figure.text(x + 1.3 * KEY, y, label, va="center", fontsize=8.5, transform=figure.dpi_scale_trans)


def svg(figure: Figure) -> str:
    """Return the figure as an <svg> element without date or fixed size; drawn once, `savefig` draws twice."""
    buffer = io.StringIO()
    with warnings.catch_warnings():  # names in signs that matplotlib has no font for: a browser has
        warnings.filterwarnings("ignore", message="Glyph .* missing from font", category=UserWarning)
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    least = f'<svg style="min-width: {READABLE * figure.get_figwidth():.0f}px"'
    return least + text[text.index("<svg") + 4 :]


def png(picture: Tensor) -> bytes:
    """Return a picture (C, H, W) in [0, 1] as PNG; grey for any number of channels but three."""
    pixels = (picture.clamp(0, 1) * 255).round().to(torch.uint8).cpu()
    array = pixels.permute(1, 2, 0).numpy() if len(pixels) == 3 else pixels.float().mean(0).byte().numpy()
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format="PNG")
    return buffer.getvalue()
