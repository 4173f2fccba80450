"""Every knob of a run, typed: the closed choices (Enums) and the settings (dataclasses) of each part.

A leaf: it imports nothing of this project and nothing heavy, so that `defense --help` answers at once and
every room can name its settings without knowing Hydra. What a knob means stands beside it in conf/.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, is_dataclass
from enum import Enum
from fractions import Fraction
from typing import Any


class Choice(Enum):
    """A closed choice, written and shown by its value."""

    def __str__(self) -> str:
        return str(self.value)


class Source(Choice):
    """Where samples come from."""

    digits = "digits"
    mnist = "mnist"
    fashion_mnist = "fashion_mnist"
    cifar10 = "cifar10"
    cifar100 = "cifar100"
    npz = "npz"
    image_folder = "image_folder"


class Norm(Choice):
    """The norm that bounds a perturbation."""

    Linf = "Linf"
    L2 = "L2"


class AttackName(Choice):
    """The attacks that can be run."""

    fgsm = "fgsm"
    pgd = "pgd"
    autoattack = "autoattack"


class ObjectiveName(Choice):
    """The scalar of the parameters that a score is aligned with; lower is better."""

    robustness = "robustness"
    utility = "utility"


class ScorerName(Choice):
    """How a training sample is scored; positive helps, negative harms."""

    ip = "ip"
    random = "random"


class TreatmentName(Choice):
    """What is done to the samples with the lowest scores."""

    remove = "remove"


PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")  # not an Enum: the names that lightning-fabric gave


def number(text: str) -> float:
    """Return the value of a decimal or a fraction, as in '0.1' and '8/255'; raises ValueError for others."""
    try:
        return float(Fraction(text.replace(" ", "")))
    except ZeroDivisionError:
        raise ValueError(f"division by zero in {text!r}") from None


def plain(settings: Any) -> Any:
    """Return settings as what JSON can hold: dataclasses as dicts, Enums by value."""
    if isinstance(settings, Enum):
        return settings.value
    if is_dataclass(settings):
        return {field.name: plain(getattr(settings, field.name)) for field in fields(settings)}
    if isinstance(settings, dict):
        return {str(key): plain(value) for key, value in settings.items()}
    if isinstance(settings, list | tuple):
        return [plain(value) for value in settings]
    return settings


@dataclass
class Data:
    """Which samples, how many, and what harm is planted in them."""

    source: Source = Source.digits
    path: str | None = None
    root: str = "data"
    train_labels: str | None = None
    train_size: int | None = None
    validation_size: int = 1000
    test_size: int | None = None
    label_noise: float = 0.0
    image_size: int | None = None
    eps: str = "0.1"
    crop: int = 0
    flip: bool = False


@dataclass
class Train:
    """The recipe of one training run; the same for every arm."""

    epochs: int = 30
    batch_size: int = 64
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    crop: int = 0
    flip: bool = False


@dataclass
class Threat:
    """The ball that every perturbation stays in, intersected with the pixel range [0, 1]."""

    norm: Norm = Norm.Linf
    eps: str = "0.1"

    @property
    def radius(self) -> float:
        """The radius of the ball, in units of the pixel range."""
        return number(self.eps)


@dataclass
class Attack:
    """One attack inside the threat model."""

    name: AttackName = AttackName.pgd
    steps: int = 10
    step_size: str | None = None
    random_start: bool = True
    queries: int = 5000


@dataclass
class Objective:
    """The objective that scores are aligned with."""

    name: ObjectiveName = ObjectiveName.robustness


@dataclass
class Scorer:
    """The scorer and the size of its batches."""

    name: ScorerName = ScorerName.ip
    batch_size: int = 256


@dataclass
class Treat:
    """The treatment and the fraction of training samples that it touches."""

    name: TreatmentName = TreatmentName.remove
    budget: float = 0.1


@dataclass
class Evaluation:
    """The attacks of the final test, by the name that they have in the report."""

    attacks: dict[str, Attack] = field(default_factory=dict)
    batch_size: int = 256


@dataclass
class Devices:
    """Passed on to lightning-fabric."""

    accelerator: str = "auto"
    precision: str = "32-true"


@dataclass
class Config:
    """A whole run."""

    name: str = "run"
    seed: int = 0
    store: str = "runs/store"
    data: Data = field(default_factory=Data)
    model: dict[str, Any] = field(default_factory=dict)
    train: Train = field(default_factory=Train)
    threat: Threat = field(default_factory=Threat)
    attack: Attack = field(default_factory=Attack)
    objective: Objective = field(default_factory=Objective)
    scorer: Scorer = field(default_factory=Scorer)
    treatment: Treat = field(default_factory=Treat)
    evaluation: Evaluation = field(default_factory=Evaluation)
    fabric: Devices = field(default_factory=Devices)
