"""Every closed choice of a run, and the settings that each of its members reads.

A setting that some member reads is read only if the chosen member does; see `defense.config.reads`.
"""

from __future__ import annotations

from enum import Enum

from defense.config.dotted import OF_A_PATH


def reads(*settings: str) -> frozenset[str]:
    """Return the names of settings that a member of a choice reads."""
    return frozenset(settings)


class Choice(Enum):
    """A closed choice, written and shown by its value.

    A member may name the settings that it reads, and bring the words that pages have for it.
    """

    _value_: str
    reads: frozenset[str]
    words: str

    def __new__(cls, value: str, reads: frozenset[str] = frozenset(), words: str = "") -> Choice:
        """Make a member of its value, of the settings that it reads, and of its words."""
        member = object.__new__(cls)
        member._value_, member.reads, member.words = value, reads, words
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


OF_TABLES = ("path", "validation_path", "test_path", "target", "ids")  # settings of sources that are tables


class Source(Choice):
    """Where samples come from."""

    digits = "digits"
    mnist = "mnist", reads("root")
    fashion_mnist = "fashion_mnist", reads("root")
    cifar10 = "cifar10", reads("root")
    cifar100 = "cifar100", reads("root")
    npz = "npz", reads("path", "train_labels", "channels")
    dataset = "dataset", reads("_target_", "arguments", "channels")
    huggingface = "huggingface", reads("path", "target", "image", "ids", "image_size", "unreadable")
    image_folder = "image_folder", reads("path", "image_size", "unreadable")
    image_table = "image_table", reads(*OF_TABLES, "file", "image_size", "unreadable")
    table = (
        "table",
        reads(*OF_TABLES, "root", "columns", "drop", "categories", "numbers", "outliers", "sensitive", "groups"),
    )
    text = (
        "text",
        reads(*OF_TABLES, "root", "text", "tokenizer", "length", "given_path", "given_key", "given_text"),
    )
    blobs = "blobs", reads("spread")
    moons = "moons", reads("spread")
    given = "given"  # by `defense.defend`, from Python


class Harm(Choice):
    """What is planted in the training samples, with known truth."""

    none = "none"
    symmetric = "symmetric", reads("harm_rate")
    pair = "pair", reads("harm_rate")
    boxes = "boxes", reads("harm_rate")
    boundary = "boundary", reads("harm_rate")
    trigger = "trigger", reads("harm_rate", "harm_target", "harm_patch")
    poison = "poison", reads("harm_rate", "harm_eps")
    hypocritical = "hypocritical", reads("harm_rate", "harm_eps")

    @property
    def changes_labels(self) -> bool:
        """Whether harmed samples get a wrong label, by which the oracle and every page know them."""
        return self not in (Harm.none, Harm.hypocritical)


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
    pma = "pma", reads("steps")
    fab_t = "fab_t", reads("steps")
    square = "square", reads("queries")
    cw = "cw", reads("steps")
    deepfool = "deepfool", reads("steps")
    autoattack = "autoattack", reads("steps", "queries")
    own = "own", reads(*OF_A_PATH)


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
    own = "own", reads(*OF_A_PATH, "attacked")


class Method(Choice):
    """How a training sample is scored; positive helps, negative harms."""

    alignment = (
        "alignment",
        reads(
            "objective", "parameters", "attacked_train", "members", "direction", "cosine", "precision", "compile"
        ),
    )
    self_influence = "self_influence", reads("parameters", "attacked_train"), "-|grad loss_i|^2"
    loss = "loss", reads(), "-loss_i, one forward pass"
    adversarial_loss = "adversarial_loss", reads("attacked"), "-loss_i of the sample attacked at the model"
    confident_learning = (
        "confident_learning",
        reads("folds"),
        "the probability of the label by models that have not seen the sample ({folds} folds), less 1 if the "
        "label is called wrong",
    )
    metagradient = (
        "metagradient",
        reads("objective", "trajectory"),
        "-dv/dw_i through the whole training, its attacks held fixed",
    )
    random = "random", reads(), "a random number, at no cost: the control"
    oracle = "oracle", reads(), "what is known of the noise, at no cost"
    own = "own", reads(*OF_A_PATH, "objective"), "by the function {_target_}"
    file = "file", reads("path"), "as a file has it, at no cost"


class Members(Choice):
    """The points of parameter space that an alignment is summed over."""

    single = "single"
    dropout = "dropout", reads("count", "max_rate"), "; mean of {count} dropout sub-networks"
    gaussian = "gaussian", reads("count", "std"), "; mean of {count} noisy copies"
    checkpoints = (
        "checkpoints",
        reads("checkpoints"),
        "; summed over {checkpoints} checkpoints of the training (TracIn)",
    )


