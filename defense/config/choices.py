"""Every closed choice of a run; a leaf, like `defense.config.schema`, which says where each is made."""

from __future__ import annotations

from enum import Enum


class Choice(Enum):
    """A closed choice, written and shown by its value."""

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
    mnist = "mnist"
    fashion_mnist = "fashion_mnist"
    cifar10 = "cifar10"
    cifar100 = "cifar100"
    npz = "npz"
    image_folder = "image_folder"
    table = "table"
    text = "text"
    blobs = "blobs"
    moons = "moons"


class Harm(Choice):
    """What is planted in the training samples, with known truth."""

    none = "none"
    symmetric = "symmetric"
    pair = "pair"
    boxes = "boxes"
    boundary = "boundary"
    trigger = "trigger"
    poison = "poison"


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
    pgd = "pgd"
    apgd_ce = "apgd_ce"
    apgd_t = "apgd_t"
    fab_t = "fab_t"
    square = "square"
    cw = "cw"
    deepfool = "deepfool"
    autoattack = "autoattack"


class Tracker(Choice):
    """Where else a finished run is logged."""

    tensorboard = "tensorboard"
    wandb = "wandb"


class ObjectiveName(Choice):
    """The scalar of the parameters that a score is aligned with; lower is better."""

    robustness = "robustness"
    utility = "utility"
    demographic_parity = "demographic_parity"
    equal_opportunity = "equal_opportunity"


class Method(Choice):
    """How a training sample is scored; positive helps, negative harms."""

    alignment = "alignment"
    self_influence = "self_influence"
    loss = "loss"
    adversarial_loss = "adversarial_loss"
    confident_learning = "confident_learning"
    random = "random"
    oracle = "oracle"


class Members(Choice):
    """The points of parameter space that an alignment is summed over."""

    single = "single"
    dropout = "dropout"
    gaussian = "gaussian"
    checkpoints = "checkpoints"


class Direction(Choice):
    """What is done to the gradient of the objective before training gradients are aligned with it."""

    identity = "identity"
    hessian = "hessian"
    cg = "cg"
    lissa = "lissa"
    ekfac = "ekfac"
    datainf = "datainf"


class Recipe(Choice):
    """The losses that training lowers."""

    standard = "standard"
    adversarial = "adversarial"
    fast = "fast"
    trades = "trades"


class Keep(Choice):
    """The epoch whose weights a training run ends with."""

    last = "last"
    clean = "clean"
    robust = "robust"


class Optimizer(Choice):
    """How the training loss is lowered."""

    sgd = "sgd"
    lbfgs = "lbfgs"


class Task(Choice):
    """The question of a run, and with it the stages that it goes through."""

    defend = "defend"
    detect = "detect"
    faithfulness = "faithfulness"
    repair = "repair"
    evade = "evade"
    order = "order"
    speed = "speed"


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

    remove = "remove"
    relabel = "relabel"
    reweight = "reweight"


AUTO = "auto"  # a budget: to be chosen


BALANCES = ("none", "class")  # not an Enum: class is a word of Python; a budget over all samples, or in each class


SCORER_PRECISIONS = ("32-true", "tf32", "bf16")  # of the derivatives; named in the same way


PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")  # not an Enum: the names that lightning-fabric gave


STRATEGIES = ("auto", "ddp")  # of processes that share a run; the names of lightning-fabric, too
