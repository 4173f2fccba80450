"""Charts as SVG text and pictures as PNG bytes; the same input gives the same bytes."""

from __future__ import annotations

import io

import matplotlib as mpl
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image
from torch import Tensor

from defense.reporting.record import Run

COLOURS = {"baseline": "#6b7280", "control": "#b7791f", "defended": "#1d6f8a"}
NOISY, CLEAN = "#c2410c", "#94a3b8"
STYLE = {
    "svg.hashsalt": "defense",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e5e7eb",
    "axes.edgecolor": "#9ca3af",
    "axes.axisbelow": True,
    "legend.frameon": False,
}


def score_histogram(run: Run) -> str:
    """Return the histogram of the scores, split by known noise, with the cut of the treatment."""
    scores = run.scores["score"].to_numpy()
    noisy = (run.scores["label"] != run.scores["truth"]).to_numpy()
    taken = ~run.arms["defended"].treatment["keep"].to_numpy()
    with mpl.rc_context(STYLE):
        figure, (axes,) = canvas(1)
        groups = {"label as known": (scores[~noisy], CLEAN), "label changed": (scores[noisy], NOISY)}
        if not run.data.noise_known:
            groups = {"training samples": (scores, CLEAN)}
        shown = {name: group for name, group in groups.items() if len(group[0])}
        axes.hist(
            [values for values, _ in shown.values()],
            bins=60,
            color=[colour for _, colour in shown.values()],
            label=[f"{name} ({len(values)})" for name, (values, _) in shown.items()],
            stacked=True,
        )
        if taken.any():
            axes.axvline(
                scores[taken].max(), color="#111827", linewidth=1, linestyle="--", label="treated to here"
            )
        axes.set_yscale("symlog", linthresh=10)
        axes.set_xlabel("score: negative harms the objective, positive helps it")
        axes.set_ylabel("samples")
        axes.legend()
        return svg(figure)


def training_curves(run: Run) -> str:
    """Return training loss and validation accuracy by epoch, for every arm."""
    with mpl.rc_context(STYLE):
        figure, (loss, accuracy) = canvas(2)
        for name, arm in run.arms.items():
            epochs = arm.history["epoch"]
            loss.plot(epochs, arm.history["train_loss"], color=COLOURS[name], label=name)
            accuracy.plot(epochs, arm.history["validation_accuracy"], color=COLOURS[name], label=name)
        loss.set_ylabel("training loss")
        accuracy.set_ylabel("validation accuracy, %")
        for axes in (loss, accuracy):
            axes.set_xlabel("epoch")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        loss.legend()
        return svg(figure)


def canvas(columns: int) -> tuple[Figure, list[Axes]]:
    """Return a figure of one row of axes."""
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.subplots(1, columns, squeeze=False)[0]
    return figure, list(axes)


def svg(figure: Figure) -> str:
    """Return the figure as an <svg> element without date or fixed size."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def png(picture: Tensor) -> bytes:
    """Return a picture (C, H, W) in [0, 1] as PNG; grey for any number of channels but three."""
    pixels = (picture.clamp(0, 1) * 255).round().to(torch.uint8).cpu()
    array = pixels.permute(1, 2, 0).numpy() if len(pixels) == 3 else pixels.float().mean(0).byte().numpy()
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format="PNG")
    return buffer.getvalue()


def amplified(perturbation: Tensor) -> Tensor:
    """Return a perturbation (C, H, W) as a picture: grey where nothing changed, full range at its largest."""
    return 0.5 + perturbation / (2 * perturbation.abs().max().clamp_min(1e-12))


def extremes(scores: pd.DataFrame, count: int) -> dict[str, pd.DataFrame]:
    """Return the rows of the `count` lowest and highest scores, the most extreme first."""
    ordered = scores.sort_values("score", kind="stable")
    return {"harmful": ordered.head(count), "helpful": ordered.tail(count)[::-1]}
