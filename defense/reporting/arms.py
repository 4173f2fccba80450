"""The arms of a run: their order in every table, their names, their accuracies."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pandas as pd

from defense.reporting.statistics import percent

# trusted: trained on trusted samples too, which in trusted_3 weigh 3 times as much
# proxy: the model of another recipe that scores come from
ARMS = ("baseline", "control", "defended", "trusted", "proxy")


def arms_of(arms: Collection[str]) -> list[str]:
    """Return the names of the arms that there are, in the order of every table; trusted ones by their weight."""
    known = [name for name in arms if kind_of(name) in ARMS]
    return sorted(known, key=lambda name: (ARMS.index(kind_of(name)), weight_of(name)))


def trusted_of(arms: Collection[str]) -> list[str]:
    """Return the names of the arms that are trained on trusted samples too, by their weight there."""
    return [name for name in arms_of(arms) if kind_of(name) == "trusted"]


def kind_of(arm: str) -> str:
    """Return the name of an arm without the weight of trusted samples: 'trusted' of 'trusted_3'."""
    return arm.partition("_")[0]


def weight_of(arm: str) -> float:
    """Return the weight of trusted samples in an arm, others having 1; 1 if its name has none."""
    return float(arm.partition("_")[2] or 1)


def arm_in_words(arm: str) -> str:
    """Return the name of an arm in tables: 'trusted x3' for 'trusted_3'."""
    return arm.replace("_", " x")


def header(arms: Collection[str]) -> tuple[str, ...]:
    """Return the header of a table of accuracies."""
    return ("test accuracy, %", *map(arm_in_words, arms_of(arms)), "defended - control (95 %)")


def accuracies(evaluation: pd.DataFrame) -> dict[str, Any]:
    """Return {clean, triggered, transfer, adaptive: {attack: ..., worst: ...}} in percent.

    triggered: if there is a planted trigger.
    """
    nested: dict[str, Any] = {}
    for column in evaluation.columns.drop(["id", "prediction"]):
        kind, _, attack = str(column).partition(".")
        share = percent(evaluation[column].sum(), len(evaluation))
        if attack:
            nested.setdefault(kind, {})[attack] = share
        else:
            nested[kind] = share
    return nested


def metrics(arm: dict[str, Any]) -> list[str]:
    """Return the dotted names of an arm's accuracies, adaptive at worst first."""
    adaptive = sorted(arm["adaptive"], key=lambda attack: attack != "worst")
    others = [name for name in ("clean", "triggered", "transfer") if name in arm]
    return [*(f"adaptive.{attack}" for attack in adaptive), *others]


def last_attack(arm: dict[str, Any]) -> str:
    """Return the attack that all others come before: what survives it is the accuracy at worst."""
    *_, last = (name for name in arm["adaptive"] if name != "worst")
    return str(last)


def shown_metrics(arm: dict[str, Any]) -> list[str]:
    """Return the metrics that a page shows, at worst first: without the last attack, which is that again."""
    return [metric for metric in metrics(arm) if metric != f"adaptive.{last_attack(arm)}"]


def lookup(arm: dict[str, Any], metric: str) -> float:
    """Return the accuracy at a dotted name."""
    value: Any = arm
    for name in metric.split("."):
        value = value[name]
    return float(value)


def has(arm: Any, path: str) -> bool:
    """Return whether nested numbers have a dotted name."""
    for name in path.split("."):
        arm = arm.get(name) if isinstance(arm, dict) else None
    return arm is not None


def spoken(metric: str) -> str:
    """Return 'adaptive, after pgd' for 'adaptive.pgd': after this attack and all before it."""
    kind, _, attack = metric.partition(".")
    if not attack:
        return kind
    return f"{kind}, {attack}" if attack == "worst" else f"{kind}, after {attack}"


def training_on(arm: str) -> str:
    """Return the training of a trusted arm, as the subject of a sentence."""
    weight = weight_of(arm)
    weighing = "" if weight == 1 else f" which weigh {weight:g} times as much as others,"
    return f"Training on the trusted validation samples too,{weighing} with nothing treated,"
