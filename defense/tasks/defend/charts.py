"""The charts and pictures of one run of task=defend."""

from __future__ import annotations

from itertools import cycle

import matplotlib as mpl
import numpy as np
import pandas as pd
from torch import Tensor

from defense.config.choices import TreatmentName
from defense.reporting.charts import COLOURS, INK, KINDS, STYLE, canvas, mark, svg
from defense.tasks.defend.result import Run
from defense.tasks.samples import Line


def candidate_curves(candidates: pd.DataFrame) -> str:
    """Return accuracy on held-out validation against the budget, of every treatment and its random control.

    Reweighting, which reads no budget, is a horizontal line.
    """
    level = candidates["treatment"] == TreatmentName.reweight.value
    untreated = candidates[candidates["budget"] == 0]
    with mpl.rc_context(STYLE):
        figure, (axes,) = canvas(2.8)
        treated = candidates[~level & (candidates["budget"] > 0)].groupby("treatment", sort=False)
        for (name, rows), (dashes, marker) in zip(treated, cycle(KINDS)):
            line = pd.concat([untreated, rows])
            for arm in ("control", "defended"):
                (curve,) = axes.plot(line["budget"], line[arm], color=COLOURS[arm], label=f"{name}, {arm}")
                curve.set(linestyle=dashes, marker=marker)
        for row in candidates[level].itertuples():
            for arm in ("control", "defended"):
                label = f"{row.treatment}, {arm}: no budget" + ", chosen" * (row.chosen and arm == "defended")
                axes.axhline(getattr(row, arm), color=COLOURS[arm], linestyle=KINDS[-1][0], label=label)
        axes.plot(untreated["budget"], untreated["defended"], "o", color=COLOURS["baseline"], label="untreated")
        for row in candidates[~level & candidates["chosen"]].itertuples():
            axes.plot(row.budget, row.defended, "o", color=INK, ms=12, fillstyle="none", label="chosen")
        mark(axes, set(candidates["budget"][~level]))
        axes.set(xlabel="budget", title="adaptive accuracy, %")
        return svg(figure, axes)


def budget_line(run: Run) -> Line | None:
    """Return the highest score that is treated; None if none is, or samples are weighed, by no line."""
    scores = run.scores["score"].to_numpy()
    taken = run.arms["defended"].treatment["treated"].to_numpy()
    if not taken.any() or (run.descent is not None and run.config.treatment.effect.weighs):
        return None
    # of a budget that is spent by class, and of a relabelling, some below the line stay
    words = "treated up to here" if is_lowest(scores, taken) else "nothing above is treated"
    return Line(float(scores[taken].max()), words)


def is_lowest(scores: np.ndarray, taken: np.ndarray) -> bool:
    """Return whether the `taken`, bool (n,), are those of the lowest scores (n,)."""
    return bool(scores[taken].max(initial=-np.inf) <= scores[~taken].min(initial=np.inf))


def amplified(perturbation: Tensor) -> Tensor:
    """Return a perturbation (C, H, W) as a picture: grey if nothing changed, full range at its largest."""
    return 0.5 + perturbation / (2 * perturbation.abs().max().clamp_min(1e-12))
