"""What metagradients are derivatives of, and how smooth the trainings behind them are, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from defense.config.choices import Method, Recipe
from defense.reporting.sweeps import Result, swept

ENOUGH = 0.9  # below it finite changes of the weights of samples leave the derivative soon
SMOOTHER = "a smooth activation, average pooling and normalisation raise it (model=smooth_mlp, model=smooth_cnn)"


def smoothness_of(record: Mapping[str, float]) -> float | None:
    """Return the lowest smoothness of the trainings that a score was taken of; None if it is no metagradient."""
    return min((value for name, value in record.items() if name.split()[-1] == "smoothness"), default=None)


def metagradient_said(settings: Mapping[str, Any], record: Mapping[str, float]) -> str:
    """Return what the scores are derivatives of, and whether the training is smooth enough for them.

    settings, record: of the run. Return nothing if its scores are no metagradients.
    """
    if settings["scorer"]["method"] != Method.metagradient.value:
        return ""
    recipe = Recipe(settings["scorer"]["proxy"] or settings["train"]["recipe"])
    held = ", with the attack of the training held fixed" if recipe is not Recipe.standard else ""
    said = f"A score is the derivative of the objective after training by the weight of the sample{held}."
    found = smoothness_of(record)
    if found is None:
        return said
    if found >= ENOUGH:
        return f"{said} The training is smooth in these weights: smoothness {found:.2f} of at most 1."
    return (
        f"{said} Smoothness {found:.2f}, below {ENOUGH}: the training is rough in these weights, and scores may "
        f"not foresee large changes; {SMOOTHER}."
    )


def rough(results: Sequence[Result], *, shown: int = 5) -> str:
    """Return what is said of a single result; of several, at most `shown` by name of those that are not smooth."""
    records = [result.get("scoring", {}).get("record", {}) for result in results]
    if len(results) == 1:
        return metagradient_said(results[0]["config"], records[0])
    known = zip(results, map(smoothness_of, records), strict=True)
    low = [(result, found) for result, found in known if found is not None and found < ENOUGH]
    if not low:
        return ""
    told = [" ".join([*swept(result, results), f"seed={result['seed']} {found:.2f}"]) for result, found in low]
    which = "; ".join(told[:shown]) + (f" and {len(low) - shown} more" if len(low) > shown else "")
    return f"Smoothness below {ENOUGH} in {len(low)} of {len(results)} runs ({which}): {SMOOTHER}."
