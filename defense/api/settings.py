"""Settings of a run as keyword arguments, by the names that they have in conf/config.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from defense.config.checks import check
from defense.config.compose import choice_of, composed_with, scoring
from defense.config.schema import Config, Threat, Train, Treat
from defense.config.schema import Evaluation as Suite
from defense.errors import InputError, nearest_first

GROUPS = {  # keywords whose value is the name of a file in conf/, and its folder there
    "recipe": "train",
    "treatment": "treatment",
    "attack": "attack",
    "suite": "evaluation",
}
PARTS = {"train": Train, "treatment": Treat, "threat": Threat, "evaluation": Suite}  # the first that has a name
DOTTED = (*PARTS, "attack", "fabric")  # parts whose settings a dotted name may set


def composed_by(objective: Any, scorer: Any, settings: Mapping[str, Any]) -> tuple[Config, list[str]]:
    """Return the settings of a run of task=defend, and those that were given as words, as train.epochs=9.

    settings: a file in conf/, as treatment="relabel" (see GROUPS); a setting by the last part of its name, as
    epochs=20; or one by its dotted name, as "evaluation.batch_size". Raises InputError.
    """
    choices, values = {}, {}
    for name, value in settings.items():
        if name in GROUPS and isinstance(value, str):
            choices[GROUPS[name]] = choice_of(GROUPS[name], value)
        else:
            values[full_name(name, value)] = value
    config = composed_with(["data=npz", *(f"{group}={name}" for group, name in choices.items())], values)
    own_objective, own_scorer = scoring(objective, scorer)
    config = replace(config, objective=own_objective, scorer=own_scorer)
    check(config)
    if config.fabric.processes > 1:
        raise InputError(
            "fabric.devices", config.fabric.processes, "expected 1 from Python; the command shares a run"
        )
    named = {"objective": objective, "scorer": scorer, **choices, **values}
    return config, [f"{name}={value}" for name, value in named.items()]


def full_name(name: str, value: Any) -> str:
    """Return the dotted name of a setting; raises InputError if there is none that a run from Python has."""
    if name == "seed" or ("." in name and name.partition(".")[0] in DOTTED):
        return name
    for part, kind in PARTS.items():
        if name in {each.name for each in fields(kind)} - {"name"}:
            return f"{part}.{name}"
    known = dict.fromkeys(["seed", *GROUPS, *(each.name for kind in PARTS.values() for each in fields(kind))])
    raise InputError(name, value, f"no such setting; expected one of {', '.join(nearest_first(name, known))}")
