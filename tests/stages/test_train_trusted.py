"""Training on trusted samples too: as on one tensor of all, up to an epoch that is given."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from defense.artifacts import TrainedModel
from defense.config.choices import Keep, Optimizer, Recipe
from defense.data.images import TensorImages
from defense.data.splits import Dataset, Split
from defense.runtime import checkpoint as checkpoint
from defense.stages.treat import trusting, untreated
from defense.store.store import FileCheckpointer
from tests.calls import restore, train
from tests.conftest import recipe, threat
from tests.stages.test_resume import CNN, MLP, Killed, killing

SHORT: dict[str, Any] = {"epochs": 4, "checkpoints": 1, "validation_steps": 2}


def same(one: TrainedModel, other: TrainedModel) -> bool:
    return all(torch.equal(value, other.weights[name]) for name, value in one.weights.items())


def by_hand(digits: Dataset) -> Dataset:
    """The data with validation put behind training in tensors."""
    parts = (digits.train, digits.validation)
    pictures = torch.cat([part.images.take(torch.arange(len(part))) for part in parts])
    ids, labels, truth = (
        torch.cat([getattr(part, name) for part in parts]) for name in ("ids", "labels", "truth")
    )
    return replace(digits, train=Split(ids, TensorImages(pictures), labels, truth))


@pytest.mark.parametrize("settings", [MLP, CNN])
def test_it_is_a_training_on_both_splits(digits: Dataset, settings: dict[str, Any]) -> None:
    """Bit for bit, one that looks at validation after each epoch, and keeps the last."""
    data, whole = digits.trusting, by_hand(digits)
    common: dict[str, Any] = {"threat": threat(), "seed": 3}
    found = train(settings, data, recipe(**SHORT), trusting(data.train, 60, 1.0), kept=4, **common)
    expected = train(settings, whole, recipe(**SHORT), untreated(whole.train), **common)
    assert same(found, expected)
    assert not same(found, train(settings, digits, recipe(**SHORT), untreated(digits.train), **common))
    assert found.history["train_loss"].tolist() == expected.history["train_loss"].tolist()
    assert not [name for name in found.history if name.startswith("validation")]


@pytest.mark.parametrize("name", [Recipe.standard, Recipe.fast])
def test_it_ends_with_the_epoch_that_is_given(digits: Dataset, name: Recipe) -> None:
    """By the weights of a training on the same samples that validation leads to keep that epoch."""
    spec = recipe(recipe=name, keep=Keep.robust, **SHORT)
    common: dict[str, Any] = {"threat": threat(eps=0.1), "seed": 3}
    expected = train(MLP, digits, spec, untreated(digits.train), **common)
    (epoch,) = expected.history["epoch"][expected.history["kept"]]
    blind = replace(digits, validation=digits.validation.subset(torch.arange(0)))
    found = train(MLP, blind, spec, untreated(digits.train), kept=int(epoch), **common)
    assert same(found, expected)
    assert found.history["epoch"].tolist() == list(range(1, int(epoch) + 1))
    assert found.history["kept"].tolist() == [False] * (int(epoch) - 1) + [True]
    earlier = train(MLP, blind, spec, untreated(digits.train), kept=1 if epoch > 1 else 2, **common)
    assert not same(earlier, expected)


def test_lbfgs_has_one_epoch(digits: Dataset) -> None:
    data = digits.trusting
    spec = recipe(optimizer=Optimizer.lbfgs, epochs=20, weight_decay=0.1)
    linear = {"_target_": "defense.models.networks.mlp", "hidden": []}
    found = train(linear, data, spec, trusting(data.train, 60, 1.0), kept=1, threat=threat(), seed=0)
    whole = by_hand(digits)
    assert same(found, train(linear, whole, spec, untreated(whole.train), threat=threat(), seed=0))
    with pytest.raises(ValueError, match="epoch 2 is to be kept, and training ended with epoch 1"):
        train(linear, data, spec, trusting(data.train, 60, 1.0), kept=2, threat=threat(), seed=0)


def test_a_killed_one_goes_on(digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "KEPT_EVERY", 0.0)
    common: dict[str, Any] = {"threat": threat(), "seed": 3, "kept": 3}
    data = digits.trusting
    treatment = trusting(data.train, 60, 3.0)
    kept = FileCheckpointer(tmp_path)
    with pytest.raises(Killed):
        train(MLP, data, recipe(**SHORT), treatment, checkpoint=kept, progress=killing(12), **common)
    steps: list[int] = []
    again = train(
        MLP, data, recipe(**SHORT), treatment, checkpoint=FileCheckpointer(tmp_path),
        progress=lambda done, total, **numbers: steps.append(done), **common,
    )  # fmt: skip
    assert same(again, train(MLP, data, recipe(**SHORT), treatment, **common))
    assert min(steps) > 5  # of 5 an epoch


def test_weights_of_trusted_samples(digits: Dataset) -> None:
    """Three times those of others, in the mean 1, and they tell in training."""
    data = digits.trusting
    table = trusting(data.train, 60, 3.0).table
    scale = 260 / (200 + 3 * 60)
    np.testing.assert_allclose(table["weight"], [scale] * 200 + [3 * scale] * 60)
    assert table["keep"].all()
    assert not table["treated"].any()
    assert table["label"].tolist() == data.train.labels.tolist()
    assert (trusting(data.train, 60, 1.0).table["weight"] == 1).all()
    common: dict[str, Any] = {"threat": threat(), "seed": 3, "kept": 2}
    found = [
        train(MLP, data, recipe(**SHORT), trusting(data.train, 60, weight), **common) for weight in (1.0, 3.0)
    ]
    assert not same(*found)
    losses = []
    for artifact in found:
        model = restore(MLP, digits, artifact, seed=3, device=torch.device("cpu"))
        logits = model(digits.validation.images.take(torch.arange(60)))
        losses.append(float(F.cross_entropy(logits, digits.validation.labels).detach()))
    assert losses[1] < losses[0]  # what weighs more is fitted better
