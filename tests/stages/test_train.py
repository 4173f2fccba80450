from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor, nn

from defense.config.choices import Keep
from defense.data.splits import Dataset
from defense.models.predict import predict
from defense.runtime.progress import no_progress
from defense.stages.train import earlier_epochs
from defense.stages.treat import untreated
from tests.calls import checkpoints_of, restore, train
from tests.conftest import recipe, threat


class Drawn(nn.Module):
    """A network with state that is neither a parameter nor a buffer."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.table = torch.randn(64, 256)
        self.head = nn.Linear(256, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(x.flatten(1) @ self.table))


@pytest.mark.parametrize("seed", [0, 7])
def test_what_comes_back_is_what_was_trained(digits: Dataset, fabric: Fabric, seed: int) -> None:
    settings = {"_target_": "tests.stages.test_train.Drawn"}
    common = {"threat": threat(), "seed": seed, "fabric": fabric, "progress": no_progress}
    trained = train(settings, digits, recipe(epochs=3, learning_rate=0.003), untreated(digits.train), **common)
    model = restore(settings, digits, trained, seed=seed, device=torch.device("cpu"))
    right = predict(model, digits.validation, batch_size=64).argmax(1) == digits.validation.labels
    assert 100 * float(right.double().mean()) == pytest.approx(trained.history["validation_accuracy"].iloc[-1])
    assert trained.history["validation_accuracy"].iloc[-1] > 30  # chance is 10
    assert not model.training


def test_checkpoints_are_spread_over_the_epochs_and_end_with_the_weights(digits: Dataset, fabric: Fabric) -> None:
    settings = {"_target_": "defense.models.networks.mlp", "hidden": [8]}
    common = {"threat": threat(), "seed": 0, "fabric": fabric, "progress": no_progress}
    trained = train(settings, digits, recipe(epochs=6, checkpoints=3), untreated(digits.train), **common)
    found = checkpoints_of(trained)
    assert [point.name for point in found] == ["epoch 2", "epoch 4", "epoch 6"]
    rates = trained.history["learning_rate"].to_numpy()
    assert [point.weight for point in found] == pytest.approx(rates.reshape(3, 2).sum(1).tolist())
    assert all(torch.equal(found[-1].state[name], value) for name, value in trained.weights.items())
    assert not torch.equal(found[0].state["5.weight"], found[1].state["5.weight"])
    for point in found:  # each is what it says: its loss is that of the history
        model = restore(
            settings, digits, replace(trained, weights=point.state), seed=0, device=torch.device("cpu")
        )
        loss = F.cross_entropy(predict(model, digits.validation, batch_size=64), digits.validation.labels)
        epoch = int(point.name.split()[1])
        assert float(loss) == pytest.approx(trained.history["validation_loss"][epoch - 1], rel=1e-5)


@pytest.mark.parametrize(("epochs", "count", "earlier"), [(10, 1, set()), (2, 5, {1}), (20, 5, {4, 8, 12, 16})])
def test_earlier_epochs(epochs: int, count: int, earlier: set[int]) -> None:
    assert earlier_epochs(recipe(epochs=epochs, checkpoints=count)) == earlier


@pytest.mark.parametrize("keep", [Keep.clean, Keep.robust])
def test_the_kept_epoch_is_the_best_on_validation(digits: Dataset, fabric: Fabric, keep: Keep) -> None:
    """Its weights come back, whatever came after; checkpoints lead up to it, weighed by the rates until then."""
    column = {Keep.clean: "validation_accuracy", Keep.robust: "validation_robust_accuracy"}[keep]
    settings = {"_target_": "defense.models.networks.mlp"}
    # long enough to learn the wrong labels by heart: the best epoch is an early one
    spec = recipe(epochs=24, checkpoints=12, learning_rate=0.1, keep=keep, validation_steps=3)
    common = {"threat": threat(eps=0.05), "seed": 1, "fabric": fabric, "progress": no_progress}
    trained = train(settings, digits, spec, untreated(digits.train), **common)
    history = trained.history.set_index("epoch")
    (kept,) = history.index[history["kept"]]
    best = history[column].max()
    assert kept == max(history.index[history[column] == best])
    assert 2 < kept < 20
    model = restore(settings, digits, trained, seed=1, device=torch.device("cpu"))
    logits = predict(model, digits.validation, batch_size=64)
    loss = F.cross_entropy(logits, digits.validation.labels)
    assert float(loss) == pytest.approx(history["validation_loss"][kept], rel=1e-5)
    found = checkpoints_of(trained)
    assert [point.name for point in found] == [f"epoch {n}" for n in range(2, 24, 2) if n < kept] + [
        f"epoch {kept}"
    ]
    assert all(torch.equal(found[-1].state[name], value) for name, value in trained.weights.items())
    assert sum(point.weight for point in found) == pytest.approx(history["learning_rate"].loc[:kept].sum())


def test_checkpoints_are_averaged_too(digits: Dataset, fabric: Fabric) -> None:
    settings = {"_target_": "defense.models.networks.mlp", "hidden": [8]}
    common = {"threat": threat(), "seed": 0, "fabric": fabric, "progress": no_progress}
    spec = recipe(epochs=4, checkpoints=2, ema=0.9)
    trained = train(settings, digits, spec, untreated(digits.train), **common)
    for point in checkpoints_of(trained):
        state = replace(trained, weights=point.state)
        model = restore(settings, digits, state, seed=0, device=torch.device("cpu"))
        loss = F.cross_entropy(predict(model, digits.validation, batch_size=64), digits.validation.labels)
        epoch = int(point.name.split()[1])
        assert float(loss) == pytest.approx(trained.history["validation_loss"][epoch - 1], rel=1e-5)
