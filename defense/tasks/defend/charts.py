"""The charts and pictures of one run."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle

import matplotlib as mpl
import numpy as np
import pandas as pd
from torch import Tensor

from defense.config.choices import TreatmentName
from defense.reporting.arms import arm_in_words
from defense.reporting.charts import (
    CLEAN,
    COLOURS,
    INK,
    KINDS,
    NOISY,
    STYLE,
    canvas,
    colours_of,
    mark,
    svg,
)
from defense.tasks.defend.result import Run


def score_histogram(run: Run) -> str:
    """Return the histogram of the scores, one row per kind of label if noise is known, and the treated part."""
    scores = run.scores["score"].to_numpy()
    noisy = (run.scores["label"] != run.scores["truth"]).to_numpy()
    taken = run.arms["defended"].treatment["treated"].to_numpy()
    # of a budget that is spent by class, and of a relabelling, some below the line stay
    words = "treated up to here" if is_lowest(scores, taken) else "nothing above is treated"
    weighs = run.descent is not None and run.config.treatment.effect.weighs  # all samples, by no line
    groups = {"label is right": (~noisy, CLEAN), "label is wrong": (noisy, NOISY)}
    if not run.data.noise_known:
        groups = {"training samples": (np.ones_like(noisy), CLEAN)}
    edges = np.histogram_bin_edges(scores, bins=60)
    with mpl.rc_context(STYLE):
        figure, rows = canvas(1.4 * len(groups), rows=len(groups))
        for axes, (name, (members, colour)) in zip(rows, groups.items(), strict=True):
            counts = np.append(np.histogram(scores[members], edges)[0], 0)
            label = f"{name} ({members.sum()})"
            axes.fill_between(edges, counts, step="post", color=colour, linewidth=0, label=label)
            if taken.any() and not weighs:
                line = axes.axvline(scores[taken].max(), color=INK, linewidth=1, linestyle="--")
                line.set_label(words if axes is rows[0] else "")
            axes.set(title="samples", ylim=(0, None))
            axes.xaxis.set_visible(axes is rows[-1])
            axes.locator_params("y", integer=True)
        rows[-1].set_xlabel("score")
        return svg(figure, *rows)


def is_lowest(scores: np.ndarray, taken: np.ndarray) -> bool:
    """Return whether the `taken`, bool (n,), are those of the lowest scores (n,)."""
    return bool(scores[taken].max(initial=-np.inf) <= scores[~taken].min(initial=np.inf))


def training_curves(run: Run) -> str:
    """Return training loss and validation accuracy by epoch, for every arm; dashed if attacked.

    Trusted arms have no validation accuracy: they are trained on validation.
    """
    with mpl.rc_context(STYLE):
        figure, (loss, accuracy) = canvas(1.9, columns=2)
        attacked = any("validation_robust_accuracy" in arm.history for arm in run.arms.values())
        colours = colours_of(run.arms)
        for name, arm in run.arms.items():
            epochs = arm.history["epoch"]
            loss.plot(epochs, arm.history["train_loss"], color=colours[name], label=arm_in_words(name))
            kept = np.flatnonzero(arm.history["kept"]).tolist()
            for column, style in (("validation_accuracy", "o-"), ("validation_robust_accuracy", "o--")):
                if column in arm.history:
                    accuracy.plot(
                        epochs, arm.history[column], style, color=colours[name], markevery=kept, markersize=4
                    )
        loss.set(xlabel="epoch", title="training loss")
        accuracy.set(xlabel=f"epoch; dot: kept{', dashed: attacked' * attacked}", title="validation accuracy, %")
        for axes in (loss, accuracy):
            axes.locator_params("x", integer=True)
        return svg(figure, loss)


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


def eps_curves(found: Mapping[str, Mapping[str, list[float]]], eps: float) -> str:
    """Return accuracy in percent against eps, {eps: [...], accuracy: [...]} by arm, and the eps of the threat."""
    with mpl.rc_context(STYLE):
        figure, (axes,) = canvas(2)
        steps = next(iter(found.values()))["eps"]  # evenly apart, as from the second on they grow by a factor
        for arm, colour in colours_of(found).items():
            axes.plot(found[arm]["accuracy"], "o-", color=colour, markersize=4, label=arm_in_words(arm))
        threat = float(np.interp(eps, steps, range(len(steps))))
        axes.axvline(threat, color=INK, linewidth=1, linestyle="--", label="eps of the threat")
        axes.set_xticks(range(len(steps)), [f"{step:.2g}" for step in steps])
        axes.set(xlabel="eps", title="accuracy, %", ylim=(0, 101))
        return svg(figure, axes)


def amplified(perturbation: Tensor) -> Tensor:
    """Return a perturbation (C, H, W) as a picture: grey if nothing changed, full range at its largest."""
    return 0.5 + perturbation / (2 * perturbation.abs().max().clamp_min(1e-12))


def extremes(scores: pd.DataFrame, count: int) -> dict[str, pd.DataFrame]:
    """Return the rows of the `count` lowest and highest scores, the most extreme first."""
    ordered = scores.sort_values("score", kind="stable")
    return {"lowest": ordered.head(count), "highest": ordered.tail(count)[::-1]}
