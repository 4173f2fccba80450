"""Models that mask their gradients are flagged, by the checks that are meant for it; honest ones are not."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from defense.config.choices import Harm, Norm, Recipe
from defense.config.compose import composed
from defense.config.schema import Threat
from defense.data.load import load
from defense.data.splits import Dataset
from defense.robustness.checks import CHECKS, Finding, judge
from defense.robustness.probe import chosen
from defense.runtime.progress import no_progress
from defense.stages.treat import untreated
from tests.calls import probe, restore, run_suite, train
from tests.conftest import DEFAULT, data, recipe, threat

Trained = dict[str, nn.Module]


@pytest.fixture(scope="module")
def clean_digits() -> Dataset:
    return load(data(train_size=900, validation_size=60, harm=Harm.none), seed=0)


@pytest.fixture(scope="module")
def trained(clean_digits: Dataset, fabric: Fabric) -> Trained:
    """Two honest models: an MLP trained ordinarily, and a CNN trained adversarially within eps 0.1."""
    settings = {
        "mlp": (DEFAULT.model, recipe(epochs=15)),
        "cnn": (
            composed("model=cnn", "model.width=8").model,
            recipe(recipe=Recipe.adversarial, attack_steps=3, epochs=6, batch_size=32, learning_rate=0.1),
        ),
    }
    models = {}
    for name, (model, spec) in settings.items():
        common = {"threat": threat(eps=0.1), "seed": 0, "fabric": fabric, "progress": no_progress}
        found = train(model, clean_digits, spec, untreated(clean_digits.train), **common)
        models[name] = restore(model, clean_digits, found, seed=0, device=torch.device("cpu"))
    return models


def findings(model: nn.Module, dataset: Dataset, spec: Threat, *, count: int = 100) -> dict[str, Finding]:
    """Return what the checks say of `model` beside the suite that runs by default."""
    part = dataset.test.subset(chosen(dataset.test.labels, count, seed=0))
    common = {"classes": dataset.classes, "batch_size": 64, "seed": 0, "progress": no_progress}
    suite = run_suite(model, part, DEFAULT.evaluation.attacks, spec, **common).standing.values()
    return judge(*probe(model, part, spec, **common), list(suite)[-1].numpy())


def flagged(found: dict[str, Finding]) -> set[str]:
    return {name for name, finding in found.items() if finding.flagged}


HONEST = [
    ("mlp", Norm.Linf, "0.1"),
    pytest.param("mlp", Norm.L2, "0.5", marks=pytest.mark.slow),
    pytest.param("mlp", Norm.Linf, "0.3", marks=pytest.mark.slow),
    ("cnn", Norm.Linf, "0.1"),
]


@pytest.mark.parametrize(("name", "norm", "eps"), HONEST)
def test_an_honest_model_is_not_flagged(
    trained: Trained, clean_digits: Dataset, name: str, norm: Norm, eps: str
) -> None:
    """At the usual eps, and at one where nothing stands."""
    found = findings(trained[name], clean_digits, threat(norm=norm, eps=eps))
    assert flagged(found) == set()
    assert sum(finding.found for finding in found.values()) <= 10
    accuracy = found["falls"].numbers["accuracy"]
    assert accuracy[0] > 90
    assert accuracy == sorted(accuracy, reverse=True)
    assert accuracy[-1] == 0


class Around(nn.Module):
    """An honest network behind something that is done to its pictures or logits."""

    def __init__(self, network: nn.Module, before: Callable[[Tensor], Tensor], after: float = 1.0) -> None:
        super().__init__()
        self.network, self.before, self.after = network, before, after

    def forward(self, x: Tensor) -> Tensor:
        return self.after * self.network(self.before(x))


PLANTED: dict[str, tuple[Callable[[nn.Module], nn.Module], set[str]]] = {
    "saturated logits": (
        lambda network: Around(network, lambda x: x, 1e4),
        {"gradients", "falls", "square"},  # the suite aims at classes, by a loss that does not saturate
    ),
    "quantised input": (
        lambda network: Around(network, lambda x: (4 * x).round() / 4),
        {"gradients", "falls", "square", "converged"},
    ),
    "a random noise layer": (
        lambda network: Around(network, lambda x: x + 0.2 * torch.randn_like(x)),
        {"repeatable", "uphill", "effort"},
    ),
    "gradients shattered by a ripple": (
        lambda network: Around(network, lambda x: x + 0.05 * torch.sin(1000 * x)),
        {"uphill", "falls", "square", "converged"},
    ),
    "logits that depend on the rest of the batch": (
        lambda network: Around(network, lambda x: x + 0.1 * torch.linspace(0, 1, len(x)).view(-1, 1, 1, 1)),
        {"repeatable"},
    ),
}


@pytest.mark.parametrize("mask", PLANTED)
def test_a_masking_model_is_flagged(trained: Trained, clean_digits: Dataset, mask: str) -> None:
    plant, expected = PLANTED[mask]
    found = findings(plant(trained["mlp"]), clean_digits, threat(eps=0.1))
    assert flagged(found) >= expected


@pytest.mark.slow
@pytest.mark.parametrize("mask", ["saturated logits", "quantised input", "gradients shattered by a ripple"])
def test_so_is_one_that_masks_what_is_robust(trained: Trained, clean_digits: Dataset, mask: str) -> None:
    """Where little is left for another attack to break, gradients alone give the mask away."""
    plant, expected = PLANTED[mask]
    found = findings(plant(trained["cnn"]), clean_digits, threat(eps=0.1), count=50)
    assert flagged(found) & expected & {"gradients", "uphill"}


def table(count: int) -> pd.DataFrame:
    """Return samples on which nothing is odd: half of them stand, half do not."""
    stands = np.arange(count) % 2 == 0
    return pd.DataFrame(
        {
            "once": stands,
            "longer": stands,
            "square": stands,
            "left": stands,
            "last": False,
            "regained": False,
            "distance": 1.0,
            "lowest": 0.0,
            "highest": 1.0,
            "gradient": 0.1,
            "rise": 0.01,
            "drift": 0.0,
            "suite": stands,
        }
    )


CURVE = pd.DataFrame({"eps": [0.0, 0.1], "accuracy": [90.0, 50.0]})
ODD = {  # what makes the standing sample in a row odd, and for which checks
    "inside": [{"distance": 1.01}, {"lowest": -0.01}, {"highest": 1.01}, {"distance": np.nan}],
    "falls": [{"last": True}],
    "monotone": [{"regained": True}],
    "effort": [{"once": False}],
    "converged": [
        {"left": False},
        {"longer": False, "left": False},
        {"once": False, "longer": False, "left": False},
    ],
    "square": [{"square": False, "left": False, "suite": False}],
    "gradients": [{"gradient": 0.0}, {"gradient": np.nan}, {"gradient": np.inf}],
    "uphill": [{"rise": 0.0}, {"rise": -1.0}, {"rise": np.nan}],
    "repeatable": [{"drift": 0.1}, {"drift": np.nan}],
}


def test_every_check_is_tried() -> None:
    assert list(ODD) == list(CHECKS)


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("count", [20, 100, 300])
def test_a_check_counts_its_own_samples_and_no_others(name: str, count: int) -> None:
    """Up to what is allowed nothing is flagged, one more is; `allowed` by summing up the binomial distribution."""
    allowed = 0
    if CHECKS[name].honest:
        tail = [
            sum(math.comb(count, j) * 0.02**j * 0.98 ** (count - j) for j in range(k + 1, count + 1))
            for k in range(count)
        ]
        allowed = next(k for k, chance in enumerate(tail) if chance <= 0.001)
    for change in ODD[name]:
        for odd in (0, allowed, allowed + 1):
            samples = table(count)
            rows = samples.index[samples["once"]][:odd]
            for column, value in change.items():
                samples.loc[rows, column] = value
            found = judge(samples.drop(columns="suite"), CURVE, samples["suite"].to_numpy())
            assert (found[name].found, found[name].of, found[name].allowed) == (odd, count, allowed)
            assert flagged(found) == ({name} if odd > allowed else set())


def test_the_curve_and_the_extremes_are_kept() -> None:
    samples = table(10)
    samples.loc[3, ["distance", "lowest", "highest"]] = [1.0005, 0.1, 0.9]
    found = judge(samples.drop(columns="suite"), CURVE, samples["suite"].to_numpy())
    assert found["falls"].numbers == {"eps": [0.0, 0.1], "accuracy": [90.0, 50.0]}
    assert found["inside"].numbers == {"distance": 1.0005, "lowest": 0.0, "highest": 1.0}


def test_an_attack_that_does_not_exist_is_not_judged() -> None:
    """Square in L2 does not run on small pictures: then nothing is said of it."""
    samples = table(10).drop(columns="square")
    found = judge(samples.drop(columns="suite"), CURVE, samples["suite"].to_numpy())
    assert set(CHECKS) - set(found) == {"square"}
