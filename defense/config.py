"""Hydra's side of the settings: the schema that a run is composed on, and the checks across fields.

Types and closed choices are checked by the schema while the run is composed; ranges and combinations here.
"""

from __future__ import annotations

from math import inf
from typing import Any, cast

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from defense.errors import InputError
from defense.schema import PRECISIONS, Attack, AttackName, Config, Evaluation, Source, number, plain


def register() -> None:
    """Make the schema known to Hydra as the base of conf/config.yaml."""
    schema = OmegaConf.structured(Config)
    schema.model, schema.evaluation = {}, Evaluation
    schema.evaluation.attacks = {}
    OmegaConf.set_struct(schema.model, False)  # its keys are the arguments of any class: its signature checks them
    OmegaConf.set_struct(schema.evaluation.attacks, False)  # its keys are names that a person gives
    ConfigStore.instance().store(name="schema", node=schema)


def checked(composed: DictConfig) -> Config:
    """Return the composed settings as typed objects; raises InputError for the first that is not valid."""
    config = cast(Config, OmegaConf.to_object(composed))
    refuse_unknown(OmegaConf.to_container(composed, resolve=False), plain(config))
    attacks = config.evaluation.attacks
    for name, spec in attacks.items():
        try:
            attacks[name] = OmegaConf.to_object(OmegaConf.merge(Attack, spec))
        except OmegaConfBaseException as error:
            raise InputError(f"evaluation.attacks.{name}", spec, str(error).splitlines()[0]) from error
    check(config)
    return config


def refuse_unknown(found: Any, known: Any, prefix: str = "") -> None:
    """Raise InputError for a setting that was added with + and that no part of the project reads."""
    if isinstance(found, dict) and isinstance(known, dict):
        for key, value in found.items():
            if key not in known:
                raise InputError(f"{prefix}{key}", value, f"no such setting; expected one of {', '.join(known)}")
            refuse_unknown(value, known[key], f"{prefix}{key}.")


def check(config: Config) -> None:
    """Raise InputError for the first number that is out of its range."""
    data, train = config.data, config.train
    for field, size in (
        ("data.train_size", data.train_size),
        ("data.validation_size", data.validation_size),
        ("data.test_size", data.test_size),
        ("data.image_size", data.image_size),
        ("train.epochs", train.epochs),
        ("train.batch_size", train.batch_size),
        ("scorer.batch_size", config.scorer.batch_size),
        ("evaluation.batch_size", config.evaluation.batch_size),
    ):
        if size is not None and size < 1:
            raise InputError(field, size, "expected a whole number of at least 1")
    within("data.label_noise", data.label_noise, 0 <= data.label_noise < 1, "a fraction in [0, 1)")
    budget = config.treatment.budget
    within("treatment.budget", budget, 0 <= budget < 1, "a fraction in [0, 1)")
    within("train.learning_rate", train.learning_rate, 0 < train.learning_rate < inf, "a number above 0")
    within("train.momentum", train.momentum, 0 <= train.momentum < 1, "a number in [0, 1)")
    within("train.weight_decay", train.weight_decay, 0 <= train.weight_decay < inf, "a number of at least 0")
    within("train.crop", train.crop, train.crop >= 0, "a whole number of at least 0")
    eps = positive("threat.eps", config.threat.eps)
    if config.threat.norm.value == "Linf":
        within("threat.eps", config.threat.eps, eps <= 1, "at most 1, the whole range of a pixel")
    elif config.threat.eps == data.eps:
        raise InputError(
            "threat.eps", config.threat.eps, "is meant for Linf; give a radius in L2, as in threat.eps=0.5"
        )
    if data.path is not None and data.source not in (Source.npz, Source.image_folder):
        raise InputError(
            "data.path", data.path, f"not read by data={data.source}; expected data=npz or image_folder"
        )
    if data.image_size is not None and data.source is not Source.image_folder:
        raise InputError("data.image_size", data.image_size, f"not read by data={data.source}; expected null")
    if data.train_labels is not None and data.source is not Source.npz:
        raise InputError(
            "data.train_labels", data.train_labels, f"not read by data={data.source}; expected data=npz"
        )
    check_attack("attack", config.attack)
    if not config.evaluation.attacks:
        raise InputError("evaluation.attacks", "{}", "expected at least one attack")
    for name, attack in config.evaluation.attacks.items():
        check_attack(f"evaluation.attacks.{name}", attack)
        valid = name != "worst" and "." not in name
        within(f"evaluation.attacks.{name}", name, valid, "another name: no dot, and worst is taken over all")
    if "_target_" not in config.model:
        raise InputError("model._target_", None, "expected the dotted path of a class or function")
    precision = config.fabric.precision
    within("fabric.precision", precision, precision in PRECISIONS, f"one of {', '.join(PRECISIONS)}")


def check_attack(field: str, attack: Attack) -> None:
    """Raise InputError where the numbers of one attack are not valid."""
    within(f"{field}.steps", attack.steps, attack.steps >= 1, "a whole number of at least 1")
    within(f"{field}.queries", attack.queries, attack.queries >= 1, "a whole number of at least 1")
    if attack.name is AttackName.fgsm:
        within(f"{field}.steps", attack.steps, attack.steps == 1, "1: fgsm takes one step")
    if attack.step_size is not None:
        positive(f"{field}.step_size", attack.step_size)


def positive(field: str, text: str) -> float:
    """Return the number that `text` stands for; raises InputError unless it is finite and above 0."""
    try:
        value = number(text)
    except ValueError:
        raise InputError(field, text, "expected a number above 0, as in 0.1 or 8/255") from None
    within(field, text, 0 < value < inf, "a number above 0, as in 0.1 or 8/255")
    return value


def within(field: str, value: object, valid: bool, expected: str) -> None:
    """Raise InputError unless `valid`."""
    if not valid:
        raise InputError(field, value, f"expected {expected}")
