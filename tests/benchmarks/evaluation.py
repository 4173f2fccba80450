"""What is evaluated: small nets that the benchmark trains, under the suites of the project and the reference.

A case is one line of CASES. Digits come with scikit-learn; MNIST is taken from a file in the form of data=npz,
where one is named by `--mnist FILE`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from defense.config.choices import AttackName, Norm, Recipe
from defense.config.compose import composed
from defense.config.schema import Attack, Evaluation, Threat
from defense.data.splits import Dataset, Split
from defense.tasks.registry import run
from tests.attack_peers import PLAIN, Part, by_art, by_reference, by_suite, loaded, trained

SEEDS = 3
PEER_SAMPLES = 60  # that ART is run on, which takes minutes for them
TRAINED_AT = "threat.eps=0.15"
# where a quarter of the samples or so stand, so that every part has work to do
EPS = {
    (Recipe.standard, Norm.Linf): 0.12,
    (Recipe.standard, Norm.L2): 0.6,
    (Recipe.adversarial, Norm.Linf): 0.22,
    (Recipe.adversarial, Norm.L2): 0.8,
}
MODELS = {"cnn": ("model=cnn", "model.width=16"), "mlp": ("model=mlp",)}
SIZES = {
    "digits": ("data.test_size=600", "data.validation_size=100"),
    "mnist": ("data.train_size=5000", "data.test_size=100", "data.validation_size=100", "train.epochs=6"),
}


@dataclass(frozen=True)
class Case:
    """One net under one threat model, and for how many seeds."""

    source: str
    classes: int
    model: str
    recipe: Recipe
    norm: Norm
    samples: int
    seeds: int = SEEDS

    @property
    def name(self) -> str:
        """A name for `pytest -k`."""
        return f"{self.source}-{self.classes}-{self.model}-{self.recipe.value}-{self.norm.value}"

    @property
    def threat(self) -> Threat:
        """What the attacks may do."""
        return Threat(self.norm, EPS[self.recipe, self.norm])

    @property
    def title(self) -> str:
        """The case in words."""
        threat = f"{self.norm.value} {self.threat.eps:g}"
        return f"{self.source}, {self.classes} classes, {self.model}, {self.recipe.value}, {threat}"


def half(source: str, classes: int, samples: int) -> list[Case]:
    """Return one half of all pairs of net, recipe and norm, in which every two of them meet as often."""
    return [
        Case(source, classes, "cnn", Recipe.standard, Norm.L2, samples),
        Case(source, classes, "cnn", Recipe.adversarial, Norm.Linf, samples),
        Case(source, classes, "mlp", Recipe.standard, Norm.Linf, samples),
        Case(source, classes, "mlp", Recipe.adversarial, Norm.L2, samples),
    ]


CASES = (
    *half("digits", 10, 600),
    *half("digits", 3, 300),
    *half("digits", 2, 300),
    Case("mnist", 10, "cnn", Recipe.adversarial, Norm.Linf, 60, seeds=1),
)
# the other half, on which the parts of evaluation=fast were chosen
CHOICE_CASES = tuple(
    replace(case, norm=Norm.L2 if case.norm is Norm.Linf else Norm.Linf, seeds=1) for case in CASES[:-1]
)
PEER_CASES = (
    Case("digits", 10, "mlp", Recipe.standard, Norm.L2, PEER_SAMPLES),
    Case("digits", 10, "mlp", Recipe.adversarial, Norm.Linf, PEER_SAMPLES),
    Case("digits", 3, "mlp", Recipe.adversarial, Norm.Linf, PEER_SAMPLES),
)


@cache
def data_of(source: str, classes: int, mnist: Path | None) -> Dataset:
    """Return the data of a case."""
    named = ("data=npz", f"data.path={mnist}") if source == "mnist" else ("data.harm=none",)
    return loaded(*named, *SIZES[source], classes=classes)


@cache
def net_of(source: str, classes: int, model: str, recipe: Recipe, mnist: Path | None, quick: bool) -> nn.Module:
    """Return the net of a case, trained by the project."""
    epochs = ("train.epochs=1",) if quick else SIZES[source][3:]
    settings = (*MODELS[model], f"train={recipe.value}", TRAINED_AT, *epochs)
    return trained(data_of(source, classes, mnist), *settings)


def prepared(case: Case, mnist: Path | None, *, quick: bool) -> tuple[nn.Module, Split]:
    """Return the net of a case and its test samples; for a smoke run a few."""
    net = net_of(case.source, case.classes, case.model, case.recipe, mnist, quick)
    count = min(case.samples, 12) if quick else case.samples
    return net, data_of(case.source, case.classes, mnist).test.subset(torch.arange(count))


SUITES = ("quick", "fast", "standard")
REFERENCE = "reference"


def suite_of(name: str, *, quick: bool) -> Evaluation:
    """Return a suite as it is composed; for a smoke run with a few steps."""
    suite = composed(f"evaluation={name}").evaluation
    return replace(suite, attacks=shortened(suite.attacks)) if quick else suite


def shortened(attacks: dict[str, Attack]) -> dict[str, Attack]:
    """Return attacks with a few steps and queries."""
    return {name: replace(attack, steps=2, queries=5) for name, attack in attacks.items()}


def budget(suite: Evaluation) -> dict[str, int]:
    """Return the steps and queries of the suite's AutoAttack, for the reference."""
    return {"steps": suite.attacks["apgd_t"].steps, "queries": suite.attacks["square"].queries}


