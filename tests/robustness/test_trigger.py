from __future__ import annotations

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from defense.choices import Harm
from defense.data.load import load
from defense.data.splits import Split
from defense.errors import InputError
from defense.reporting.progress import silent
from defense.robustness.trigger import trigger_success
from defense.stages.train import restore, train
from defense.stages.treat import untreated
from tests.conftest import data, make_split, recipe, threat


class Corner(nn.Module):
    """Says class 1 where the bottom right pixel is bright and the first one is above a half, else class 2."""

    def forward(self, x: Tensor) -> Tensor:
        led = (x[:, 0, -1, -1] == 1) & (x[:, 0, 0, 0] > 0.5)
        return torch.stack([torch.zeros_like(led), led, ~led], dim=1).float()


def test_success_by_a_loop() -> None:
    test, spec = make_split(40, 3, (1, 4, 4)), data(harm=Harm.trigger, harm_target=1)
    others = [row for row in range(40) if row % 3 != 1]
    led = [row for row in others if float(test.images.take(torch.tensor([row]))[0, 0, 0, 0]) > 0.5]
    assert 0 < len(led) < len(others)
    assert trigger_success(Corner(), test, spec, batch_size=16) == pytest.approx(len(led) / len(others))


def test_all_of_the_target_class() -> None:
    split = make_split(40, 3, (1, 4, 4))
    ones = split.subset(torch.arange(1, 40, 3))
    with pytest.raises(InputError, match=r"data\.harm_target=1: expected test samples of other classes"):
        trigger_success(Corner(), ones, data(harm=Harm.trigger, harm_target=1), batch_size=16)


def test_a_planted_trigger_works_and_is_not_there_without(fabric: Fabric) -> None:
    settings = {"_target_": "defense.models.networks.mlp", "hidden": [32]}
    rates = {}
    for harm in (Harm.trigger, Harm.none):
        spec = data(harm=harm, train_size=400)
        found = load(spec, seed=0)
        common = {"threat": threat(), "seed": 0, "fabric": fabric, "watch": silent}
        trained = train(settings, found, recipe(epochs=15), untreated(found.train), **common)
        model = restore(settings, found, trained, seed=0, device=torch.device("cpu"))
        rates[harm] = trigger_success(model, found.test, spec, batch_size=64)
        assert right(model, found.test) > 0.8
    assert rates[Harm.trigger] > 0.9
    assert rates[Harm.none] < 0.2


def right(model: nn.Module, split: Split) -> float:
    logits = model(split.images.take(torch.arange(len(split))))
    return float((logits.argmax(1) == split.labels).double().mean())
