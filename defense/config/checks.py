"""Valid combinations of settings; types are checked while a run is composed."""

from __future__ import annotations

from dataclasses import replace
from math import inf, isfinite
from pathlib import Path

from defense.config.choices import (
    AUTO,
    BALANCES,
    PRECISIONS,
    STRATEGIES,
    AttackName,
    Harm,
    Keep,
    Members,
    Method,
    Norm,
    Optimizer,
    Outliers,
    Recipe,
    Source,
    Task,
    TreatmentName,
    Unreadable,
)
from defense.config.reads import readers_of, reading, recipes_of
from defense.config.schema import (
    Attack,
    Config,
    Data,
    Devices,
    Evaluation,
    Scorer,
    Threat,
    Train,
    Treat,
    as_fraction,
    trusted_arm,
)
from defense.config.scorer_checks import check_members, check_metagradient, check_numbers
from defense.config.task_checks import check_evade, check_faithfulness, check_order, check_speed
from defense.errors import InputError, within


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
    check_descent(config)
    check_train(train)
    check_untrained(config)
    if train.optimizer is Optimizer.lbfgs:
        check_unread(train, scorer, data.harm)
    check_faithfulness(config)
    check_members("scorer", scorer, train)
    check_metagradient("scorer", config.scorer, config)
    check_speed(config)
    check_threat("threat.eps", config.threat, usual=data.eps)
    check_source(data)
    check_text(config)
    check_evade(config)
    check_harm(config)
    check_order(config.order)
    check_attack("attack", config.attack)
    check_suite(config.evaluation)
    check_trusted(config.evaluation)
    controls = config.evaluation.controls
    within("evaluation.controls", controls, controls >= 1, "a whole number of at least 1")
    checked = config.evaluation.checked
    within("evaluation.checked", checked, checked >= 0, "a whole number of at least 1, or 0 for no health checks")
    if "_target_" not in config.model:
        raise InputError("model._target_", None, "expected the dotted path of a class or function")
    precision = config.fabric.precision
    within("fabric.precision", precision, precision in PRECISIONS, f"one of {', '.join(PRECISIONS)}")
    check_devices(config.fabric, train)
    attacks = recipes_of(config) - {Recipe.none, Recipe.standard} or train.keep is Keep.robust
    if attacks and precision == "16-mixed":  # the gradient of a picture, of a mean over the batch, becomes zero
        raise InputError("fabric.precision", precision, "not with attacks in training; expected bf16-mixed")


def check_devices(devices: Devices, train: Train) -> None:
    """Raise InputError if the number of processes is not valid, or does not fit the recipe."""
    for field, value in (("devices", devices.devices), ("num_nodes", devices.num_nodes)):
        within(f"fabric.{field}", value, value >= 1, "a whole number of at least 1")
    within("fabric.strategy", devices.strategy, devices.strategy in STRATEGIES, f"one of {', '.join(STRATEGIES)}")
    size = train.batch_size
    few = f"at least {devices.processes}, a sample for each of fabric.devices x fabric.num_nodes"
    within("train.batch_size", size, train.optimizer is Optimizer.lbfgs or size >= devices.processes, few)


def check_train(train: Train) -> None:
    """Raise InputError if the numbers of a recipe are not valid."""
    within("train.learning_rate", train.learning_rate, 0 < train.learning_rate < inf, "a number above 0")
    within("train.momentum", train.momentum, 0 <= train.momentum < 1, "a number in [0, 1)")
    within("train.weight_decay", train.weight_decay, 0 <= train.weight_decay < inf, "a number of at least 0")
    within("train.crop", train.crop, train.crop >= 0, "a whole number of at least 0")
    within("train.tolerance", train.tolerance, 0 < train.tolerance < inf, "a number above 0")
    within("train.beta", train.beta, 0 < train.beta < inf, "a number above 0")
    ema = train.ema
    within("train.ema", ema, ema is None or 0 < ema < 1, "a decay between 0 and 1, as in 0.995, or null")


UNTRAINED_TASKS = (Task.score, Task.detect, Task.order, Task.speed)
TRAINED_METHODS = (Method.metagradient, Method.confident_learning)
TRAINED_HARM = (Harm.boundary, Harm.poison, Harm.hypocritical)


def check_untrained(config: Config) -> None:
    """Raise InputError if the network is taken as it stands, and something asks for a training."""
    scorer, model = config.scorer, config.model
    within("scorer.proxy", scorer.proxy, scorer.proxy is not Recipe.none, "a recipe that trains, or null")
    if config.train.recipe is not Recipe.none:
        return
    ours = str(model.get("_target_")).startswith("defense.")
    begun = not ours or model.get("folder") is not None or model.get("weights") is not None
    for field, value, valid, expected in (
        ("task", config.task, config.task in UNTRAINED_TASKS, f"one of {', '.join(map(str, UNTRAINED_TASKS))}"),
        ("model.weights", model.get("weights"), begun, "a file of weights"),
        ("scorer.method", scorer.method, scorer.method not in TRAINED_METHODS, "another scorer"),
        ("scorer.members", scorer.members, scorer.members is not Members.checkpoints, "another"),
        ("scorer.seeds", scorer.seeds, scorer.seeds == 1, "1"),
        ("data.harm", config.data.harm, config.data.harm not in TRAINED_HARM, "another"),
    ):
        within(field, value, valid, f"{expected}, with train=none, which trains nothing; or train=standard")


