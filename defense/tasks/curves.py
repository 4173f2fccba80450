"""Curves of one run: of its trainings by epoch, and of accuracy against eps."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
import pandas as pd

from defense.reporting.arms import arm_in_words
from defense.reporting.charts import INK, STYLE, canvas, colours_of, svg


def training_curves(histories: Mapping[str, pd.DataFrame]) -> str:
    """Return training loss and validation accuracy by epoch, for every arm; dashed if attacked.

    histories: as artifacts.TrainedModel, by arm. Trusted arms have no validation accuracy: they are trained on
    validation.
    """
    with mpl.rc_context(STYLE):
        figure, (loss, accuracy) = canvas(1.9, columns=2)
        attacked = any("validation_robust_accuracy" in history for history in histories.values())
        colours = colours_of(histories)
        for name, history in histories.items():
            epochs = history["epoch"]
            loss.plot(epochs, history["train_loss"], color=colours[name], label=arm_in_words(name))
            kept = np.flatnonzero(history["kept"]).tolist()
            for column, style in (("validation_accuracy", "o-"), ("validation_robust_accuracy", "o--")):
                if column in history:
                    accuracy.plot(
                        epochs, history[column], style, color=colours[name], markevery=kept, markersize=4
                    )
        loss.set(xlabel="epoch", title="training loss")
        accuracy.set(xlabel=f"epoch; dot: kept{', dashed: attacked' * attacked}", title="validation accuracy, %")
        for axes in (loss, accuracy):
            axes.locator_params("x", integer=True)
        return svg(figure, loss)


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
