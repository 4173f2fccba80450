"""Which of its settings a part reads: the one source for keys, pages and messages.

A field that some member of a choice names, see `defense.config.choices`, is read if a chosen member names it and
the choice is itself read. Every other field is always read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from functools import cache
from typing import Any, get_args, get_origin, get_type_hints

from defense.config.choices import Choice, Harm, Method, Recipe, Task
from defense.config.schema import Attack, Config, Data, Objective, Scorer, Train, Treat, plain

NAMES = {  # the classes of settings whose fields are not all read, with the part of the config that has them
    Data: "data",
    Train: "train",
    Attack: "attack",
    Objective: "objective",
    Scorer: "scorer",
    Treat: "treatment",
}
PARTS = tuple(NAMES)
PASSED_ON = {"data.positive": "objective.positive", "data.crop": "train.crop", "data.flip": "train.flip"}
ALIGNMENT = "a scorer of gradients, as scorer=ip,"


@cache
def choices_of(kind: type) -> dict[str, type[Choice]]:
    """Return the fields of a settings class that hold a choice, or a mapping by choices, with their Enum."""
    found: dict[str, type[Choice]] = {}
    for field, hint in get_type_hints(kind).items():
        inside = get_args(hint)[:1] if get_origin(hint) is dict else get_args(hint)
        for each in (hint, *(inside if type(None) in inside or get_origin(hint) is dict else ())):
            if isinstance(each, type) and issubclass(each, Choice):
                found[field] = each
    return found


@cache
def readers_of(kind: type) -> dict[str, list[tuple[str, Choice]]]:
    """Return, for each setting that not every choice reads, the choices that do, as (field, member)."""
    found: dict[str, list[tuple[str, Choice]]] = {}
    for field, choice in choices_of(kind).items():
        for member in choice:
            for name in sorted(member.reads):
                found.setdefault(name, []).append((field, member))
    return found


def names_read(kind: type, values: Mapping[str, Any]) -> frozenset[str]:
    """Return the names that settings of class `kind` read, given their values; choices as members or by value.

    Beside fields of their own these may be names of what they look at elsewhere, as objective and threat.
    """
    readers = readers_of(kind)
    names = {field.name for field in fields(kind)} - readers.keys()
    pending = [name for name in choices_of(kind) if name in names]
    while pending:
        name = pending.pop()
        value = values.get(name)
        chosen = value if isinstance(value, Mapping) else [] if value is None else [value]
        more = frozenset[str]().union(*(choices_of(kind)[name](each).reads for each in chosen)) - names
        names |= more
        pending += [each for each in more if each in choices_of(kind)]
    return frozenset(names)


def reading(settings: Any) -> frozenset[str]:
    """Return the names that settings read, once their defaults are resolved; see `names_read`."""
    resolved = resolve(settings)
    return names_read(type(resolved), vars(resolved))


def read(settings: Any) -> dict[str, Any]:
    """Return the fields that settings read, by name, as plain values with defaults resolved."""
    names = reading(settings)
    return {name: value for name, value in plain(resolve(settings)).items() if name in names}


def table_of_readers() -> str:
    """Return, for --help, a line for each setting that only some choices read: the choices that do."""
    lines = []
    for kind, part in NAMES.items():
        for field, readers in readers_of(kind).items():
            if field in {each.name for each in fields(kind)}:
                members: dict[str, list[str]] = {}
                for choice, member in readers:
                    members.setdefault(choice, []).append(str(member))
                who = " or ".join(f"{choice}={','.join(names)}" for choice, names in members.items())
                lines.append(f"{part}.{field}: {who}")
    return "\n".join(lines)


def resolve(settings: Any) -> Any:
    """Return settings with their defaults resolved, if their class has such defaults."""
    return settings.resolved() if hasattr(settings, "resolved") else settings


def attacks_validation(config: Config) -> bool:
    """Return whether the validation split is attacked: for a report, a retraining or an objective that is read."""
    if config.task in (Task.defend, Task.faithfulness):
        return True
    looks = "objective" in config.task.reads | reading(config.scorer) and config.objective.reads_adversarial
    return looks and config.data.given_path is None and config.task is not Task.evade


def recipes_of(config: Config) -> set[Recipe]:
    """Return the recipes that models of a run are trained by: its own, a proxy's, and that of planted harm."""
    found = {config.train.recipe} | ({config.scorer.proxy} if config.scorer.proxy else set())
    return found | ({Recipe.adversarial} if config.data.harm is Harm.hypocritical else set())


def unread(config: Config, overrides: Sequence[str]) -> list[str]:
    """Return a line for each override, as in train.beta=3, that nothing in the run reads: it names what would.

    An override that another one hides is not looked at: the run does not read it, nor anything else.
    """
    lines = []
    for override in overrides:
        name = override.partition("=")[0].lstrip("+~")
        readers = readers_missed(config, name)
        if readers:
            lines.append(f"{override}: not read by this run; {' or '.join(readers)} would read it")
    return lines


def readers_of_treatment(spec: Treat, field: str) -> list[str]:
    """Return the choices that would read a setting which a treatment leaves unread; see `Treat.resolved`."""
    if field in ("budgets", "names", "held_out"):
        return ["treatment.budget=auto", *(["treatment=optimize"] if field == "held_out" else [])]
    return ["treatment.threshold=null" if spec.threshold is not None else "treatment.discrete=true"]


def readers_missed(config: Config, name: str) -> list[str]:
    """Return the choices that would read a setting, as in train.recipe=trades; none if the run reads it."""
    part, _, field = PASSED_ON.get(name, name).partition(".")
    if part in Task.__members__ and part != config.task.value:
        return [f"task={part}"]
    if part == "objective" and "objective" not in config.task.reads | reading(config.scorer):
        return [ALIGNMENT]
    settings: Any = getattr(config, part, None)
    if type(settings) not in PARTS or not hasattr(settings, field):
        return []
    own, resolved = getattr(settings, field), getattr(resolve(settings), field)
    if own is not None and own != resolved:
        return readers_of_treatment(settings, field)
    if part == "train" and recipes_of(config) == {Recipe.none} and field != "recipe":
        return ["another train.recipe than none"]
    alike = [replace(settings, recipe=each) for each in recipes_of(config)] if part == "train" else [settings]
    if any(field in reading(each) for each in alike):
        return []
    if part == "scorer" and settings.method is not Method.alignment and field not in ("folds", "path"):
        return [ALIGNMENT]  # its own name and method go together: a changed method would keep the old name
    kind: type = type(settings)
    readers = readers_of(kind)[field]
    return [
        f"{part}={member}" if part == "objective" else f"{part}.{choice}={member}" for choice, member in readers
    ]
