from __future__ import annotations

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from defense.data.splits import Dataset
from defense.models.predict import predict
from defense.reporting.progress import silent
from defense.stages.train import restore, train
from defense.stages.treat import untreated
from tests.conftest import recipe


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
    common = {"seed": seed, "fabric": fabric, "watch": silent}
    trained = train(settings, digits, recipe(epochs=3, learning_rate=0.003), untreated(digits.train), **common)
    model = restore(settings, digits, trained, seed=seed, device=torch.device("cpu"))
    right = predict(model, digits.validation, batch_size=64).argmax(1) == digits.validation.labels
    assert 100 * float(right.double().mean()) == pytest.approx(trained.history["validation_accuracy"].iloc[-1])
    assert trained.history["validation_accuracy"].iloc[-1] > 30  # chance is 10
    assert not model.training
