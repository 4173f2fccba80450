"""What is measured: one line of CASES for each way of scoring, with how often it is measured and at which sizes.

A case is a function that takes a Setting, prepares what is not to be measured, and returns the call that is. A new
case, such as a scorer with another option, is one more line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from defense.config.compose import composed
from defense.data.splits import Split
from defense.influence.alignment import forward_derivative
from defense.influence.batching import SIZES
from defense.influence.compiled import Compiled
from defense.influence.curvature import Curvature
from defense.influence.directions import DIRECTIONS
from defense.influence.members import Member, Parameters, dropout, single
from defense.influence.objectives import mean_loss, value_and_gradient
from defense.influence.peers import captum_scores, dattri_scores
from defense.models.networks import cnn, resnet18
from defense.models.predict import predict
from defense.runtime.progress import no_progress
from tests.calls import directional_derivatives
from tests.conftest import make_split

SHAPE, CLASSES = (3, 32, 32), 10
MODELS = {"cnn": cnn, "resnet18": resnet18}
BATCH_SIZE = SIZES["cpu"]  # of everything but the peers, which have what is best for them


@dataclass(frozen=True)
class Sizes:
    """Numbers of training samples, of a normal and of a long measurement, and of validation samples."""

    normal: int
    long: int
    validations: tuple[int, int, int]


FULL = Sizes(512, 4096, (64, 256, 1024))
QUICK = Sizes(16, 32, (4, 8, 16))


@dataclass(frozen=True)
class Setting:
    """A network, `count` random training samples and `validation_count` random validation samples."""

    name: str
    count: int
    validation_count: int

    @property
    def model(self) -> nn.Module:
        """The network, the same object for all settings of its name."""
        return network(self.name)

    @property
    def member(self) -> Member:
        """The network as a member."""
        return single(self.model)

    @cached_property
    def train(self) -> Split:
        """The training samples."""
        return make_split(self.count, CLASSES, SHAPE)

    @cached_property
    def validation(self) -> Split:
        """The validation samples."""
        return make_split(self.validation_count, CLASSES, SHAPE, seed=1)

    @cached_property
    def gradient(self) -> Parameters:
        """The gradient of v, the mean validation loss."""
        return gradient_at(self, self.member)


@cache
def network(name: str) -> nn.Module:
    """Return the network `name` whose batch norms have statistics of their own, in eval mode."""
    torch.manual_seed(0)
    model = MODELS[name](input_shape=SHAPE, classes=CLASSES, mean=[0.5] * 3, std=[0.3] * 3)
    with torch.no_grad():
        model(torch.rand(64, *SHAPE))
    return model.eval()


def gradient_at(setting: Setting, member: Member) -> Parameters:
    """Return grad v at `member`."""
    function = partial(mean_loss, positive=0)
    return value_and_gradient(setting.model, member, setting.validation, function, batch_size=BATCH_SIZE)[1]


def scores_at(setting: Setting, member: Member, direction: Parameters, **options: Any) -> Tensor:
    """Return the derivative of each training loss along `direction`; `options` are those of the function."""
    return directional_derivatives(
        setting.model, member, setting.train, direction, batch_size=BATCH_SIZE, progress=no_progress, **options
    )


Call = Callable[[], object]


def forward(setting: Setting) -> Call:
    """All logits, without gradients."""
    return lambda: predict(setting.model, setting.train, batch_size=BATCH_SIZE)


def training_step(setting: Setting) -> Call:
    """One epoch: forward and backward pass and a step of SGD for each batch, in train mode."""
    model = deepcopy(setting.model).train()  # the other cases keep their parameters
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, nesterov=True)

    def epoch() -> None:
        for _, x, labels in setting.train.batches(BATCH_SIZE):
            optimizer.zero_grad()
            F.cross_entropy(model(x), labels).backward()
            optimizer.step()

    return epoch


def ip(setting: Setting, **options: Any) -> Call:
    """The inner products, grad v being there."""
    member, direction = setting.member, setting.gradient
    return lambda: scores_at(setting, member, direction, **options)


def grad_v(setting: Setting) -> Call:
    """The gradient of v alone."""
    return lambda: gradient_at(setting, setting.member)


def ip_with_grad_v(setting: Setting, **options: Any) -> Call:
    """The inner products from nothing: what a peer computes."""
    return lambda: scores_at(setting, setting.member, gradient_at(setting, setting.member), **options)


def ip_ensemble(setting: Setting, **options: Any) -> Call:
    """One dropout member of the ensemble, its own grad v included."""
    example = setting.train.images.take(torch.arange(2))
    member = dropout(setting.member, setting.model, example, count=2, max_rate=0.01, seed=0)[1]
    return lambda: scores_at(setting, member, gradient_at(setting, member), **options)


def inverse(setting: Setting, *, scorer: str, **changes: Any) -> Call:
    """The scores along another direction, with the settings of conf/scorer; grad v is there."""
    spec = replace(composed(f"scorer={scorer}").scorer, **changes)
    member, gradient = setting.member, setting.gradient
    curvature = Curvature(setting.model, member, setting.train, BATCH_SIZE)

    def call() -> Tensor:
        direction, _ = DIRECTIONS[spec.direction](gradient, curvature, spec)
        return scores_at(setting, member, direction)

    return call


def captum(setting: Setting, *, batch_size: int = 1, whole_batches: bool = False) -> Call:
    """TracInCP of captum; with `whole_batches` for convolution and linear layers alone, all that it can batch."""
    model = deepcopy(setting.model)
    layers = [name for name, part in model.named_modules() if isinstance(part, nn.Conv2d | nn.Linear)]
    checkpoints = [(deepcopy(model.state_dict()), 1.0)]
    options: dict[str, Any] = {"batch_size": batch_size, "layers": layers if whole_batches else None}
    return lambda: captum_scores(model, checkpoints, setting.train, setting.validation, **options)


def dattri(setting: Setting, **options: Any) -> Call:
    """TracInAttributor of dattri."""
    model = deepcopy(setting.model)
    checkpoints = [(deepcopy(model.state_dict()), 1.0)]
    return lambda: dattri_scores(model, checkpoints, setting.train, setting.validation, **options)


@dataclass(frozen=True)
class Group:
    """Rows that are measured in turn, in the same rounds."""

    model: str
    long: bool

    @property
    def title(self) -> str:
        """A name for reports and for `pytest -k`."""
        return f"{self.model}-long" if self.long else self.model


GROUPS = (Group("cnn", False), Group("cnn", True), Group("resnet18", False), Group("resnet18", True))


@dataclass(frozen=True)
class Case:
    """One way of scoring, and for each of GROUPS the rounds and how many of the sizes of validation set.

    No rounds means not run, for the reason in `note`. `warm` training samples are gone through before measuring.
    """

    name: str
    prepare: Callable[[Setting], Call]
    rounds: tuple[int, int, int, int]
    validations: tuple[int, int, int, int] = (1, 1, 1, 1)
    per_validation_sample: bool = False
    warm: int = 2
    note: str = ""


DATTRI = partial(dattri, batch_sizes=(512, 512))
EXAMPLE = partial(dattri, batch_sizes=(64, 1000), projected=True)
SLOW = "not run on resnet18: gradients of single samples by vmap take seconds each there"
CASES = (
    Case("forward pass", forward, (12, 5, 3, 1)),
    Case("training step", training_step, (12, 5, 3, 1)),
    Case("ip", ip, (12, 5, 3, 1), (3, 1, 2, 1)),
    Case("ip, compiled", partial(ip, derivative=Compiled(forward_derivative)), (12, 5, 3, 1), warm=BATCH_SIZE),
    Case("grad v", grad_v, (12, 0, 1, 0), (3, 0, 3, 0), per_validation_sample=True),
    Case("ip with grad v", ip_with_grad_v, (12, 5, 2, 0), (3, 1, 1, 0)),
    Case("ip_ensemble, one member", ip_ensemble, (12, 0, 1, 0)),
    Case(
        "captum TracInCP",
        captum,
        (3, 1, 1, 0),
        (3, 1, 1, 0),
        note="batches of one, with which it is fastest: each sample's backward pass goes through its whole batch",
    ),
    Case(
        "captum TracInCP, batches of 64",
        partial(captum, batch_size=64),
        (1, 0, 0, 0),
        note="large batches, as its documentation advises; not run where it would take many minutes",
    ),
    Case(
        "captum TracInCP, conv and linear",
        partial(captum, batch_size=32, whole_batches=True),
        (3, 2, 1, 0),
        (3, 1, 1, 0),
        note="gradients of a batch at once, which leave out batch norm: another score, of fewer parameters",
    ),
    Case(
        "dattri TracIn",
        DATTRI,
        (3, 1, 0, 0),
        (3, 1, 0, 0),
        note=f"projection off, batches of 512: its fastest exact setting; {SLOW}",
    ),
    Case(
        "dattri TracIn, as its example",
        EXAMPLE,
        (2, 0, 0, 0),
        (2, 0, 0, 0),
        note="512 random projections, its default, and batches of 64 and 1,000: inexact; not run on resnet18, "
        "whose projections would be 11 million x 512 numbers a batch",
    ),
    Case("DataInf", partial(inverse, scorer="datainf"), (2, 0, 0, 0), note=SLOW),
    Case(
        "LiSSA, 10 terms",
        partial(inverse, scorer="lissa", iterations=10),
        (1, 0, 0, 0),
        note="of the 200 of conf/scorer/lissa.yaml; one term is one product with the curvature of all training "
        "samples, so 200 cost about 18 times as much; not run on resnet18",
    ),
    Case(
        "EK-FAC",
        partial(inverse, scorer="ekfac"),
        (1, 0, 0, 0),
        note="not run on resnet18: eigenvectors of factors of 4,608 x 4,608 take minutes",
    ),
)


@dataclass(frozen=True)
class Row:
    """One case at one setting, for some rounds."""

    case: Case
    setting: Setting
    rounds: int

    @property
    def samples(self) -> int:
        """The number of samples that its time is shared between."""
        return self.setting.validation_count if self.case.per_validation_sample else self.setting.count

    def warmed(self) -> Call:
        """Return the call that is measured, after one on a few samples."""
        _ = self.setting.train, self.setting.validation  # made now, and not inside the measured call
        few = min(self.case.warm, self.setting.count)
        small = replace(self.setting, count=few, validation_count=min(few, self.setting.validation_count))
        self.case.prepare(small)()
        return self.case.prepare(self.setting)


def shard_batches(group: Group, sizes: Sizes, *, quick: bool) -> list[Row]:
    """Return the rows of a group, in the order of CASES."""
    return list(iterate(group, sizes, quick))


def iterate(group: Group, sizes: Sizes, quick: bool) -> Iterator[Row]:
    """Yield the rows of a group."""
    place, count = GROUPS.index(group), sizes.long if group.long else sizes.normal
    settings = {number: Setting(group.model, count, number) for number in sizes.validations}
    for case in CASES:
        rounds = min(case.rounds[place], 1 if quick else case.rounds[place])
        for number in sizes.validations[: case.validations[place]] if rounds else ():
            yield Row(case, settings[number], rounds)
