"""Every closed choice of a run, and the settings that each of its members reads.

A setting that some member reads is read only if the chosen member does; see `defense.config.reads`.
"""

from __future__ import annotations

from enum import Enum


def reads(*settings: str) -> frozenset[str]:
    """Return the names of settings that a member of a choice reads."""
    return frozenset(settings)


class Choice(Enum):
    """A closed choice, written and shown by its value; a member may name the settings that it reads."""

    _value_: str
    reads: frozenset[str]

    def __new__(cls, value: str, reads: frozenset[str] = frozenset()) -> Choice:
        """Make a member of its value and of what it reads."""
        member = object.__new__(cls)
        member._value_, member.reads = value, reads
        return member

    def __str__(self) -> str:
        return str(self.value)


class Protocol(Choice):
    """By which split a defence against evasion is made: the attacked test set, or a validation set."""

    published = "published"
    strict = "strict"


class Way(Choice):
    """How test points are moved: not at all, once for all models, or anew at each, with a bound and without."""

    clean = "clean"
    frozen = "frozen"
    bounded = "bounded"
    adaptive = "adaptive"


class Source(Choice):
    """Where samples come from."""

    digits = "digits"
    mnist = "mnist", reads("root")
    fashion_mnist = "fashion_mnist", reads("root")
    cifar10 = "cifar10", reads("root")
    cifar100 = "cifar100", reads("root")
    npz = "npz", reads("path", "train_labels", "channels")
    image_folder = "image_folder", reads("path", "image_size", "unreadable")
    table = (
        "table",
        reads(
            *(
                "path",
                "validation_path",
                "test_path",
                "root",
                "target",
                "columns",
                "drop",
                "name",
                "categories",
                "numbers",
            ),
            *("outliers", "sensitive", "groups"),
        ),
    )
    text = (
        "text",
        reads(
            *("path", "validation_path", "test_path", "root", "target", "name", "text", "tokenizer", "length"),
            *("given_path", "given_key", "given_text"),
        ),
    )
    blobs = "blobs", reads("spread")
    moons = "moons", reads("spread")


class Harm(Choice):
    """What is planted in the training samples, with known truth."""

    none = "none"
    symmetric = "symmetric", reads("harm_rate")
    pair = "pair", reads("harm_rate")
    boxes = "boxes", reads("harm_rate")
    boundary = "boundary", reads("harm_rate")
    trigger = "trigger", reads("harm_rate", "harm_target", "harm_patch")
    poison = "poison", reads("harm_rate", "harm_eps")


class Outliers(Choice):
    """What to do with a number of a table that is far beyond all others of its column."""

    refuse = "refuse"
    clip = "clip"
    keep = "keep"


class Channels(Choice):
    """Which axis of an array of pictures its channels are, after that of the samples."""

    first = "first"
    last = "last"


class Unreadable(Choice):
    """What to do with files of pictures that cannot be read."""

    refuse = "refuse"
    skip = "skip"


class Norm(Choice):
    """The norm that bounds a perturbation."""

    Linf = "Linf"
    L2 = "L2"


class AttackName(Choice):
    """The attacks that can be run."""

    fgsm = "fgsm"
    pgd = "pgd", reads("steps", "step_size", "random_start")
    apgd_ce = "apgd_ce", reads("steps")
    apgd_t = "apgd_t", reads("steps")
    fab_t = "fab_t", reads("steps")
    square = "square", reads("queries")
    cw = "cw", reads("steps")
    deepfool = "deepfool", reads("steps")
    autoattack = "autoattack", reads("steps", "queries")


class Tracker(Choice):
    """Where else a finished run is logged."""

    tensorboard = "tensorboard"
    wandb = "wandb"


class ObjectiveName(Choice):
    """The scalar of the parameters that a score is aligned with; lower is better."""

    robustness = "robustness", reads("adversarial")  # validation samples that were attacked
    utility = "utility"
    demographic_parity = "demographic_parity", reads("positive")
    equal_opportunity = "equal_opportunity", reads("positive")