class Direction(Choice):
    """What is done to the gradient of the objective before training gradients are aligned with it."""

    identity = "identity", reads(), "grad v . grad loss_i, exact"
    hessian = (
        "hessian",
        reads("damping"),
        "grad v . (H + {damping:g} I)^-1 grad loss_i, H the exact Hessian of the mean loss",
    )
    cg = (
        "cg",
        reads("damping", "iterations", "tolerance"),
        "grad v . (G + {damping:g} I)^-1 grad loss_i by conjugate gradient: {iterations} steps, or a relative "
        "residual of {tolerance:g}",
    )
    lissa = (
        "lissa",
        reads("damping", "iterations", "tolerance", "scale"),
        "grad v . (G + {damping:g} I)^-1 grad loss_i by {iterations} terms of a Neumann series (LiSSA)",
    )
    ekfac = (
        "ekfac",
        reads("damping"),
        "grad v . (G + {damping:g} I)^-1 grad loss_i, G in Kronecker factors with corrected eigenvalues",
    )
    datainf = (
        "datainf",
        reads("damping"),
        "the same with a mean of inverses; damping {damping:g} of the mean squared gradient",
    )


class Recipe(Choice):
    """The losses that training lowers; none: the network is taken as it stands."""

    none = "none"
    standard = "standard"
    adversarial = "adversarial", reads("attack_steps", "validation_steps", "threat")
    fast = "fast", reads("validation_steps", "threat")
    trades = "trades", reads("attack_steps", "beta", "validation_steps", "threat")


class Keep(Choice):
    """The epoch whose weights a training run ends with."""

    last = "last"
    clean = "clean"
    robust = "robust", reads("validation_steps", "threat")


class Activation(Choice):
    """The activation between the layers of a multilayer perceptron."""

    relu = "relu"
    gelu = "gelu"


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
    score = "score", reads("evaluation")


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

    captum_tracin = (
        "captum_tracin",
        reads(),
        "grad v . grad loss_i, exact: TracInCP of captum at one checkpoint, batches of one (its best)",
    )
    dattri_tracin = (
        "dattri_tracin",
        reads(),
        "grad v . grad loss_i, exact: TracInAttributor of dattri at one checkpoint, no projection, batches of 512 "
        "(its best)",
    )
    dattri_trak = (
        "dattri_trak",
        reads(),
        "TRAK, by TRAKAttributor of dattri at one checkpoint: 512 random projections (its default), batches of "
        "512",
    )


class Clock(Choice):
    """What time is measured by."""

    processor = "processor"
    wall = "wall"


class Subsets(Choice):
    """The parts of the training split that a model is retrained on: all but one sample, or but a random part."""

    leave_one_out = "leave_one_out", reads(), "leave-one-out retraining"
    random = "random", reads("dropped"), "retraining without a random part (linear datamodelling score)"


class Dropping(Choice):
    """How a retraining does without samples: it never sees them, or sees them at weight 0 in the same batches."""

    removal = "removal", reads(), "without {part}"
    weight = "weight", reads(), "with {part} at weight 0"


class TreatmentName(Choice):
    """What is done to the samples with the lowest scores."""

    remove = "remove", reads("budget", "threshold", "balance"), "Removing, random removal"
    relabel = "relabel", reads("budget", "threshold", "balance"), "Relabelling, random relabelling"
    reweight = "reweight", reads(), "Weighing less, the same weights shuffled"
    optimize = (
        "optimize",
        reads("rounds", "rate", "confidence", "discrete", "budget", "balance"),
        "Weighing samples by metagradient descent, the same weights shuffled",
    )
    own = "own", reads(*OF_A_PATH, "budget"), "Treating, the same treatment of samples drawn at random"

    @property
    def weighs(self) -> bool:
        """Whether it weighs every sample, and so spends no budget."""
        return self in (TreatmentName.reweight, TreatmentName.optimize)

    def effect(self, discrete: bool) -> TreatmentName:
        """Return the treatment that samples get in the end: optimize that is discrete removes them."""
        return TreatmentName.remove if self is TreatmentName.optimize and discrete else self

    @property
    def verb(self) -> str:
        """The treatment as a sentence of a page begins with it."""
        return self.words.split(", ")[0]

    @property
    def control(self) -> str:
        """The random control of the treatment."""
        return self.words.split(", ")[1]


AUTO = "auto"  # a budget: to be chosen


BALANCES = ("none", "class")  # not an Enum: class is a word of Python; a budget over all samples, or in each class


SCORER_PRECISIONS = ("32-true", "tf32", "bf16")  # of the derivatives; named in the same way


PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")  # not an Enum: the names that lightning-fabric gave


STRATEGIES = ("auto", "ddp")  # of processes that share a run; the names of lightning-fabric, too
