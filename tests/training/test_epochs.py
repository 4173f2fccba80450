"""Which epoch is kept, by hand; and the guard of training on one step, in a training that it has to stop."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from defense.config.choices import Keep, Recipe
from defense.config.schema import Threat, Train
from defense.data.splits import Dataset
from defense.runtime.progress import no_progress
from defense.stages.treat import untreated
from defense.training import recipes
from defense.training.epochs import EpochEnd, EpochSelection
from tests.calls import train
from tests.conftest import recipe, threat


def ends(clean: list[float], robust: list[float]) -> Iterator[EpochEnd]:
    """Yield epochs whose weights are one tensor, changed in place as training does."""
    weight = torch.zeros(1)
    for epoch, numbers in enumerate(zip(clean, robust, strict=True), start=1):
        weight += 1
        names = ("validation_accuracy", "validation_robust_accuracy")
        yield EpochEnd({"epoch": epoch, **dict(zip(names, numbers, strict=True))}, {"weight": weight})


def seen_by(choice: EpochSelection, given: Iterator[EpochEnd]) -> int:
    """Return how many epochs there were when training ended."""
    count = 0
    for end in given:
        count += 1
        if choice.look(end):
            break
    return count


CLEAN, ROBUST = [50.0, 90.0, 80.0, 90.0, 70.0], [10.0, 30.0, 40.0, 40.0, 35.0]


@pytest.mark.parametrize(
    ("spec", "kept"),
    [
        (recipe(), 5),
        (recipe(keep=Keep.clean), 4),
        (recipe(keep=Keep.robust), 4),
        (recipe(recipe=Recipe.adversarial), 4),
        (recipe(recipe=Recipe.trades), 4),
        (recipe(recipe=Recipe.fast), 4),
        (recipe(recipe=Recipe.fast, keep=Keep.last), 5),
    ],
)
def test_the_epoch_that_is_kept(spec: Train, kept: int) -> None:
    """Of equal ones the later; what is kept is a copy."""
    choice = EpochSelection(spec)
    assert seen_by(choice, ends(CLEAN, ROBUST)) == 5
    assert choice.best.epoch == kept
    assert choice.best.weights["weight"].item() == kept


@pytest.mark.parametrize("keep", [None, *Keep])
@pytest.mark.parametrize(
    ("robust", "seen", "kept"),
    [
        ([30.0, 50.0, 45.0, 20.0, 60.0], 4, 2),  # 30 points below the highest, not below the one before
        ([30.0, 50.0, 31.0, 30.0, 30.0], 5, None),  # by no more than 20
    ],
)
def test_a_collapse_stops_fast(
    caplog: pytest.LogCaptureFixture, keep: Keep | None, robust: list[float], seen: int, kept: int | None
) -> None:
    choice = EpochSelection(recipe(recipe=Recipe.fast, keep=keep))
    with caplog.at_level(logging.WARNING):
        assert seen_by(choice, ends([50, 60, 70, 80, 90], robust)) == seen
    assert ("robust accuracy on validation fell from 50.0 to 20.0 %" in caplog.text) == (kept is not None)
    if kept:
        assert (choice.best.epoch, choice.best.weights["weight"].item()) == (kept, kept)


def test_other_recipes_go_on_after_a_fall() -> None:
    for name in (Recipe.standard, Recipe.adversarial, Recipe.trades):
        choice = EpochSelection(recipe(recipe=name, keep=Keep.robust))
        assert seen_by(choice, ends([50, 50, 50], [90, 10, 20])) == 3
        assert choice.best.epoch == 1


def test_a_training_that_collapses(
    digits: Dataset, fabric: Fabric, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """After ten epochs its step begins to write the label into the pictures: a shortcut that attacks then take."""
    radius, steps = 0.15, 4
    patterns = torch.randn((10, 1, 8, 8), generator=torch.Generator().manual_seed(0)).sign()
    calls = []

    def turning(recipe: Train, ball: Threat, classes: int) -> Any:
        honest = one_step(recipe, ball, classes)

        def attacker(network: nn.Module, x: Tensor, labels: Tensor, seed: int) -> Tensor:
            calls.append(1)
            return (
                honest(network, x, labels, seed) if len(calls) <= 10 * steps else 0.5 + radius * patterns[labels]
            )

        return attacker

    one_step = recipes.one_step
    monkeypatch.setattr(recipes, "one_step", turning)
    known = replace(digits, train=replace(digits.train, labels=digits.train.truth))
    spec = recipe(recipe=Recipe.fast, epochs=40, learning_rate=0.1)
    common: dict[str, Any] = {"threat": threat(eps=radius), "seed": 0, "fabric": fabric, "progress": no_progress}
    with caplog.at_level(logging.WARNING):
        found = train({"_target_": "defense.models.networks.mlp"}, known, spec, untreated(known.train), **common)
    robust = found.history.set_index("epoch")["validation_robust_accuracy"]
    assert 10 < len(found.history) < 40
    assert f"stopped after epoch {len(found.history)}" in caplog.text
    assert robust.max() - robust.iloc[-1] > 20
    assert found.history["kept"].sum() == 1
    assert robust[found.history.set_index("epoch")["kept"]].item() == robust.max()
