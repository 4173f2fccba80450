"""How smooth the trainings behind metagradients are, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from defense.reporting.sweeps import Result, swept

ENOUGH = 0.9  # below it finite changes of the weights of samples leave the derivative soon
SMOOTHER = "a smooth activation, average pooling and normalisation raise it (model=smooth_mlp, model=smooth_cnn)"


def smoothness_of(record: Mapping[str, float]) -> float | None:
    """Return the lowest smoothness of the trainings that a score was taken of; None if it is no metagradient."""
    return min((value for name, value in record.items() if name.split()[-1] == "smoothness"), default=None)


def smoothness_said(record: Mapping[str, float]) -> str:
    """Return the smoothness behind a score, with a warning below `ENOUGH`; nothing if it is no metagradient."""
    found = smoothness_of(record)
    if found is None:
        return ""
    if found >= ENOUGH:
        return f"The training is smooth in the weights of its samples: smoothness {found:.2f} of at most 1."
    return (
        f"Smoothness {found:.2f}, below {ENOUGH}: the training is rough in the weights of its samples, and scores "
        f"may not foresee large changes; {SMOOTHER}."
    )


def rough(results: Sequence[Result], *, shown: int = 5) -> str:
    """Return which runs rest on a training that is not smooth, at most `shown` by name; nothing if none does."""
    records = [result.get("scoring", {}).get("record", {}) for result in results]
    if len(results) == 1:
        return smoothness_said(records[0])
    known = zip(results, map(smoothness_of, records), strict=True)
    low = [(result, found) for result, found in known if found is not None and found < ENOUGH]
    if not low:
        return ""
    told = [f"{' '.join(swept(result, results))} seed={result['seed']} {found:.2f}" for result, found in low]
    more = f" and {len(low) - shown} more" if len(low) > shown else ""
    which = "; ".join(told[:shown]).strip()
    return f"Smoothness below {ENOUGH} in {len(low)} of {len(results)} runs ({which}{more}): {SMOOTHER}."
