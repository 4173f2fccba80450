"""What is valid of a whole run; types are checked while it is composed."""

from __future__ import annotations

from dataclasses import replace
from math import inf, isfinite

from defense.choices import (
    AUTO,
    BALANCES,
    PRECISIONS,
    STRATEGIES,
    AttackName,
    Harm,
    Keep,
    Norm,
    Optimizer,
    Recipe,
    Task,
)
from defense.errors import InputError, within
from defense.schema import Attack, Config, Devices, Evaluation, Scorer, Threat, Train, Treat
from defense.threat import READ_BY, number
from defense.valid.data import check_source, check_text
from defense.valid.scorer import check_members, check_numbers, check_speed
from defense.valid.tasks import check_evade, check_order


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
        ("train.attack_steps", train.attack_steps),
        ("train.validation_steps", train.validation_steps),
        ("train.checkpoints", train.checkpoints),
        ("faithfulness.targets", config.faithfulness.targets),
        ("evaluation.batch_size", config.evaluation.batch_size),
    ):
        if size is not None and size < 1:
            raise InputError(field, size, "expected a whole number of at least 1")
    within("seed", config.seed, config.seed >= 0, "a whole number of at least 0")
    scorer = config.scorer
    check_numbers("scorer", scorer)
    weights = config.objective.weights
    within(
        "objective.weights",
        weights,
        any(weights.values()) and all(isfinite(w) for w in weights.values()),
        "a weight for a term, other than 0",
    )
    within("objective.positive", config.objective.positive, config.objective.positive >= 0, "a class, from 0 up")
    check_treatment(config.treatment, config.task)
    check_train(train)
    if train.optimizer is Optimizer.lbfgs:
        check_unread(train, scorer)
    count = config.faithfulness.count
    within("faithfulness.count", count, count is None or count >= 3, "three retrainings at least, or null")
    check_members("scorer", scorer, train)
    check_speed(config)
    check_threat("threat.eps", config.threat, usual=data.eps)
    check_source(data)
    check_text(config)
    check_evade(config)
    check_harm(config)
    check_order(config.order)
    check_attack("attack", config.attack)
    check_suite(config.evaluation)
    checked = config.evaluation.checked
    within("evaluation.checked", checked, checked >= 0, "a whole number of at least 1, or 0 for no health checks")
    if "_target_" not in config.model:
        raise InputError("model._target_", None, "expected the dotted path of a class or function")
    precision = config.fabric.precision
    within("fabric.precision", precision, precision in PRECISIONS, f"one of {', '.join(PRECISIONS)}")
    check_devices(config.fabric, train)
    attacks = {train.recipe, scorer.proxy} - {None, Recipe.standard} or train.keep is Keep.robust
    if attacks and precision == "16-mixed":  # the gradient of a picture, of a mean over the batch, becomes zero
        raise InputError("fabric.precision", precision, "not with attacks in training; expected bf16-mixed")


def check_devices(devices: Devices, train: Train) -> None:
    """Raise InputError where the number of processes is not valid, or does not fit the recipe."""
    for field, value in (("devices", devices.devices), ("num_nodes", devices.num_nodes)):
        within(f"fabric.{field}", value, value >= 1, "a whole number of at least 1")
    within("fabric.strategy", devices.strategy, devices.strategy in STRATEGIES, f"one of {', '.join(STRATEGIES)}")
    size = train.batch_size
    few = f"at least {devices.processes}, a sample for each of fabric.devices x fabric.num_nodes"
    within("train.batch_size", size, train.optimizer is Optimizer.lbfgs or size >= devices.processes, few)


def check_train(train: Train) -> None:
    """Raise InputError where the numbers of a recipe are not valid."""
    within("train.learning_rate", train.learning_rate, 0 < train.learning_rate < inf, "a number above 0")
    within("train.momentum", train.momentum, 0 <= train.momentum < 1, "a number in [0, 1)")
    within("train.weight_decay", train.weight_decay, 0 <= train.weight_decay < inf, "a number of at least 0")
    within("train.crop", train.crop, train.crop >= 0, "a whole number of at least 0")
    within("train.tolerance", train.tolerance, 0 < train.tolerance < inf, "a number above 0")
    within("train.beta", train.beta, 0 < train.beta < inf, "a number above 0")
    ema = train.ema
    within("train.ema", ema, ema is None or 0 < ema < 1, "a decay between 0 and 1, as in 0.995, or null")


def check_unread(train: Train, scorer: Scorer) -> None:
    """Raise InputError where something is asked for that needs batches or epochs, which lbfgs does not have."""
    for field, value, valid in (
        ("train.recipe", train.recipe, train.recipe is Recipe.standard),
        ("scorer.proxy", scorer.proxy, scorer.proxy in (None, Recipe.standard)),
        ("train.keep", train.keep, train.keep in (None, Keep.last)),
        ("train.ema", train.ema, train.ema is None),
        ("train.channels_last", train.channels_last, not train.channels_last),
        ("train.compile", train.compile, not train.compile),
    ):
        if not valid:
            raise InputError(field, value, "not with train.optimizer=lbfgs; expected sgd")


