"""Functions of the user in place of a part: a dotted path under `_target_` is enough to choose one."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar, cast

from defense.config.choices import AttackName, Method, ObjectiveName, TreatmentName
from defense.config.dotted import last_name
from defense.config.schema import Attack, Config, Objective, Scorer, Treat
from defense.errors import InputError, within

AnyPart = Attack | Objective | Scorer | Treat
Part = TypeVar("Part", bound=AnyPart)
EXAMPLE = "the dotted path of a function, as my_parts.{name}: its file my_parts.py in this folder, and its name"


def parts_by_path(config: Config) -> None:
    """Let every part of a run that has the path of a function be that function; raises InputError for no path."""
    config.attack = by_path(config.attack, "attack")
    config.objective = by_path(config.objective, "objective")
    config.scorer = by_path(config.scorer, "scorer")
    config.treatment = by_path(config.treatment, "treatment")


def by_path(part: Part, field: str) -> Part:
    """Return the settings of a part, with the choice `own` if they have the path of a function.

    field: of the settings, as scorer or evaluation.attacks.mine. Raises InputError if the choice has no path, if
    the path has no dot, or if there are arguments and no function.
    """
    path, word = part._target_, field.rpartition(".")[2]
    if path is None:
        within(f"{field}._target_", path, not is_own(part), EXAMPLE.format(name=word))
        said = f"{field}._target_, the function that they are for"
        within(f"{field}.arguments", part.arguments, not part.arguments, said)
        return part
    inside = all(path.replace(":", ".").rpartition(".")[::2])
    within(f"{field}._target_", path, inside, EXAMPLE.format(name=word))
    return cast(Part, chosen(part, path, field))


def is_own(part: AnyPart) -> bool:
    """Return whether settings choose a function of the user."""
    if isinstance(part, Objective):
        return ObjectiveName.own in part.weights
    if isinstance(part, Scorer):
        return part.method is Method.own
    if isinstance(part, Treat):
        return TreatmentName.own in (part.name, *part.names)
    return part.name is AttackName.own


def chosen(part: AnyPart, path: str, field: str) -> AnyPart:
    """Return settings that choose the function at `path`; a scorer has its last name."""
    if isinstance(part, Scorer):
        return replace(part, method=Method.own, name=last_name(path))
    if isinstance(part, Attack):
        return replace(part, name=AttackName.own)
    if isinstance(part, Treat):
        own = TreatmentName.own
        return replace(part, name=own, names=[own if name is part.name else name for name in part.names])
    if ObjectiveName.own in part.weights:
        return part
    if len(part.weights) > 1:
        said = f"is one of several terms; expected its weight, as in {field}.weights.own=1"
        raise InputError(f"{field}._target_", path, said)
    return replace(part, weights={ObjectiveName.own: 1.0})
