"""A training that is killed and goes on ends, bit for bit, as one that was not."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from defense.artifacts import TrainedModel
from defense.config.choices import Keep, Optimizer, Recipe
from defense.config.schema import Train
from defense.data.splits import Dataset
from defense.runtime import checkpoint as checkpoint
from defense.runtime.progress import Progress, no_progress
from defense.stages.treat import untreated
from defense.store.store import FileCheckpointer
from defense.training import epochs
from tests.calls import train
from tests.conftest import recipe, threat

CNN = {"_target_": "defense.models.networks.cnn", "width": 4}  # with batch norm
MLP = {"_target_": "defense.models.networks.mlp", "hidden": [16]}
STEPS = 4  # batches an epoch
SHORT: dict[str, Any] = {"epochs": 5, "batch_size": 50, "checkpoints": 3, "attack_steps": 2, "validation_steps": 2}


class Killed(Exception):
    """Stands for SIGKILL, in the middle of a step."""


def killing(at: int) -> Progress:
    def progress(done: int, total: int, **numbers: float) -> None:
        if done == at:
            raise Killed

    return progress


@pytest.fixture
def run(digits: Dataset, fabric: Fabric) -> Callable[..., TrainedModel]:
    def call(spec: Train, settings: dict[str, Any] = MLP, *, own: Fabric = fabric, **more: Any) -> TrainedModel:
        common = {"threat": threat(), "seed": 3, "fabric": own, "progress": no_progress} | more
        return train(settings, digits, spec, untreated(digits.train), **common)

    return call


def assert_same(one: TrainedModel, other: TrainedModel) -> None:
    for found, expected in ((one.weights, other.weights), (one.checkpoints, other.checkpoints)):
        assert list(found) == list(expected)
        assert all(torch.equal(found[name], value) for name, value in expected.items())
    pd.testing.assert_frame_equal(one.history, other.history, check_exact=True)


@pytest.mark.parametrize(
    ("settings", "spec"),
    [
        (MLP, {}),
        (MLP, {"momentum": 0.0}),
        (CNN, {"ema": 0.8, "keep": Keep.clean}),
        (CNN, {"ema": 0.8, "channels_last": True, "recipe": Recipe.trades}),
        (CNN, {"channels_last": True, "crop": 1, "flip": True}),
        (MLP, {"recipe": Recipe.adversarial}),
        (MLP, {"recipe": Recipe.fast, "keep": Keep.last}),
        ({**CNN, "dropout": 0.5}, {}),
    ],
    ids=str,
)
def test_killed_twice_and_the_same(
    run: Callable[..., TrainedModel],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any],
    spec: dict[str, Any],
) -> None:
    chosen = recipe(**{**SHORT, **spec})
    whole = run(chosen, settings)
    monkeypatch.setattr(checkpoint, "KEPT_EVERY", 0.0)
    seen: list[int] = []
    for at in (2 * STEPS + 2, 4 * STEPS + 1):
        with pytest.raises(Killed):
            run(chosen, settings, progress=killing(at), checkpoint=FileCheckpointer(tmp_path))
    again = run(
        chosen, settings, progress=lambda done, *_, **__: seen.append(done), checkpoint=FileCheckpointer(tmp_path)
    )
    assert seen == [17, 18, 19, 20]
    assert_same(again, whole)


def test_mixed_precision_goes_on_too(
    run: Callable[..., TrainedModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixed = Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
    whole = run(recipe(**SHORT), CNN, own=mixed)
    monkeypatch.setattr(checkpoint, "KEPT_EVERY", 0.0)
    with pytest.raises(Killed):
        run(recipe(**SHORT), CNN, own=mixed, progress=killing(10), checkpoint=FileCheckpointer(tmp_path))
    assert_same(run(recipe(**SHORT), CNN, own=mixed, checkpoint=FileCheckpointer(tmp_path)), whole)


def test_nothing_is_trained_twice_after_the_last_epoch(
    run: Callable[..., TrainedModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a kill comes between the last epoch and the artifact."""
    monkeypatch.setattr(checkpoint, "KEPT_EVERY", 0.0)
    for spec in (recipe(**SHORT), recipe(optimizer=Optimizer.lbfgs, epochs=30, weight_decay=0.1)):
        progress = FileCheckpointer(tmp_path / spec.optimizer.value)
        whole = run(spec, checkpoint=progress)
        again = run(spec, checkpoint=progress, progress=killing(1))
        assert_same(again, whole)


def test_a_collapse_is_seen_although_the_highest_came_before_the_kill(
    run: Callable[..., TrainedModel],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    robust = {1: 30.0, 2: 50.0, 3: 45.0, 4: 10.0, 5: 60.0}

    def measuring(*_: object, **__: object) -> Callable[[nn.Module, int], dict[str, float]]:
        return lambda network, epoch: {"validation_accuracy": 50.0, "validation_robust_accuracy": robust[epoch]}

    monkeypatch.setattr("defense.stages.train.measuring", measuring)
    monkeypatch.setattr(checkpoint, "KEPT_EVERY", 0.0)
    spec = recipe(**SHORT, recipe=Recipe.fast, keep=Keep.last)
    whole = run(spec)
    with pytest.raises(Killed):
        run(spec, progress=killing(3 * STEPS + 1), checkpoint=FileCheckpointer(tmp_path))
    with caplog.at_level(logging.WARNING, logger=epochs.log.name):
        again = run(spec, checkpoint=FileCheckpointer(tmp_path))
    assert "stopped after epoch 4" in caplog.text
    assert again.history.loc[again.history["kept"], "epoch"].tolist() == [2]
    assert_same(again, whole)


def test_short_epochs_are_not_kept_one_by_one(run: Callable[..., TrainedModel]) -> None:
    kept: list[str] = []

    class Counts(checkpoint.NoCheckpoint):
        def save(self, part: str, tensors: dict[str, Tensor]) -> None:
            kept.append(part)

    run(recipe(**SHORT), checkpoint=Counts())
    assert not kept