class Method(Choice):
    """How a training sample is scored; positive helps, negative harms."""

    alignment = (
        "alignment",
        reads(
            "objective", "parameters", "attacked_train", "members", "direction", "cosine", "precision", "compile"
        ),
    )
    self_influence = "self_influence", reads("parameters", "attacked_train")
    loss = "loss"
    adversarial_loss = "adversarial_loss", reads("attacked")
    confident_learning = "confident_learning", reads("folds")
    random = "random"
    oracle = "oracle"


class Members(Choice):
    """The points of parameter space that an alignment is summed over."""

    single = "single"
    dropout = "dropout", reads("count", "max_rate")
    gaussian = "gaussian", reads("count", "std")
    checkpoints = "checkpoints", reads("checkpoints")


class Direction(Choice):
    """What is done to the gradient of the objective before training gradients are aligned with it."""

    identity = "identity"
    hessian = "hessian", reads("damping")
    cg = "cg", reads("damping", "iterations", "tolerance")
    lissa = "lissa", reads("damping", "iterations", "tolerance", "scale")
    ekfac = "ekfac", reads("damping")
    datainf = "datainf", reads("damping")


class Recipe(Choice):
    """The losses that training lowers."""

    standard = "standard"
    adversarial = "adversarial", reads("attack_steps", "validation_steps", "threat")
    fast = "fast", reads("validation_steps", "threat")
    trades = "trades", reads("attack_steps", "beta", "validation_steps", "threat")


class Keep(Choice):
    """The epoch whose weights a training run ends with."""

    last = "last"
    clean = "clean"
    robust = "robust", reads("validation_steps", "threat")


class Optimizer(Choice):
    """How the training loss is lowered."""

    sgd = "sgd", reads("learning_rate", "momentum", "crop", "flip")
    lbfgs = "lbfgs", reads("tolerance")


class Task(Choice):
    """The question of a run, and with it the stages that it goes through."""

    defend = "defend", reads("treatment", "evaluation")
    detect = "detect"
    faithfulness = "faithfulness", reads("faithfulness", "objective")
    repair = "repair", reads("treatment")
    evade = "evade", reads("treatment", "evade")
    order = "order", reads("order", "objective")
    speed = "speed", reads("speed")


class Measure(Choice):
    """What is measured of an arm where nobody attacks."""

    accuracy = "accuracy"
    given = "given"
    demographic_parity = "demographic_parity"
    equal_opportunity = "equal_opportunity"


class Doubt(Choice):
    """Why nothing, or not much, can be said of an arm, or of all of them."""

    one_class = "one class for every sample"
    nearly_one_class = "one class for nearly every sample"
    chance = "not told from chance"
    largest_class = "no better than always the largest class"
    too_strong = "the attack is too strong"
    too_weak = "the attack is too weak"


class Peer(Choice):
    """Scores of other libraries, that the cost of a score is compared with."""

    captum_tracin = "captum_tracin"
    dattri_tracin = "dattri_tracin"
    dattri_trak = "dattri_trak"


class Clock(Choice):
    """What time is measured by."""

    processor = "processor"
    wall = "wall"


class Subsets(Choice):
    """The parts of the training split that a model is retrained on."""

    leave_one_out = "leave_one_out"
    halves = "halves"


class TreatmentName(Choice):
    """What is done to the samples with the lowest scores."""

    remove = "remove", reads("budget", "threshold", "balance")
    relabel = "relabel", reads("budget", "threshold", "balance")
    reweight = "reweight"


AUTO = "auto"  # a budget: to be chosen


BALANCES = ("none", "class")  # not an Enum: class is a word of Python; a budget over all samples, or in each class


SCORER_PRECISIONS = ("32-true", "tf32", "bf16")  # of the derivatives; named in the same way


PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")  # not an Enum: the names that lightning-fabric gave


STRATEGIES = ("auto", "ddp")  # of processes that share a run; the names of lightning-fabric, too
