"""The same robust accuracy by peer libraries, part by part, and small nets to attack.

pyautoattack is the reference implementation of AutoAttack (Croce and Hein 2020), repackaged. Its `standard`
version raises IndexError where there are fewer classes than it wants targets, so its parts are asked for one by
one. Adversarial Robustness Toolbox, ART for short, has an AutoAttack of its own.
"""

from __future__ import annotations

import logging
import multiprocessing
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from time import process_time
from typing import Any

import torch
from torch import Tensor, nn

from defense.config.choices import Norm
from defense.config.compose import composed
from defense.config.schema import Evaluation, Threat
from defense.data.load import load
from defense.data.splits import Dataset, Split
from defense.runtime.checkpoint import NoCheckpoint
from defense.runtime.devices import make_fabric
from defense.runtime.progress import no_progress
from defense.stages.treat import untreated
from tests.calls import restore, run_suite, train

LOGGER = logging.getLogger("auto-attack")


@dataclass(frozen=True)
class Part:
    """What still stands after one part of a suite and all before it, and what that part took."""

    name: str
    standing: Tensor  # bool (n,)
    seconds: float  # of the processor
    passes: int  # of one sample each through the model, forward and backward


def trained(data: Dataset, *overrides: str) -> nn.Module:
    """Return a network that the project trained with these settings, in eval mode."""
    config = composed(*overrides)
    found = train(
        config.model,
        data,
        config.train,
        untreated(data.train),
        threat=config.threat,
        seed=config.seed,
        fabric=make_fabric(config.fabric),
        progress=no_progress,
    )
    return restore(config.model, data, found, seed=config.seed, device=torch.device("cpu"))


def loaded(*overrides: str, classes: int) -> Dataset:
    """Return a data set of ten classes, or its classes modulo `classes`: as many samples with fewer labels."""
    data = load(composed(*overrides).data, seed=0)

    def modulo(split: Split) -> Split:
        return replace(split, labels=split.labels % classes, truth=split.truth % classes)

    parts = {part: modulo(split) for part, split in data.splits.items()}
    return replace(data, **parts, class_names=data.class_names[:classes])


