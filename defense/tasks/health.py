"""What the health checks found, in words: a sentence, a table, a line for a sweep."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from defense.config.choices import Doubt
from defense.reporting.arms import arm_in_words, arms_of
from defense.reporting.escaping import visible
from defense.reporting.exports import Text
from defense.reporting.frame import named_by_sweep, shared_overrides
from defense.reporting.page import Section
from defense.reporting.reading import Result, is_rival
from defense.reporting.statistics import percent
from defense.tasks.curves import eps_curves
from defense.tasks.metagradient import rough

Health = Mapping[str, Any]  # as in result.json
Found = Mapping[str, Mapping[str, Any]]  # robustness.checks.Learned as plain values, by arm
NOTHING = (Doubt.one_class.value, Doubt.nearly_one_class.value)
EPS = {Doubt.too_strong.value: "smaller", Doubt.too_weak.value: "larger"}  # that would tell arms apart
LEARNED_NOTHING = "clean accuracy is not told from chance"
SCORED = "scored model"  # the only arm of tasks that retrain none, or many; judged by its training samples
Checks = Mapping[str, Mapping[str, Mapping[str, Any]]]  # by arm and check, as in result.json
CHECKED = (
    "Each row counts samples that should not be there: signs of an attack that fails for another reason than "
    "robustness, as masked gradients are.\n"
    "allowed: as many as an honest model shows by chance once in a thousand times."
)


def warning(checks: Checks, health: Mapping[str, Any] | None = None) -> str:
    """Return one sentence that says what is flagged, and of which arms; nothing if nothing is.

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
    """Return how far the perturbations of the checks went in all arms; nothing if they were left out."""
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
    """Return one sentence that names the results with a flag, at most `shown`; nothing if there is none.

    Those of which nothing can be said are named elsewhere.
    """
    shared = shared_overrides(results)
    named = [
        named_by_sweep(result, shared)
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


def health_of(learned: Found, names: Sequence[str], standing: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return what result.json holds of the arms' learning, and of the attack; reason: why nothing can be said.

    Nothing can be said if the defended arm has learned nothing, nor the baseline or the control: what a treatment
    does is not to be seen then. Of a single arm, if that has learned nothing.
    """

    def named(index: int, count: int) -> dict[str, Any]:
        return {"index": index, "name": names[index], "samples": count}

    arms = {
        arm: {
            "samples": found["samples"],
            "right": found["right"],
            "accuracy": percent(found["right"], found["samples"]),
            "largest_class": named(found["largest_class"], found["largest_count"]),
            "predicted_class": named(found["predicted_class"], found["predicted_count"]),
            **{name: found[name] for name in ("p_right", "p_class", "learned", "doubt")},
        }
        for arm, found in learned.items()
    }
    known = {arm: bool(found["learned"]) for arm, found in learned.items()}
    others = [known[arm] for arm in known if arm in ("baseline", "control")]
    idle = not known.get("defended", False) and not all(others) if others else not all(known.values())
    reason = LEARNED_NOTHING if idle else (standing or {}).get("doubt")
    attack = {} if standing is None else {"attack": dict(standing)}
    return {"arms": arms, **attack, "conclusive": reason is None, "reason": reason}


def verdict_of(health: Health, about: str = "the treatment") -> str:
    """Return why nothing can be said about the treatment; nothing if something can."""
    if health["conclusive"]:
        return ""
    if health["reason"] == LEARNED_NOTHING:
        arms = [arm for arm in health["arms"] if not health["arms"][arm]["learned"] and arm != "proxy"]
        every = len(arms) == len([arm for arm in health["arms"] if arm != "proxy"])
        who = (
            f"The {' and '.join(map(arm_in_words, arms))} {'is' if len(arms) == 1 else 'are'} not told from chance"
        )
        who = "No arm is told from chance" if every and len(arms) > 1 else who
        return f"{who} ({accuracies(health, arms)}): nothing can be said about {about}."
    attack = health["attack"]
    doubt, samples = attack["doubt"], attack["samples"]
    most, broken = max(attack["standing"].values()), max(attack["broken"].values())
    if doubt == Doubt.too_strong.value:
        found = f"No arm has {f'more than {most}' if most else 'any'} of {samples} test samples right under attack"
    else:
        count = f"at most {broken}" if broken else "none"
        found = f"The attack breaks {count} of {samples} test samples of any arm"
    told = f"{doubt} to tell the arms apart, and nothing can be said about {about}"
    return f"{found}: {told}; a {EPS[doubt]} threat.eps may tell."


def accuracies(health: Health, arms: Sequence[str]) -> str:
    """Return the clean accuracy of some arms beside the share of the largest class."""
    found = [health["arms"][arm] for arm in arms]
    constant = [f" with {own['doubt']}" if own["doubt"] in NOTHING else "" for own in found]
    each = [f"{arm_in_words(arm)} {own['accuracy']:.1f} %" for arm, own in zip(arms, found, strict=True)]
    alike = len(set(constant)) == 1 and len(arms) > 1 and constant[0]
    said = ", ".join(each if alike else map("".join, zip(each, constant, strict=True)))
    said += f", each{constant[0]}" if alike else ""
    largest, samples = found[0]["largest_class"], found[0]["samples"]
    share = percent(largest["samples"], samples)
    part = "training" if SCORED in arms else "test"
    name = visible(largest["name"])
    return f"clean accuracy on {samples} {part} samples: {said}; the largest class ({name}) has {share:.1f} %"


def chance_of(health: Health) -> str:
    """Return the accuracy of a model that has learned nothing but the largest class."""
    found = next(iter(health["arms"].values()))
    largest, samples = found["largest_class"], found["samples"]
    share, name = percent(largest["samples"], samples), visible(largest["name"])
    return f"A model that always names the largest class ({name}) is right on {share:.1f} % of {samples} samples."


def flags_of(health: Health) -> list[str]:
    """Return what is odd, each with the arms that it is odd of; none of a result without such checks."""
    arms = health.get("arms", {})
    doubts: dict[str, list[str]] = {}
    for arm, found in arms.items():
        if found["doubt"]:
            doubts.setdefault(found["doubt"], []).append(f"{arm_in_words(arm)} {found['accuracy']:.1f} %")
    said = [f"{doubt} (clean accuracy: {', '.join(own)})" for doubt, own in doubts.items()]
    attack = health.get("attack") or {}
    return [*said, *([f"{attack['doubt']} to tell the arms apart"] if attack.get("doubt") else [])]


def untold(results: Sequence[Result], about: str = "the treatment", *, shown: int = 5) -> str:
    """Return of which results nothing can be said, and why, at most `shown` by name; nothing if there is none."""
    idle = [result for result in results if not result.get("health", {"conclusive": True})["conclusive"]]
    if len(results) == 1:
        return "".join(verdict_of(result["health"], about) for result in idle)
    if not idle:
        return ""
    reasons = Counter(result["health"]["reason"] for result in idle)
    why = " and ".join(f"{reason}{f' in {count}' * (len(reasons) > 1)}" for reason, count in reasons.items())
    shared = shared_overrides(results)
    named = [named_by_sweep(result, shared) for result in idle]
    more = f" and {len(named) - shown} more" if len(named) > shown else ""
    return (
        f"Nothing can be said about {len(idle)} of {len(results)} runs ({why}): {'; '.join(named[:shown])}{more}."
    )


def health_section(numbers: dict[str, Any]) -> Section:
    """Return what the health checks count, an arm a column, and what clean accuracy is without learning."""
    checks, heading, chance = numbers["checks"], "Can these numbers be believed?", chance_of(numbers["health"])
    if not checks:
        said = "The health checks were left out (evaluation.checked=0)."
        return Section("health", heading, f"{chance}\n{said}")
    head = (f"of {looked_at(checks)} test samples", *map(arm_in_words, arms_of(checks)), "allowed")
    nothing = "" if warning(checks, numbers["health"]) else "Nothing is flagged. "
    said = f"{nothing}{CHECKED}\n{reach(checks)}"
    return Section("health", heading, f"{chance}\n{said}", head, check_rows(checks))


def eps_section(checks: Checks, eps: float) -> list[Section]:
    """Return accuracy against eps of the arms that were checked; no section without."""
    falls = {arm: found["falls"]["numbers"] for arm, found in checks.items()}
    if not falls:
        return []
    text = f"On the {looked_at(checks)} checked test samples alone. The axis of eps is not to scale."
    return [Section("checks", "Accuracy under PGD as eps grows", text, chart=eps_curves(falls, eps))]