@dataclass
class Compared:
    """What one case came to: by suite, for each seed, its parts."""

    case: Case
    clean: float
    samples: int
    runs: dict[str, list[list[Part]]] = field(default_factory=dict)
    plain: float | None = None  # the reference with the parts that it has for few classes, at the first seed

    def difference(self, suite: str) -> float:
        """Return points of robust accuracy, of a suite less the reference, means over seeds."""
        return mean_of(self.runs[suite], -1) - mean_of(self.runs[REFERENCE], -1)

    def ratio(self, suite: str) -> float:
        """Return the time of a suite in times of the reference's: the best of the seeds beside the best."""
        return least(self.runs[suite]) / least(self.runs[REFERENCE])


def mean_of(runs: list[list[Part]], part: int) -> float:
    """Return the accuracy after one part, in percent: the mean over seeds."""
    return 100 * float(torch.stack([parts[part].standing.double().mean() for parts in runs]).mean())


def least(runs: list[list[Part]]) -> float:
    """Return the seconds of all parts, of the fastest run."""
    return min(sum(part.seconds for part in parts) for parts in runs)


def compare(case: Case, mnist: Path | None, *, quick: bool) -> Compared:
    """Run the suites and the reference in turn, each seed from another one on."""
    net, split = prepared(case, mnist, quick=quick)
    with torch.no_grad():
        right = net(split.images.take(torch.arange(len(split)))).argmax(1) == split.labels
    found = Compared(case, 100 * float(right.double().mean()), len(split))
    suites = {name: suite_of(name, quick=quick) for name in SUITES}
    standard = suites["standard"]
    common: dict[str, Any] = {"classes": case.classes, "batch_size": standard.batch_size, **budget(standard)}
    names = [*SUITES, REFERENCE]
    found.runs = {name: [] for name in names}
    for seed in range(1 if quick else case.seeds):
        for name in names[seed:] + names[:seed]:
            if name == REFERENCE:
                parts = by_reference(net, split, case.threat, seed=seed, **common)
            else:
                parts = by_suite(net, split, case.threat, suites[name], classes=case.classes, seed=seed)
            found.runs[name].append(parts)
    if case.classes in PLAIN:
        parts = by_reference(net, split, case.threat, seed=0, names=PLAIN[case.classes], **common)
        found.plain = mean_of([parts], -1)
    return found


@dataclass
class Chosen:
    """What each of CANDIDATES, in turn, leaves standing in a case that the comparison does not have."""

    case: Case
    parts: list[Part]


CANDIDATES = {
    "pgd, 20 steps": Attack(AttackName.pgd, steps=20),
    "apgd_ce, 100": Attack(AttackName.apgd_ce, steps=100),
    "pma, 100": Attack(AttackName.pma, steps=100),
    "apgd_t, 50": Attack(AttackName.apgd_t, steps=50),
    "apgd_t, 100": Attack(AttackName.apgd_t, steps=100),
    "fab_t, 100": Attack(AttackName.fab_t, steps=100),
    "square, 5000 queries": Attack(AttackName.square, queries=5000),
}