def check_harm(config: Config) -> None:
    """Raise InputError where the numbers of a planted harm are not valid, or the data have noise of their own."""
    data = config.data
    within("data.harm_rate", data.harm_rate, 0 < data.harm_rate < 1, "a fraction in (0, 1)")
    within("data.spread", data.spread, 0 < data.spread < inf, "a number above 0")
    within("data.harm_target", data.harm_target, data.harm_target >= 0, "a class, from 0 up")
    patch = data.harm_patch
    within("data.harm_patch", patch, patch is None or patch >= 1, "a whole number of at least 1, or null")
    if data.harm_eps is not None:
        check_threat("data.harm_eps", replace(config.threat, eps=data.harm_eps))
    if data.harm is not Harm.none and data.train_labels is not None:
        raise InputError("data.harm", data.harm, "data.train_labels has noise of its own; expected none")


UNTREATED = tuple(task for task in Task if task not in (Task.defend, Task.repair, Task.evade))


def check_treatment(spec: Treat, task: Task) -> None:
    """Raise InputError where the numbers of the treatment are not valid, or are not read by the task."""
    auto, budget, threshold, balance = spec.budget == AUTO, spec.budget, spec.threshold, spec.balance
    within("treatment.balance", balance, balance in BALANCES, f"one of {', '.join(BALANCES)}")
    within("treatment.threshold", threshold, threshold is None or isfinite(threshold), "a number, or null")
    chosen = "a fraction: it is chosen under attack, by task=defend alone"
    within("treatment.budget", budget, not auto or task in (Task.defend, *UNTREATED), chosen)
    if task in UNTREATED:
        said = f": nothing is treated by task={task}"
        within("treatment.budget", budget, not auto, f"a fraction{said}")
        within("treatment.threshold", threshold, threshold is None, f"null{said}")
        within("treatment.balance", balance, balance == "none", f"none{said}")
    balanced = threshold is not None and balance != "none"
    within("treatment.threshold", threshold, not balanced, "null with treatment.balance, which spends a budget")
    valid = auto or (type(budget) in (int, float) and 0 <= budget < 1)
    within("treatment.budget", budget, valid, "a fraction in [0, 1), or auto")
    within("treatment.held_out", spec.held_out, 0 < spec.held_out < 1, "a fraction in (0, 1)")
    within("treatment.budgets", spec.budgets, all(0 < b < 1 for b in spec.budgets), "fractions in (0, 1)")
    if auto:
        within("treatment.threshold", threshold, threshold is None, "null with treatment.budget=auto")
        within("treatment.budgets", spec.budgets, bool(spec.budgets), "a fraction or more to choose from")
        within("treatment.names", spec.names, bool(spec.names), "a treatment or more to choose from")


def check_threat(field: str, threat: Threat, *, usual: str = "") -> None:
    """Raise InputError where eps is not a radius of the norm; `usual`: one that is meant for Linf."""
    eps = positive(field, threat.eps)
    if threat.norm is Norm.Linf:
        within(field, threat.eps, eps <= 1, "at most 1, the whole range of a pixel")
    elif threat.eps == usual or "/255" in threat.eps.replace(" ", ""):
        raise InputError(field, threat.eps, f"is meant for Linf; give a radius in L2, as in {field}=0.5")


def check_suite(suite: Evaluation) -> None:
    """Raise InputError where the attacks of a suite are not valid."""
    if not {attack.name for attack in suite.attacks.values()} - {AttackName.square}:
        named = ", ".join(suite.attacks) or "{}"
        raise InputError("evaluation.attacks", named, "expected at least one attack that uses gradients")
    for name, attack in suite.attacks.items():
        check_attack(f"evaluation.attacks.{name}", attack)
        valid = name not in ("clean", "worst") and "." not in name
        within(f"evaluation.attacks.{name}", name, valid, "another name: no dot, and not clean or worst")


def check_attack(field: str, attack: Attack) -> None:
    """Raise InputError where the numbers of one attack are not valid."""
    within(f"{field}.steps", attack.steps, attack.steps >= 1, "a whole number of at least 1")
    for name, number_ in (("queries", attack.queries), ("restarts", attack.restarts)):
        within(f"{field}.{name}", number_, number_ >= 1, "a whole number of at least 1")
    if attack.step_size is not None:
        positive(f"{field}.step_size", attack.step_size)
        said = f"not read by {attack.name}; expected null"
        if "step_size" not in READ_BY[attack.name]:
            raise InputError(f"{field}.step_size", attack.step_size, said)


def positive(field: str, text: str) -> float:
    """Return the number that `text` stands for; raises InputError unless it is finite and above 0."""
    try:
        value = number(text)
    except ValueError:
        raise InputError(field, text, "expected a number above 0, as in 0.1 or 8/255") from None
    within(field, text, 0 < value < inf, "a number above 0, as in 0.1 or 8/255")
    return value
