"""Every knob of a run, typed: the settings of each part.

It imports nothing heavy, so that `defense --help` answers at once and every room can name its settings without
knowing Hydra. What a knob means stands beside it in conf/.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, is_dataclass, replace
from enum import Enum
from fractions import Fraction
from math import inf, nan
from typing import TYPE_CHECKING, Any

from defense.config.choices import (
    AUTO,
    AttackName,
    Channels,
    Direction,
    Harm,
    Keep,
    Members,
    Method,
    Norm,
    ObjectiveName,
    Optimizer,
    Outliers,
    Recipe,
    Source,
    Task,
    Tracker,
    TreatmentName,
    Unreadable,
)
from defense.config.dotted import ByPath, named
from defense.config.tasks import Evade, Faithfulness, Order, Speed
from defense.errors import within


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


if TYPE_CHECKING:
    Number = float
else:
    Number = Any  # for omegaconf: a fraction comes as text, and __post_init__ parses it


def positive(field: str, value: float | str) -> float:
    """Return the value of a number or of a fraction, as in 8/255; raises InputError unless it is above 0."""
    try:
        parsed = float(Fraction(value.replace(" ", "")) if isinstance(value, str) else value)
    except (ArithmeticError, TypeError, ValueError):
        parsed = nan
    within(field, value, 0 < parsed < inf, "a number above 0, as in 0.1 or 8/255")
    return parsed


def as_fraction(value: float) -> str:
    """Return 8/255 for a number that is a whole multiple of 1/255 and no short decimal; for others the decimal."""
    steps = round(value * 255)
    return f"{steps}/255" if steps / 255 == value and len(repr(value)) > 6 else f"{value:g}"


@dataclass
class Threat:
    """The ball that every perturbation stays in, intersected with the pixel range [0, 1]."""

    norm: Norm
    eps: Number  # radius of the ball, in units of the pixel range

    def __post_init__(self) -> None:
        self.eps = positive("threat.eps", self.eps)

    def __str__(self) -> str:
        """'Linf, eps 8/255'."""
        return f"{self.norm}, eps {as_fraction(self.eps)}"


@dataclass
class Attack(ByPath):
    """One attack inside the threat model."""

    name: AttackName
    steps: int = 10
    step_size: Number | None = None
    random_start: bool = True
    restarts: int = 1
    queries: int = 5000

    def __post_init__(self) -> None:
        if self.step_size is not None:
            self.step_size = positive("attack.step_size", self.step_size)

    def within(self, threat: Threat) -> Attack:
        """Return the attack with the step size that null stands for in a threat model."""
        usual = self.step_size is None and "step_size" in self.name.reads
        return replace(self, step_size=usual_step(threat, self.steps)) if usual else self


def usual_step(threat: Threat, steps: int) -> float:
    """Return the size of one of `steps` steps of PGD: together they go 2.5 times the radius of the ball."""
    return 2.5 * threat.eps / steps


@dataclass
class Data:
    """Which samples, how many, and what harm is planted in them."""

    source: Source
    _target_: str | None
    arguments: dict[str, Any]
    path: str | None
    validation_path: str | None
    test_path: str | None
    root: str
    target: str | None
    image: str | None
    file: str | None
    columns: list[str] | None
    drop: list[str] | None
    ids: str | None
    categories: list[str] | None
    numbers: list[str] | None
    outliers: Outliers
    sensitive: str | None
    groups: list[str] | None
    positive: int
    train_labels: str | None
    train_size: int | None
    validation_size: int | None
    test_size: int | None
    harm: Harm
    harm_rate: float
    harm_target: int
    harm_patch: int | None
    harm_eps: Number | None
    image_size: int | None
    unreadable: Unreadable
    channels: Channels | None
    spread: float
    eps: Number
    crop: int
    flip: bool
    text: list[str] | None
    tokenizer: str | None
    length: int
    given_path: str | None
    given_key: str | None
    given_text: list[str] | None

    def __post_init__(self) -> None:
        self.eps = positive("data.eps", self.eps)
        if self.harm_eps is not None:
            self.harm_eps = positive("data.harm_eps", self.harm_eps)


@dataclass
class Train:
    """The recipe of one training run; the same for every arm."""

    recipe: Recipe
    attack_steps: int
    beta: float
    keep: Keep | None
    validation_steps: int
    ema: float | None
    channels_last: bool
    compile: bool
    optimizer: Optimizer
    tolerance: float
    checkpoints: int
    epochs: int
    batch_size: int
    learning_rate: float
    momentum: float
    weight_decay: float
    crop: int
    flip: bool

    @property
    def kept(self) -> Keep:
        """The epoch that is kept; null is last for standard, whose robust accuracy is mostly zero, else robust."""
        return self.keep or (Keep.last if self.recipe in (Recipe.none, Recipe.standard) else Keep.robust)

    def resolved(self) -> Train:
        """Return the recipe with the epoch that is kept in place of null."""
        return replace(self, keep=self.kept)


@dataclass(frozen=True)
class Training:
    """A recipe, and what its attacks and those that choose its epoch may do."""

    recipe: Train
    threat: Threat


@dataclass
class Objective(ByPath):
    """The objective that scores are aligned with: a weighted sum of terms."""

    weights: dict[ObjectiveName, float]
    positive: int
    attacked: bool = True

    @property
    def reads_adversarial(self) -> bool:
        """Whether a term looks at attacked validation samples."""
        return any(map(self.looks_at_attacked, self.weights))

    def looks_at_attacked(self, name: ObjectiveName) -> bool:
        """Return whether a term looks at attacked validation samples."""
        return self.attacked if name is ObjectiveName.own else "adversarial" in name.reads

    def __str__(self) -> str:
        """'robustness', or '0.5 utility + 0.5 robustness'."""
        weights = {named(str(name), self._target_): weight for name, weight in self.weights.items()}
        if len(weights) == 1:
            return next(iter(weights))
        return " + ".join(f"{weight:g} {name}" for name, weight in weights.items())


@dataclass
class Scorer(ByPath):
    """A method, and where it is an alignment its members and direction; see conf/config.yaml."""

    name: str
    method: Method
    proxy: Recipe | None
    seeds: int
    folds: int
    batch_size: int | None
    compile: bool
    precision: str
    parameters: str
    attacked_train: bool
    members: Members
    count: int
    max_rate: float
    std: float
    direction: Direction
    cosine: bool
    damping: float
    iterations: int
    tolerance: float
    scale: float | None
    path: str | None = None

    def __str__(self) -> str:
        """'ip', or 'ip (at a proxy trained by adversarial, mean of 5 trainings)'."""
        where = [f"at a proxy trained by {self.proxy}"] if self.proxy else []
        where += [f"mean of {self.seeds} trainings"] if self.seeds > 1 else []
        return f"{self.name} ({', '.join(where)})" if where else self.name


@dataclass
class Treat(ByPath):
    """The treatment, and which training samples it touches."""

    name: TreatmentName
    budget: Any  # float, or AUTO: omegaconf 2.3 cannot merge a union here
    budgets: list[float]
    names: list[TreatmentName]
    held_out: float
    threshold: float | None
    balance: str
    rounds: int
    rate: float
    confidence: float
    discrete: bool

    @property
    def effect(self) -> TreatmentName:
        """The treatment that samples get in the end."""
        return self.name.effect("discrete" in self.name.reads and self.discrete)

    @property
    def title(self) -> str:
        """What pages call it."""
        return named(str(self.name), self._target_)

    @property
    def holds_out(self) -> bool:
        """Whether it is chosen on a part of validation that is set aside for that."""
        return self.budget == AUTO or self.name is TreatmentName.optimize

    def resolved(self) -> Treat:
        """Return the treatment without the settings that its threshold, its weights or its budget leave unread."""
        if self.budget == AUTO:
            return self
        own = replace(self, budgets=[], names=[])
        own = own if self.holds_out else replace(own, held_out=0.0)
        ranks = self.name is not TreatmentName.own  # by the scores, so that a threshold counts
        spends = (self.threshold is None or not ranks) and self.effect is not TreatmentName.optimize
        return own if spends else replace(own, budget=None, balance="none")


def trusted_arm(weight: float) -> str:
    """Return the name of the arm in which trusted samples weigh so many times as much as others: 'trusted_3'."""
    return f"trusted_{weight:g}"


@dataclass
class Evaluation:
    """The attacks of the final test, by the name that they have in the report."""

    attacks: dict[str, Any]  # of Attack; Hydra could not add one to a typed dict
    batch_size: int
    checked: int = 0  # test samples of the health checks; in a notebook there are none
    masked: list[str] = field(default_factory=list)  # squares that are tried on a few samples first: see run_suite
    trusted: bool = False  # whether an arm trains on trusted samples too; in a notebook there are no arms
    trusted_weights: list[float] = field(default_factory=list)  # of trusted samples, of a further arm each
    controls: int = 1  # random draws that a treatment is compared with the mean of

    @property
    def trusted_arms(self) -> dict[str, float]:
        """The weight of a trusted sample beside one of training, by arm."""
        if not self.trusted:
            return {}
        return {"trusted": 1.0} | {trusted_arm(weight): weight for weight in self.trusted_weights}

    def within(self, threat: Threat) -> Evaluation:
        """Return the suite with the step sizes that null stands for in a threat model."""
        return replace(self, attacks={name: attack.within(threat) for name, attack in self.attacks.items()})


@dataclass
class Devices:
    """The device and precision of a process, and how many share a run: devices on each of num_nodes machines."""

    accelerator: str
    precision: str
    devices: int
    num_nodes: int
    strategy: str

    @property
    def processes(self) -> int:
        """How many processes share the run, one for each device."""
        return self.devices * self.num_nodes


@dataclass
class Track:
    """Where else a finished run is logged; nowhere without a name."""

    name: Tracker | None
    project: str
    online: bool


@dataclass
class Config:
    """A whole run. Values are in conf/; a field without one there is an error."""

    name: str
    task: Task
    seed: int
    store: str
    data: Data
    model: dict[str, Any]
    train: Train
    threat: Threat
    attack: Attack
    objective: Objective
    scorer: Scorer
    treatment: Treat
    evaluation: Evaluation
    faithfulness: Faithfulness
    evade: Evade
    order: Order
    speed: Speed
    fabric: Devices
    track: Track
