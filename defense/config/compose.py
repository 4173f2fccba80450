"""Hydra's side of the settings: the schema that a run is composed on, and the checks across fields.

Types and closed choices are checked by the schema while the run is composed; ranges and combinations in
`defense.config.checks`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import fields, is_dataclass, replace
from functools import cache
from math import isfinite
from numbers import Real
from pathlib import Path
from typing import Any, cast, get_type_hints

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from defense.config.checks import check
from defense.config.choices import AttackName, Method, ObjectiveName
from defense.config.dotted import OF_A_PATH
from defense.config.parts import by_path, parts_by_path
from defense.config.reads import table_of_readers
from defense.config.schema import Attack, Config, Data, Evaluation, Objective, Scorer, Treat, plain
from defense.config.tasks import Speed
from defense.errors import InputError, nearest_first, within

OTHER = "not the settings of a run; expected a config whose defaults begin with config"
PACKAGE = Path(__file__).resolve().parents[1]
CONF = next(path for path in (PACKAGE / "conf", PACKAGE.parent / "conf") if path.is_dir())


def register() -> None:
    """Make the schema known to Hydra as the base of conf/config.yaml."""
    schema = OmegaConf.structured(Config)
    schema.model, schema.evaluation, schema.objective, schema.speed = {}, Evaluation, Objective, Speed
    schema.evaluation.attacks, schema.objective.weights, schema.speed.scorers = {}, {}, {}
    schema.attack, schema.scorer, schema.treatment, schema.data = Attack, Scorer, Treat, Data
    schema.data.arguments = {}
    with_arguments = (schema.attack, schema.objective, schema.scorer, schema.treatment, schema.data)
    # keys that a person chooses: arguments of any class, names for attacks and scorers, terms of an objective
    free = (schema.model, schema.evaluation.attacks, schema.objective.weights, schema.speed.scorers)
    for settings in (*free, *(part.arguments for part in with_arguments)):
        OmegaConf.set_struct(settings, False)
    ConfigStore.instance().store(name="schema", node=schema)
    OmegaConf.register_new_resolver("readers", table_of_readers, replace=True)  # for --help


def composed(*overrides: str) -> Config:
    """Return the settings that `defense` would run with for these arguments; raises what composing raises."""
    return deepcopy(composed_once(overrides))


@cache
def composed_once(overrides: tuple[str, ...]) -> Config:
    """Return `composed`, the same object every time: Hydra takes a quarter of a second."""
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return checked(compose("config", list(overrides)))


def checked(composed: DictConfig) -> Config:
    """Return the composed settings as typed objects; raises InputError for the first that is not valid."""
    refuse_other(composed, "another")
    config = cast(Config, OmegaConf.to_object(composed))
    refuse_unknown(OmegaConf.to_container(composed, resolve=False), plain(config))
    parts_by_path(config)
    attacks = config.evaluation.attacks
    for name, spec in attacks.items():
        attacks[name] = typed_attack(f"evaluation.attacks.{name}", spec)
    for name, spec in config.speed.scorers.items():
        typed = typed_scorer(f"speed.scorers.{name}", spec, config.scorer)
        config.speed.scorers[name] = replace(typed, name=name)
    check(config)
    return config


def composed_with(choices: Sequence[str], values: Mapping[str, Any]) -> Config:
    """Return the settings composed with choices, as scorer=ekfac, and with values by the dotted names of settings.

    Raises InputError for a name that is not there, a value that does not fit, and what `checked` refuses.
    """
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        whole = compose("config", list(choices))
    for name, value in values.items():
        try:
            OmegaConf.update(whole, name, value, merge=True)
        except (OmegaConfBaseException, ValueError) as error:
            raise InputError(name, value, str(error).splitlines()[0]) from error
    return checked(whole)


def refuse_other(composed: DictConfig, name: str) -> None:
    """Raise InputError unless a composed config, by its name, is made of that of a run."""
    if OmegaConf.get_type(composed) is not Config:
        raise InputError("--config-name", name, OTHER)


def is_text(setting: str) -> bool:
    """Return whether a setting can be text, by its dotted name: one that the schema does not know can."""
    return any(name in kind_of(setting) for name in ("str", "Any", "dict"))


def is_list(setting: str) -> bool:
    """Return whether a setting can be a list, by its dotted name: one that the schema does not know can."""
    return any(name in kind_of(setting) for name in ("list", "Any", "dict"))


def kind_of(setting: str) -> str:
    """Return the type of a setting, as it is written in the schema."""
    kind: Any = Config
    for part in setting.split("."):
        kind = get_type_hints(kind).get(part, Any) if is_dataclass(kind) else Any
    return str(kind)


def typed_attack(field: str, spec: Any) -> Attack:
    """Return one attack from its settings, a mapping or an Attack; raises InputError if they do not fit."""
    if not isinstance(spec, dict | Attack):
        raise InputError(field, spec, "expected the settings of an attack, as in {name: pgd, steps: 20}")
    if isinstance(spec, dict) and spec.get("_target_") is not None:
        spec = {"name": AttackName.own} | spec
    try:
        return by_path(cast(Attack, OmegaConf.to_object(OmegaConf.merge(Attack, spec))), field)
    except InputError as error:
        raise InputError(f"{field}.{error.field.rpartition('.')[2]}", error.value, error.expected) from error
    except (OmegaConfBaseException, ValueError) as error:
        raise InputError(field, spec, str(error).splitlines()[0]) from error


def typed_data(spec: Any) -> Data:
    """Return the settings of data as result.json holds them; raises InputError if they are of another version."""
    try:
        return cast(Data, OmegaConf.to_object(OmegaConf.merge(Data, spec)))
    except (OmegaConfBaseException, ValueError) as error:
        said = f"not the settings of this version of defense ({str(error).splitlines()[0]})"
        raise InputError("config.data", spec, said) from error


def typed_scorer(field: str, spec: Any, base: Scorer) -> Scorer:
    """Return `base` with the settings of `spec`, a mapping; raises InputError if they do not fit."""
    if not isinstance(spec, Mapping):
        raise InputError(field, spec, "expected what it has other than scorer, as in {direction: ekfac}")
    known = [each.name for each in fields(Scorer)]
    for key, value in spec.items():
        if key not in known:
            raise InputError(f"{field}.{key}", value, no_such("setting", key, known))
    try:
        typed = cast(Scorer, OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(base), dict(spec))))
    except (OmegaConfBaseException, ValueError) as error:
        key = getattr(error, "key", None)
        named, value = (f"{field}.{key}", spec[key]) if key in spec else (field, dict(spec) or base)
        raise InputError(named, value, str(error).splitlines()[0]) from error
    return by_path(typed, field)


def typed_objective(field: str, weights: Mapping[Any, Any], base: Objective) -> Objective:
    """Return `base` with the weights of these terms; raises InputError for another term, or no finite weight."""
    terms = {str(term): term for term in ObjectiveName}
    if not weights:
        raise InputError(field, dict(weights), "expected a weight for a term, as in {'utility': 1}")
    for term, weight in weights.items():
        if str(term) not in terms:
            raise InputError(f"{field}.{term}", weight, no_such("term", term, terms))
        if isinstance(weight, bool) or not isinstance(weight, Real) or not isfinite(weight):
            raise InputError(f"{field}.{term}", weight, "expected a finite number, the weight of the term")
    if not any(weights.values()):
        raise InputError(field, dict(weights), "expected a weight for a term, other than 0")
    return replace(base, weights={terms[str(term)]: float(weight) for term, weight in weights.items()})


def scoring(objective: Any, scorer: Any) -> tuple[Objective, Scorer]:
    """Return the settings of an objective and a scorer, each given by name, as settings, or as a mapping.

    The mapping of a scorer has settings over those of the scorer that its `name` says, ip if it has none; that of
    an objective has the weights of its terms. Raises InputError.
    """
    base = str(scorer.get("name", "ip")) if isinstance(scorer, Mapping) else scorer
    names = {"objective": objective, "scorer": base}
    words = [f"{group}={choice_of(group, name)}" for group, name in names.items() if isinstance(name, str)]
    named = composed(*words)
    return objective_of(objective, named.objective), scorer_of(scorer, named.scorer)


def objective_of(given: Any, named: Objective) -> Objective:
    """Return an objective as settings, `named` if it is a name; raises InputError if it is none."""
    if isinstance(given, str):
        return named
    if isinstance(given, Objective):
        given = by_path(given, "objective")
        return typed_objective("objective", given.weights, given)
    if isinstance(given, Mapping):
        return typed_objective("objective", given, named)
    said = "expected a name, an Objective, or weights of terms, as in {'utility': 0.5, 'robustness': 0.5}"
    raise InputError("objective", shown(given), said)


def scorer_of(given: Any, named: Scorer) -> Scorer:
    """Return a scorer as settings, `named` if it is a name; raises InputError if it is none that computes."""
    found = named
    if isinstance(given, Mapping | Scorer):
        base, changes = (given, {}) if isinstance(given, Scorer) else (named, given)
        found = typed_scorer("scorer", changes, base)
    elif not isinstance(given, str):
        said = "expected a name, a Scorer, or settings over ip, as in {'cosine': True}"
        raise InputError("scorer", shown(given), said)
    within(
        "scorer", found.name, found.method is not Method.file, "one that computes scores: a file has them already"
    )
    return found


def shown(value: Any) -> str:
    """Return how an error shows a value of a kind that is not expected: its name, its kind if it is long."""
    text = getattr(value, "__name__", repr(value))
    return text if len(text) <= 40 else type(value).__name__


def chosen(group: str, name: str) -> Config:
    """Return the settings with one choice of a group; raises InputError if conf/ has no such file."""
    return composed(f"{group}={choice_of(group, name)}")


def choice_of(group: str, name: str) -> str:
    """Return the name of a choice; raises InputError if conf/ has no such file."""
    names = sorted(file.stem for file in (CONF / group).glob("*.yaml"))
    if name not in names:
        raise InputError(group, repr(name), f"expected one of {', '.join(nearest_first(name, names))}")
    return name


def no_such(what: str, name: object, known: Iterable[str]) -> str:
    """Return what to say of a name that is not known: the known ones, the nearest first."""
    last = sorted(known, key=OF_A_PATH.__contains__)
    return f"no such {what}; expected one of {', '.join(nearest_first(name, last))}"


def refuse_unknown(found: Any, known: Any, prefix: str = "") -> None:
    """Raise InputError for a setting that was added with + and that no part of the project reads."""
    if isinstance(found, dict) and isinstance(known, dict):
        for key, value in found.items():
            if str(key) not in known:
                raise InputError(f"{prefix}{key}", value, no_such("setting", key, known))
            refuse_unknown(value, known[str(key)], f"{prefix}{key}.")
