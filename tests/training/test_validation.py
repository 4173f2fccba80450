"""Robust accuracy on validation where it is known."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from defense.config.choices import AttackName, Keep, Recipe
from defense.config.schema import Attack
from defense.data.images import TensorImages
from defense.data.splits import Split
from defense.training import validation
from defense.training.recipes import attacked
from defense.training.validation import spread
from tests.calls import measuring, robust_accuracy
from tests.conftest import recipe, threat
from tests.stages.test_evaluate import Threshold


def pixels(values: list[float], labels: list[int]) -> Split:
    rows = torch.tensor(labels)
    return Split(torch.arange(len(rows)), TensorImages(torch.tensor(values).view(-1, 1, 1, 1)), rows, rows)


def test_counts_what_no_attack_within_reach_turns(fabric: Fabric, monkeypatch: pytest.MonkeyPatch) -> None:
    """The boundary is at 0.5 and eps 0.1: 0.45 and 0.55 fall; the last is wrong as it is, and is not attacked."""
    sizes: list[int] = []

    def counted(network: nn.Module, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        sizes.append(len(x))
        return attacked(network, x, *args, **kwargs)

    monkeypatch.setattr(validation, "attacked", counted)
    split = pixels([0.1, 0.45, 0.55, 0.9, 0.7, 0.2], [0, 0, 1, 1, 1, 1])
    model = Threshold(0.5)
    common: dict[str, Any] = {"classes": 2, "seed": 0, "fabric": fabric}
    for size in (1, 4, 6):
        found = robust_accuracy(model, split, Attack(AttackName.pgd), threat(eps=0.1), size, **common)
        assert found == pytest.approx(100 * 3 / 6)
    assert sizes == [1, 1, 1, 1, 1, 4, 1, 5]
    wrong = pixels([0.9, 0.8], [0, 0])
    assert robust_accuracy(model, wrong, Attack(AttackName.pgd), threat(eps=0.1), 2, **common) == 0
    assert model.training
    assert model.at.grad is None


@pytest.mark.parametrize(
    ("spec", "measured"),
    [
        (recipe(), False),
        (recipe(keep=Keep.clean), False),
        (recipe(keep=Keep.robust), True),
        (recipe(recipe=Recipe.trades, keep=Keep.last), True),
    ],
)
def test_what_is_measured(fabric: Fabric, spec: Any, measured: bool) -> None:
    split = pixels([0.1, 0.45, 0.55, 0.4], [0, 0, 1, 1])
    numbers = measuring(split, spec, threat(eps=0.1), classes=2, seed=0, fabric=fabric)(Threshold(0.5), 1)
    assert ("validation_robust_accuracy" in numbers) == measured
    assert numbers["validation_accuracy"] == 75
    assert numbers.get("validation_robust_accuracy", 25) == 25


def test_a_large_split_is_attacked_in_part(fabric: Fabric, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every third of nine, spread over the split, which may be sorted by class."""
    monkeypatch.setattr(validation, "ATTACKED", 3)
    seen: list[list[int]] = []

    def note(network: object, split: Split, *_: object, **__: object) -> float:
        seen.append(split.ids.tolist())
        return 0.0

    monkeypatch.setattr(validation, "robust_accuracy", note)
    split = pixels([0.1] * 9, [0] * 9)
    measure = measuring(split, recipe(recipe=Recipe.fast), threat(), classes=2, seed=0, fabric=fabric)
    measure(Threshold(0.5), 1)
    assert seen == [[0, 3, 6]]
    assert spread(2, 5).tolist() == [0, 1]
    assert spread(7, 3).tolist() == [0, 2, 4]
