"""Which of its settings a run reads, so that runs which cannot differ are shown and counted as one."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from defense.config.choices import AUTO, Method, Task, TreatmentName
from defense.config.reads import names_read
from defense.config.schema import Attack, Scorer, Train, Treat

COMMAND = "command"  # of a result: the command of its sweep
FOLDER = "folder"  # of a result: its folder
LABEL = "label"  # of a result: its name on a page, the last two parts of its folder
MCNEMAR = "mcnemar_p"  # of a result: the p-value of McNemar's test between its arms, NaN of none
Result = dict[str, Any]  # the content of a result.json
Settings = dict[str, Any]  # of a run, as result.json holds them under config

KINDS: dict[str, type] = {"train": Train, "attack": Attack, "scorer": Scorer, "treatment": Treat}
BLIND = (Method.random.value, Method.oracle.value)  # look at no model: chance and perfect knowledge


def check_result(result: dict[str, Any]) -> None:
    """Raise KeyError, TypeError or ValueError unless this is the content of a result.json of this version."""
    Task(result["task"])
    for field in ("seed", "name", "device"):
        result[field]
    for field, kind in (("config", dict), ("overrides", list), ("versions", dict)):
        if not isinstance(result[field], kind):
            raise TypeError(f"{field} is no {kind.__name__}")
    int(result["seed"])
    arms = {Task.defend, Task.repair, Task.evade, Task.score}
    if Task(result["task"]) in arms and not isinstance(result["arms"], dict):
        raise TypeError("arms is no dict")
    missing = {"scorer", "treatment", "objective", "train"} - result["config"].keys()
    if missing:
        raise KeyError(f"config.{min(missing)}")


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


def effect_of(treatment: Settings) -> TreatmentName:
    """Return the treatment that samples get in the end, of the settings of a treatment."""
    return TreatmentName(treatment["name"]).effect(bool(treatment.get("discrete", False)))


def objective_of(settings: Settings) -> Settings | None:
    """Return the objective; None if nothing looks at it. Some tasks measure by it, whatever the scorer."""
    looks = "objective" in Task(settings["task"]).reads | names_read(Scorer, settings["scorer"])
    return settings["objective"] if looks else None


def read(settings: Settings) -> Settings:
    """Return the settings without name, place and seed, and without those that nothing reads."""
    task = settings["task"]
    elsewhere = ("name", "store", "seed", "track", *(other.value for other in Task if other.value != task))
    own = {name: value for name, value in settings.items() if name not in elsewhere}
    own["fabric"] = {name: value for name, value in settings.get("fabric", {}).items() if name != "strategy"}
    own["objective"] = objective_of(settings)
    for part, kind in KINDS.items():
        automatic = part == "treatment" and settings[part]["budget"] == AUTO  # chosen by all of these settings
        if part in settings and not automatic:
            unread = {field.name for field in fields(kind)} - names_read(kind, settings[part])
            own[part] = settings[part] | dict.fromkeys(unread & settings[part].keys())
    own["scorer"] = own["scorer"] | {"proxy": proxy_of(settings)}
    return own


def differing(first: Any, second: Any, name: str = "") -> list[str]:
    """Return the dotted names of what differs between nested settings: ['treatment.budget']."""
    if isinstance(first, dict) and isinstance(second, dict):
        keys = dict.fromkeys([*first, *second])
        pairs = ((first.get(key), second.get(key), f"{name}.{key}".lstrip(".")) for key in keys)
        return [found for pair in pairs for found in differing(*pair)]
    return [] if first == second else [name]