def choose(case: Case, *, quick: bool) -> Chosen:
    """Run all candidates in turn, each on what those before it leave."""
    net, split = prepared(case, None, quick=quick)
    suite = Evaluation(shortened(CANDIDATES) if quick else CANDIDATES, suite_of("fast", quick=quick).batch_size)
    return Chosen(case, by_suite(net, split, case.threat, suite, classes=case.classes, seed=0))


@dataclass
class Peer:
    """What ours, the reference and ART came to on the same few samples: accuracy in percent, and seconds."""

    case: Case
    samples: int
    results: dict[str, tuple[float, float]]


def compare_peer(case: Case, *, quick: bool) -> Peer:
    """Run all of them once."""
    net, split = prepared(case, None, quick=quick)
    common: dict[str, Any] = {"classes": case.classes}
    suite = suite_of("standard", quick=quick)
    runs = {
        "ours": by_suite(net, split, case.threat, suite, seed=0, **common),
        "the reference": by_reference(
            net, split, case.threat, seed=0, batch_size=suite.batch_size, **budget(suite), **common
        ),
        "ART, APGD toward classes": by_art(net, split, case.threat, shipped=False, **common),
    }
    if not quick:
        runs["ART, as shipped"] = by_art(net, split, case.threat, shipped=True, **common)
    results = {
        name: (100 * float(parts[-1].standing.double().mean()), sum(part.seconds for part in parts))
        for name, parts in runs.items()
    }
    return Peer(case, len(split), results)


DEFENDED = {
    "digits": ("model=cnn", "data.harm=none", "threat.eps=0.15"),
    "mnist": (
        "data=npz",
        "data.path=mnist.npz",
        "data.train_size=5000",
        "data.validation_size=500",
        "data.test_size=200",
        "model=cnn",
        "model.width=16",
        "train.epochs=10",
        "threat.eps=0.15",
    ),
}


@dataclass
class Trained:
    """What `defense` reports of a recipe under the standard suite: the result of its run."""

    source: str
    recipe: Recipe
    result: dict[str, Any]


def arguments(source: str, recipe: str) -> list[str]:
    """Return what a person types behind `defense`."""
    return [f"train={recipe}", *DEFENDED[source], "treatment.budget=0", "evaluation=standard"]


def robust_training(source: str, recipe: Recipe, folder: Path, mnist: Path | None, *, quick: bool) -> Trained:
    """Run `defense` with the arguments, in a folder of its own."""
    typed = arguments(source, recipe.value)
    own = [f"store={folder / 'store'}", *([f"data.path={mnist}"] if source == "mnist" else [])]
    own += ["train.epochs=1", "data.train_size=200", "data.test_size=20", "evaluation=quick"] if quick else []
    result = run(composed(*typed, *own), folder, typed)
    return Trained(source, recipe, result)


GAINED = {"mlp": (), "cnn": ("model=cnn", "model.width=16", "threat.eps=0.04")}  # where some samples stand


@dataclass
class Gained:
    """What `defense` reports by suite: of the baseline and of the gain over random, a value for each seed."""

    typed: tuple[str, ...]
    baseline: dict[str, list[float]]
    gain: dict[str, list[float]]


def gains(name: str, folder: Path, *, quick: bool) -> Gained:
    """Run `defense` under every suite, on the same trained models."""
    typed = GAINED[name]
    found = Gained(typed, {suite: [] for suite in SUITES}, {suite: [] for suite in SUITES})
    small = ("train.epochs=1", "data.train_size=200", "data.test_size=20") if quick else ()
    own = [f"store={folder / 'store'}", "evaluation.checked=0", *small]
    for seed in range(1 if quick else SEEDS):
        for suite in SUITES:
            words = [*typed, f"seed={seed}", f"evaluation={suite}"]
            config = composed(*words, *own)
            config.evaluation = suite_of(suite, quick=quick)
            place = folder / f"{suite}{seed}"
            place.mkdir()
            result = run(config, place, words)
            arms = {arm: result["arms"][arm]["adaptive"]["worst"] for arm in ("baseline", "control", "defended")}
            found.baseline[suite].append(arms["baseline"])
            found.gain[suite].append(arms["defended"] - arms["control"])
    return found