def check_unread(train: Train, scorer: Scorer, harm: Harm) -> None:
    """Raise InputError if something is asked for that needs batches or epochs, which lbfgs does not have."""
    for field, value, valid in (
        ("data.harm", harm, harm is not Harm.hypocritical),
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
    """Raise InputError if the numbers of a planted harm are not valid, or the data have noise of their own."""
    data = config.data
    rate, whole = data.harm_rate, data.harm is Harm.hypocritical  # it may move every picture: labels stay
    valid = 0 < rate < 1 or (whole and rate == 1)
    within("data.harm_rate", rate, valid, f"a fraction in {'(0, 1]' if whole else '(0, 1)'}")
    within("data.spread", data.spread, 0 < data.spread < inf, "a number above 0")
    within("data.harm_target", data.harm_target, data.harm_target >= 0, "a class, from 0 up")
    patch = data.harm_patch
    within("data.harm_patch", patch, patch is None or patch >= 1, "a whole number of at least 1, or null")
    if data.harm_eps is not None:
        check_threat("data.harm_eps", replace(config.threat, eps=data.harm_eps))
    if data.harm is not Harm.none and data.train_labels is not None:
        raise InputError("data.harm", data.harm, "data.train_labels has noise of its own; expected none")
    if data.harm is Harm.hypocritical:
        for field, value, looks in (
            ("task", config.task, config.task is Task.detect),
            ("scorer.method", config.scorer.method, config.scorer.method is Method.oracle),
        ):
            within(field, value, not looks, f"another with data.harm={data.harm}, which leaves no label wrong")


UNTREATED = tuple(task for task in Task if "treatment" not in task.reads)


def check_treatment(spec: Treat, task: Task) -> None:
    """Raise InputError if the numbers of the treatment are not valid, or are not read by the task."""
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


STEEPEST_RATE = 10.0  # of a descent: beyond it a step leaves no weight between none and the most


def check_descent(config: Config) -> None:
    """Raise InputError if the numbers of treatment=optimize are not valid, or do not fit the rest of the run."""
    spec, scorer = config.treatment, config.scorer
    within("treatment.rounds", spec.rounds, spec.rounds >= 1, "a whole number of at least 1")
    within("treatment.rate", spec.rate, 0 < spec.rate <= STEEPEST_RATE, f"a number in (0, {STEEPEST_RATE:g}]")
    certain = 0 <= spec.confidence < 1
    within("treatment.confidence", spec.confidence, certain, "a number of at least 0 and below 1, as 0.95")
    if spec.budget == AUTO:
        names = [str(name) for name in spec.names]
        alone = TreatmentName.optimize not in spec.names
        within("treatment.names", names, alone, "no optimize with treatment.budget=auto")
    if spec.name is not TreatmentName.optimize or "treatment" not in config.task.reads:
        return
    for field, value, valid, expected in (
        ("task", config.task, config.task in (Task.defend, Task.repair), "defend or repair"),
        ("scorer.method", scorer.method, scorer.method is Method.metagradient, "scorer=metagradient"),
        ("scorer.proxy", scorer.proxy, scorer.proxy is None, "null"),
        ("treatment.threshold", spec.threshold, spec.threshold is None, "null"),
        ("treatment.budget", spec.budget, spec.budget != AUTO, "a fraction"),
        ("treatment.budget", spec.budget, not spec.discrete or spec.budget != 0, "a fraction above 0"),
        (
            "train.keep",
            config.train.kept,
            config.train.kept is Keep.last,
            "last, the end of its trainings",
        ),
        ("data.given_path", config.data.given_path, config.data.given_path is None, "null"),
    ):
        within(field, value, valid, f"{expected}, for treatment=optimize")


SMALLEST_EPS = 1e-6  # 17 steps of float32 below 1


def check_threat(field: str, threat: Threat, *, usual: float | None = None) -> None:
    """Raise InputError unless eps suits the norm; `usual` is an eps that is meant for Linf."""
    eps, shown = threat.eps, as_fraction(threat.eps)
    within(field, shown, eps >= SMALLEST_EPS, f"at least {SMALLEST_EPS:g}: pixels are float32")
    if threat.norm is Norm.Linf:
        within(field, shown, eps <= 1, "at most 1, the whole range of a pixel")
    elif eps == usual or "/" in shown:
        raise InputError(field, shown, f"is meant for Linf; give a radius in L2, as in {field}=0.5")


def check_suite(suite: Evaluation) -> None:
    """Raise InputError if the attacks of a suite are not valid."""
    if not {attack.name for attack in suite.attacks.values()} - {AttackName.square}:
        named = ", ".join(suite.attacks) or "{}"
        raise InputError("evaluation.attacks", named, "expected at least one attack that uses gradients")
    within("evaluation.masked", suite.masked, isinstance(suite.masked, list | tuple), "a list of names, or []")
    for name in suite.masked:
        blind = name in suite.attacks and suite.attacks[name].name is AttackName.square
        within("evaluation.masked", name, blind, "the name of a square in evaluation.attacks, or [] without one")
    for name, attack in suite.attacks.items():
        check_attack(f"evaluation.attacks.{name}", attack)
        valid = name not in ("clean", "worst") and "." not in name
        within(f"evaluation.attacks.{name}", name, valid, "another name: no dot, and not clean or worst")


def check_trusted(suite: Evaluation) -> None:
    """Raise InputError if the weights of trusted samples are not valid, or no arm has them."""
    field, weights = "evaluation.trusted_weights", suite.trusted_weights
    within(field, weights, suite.trusted or not weights, "[] with evaluation.trusted=false")
    for weight in weights:
        within(field, weight, 1 < weight < inf, "numbers above 1, as in [3, 10]")
    names = [trusted_arm(weight) for weight in weights]
    twice = [weight for weight, name in zip(weights, names, strict=True) if names.count(name) > 1]
    within(field, twice, not twice, "each weight once")


def check_attack(field: str, attack: Attack) -> None:
    """Raise InputError if the numbers of one attack are not valid."""
    fewest = 2 if attack.name is AttackName.pma else 1  # a step for each half of its schedule
    within(f"{field}.steps", attack.steps, attack.steps >= fewest, f"a whole number of at least {fewest}")
    for name, number_ in (("queries", attack.queries), ("restarts", attack.restarts)):
        within(f"{field}.{name}", number_, number_ >= 1, "a whole number of at least 1")
    if attack.step_size is not None:
        said = f"not read by {attack.name}; expected null"
        if "step_size" not in reading(attack):
            raise InputError(f"{field}.step_size", attack.step_size, said)


DEFAULTS = ("root", "length", "spread")  # set whatever the source
UNSET: dict[str, object] = {
    "outliers": Outliers.refuse,
    "unreadable": Unreadable.refuse,
    "arguments": {},
}  # others: null


def check_source(data: Data) -> None:
    """Raise InputError if something is set that the source does not read."""
    readers_by_name = {
        name: [member for field, member in found if field == "source"] for name, found in readers_of(Data).items()
    }
    for name, readers in readers_by_name.items():
        value = getattr(data, name)
        usual = UNSET.get(name)
        if readers and name not in DEFAULTS and value != usual and data.source not in readers:
            valid = (
                f"{'null' if usual is None else usual}, or {' or '.join(f'data={reader}' for reader in readers)}"
            )
            raise InputError(f"data.{name}", value, f"not read by data={data.source}; expected {valid}")
    for name in ("validation_path", "test_path"):
        other = getattr(data, name)
        apart = other is None or data.path is None or Path(other).resolve() != Path(data.path).resolve()
        within(f"data.{name}", other, apart, "another file than data.path")
    within("data.positive", data.positive, data.positive >= 0, "a class, from 0 up")
    both = sorted(set(data.categories or []) & set(data.numbers or []))
    within("data.numbers", both, not both, "other columns than in data.categories")
    if data.groups is not None and data.sensitive is None:
        raise InputError("data.groups", data.groups, "expected data.sensitive, the column that they are values of")


OF_TEXTS = (Task.detect, Task.repair, Task.score)  # tasks that need no attack
OF_PICTURES = (Harm.trigger, Harm.poison, Harm.hypocritical)


def check_text(config: Config) -> None:
    """Raise InputError if texts are to be attacked or changed like pictures."""
    data, train, scorer = config.data, config.train, config.scorer
    if data.source is not Source.text:
        return
    within("data.length", data.length, data.length >= 3, "a whole number of at least 3")
    within("data.tokenizer", data.tokenizer, data.tokenizer is not None, "the name of an encoder")
    robust = config.objective.reads_adversarial
    for field, value, valid, expected in (
        ("task", config.task, config.task in OF_TEXTS, "detect, repair or score"),
        ("objective.weights", "robustness", not robust or data.given_path is not None, "data.given_path"),
        ("train.recipe", train.recipe, train.recipe is Recipe.standard, "standard"),
        ("train.keep", train.keep, train.keep is not Keep.robust, "last or clean"),
        ("train.optimizer", train.optimizer, train.optimizer is Optimizer.sgd, "sgd"),
        ("train.channels_last", train.channels_last, not train.channels_last, "false"),
        ("train.crop", train.crop, train.crop == 0, "0"),
        ("train.flip", train.flip, not train.flip, "false"),
        ("scorer.proxy", scorer.proxy, scorer.proxy in (None, Recipe.standard), "null or standard"),
        ("scorer.attacked_train", scorer.attacked_train, not scorer.attacked_train, "false"),
        ("scorer.method", scorer.method, scorer.method is not Method.adversarial_loss, "another"),
        ("data.harm", data.harm, data.harm not in OF_PICTURES, "a harm of labels alone"),
    ):
        within(field, value, valid, f"{expected}, for data=text: no attack here moves texts")
