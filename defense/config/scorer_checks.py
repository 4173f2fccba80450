"""Valid settings of a scorer, alone and beside a training; a part of `defense.config.checks`."""

from __future__ import annotations

from math import inf

from defense.config.choices import SCORER_PRECISIONS, Members, Method, Optimizer
from defense.config.schema import Config, Scorer, Train
from defense.errors import InputError, within


def check_numbers(name: str, scorer: Scorer) -> None:
    """Raise InputError if the numbers of a scorer, the settings `name`, are not valid."""
    for field, value in (("count", scorer.count), ("iterations", scorer.iterations), ("seeds", scorer.seeds)):
        within(f"{name}.{field}", value, value >= 1, "a whole number of at least 1")
    within(f"{name}.folds", scorer.folds, scorer.folds >= 2, "a whole number of at least 2")
    for field, real in (("std", scorer.std), ("damping", scorer.damping), ("scale", scorer.scale)):
        within(f"{name}.{field}", real, real is None or 0 < real < inf, "a number above 0")
    within(f"{name}.max_rate", scorer.max_rate, 0 <= scorer.max_rate < 1, "a rate in [0, 1)")
    precisions = SCORER_PRECISIONS
    within(
        f"{name}.precision", scorer.precision, scorer.precision in precisions, f"one of {', '.join(precisions)}"
    )
    within(f"{name}.tolerance", scorer.tolerance, 0 < scorer.tolerance < inf, "a number above 0")
    size = scorer.batch_size
    within(f"{name}.batch_size", size, size is None or size >= 1, "a whole number of at least 1, or null")


def check_members(name: str, scorer: Scorer, train: Train) -> None:
    """Raise InputError if a scorer, the settings `name`, takes checkpoints and the training keeps none."""
    if scorer.members is Members.checkpoints:
        if train.optimizer is Optimizer.lbfgs or train.epochs < 2:
            raise InputError(f"{name}.members", scorer.members, "expected a training of several epochs, by sgd")
        within("train.checkpoints", train.checkpoints, train.checkpoints >= 2, f"two at least, for {name}.members")


def check_metagradient(name: str, scorer: Scorer, config: Config) -> None:
    """Raise InputError if a scorer, the settings `name`, goes through a training that it cannot differentiate.

    The training has to be by sgd, in one process and in float32.
    """
    if scorer.method is not Method.metagradient:
        return
    train, devices = config.train, config.fabric
    for field, value, valid, expected in (
        ("train.optimizer", train.optimizer, train.optimizer is Optimizer.sgd, "sgd"),
        ("fabric.precision", devices.precision, devices.precision == "32-true", "32-true"),
        ("fabric.devices", devices.devices, devices.devices == 1, "1"),
        ("fabric.num_nodes", devices.num_nodes, devices.num_nodes == 1, "1"),
    ):
        within(field, value, valid, f"{expected}: {name} is a metagradient, which goes back through every step")
