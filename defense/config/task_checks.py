"""Valid settings of single tasks; a part of `defense.config.checks`."""

from __future__ import annotations

from math import inf

from defense.config.choices import (
    Direction,
    Dropping,
    Method,
    ObjectiveName,
    Optimizer,
    Peer,
    Task,
)
from defense.config.schema import Config
from defense.config.scorer_checks import check_members, check_metagradient, check_numbers
from defense.config.tasks import Order
from defense.errors import InputError, within

# methods that need no attack and no cross-validation
TIMED = (Method.alignment, Method.self_influence, Method.loss, Method.random, Method.metagradient)


def check_faithfulness(config: Config) -> None:
    """Raise InputError if the numbers of task=faithfulness are not valid, or do not fit the training."""
    spec = config.faithfulness
    within("faithfulness.targets", spec.targets, spec.targets >= 1, "a whole number of at least 1")
    within("faithfulness.singles", spec.singles, spec.singles >= 0, "a whole number of at least 0")
    within("faithfulness.dropped", spec.dropped, 0 < spec.dropped < 1, "a fraction in (0, 1)")
    count = spec.count
    within("faithfulness.count", count, count is None or count >= 3, "three retrainings at least, or null")
    if config.train.optimizer is Optimizer.lbfgs:
        within("faithfulness.by", spec.by, spec.by is Dropping.removal, "removal: lbfgs has no batches")


def check_evade(config: Config) -> None:
    """Raise InputError if the numbers of task=evade are not valid, or it is asked what it cannot say."""
    shares, ratio = config.evade.shares, config.evade.ratio
    within("evade.shares", shares, bool(shares) and all(0 < s <= 1 for s in shares), "fractions in (0, 1]")
    apart = len({f"{share:g}" for share in shares}) == len(shares)
    within("evade.shares", shares, apart, "shares that differ in six digits")
    within("evade.ratio", ratio, 1 < ratio < inf, "a number above 1: at 1 a point is on the boundary")
    if config.task is not Task.evade:
        return
    scorer, weights = config.scorer, config.objective.weights
    for field, value, fits in (
        ("objective.weights", [str(term) for term in weights], ObjectiveName.robustness in weights),
        ("scorer.attacked_train", scorer.attacked_train, not scorer.attacked_train),
        ("scorer.method", scorer.method, scorer.method is not Method.adversarial_loss),
        ("scorer.proxy", scorer.proxy, scorer.proxy is None),
        ("scorer.seeds", scorer.seeds, scorer.seeds == 1),
    ):
        if not fits:
            raise InputError(
                field, value, "not with task=evade; expected objective=robustness, at the model itself"
            )


def check_order(order: Order) -> None:
    """Raise InputError if the numbers of task=order are not valid."""
    inverse = order.reference is not Direction.identity
    within("order.reference", order.reference, inverse, "an inverse, as hessian or cg: identity is ip itself")
    valid = bool(order.dampings) and all(0 < damping < inf for damping in order.dampings)
    within("order.dampings", order.dampings, valid, "numbers above 0, one at least")
    apart = len({f"{damping:g}" for damping in order.dampings}) == len(order.dampings)
    within("order.dampings", order.dampings, apart, "numbers that differ in six digits")
    within("order.share", order.share, 0 < order.share < 1, "a fraction in (0, 1)")


def check_speed(config: Config) -> None:
    """Raise InputError if what is to be timed is not valid; what only a timing reads, of a timing alone."""
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
        check_metagradient(name, scorer, config)
        enough = scorer.method in TIMED and not scorer.attacked_train
        said = "a scorer that needs no attack, no known noise and no cross-validation, for task=speed"
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
