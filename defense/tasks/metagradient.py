"""What metagradients are derivatives of, and how smooth the trainings behind them are, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from defense.config.choices import Method, Recipe
from defense.reporting.frame import named_by_sweep, shared_overrides
from defense.reporting.reading import Result

ENOUGH = 0.9  # below it finite changes of the weights of samples leave the derivative soon
HELD = "the attack of the training held fixed"
SMOOTHER = "a smooth activation, average pooling and normalisation raise it (model=smooth_mlp, model=smooth_cnn)"


def lowest_smoothness(record: Mapping[str, float]) -> float | None:
    """Return the lowest smoothness of the trainings behind a score; None if it is no metagradient."""
    return min((value for name, value in record.items() if name.split()[-1] == "smoothness"), default=None)


def is_metagradient(settings: Mapping[str, Any]) -> bool:
    """Return whether the scores of a run of these settings are metagradients."""
    return bool(settings["scorer"].get("method") == Method.metagradient.value)


def attacks(settings: Mapping[str, Any]) -> bool:
    """Return whether the training behind a score attacks its samples: the attack is held fixed then."""
    return Recipe(settings["scorer"]["proxy"] or settings["train"]["recipe"]) is not Recipe.standard


def about_derivative(settings: Mapping[str, Any], record: Mapping[str, float]) -> str:
    """Return of what the scores are derivatives, and how smooth the training is; nothing of other scores.

    settings, record: of the run.
    """
    if not is_metagradient(settings):
        return ""
    held = f", with {HELD}" if attacks(settings) else ""
    said = f"A score is -dv/dw: how fast the objective after training falls as the sample weighs more{held}."
    found = lowest_smoothness(record)
    if found is None:
        return said
    smooth = f"The training is smooth in these weights: smoothness {found:.2f} of at most 1"
    return f"{said} {warned(found) or smooth}. Two more trainings with other weights measure it."


def warned(smoothness: float) -> str:
    """Return a warning, without its full stop, of a smoothness below `ENOUGH`; else nothing."""
    if smoothness >= ENOUGH:
        return ""
    return (
        f"Smoothness {smoothness:.2f}, below {ENOUGH}: the training is rough in the weights of its samples, and "
        f"scores may not foresee large changes; {SMOOTHER}"
    )


def rough(results: Sequence[Result], *, shown: int = 5) -> str:
    """Return a warning of runs whose training is rough, at most `shown` by name, and if attacks are held fixed."""
    own = [result for result in results if is_metagradient(result["config"])]
    held = f"Metagradients are derivatives with {HELD}." if any(attacks(each["config"]) for each in own) else ""
    known = ((result, lowest_smoothness(result["scoring"]["record"])) for result in own)
    low = [(result, found) for result, found in known if found is not None and found < ENOUGH]
    if not low:
        return held
    if len(results) == 1:
        return " ".join(filter(None, (f"{warned(low[0][1])}.", held)))
    shared = shared_overrides(results)
    told = [f"{named_by_sweep(result, shared)} {found:.2f}" for result, found in low]
    which = "; ".join(told[:shown]) + (f" and {len(low) - shown} more" if len(low) > shown else "")
    said = f"Smoothness below {ENOUGH} in {len(low)} of {len(results)} runs ({which}): {SMOOTHER}."
    return " ".join(filter(None, (said, held)))
