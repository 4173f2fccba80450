"""What is valid of a scorer, and of several that are timed on the same work."""

from __future__ import annotations

from math import inf

from defense.choices import SCORER_PRECISIONS, Members, Method, ObjectiveName, Optimizer, Peer, Task
from defense.errors import InputError, within
from defense.schema import Config, Scorer, Train

TIMED = (Method.alignment, Method.self_influence, Method.loss, Method.random)  # a model and samples are enough


def check_numbers(name: str, scorer: Scorer) -> None:
    """Raise InputError where the numbers of a scorer, the settings `name`, are not valid."""
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
    """Raise InputError where a scorer, the settings `name`, takes checkpoints and the training keeps none."""
    if scorer.members is Members.checkpoints:
        if train.optimizer is Optimizer.lbfgs or train.epochs < 2:
            raise InputError(f"{name}.members", scorer.members, "expected a training of several epochs, by sgd")
        within("train.checkpoints", train.checkpoints, train.checkpoints >= 2, f"two at least, for {name}.members")


def check_speed(config: Config) -> None:
    """Raise InputError where what is to be timed is not valid; what only a timing reads, of a timing alone."""
    spec = config.speed
    within("speed.rounds", spec.rounds, spec.rounds >= 1, "a whole number of at least 1")
    within("speed.seconds", spec.seconds, 0 < spec.seconds < inf, "a number above 0")
    pairs = bool(spec.works) and all(len(work) == 2 and min(work) >= 2 for work in spec.works)
    within("speed.works", spec.works, pairs, "pairs of training and validation samples, as in [[256, 64]]")
    if config.task is not Task.speed:
        return
    within("fabric.devices", config.fabric.processes, config.fabric.processes == 1, "one process for task=speed")
    within("speed.scorers", spec.scorers, bool(spec.scorers) or spec.peers != [], "a scorer, or speed.peers")
    named = {f"speed.scorers.{name}": scorer for name, scorer in spec.scorers.items()}
    for name, scorer in {"scorer": config.scorer, **named}.items():
        check_numbers(name, scorer)
        check_members(name, scorer, config.train)
        enough = scorer.method in TIMED and not scorer.attacked_train
        said = "a scorer that needs no attack, no known noise and no training of its own, for task=speed"
        within(name, scorer.name, enough, said)
        here = scorer.proxy is None and scorer.seeds == 1
        within(name, scorer.name, here, "proxy=null and seeds=1 for task=speed: all are timed at one model")
    own = config.scorer.name
    within("speed.scorers", own, own not in spec.scorers, "names other than that of the run's own scorer")
    for name in Peer.__members__:
        within("speed.scorers", name, name not in spec.scorers, "names other than those of speed.peers")
    if spec.peers != []:
        said = "peers know the mean loss alone; expected objective=utility, or speed.peers=[]"
        if set(config.objective.weights) != {ObjectiveName.utility}:
            raise InputError("objective", config.objective, said)
