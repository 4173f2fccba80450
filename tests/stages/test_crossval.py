"""Cross-validation: each sample is predicted by a model that has not seen it."""

from __future__ import annotations

import pytest
import torch
from lightning_fabric import Fabric

from defense.data.splits import Dataset
from defense.errors import InputError
from defense.models.build import build
from defense.models.predict import predict
from defense.runtime.progress import no_progress
from tests.calls import cross_validate, trained
from tests.conftest import DEFAULT, recipe, threat


def validated(data: Dataset, folds: int, fabric: Fabric) -> torch.Tensor:
    spec = recipe(epochs=2, checkpoints=1)
    found = cross_validate(
        DEFAULT.model, data, spec, folds, threat=threat(), seed=0, fabric=fabric, progress=no_progress
    )
    return found.tensors["probabilities"]


def test_predictions_are_those_of_the_other_folds(digits: Dataset, fabric: Fabric) -> None:
    from sklearn.model_selection import StratifiedKFold

    from defense.randomness import derive

    labels = digits.train.labels.numpy()
    parts = list(StratifiedKFold(3, shuffle=True, random_state=derive(0, "folds")).split(labels, labels))
    keep = torch.zeros(len(labels), dtype=torch.bool)
    keep[parts[1][0]] = True
    model = build(DEFAULT.model, digits, seed=0)
    trained(
        model,
        digits,
        recipe(epochs=2, checkpoints=1),
        keep=keep,
        weights=torch.ones(len(keep)),
        threat=threat(),
        seed=0,
        fabric=fabric,
        progress=no_progress,
    )
    out = torch.from_numpy(parts[1][1])
    expected = predict(model, digits.train.subset(out), batch_size=64).softmax(1)
    found = validated(digits, 3, fabric)
    assert torch.allclose(found[out], expected, atol=1e-6)
    assert torch.allclose(found.sum(1), torch.ones(len(found)), atol=1e-5)


def test_more_folds_than_samples_of_a_class_are_refused(digits: Dataset, fabric: Fabric) -> None:
    with pytest.raises(InputError, match=r"scorer\.folds=100: expected at most"):
        validated(digits, 100, fabric)
