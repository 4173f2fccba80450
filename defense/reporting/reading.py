"""Which of its settings a run reads, so that runs which cannot differ are shown and counted as one."""

from __future__ import annotations

from typing import Any

from defense.config.choices import AUTO, Method, Task, TreatmentName

Settings = dict[str, Any]  # of a run, as result.json holds them under config

BLIND = (Method.random.value, Method.oracle.value)  # look at no model: chance and perfect knowledge


def is_rival(settings: Settings) -> bool:
    """Return whether the scorer is chance or perfect knowledge, and so none of those that are judged."""
    return settings["scorer"]["method"] in BLIND


def proxy_of(settings: Settings) -> str | None:
    """Return the recipe of the proxy that is looked at; None where it is the baseline's own, or none is looked at.

    Relabelling looks at it too, by whatever score: for the labels that it gives.
    """
    treatment, proxy = settings["treatment"], settings["scorer"]["proxy"]
    names = treatment["names"] if treatment["budget"] == AUTO else [treatment["name"]]
    if is_rival(settings) and TreatmentName.relabel.value not in names:
        return None
    return None if proxy == settings["train"]["recipe"] else proxy


def objective_of(settings: Settings) -> Settings | None:
    """Return the objective; None where nothing looks at it. Some tasks measure by it, whatever the scorer."""
    measured = settings["task"] in (Task.faithfulness.value, Task.order.value)
    read = measured or settings["scorer"]["method"] == Method.alignment.value
    return settings["objective"] if read else None


def read(settings: Settings) -> Settings:
    """Return the settings without name, place and seed, and without what scorer and treatment do not read."""
    others = {name: value for name, value in settings.items() if name not in ("name", "store", "seed", "track")}
    scorer = settings["scorer"] | {"proxy": proxy_of(settings)}
    treatment = settings["treatment"]
    if treatment["name"] == TreatmentName.reweight.value and treatment["budget"] != AUTO:
        treatment = treatment | dict.fromkeys(("budget", "threshold", "balance"))  # it treats all, by their scores
    fabric = {name: value for name, value in settings.get("fabric", {}).items() if name != "strategy"}
    return others | {
        "fabric": fabric,
        "scorer": scorer,
        "objective": objective_of(settings),
        "treatment": treatment,
    }


def differing(first: Any, second: Any, name: str = "") -> list[str]:
    """Return the dotted names of what differs between nested settings: ['treatment.budget']."""
    if isinstance(first, dict) and isinstance(second, dict):
        keys = dict.fromkeys([*first, *second])
        pairs = ((first.get(key), second.get(key), f"{name}.{key}".lstrip(".")) for key in keys)
        return [found for pair in pairs for found in differing(*pair)]
    return [] if first == second else [name]
