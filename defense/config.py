"""Hydra's side of the settings: the schema that a run is composed on, and the checks across fields.

Types and closed choices are checked by the schema while the run is composed; ranges and combinations in
`defense.valid`.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, cast

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from defense.errors import InputError
from defense.questions import Speed
from defense.schema import Attack, Config, Evaluation, Objective, Scorer, plain
from defense.valid.run import check

PACKAGE = Path(__file__).resolve().parent
CONF = next(path for path in (PACKAGE / "conf", PACKAGE.parent / "conf") if path.is_dir())


def register() -> None:
    """Make the schema known to Hydra as the base of conf/config.yaml."""
    schema = OmegaConf.structured(Config)
    schema.model, schema.evaluation, schema.objective, schema.speed = {}, Evaluation, Objective, Speed
    schema.evaluation.attacks, schema.objective.weights, schema.speed.scorers = {}, {}, {}
    # keys that a person chooses: arguments of any class, names for attacks and scorers, terms of an objective
    for chosen in (schema.model, schema.evaluation.attacks, schema.objective.weights, schema.speed.scorers):
        OmegaConf.set_struct(chosen, False)
    ConfigStore.instance().store(name="schema", node=schema)


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
    config = cast(Config, OmegaConf.to_object(composed))
    refuse_unknown(OmegaConf.to_container(composed, resolve=False), plain(config))
    attacks = config.evaluation.attacks
    for name, spec in attacks.items():
        attacks[name] = typed_attack(f"evaluation.attacks.{name}", spec)
    for name, spec in config.speed.scorers.items():
        typed = typed_scorer(f"speed.scorers.{name}", spec, config.scorer)
        config.speed.scorers[name] = replace(typed, name=name)
    check(config)
    return config


def typed_attack(field: str, spec: Any) -> Attack:
    """Return one attack from its settings, a mapping or an Attack; raises InputError where they do not fit."""
    if not isinstance(spec, dict | Attack):
        raise InputError(field, spec, "expected the settings of an attack, as in {name: pgd, steps: 20}")
    try:
        return cast(Attack, OmegaConf.to_object(OmegaConf.merge(Attack, spec)))
    except (OmegaConfBaseException, ValueError) as error:
        raise InputError(field, spec, str(error).splitlines()[0]) from error


def typed_scorer(field: str, spec: Any, base: Scorer) -> Scorer:
    """Return `base` with the settings of `spec`, a mapping; raises InputError where they do not fit."""
    if not isinstance(spec, dict):
        raise InputError(field, spec, "expected what it has other than scorer, as in {direction: ekfac}")
    try:
        return cast(Scorer, OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(base), spec)))
    except (OmegaConfBaseException, ValueError) as error:
        raise InputError(field, spec, str(error).splitlines()[0]) from error


def chosen(group: str, name: str) -> Config:
    """Return the settings with one choice of a group; raises InputError where conf/ has no such file."""
    names = sorted(file.stem for file in (CONF / group).glob("*.yaml"))
    if name not in names:
        raise InputError(group, repr(name), f"expected one of {', '.join(names)}")
    return composed(f"{group}={name}")


def refuse_unknown(found: Any, known: Any, prefix: str = "") -> None:
    """Raise InputError for a setting that was added with + and that no part of the project reads."""
    if isinstance(found, dict) and isinstance(known, dict):
        for key, value in found.items():
            if str(key) not in known:
                raise InputError(f"{prefix}{key}", value, f"no such setting; expected one of {', '.join(known)}")
            refuse_unknown(value, known[str(key)], f"{prefix}{key}.")
