"""What the health checks found, in words: a sentence, a table, a line for a sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from defense.reporting.exports import Text
from defense.reporting.learning import flags_of, untold
from defense.reporting.metagradient import rough
from defense.reporting.reading import is_rival
from defense.reporting.sweeps import Result, swept
from defense.reporting.tables import arm_in_words, arms_of

Checks = Mapping[str, Mapping[str, Mapping[str, Any]]]  # by arm and check, as in result.json


def warning(checks: Checks, health: Mapping[str, Any] | None = None) -> str:
    """Return one sentence that says what is flagged, and of which arms; nothing where nothing is.

    health: as in result.json, of what takes no attack of its own.
    """
    signs: dict[str, list[str]] = {}
    for arm in arms_of(checks):
        for finding in checks[arm].values():
            if finding["flagged"]:
                signs.setdefault(finding["sign"], []).append(arm)
    said = [
        f"{sign} ({'every arm' if len(arms) == len(checks) else ', '.join(map(arm_in_words, arms))})"
        for sign, arms in signs.items()
    ]
    said = [*flags_of(health or {}), *said]
    return f"Not to be believed without a closer look: {'; '.join(said)}." if said else ""


def check_rows(checks: Checks) -> list[tuple[str, ...]]:
    """Return one row a check: what it finds in each arm, in the order of every table, and how many are allowed."""
    arms = [checks[arm] for arm in arms_of(checks)]
    return [
        (first["title"], *(counted(arm[name]) for arm in arms), str(first["allowed"]))
        for name, first in (arms[0].items() if arms else ())
    ]


def counted(finding: Mapping[str, Any]) -> Text:
    """Return how many samples a check finds, and whether these are too many."""
    found, flagged = finding["found"], finding["flagged"]
    return Text(f"{found} flagged" if flagged else f"{found}", value=found, tone="flagged" if flagged else "")


def looked_at(checks: Checks) -> int:
    """Return how many samples the checks were made on."""
    return max((finding["of"] for arm in checks.values() for finding in arm.values()), default=0)


def reach(checks: Checks) -> str:
    """Return how far the perturbations of the checks went in all arms; nothing where they were left out."""
    if not checks:
        return ""
    found = [arm["inside"]["numbers"] for arm in checks.values()]
    farthest, lowest, highest = (
        pick(numbers[name] for numbers in found)
        for name, pick in (("distance", max), ("lowest", min), ("highest", max))
    )
    return (
        f"The farthest perturbation of the checks is {farthest:.5g} eps long, "
        f"pixels are from {lowest:g} to {highest:g}."
    )


def flagged_cells(results: Sequence[Result], *, shown: int = 5) -> str:
    """Return one sentence that names the results with a flag, at most `shown`; nothing where there is none.

    Those of which nothing can be said are named elsewhere.
    """
    named = [
        " ".join([*swept(result, results), f"seed={result['seed']}"])
        for result in results
        if warning(result.get("checks", {}), result.get("health")) and not result.get("health", {}).get("reason")
    ]
    if not named:
        return ""
    more = f" and {len(named) - shown} more" if len(named) > shown else ""
    return f"Health checks flag {len(named)} of {len(results)} cells: {'; '.join(named[:shown])}{more}."


def looking(results: Sequence[Result]) -> list[Result]:
    """Return the results whose scorer looks at the model, as chance and perfect knowledge do not."""
    return [result for result in results if not is_rival(result["config"])]


def doubts(results: Sequence[Result], about: str = "the treatment") -> str:
    """Return what a page has to say before all else: of which results nothing can be said, and what is flagged."""
    if not results:
        return ""
    idle = untold(results, about)
    if len(results) == 1:
        return idle or " ".join(filter(None, (warning({}, results[0].get("health")), rough(results))))
    return " ".join(filter(None, (idle, flagged_cells(results), rough(results))))
