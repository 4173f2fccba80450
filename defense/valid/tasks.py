"""What is valid of the settings of single tasks, and of others beside them; a part of `defense.valid`."""

from __future__ import annotations

from math import inf

from defense.choices import Direction, Method, ObjectiveName, Task
from defense.errors import InputError, within
from defense.questions import Order
from defense.schema import Config


def check_evade(config: Config) -> None:
    """Raise InputError where the numbers of task=evade are not valid, or it is asked what it cannot say."""
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
    """Raise InputError where the numbers of task=order are not valid."""
    inverse = order.reference is not Direction.identity
    within("order.reference", order.reference, inverse, "an inverse, as hessian or cg: identity is ip itself")
    valid = bool(order.dampings) and all(0 < damping < inf for damping in order.dampings)
    within("order.dampings", order.dampings, valid, "numbers above 0, one at least")
    apart = len({f"{damping:g}" for damping in order.dampings}) == len(order.dampings)
    within("order.dampings", order.dampings, apart, "numbers that differ in six digits")
    within("order.share", order.share, 0 < order.share < 1, "a fraction in (0, 1)")