class Meter(NoCheckpoint):
    """Reads processor time and passes through a model, whenever an attack of a suite is finished."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self.passes = model, 0
        self.readings: list[tuple[float, int]] = []

    def __enter__(self) -> Meter:
        self.hook = self.model.register_forward_hook(self.count)
        self.read()
        return self

    def __exit__(self, *error: object) -> None:
        self.hook.remove()

    def count(self, model: nn.Module, given: tuple[Tensor, ...], logits: Tensor) -> None:
        """Count a pass forward, and one backward if a gradient is taken of it."""
        self.passes += len(logits)
        if logits.requires_grad:
            logits.register_hook(self.count_backward)

    def count_backward(self, gradient: Tensor) -> None:
        """Count a pass backward."""
        self.passes += len(gradient)

    def read(self) -> None:
        """Note the time and the passes so far."""
        self.readings.append((process_time(), self.passes))

    def save(self, part: str, tensors: dict[str, Tensor]) -> None:
        """Read, between two tries of a suite."""
        if part == "attacked":
            self.read()

    def taken(self, first: int, last: int) -> tuple[float, int]:
        """Return the seconds and the passes from one reading to another."""
        (before, few), (after, many) = self.readings[first], self.readings[last]
        return after - before, many - few


def by_suite(
    model: nn.Module, split: Split, threat: Threat, suite: Evaluation, *, classes: int, seed: int
) -> list[Part]:
    """Attack with a suite of the project: one part for each of its attacks, of one restart each.

    A masked square has two tries, of which the first is on a few samples.
    """
    options = {"classes": classes, "batch_size": suite.batch_size, "seed": seed, "progress": no_progress}
    with Meter(model) as meter:
        found = run_suite(model, split, suite.attacks, threat, masked=suite.masked, checkpoint=meter, **options)
    parts, first = [], 0
    for name, stands in found.standing.items():
        last = first + (2 if name in suite.masked else 1)
        parts.append(Part(name, stands, *meter.taken(first, last)))
        first = last
    return parts


Attack = Callable[[Tensor, Tensor], Tensor]  # pictures and labels -> attacked pictures


def in_parts(model: nn.Module, split: Split, attacks: dict[str, Attack]) -> list[Part]:
    """Attack with each of `attacks` what those before it have left standing; what is wrong from the start fell."""
    x, labels, found = split.images.take(torch.arange(len(split))), split.labels, []
    with torch.no_grad():
        stands = model(x).argmax(1) == labels
    with Meter(model) as meter:
        for name, attack in attacks.items():
            rows = stands.nonzero().flatten()
            if len(rows):
                moved = attack(x[rows], labels[rows])
                with torch.no_grad():
                    stands = stands.clone()
                    stands[rows] = model(moved).argmax(1) == labels[rows]
            meter.read()
            found.append(Part(name, stands, *meter.taken(-2, -1)))
    return found


STANDARD = ("apgd-ce", "apgd-t", "fab-t", "square")
PLAIN = {2: ("apgd-ce", "fab-t", "square"), 3: ("apgd-ce", "apgd-dlr", "fab-t", "square")}


def by_reference(
    model: nn.Module,
    split: Split,
    threat: Threat,
    *,
    classes: int,
    seed: int,
    batch_size: int,
    names: Sequence[str] = STANDARD,
    steps: int = 100,
    queries: int = 5000,
) -> list[Part]:
    """Attack with parts of pyautoattack, with the settings of its `standard` version; targets: min(9, C - 1).

    Below four classes its targeted loss, a ratio, does not exist: the numerator alone is put in its place, without
    which the reference would have a part less than it has at ten classes.
    """
    from pyautoattack import AutoAttack  # slow to import

    suite = AutoAttack(
        model, norm=threat.norm.value, eps=threat.eps, seed=seed, version="custom", attacks=list(names)
    )
    suite.apgd.n_restarts = suite.fab.n_restarts = 1
    suite.fab.n_target_classes = suite.apgd_targeted.n_target_classes = min(9, classes - 1)
    suite.apgd.n_iter = suite.apgd_targeted.n_iter = suite.fab.n_iter = steps
    suite.square.n_queries = queries
    targeted = suite.apgd_targeted
    if classes < 4:
        targeted.dlr_loss_targeted = lambda logits, labels: (
            logits.gather(1, targeted.y_target[:, None]) - logits.gather(1, labels[:, None])
        ).squeeze(1)

    def alone(name: str) -> Attack:
        def attack(x: Tensor, labels: Tensor) -> Tensor:
            suite.attacks_to_run = [name]
            moved: Tensor = suite.run_standard_evaluation(x, labels, batch_size=batch_size)[0]
            return moved

        return attack

    LOGGER.setLevel(logging.ERROR)  # else it speaks of every batch
    return in_parts(model, split, {name: alone(name) for name in names})


def by_art(model: nn.Module, split: Split, threat: Threat, *, classes: int, shipped: bool) -> list[Part]:
    """Attack with ART's AutoAttack, all samples in one batch: as shipped, or with what the reference runs of it.

    shipped: its own four parts, untargeted (APGD on the cross-entropy and the DLR loss, DeepFool, Square). Else
    APGD on both losses for 100 steps from one start, toward each other class as well (`targeted`).
    """
    sys.modules.setdefault("multiprocess", multiprocessing)  # ART imports it, and does not install it
    import numpy as np
    from art.attacks.evasion import AutoAttack, AutoProjectedGradientDescent
    from art.estimators.classification import PyTorchClassifier

    shape, norm = split.images.shape, {Norm.Linf: np.inf, Norm.L2: 2}[threat.norm]
    network = PyTorchClassifier(
        model, loss=nn.CrossEntropyLoss(), input_shape=shape, nb_classes=classes, clip_values=(0, 1)
    )
    common: dict[str, Any] = {"norm": norm, "eps": threat.eps, "eps_step": 2 * threat.eps}
    common |= {"batch_size": len(split)}
    if not shipped:
        losses = ("cross_entropy", "difference_logits_ratio") if classes > 2 else ("cross_entropy",)
        more = {"max_iter": 100, "nb_random_init": 1, "verbose": False}
        parts = [AutoProjectedGradientDescent(network, loss_type=loss, **more, **common) for loss in losses]
        common |= {"attacks": parts, "targeted": True}
    suite = AutoAttack(network, **common)

    def attack(x: Tensor, labels: Tensor) -> Tensor:
        return torch.from_numpy(suite.generate(x.numpy(), labels.numpy()))

    return in_parts(model, split, {"all": attack})
