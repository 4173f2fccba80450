from __future__ import annotations

import numpy as np
import pytest
import torch

from defense.config.choices import Direction, ObjectiveName
from defense.config.schema import Objective
from defense.data.images import TensorImages
from defense.data.splits import Dataset
from defense.data.validation import Validation
from defense.models.build import build
from defense.runtime.progress import no_progress
from defense.runtime.runtime import Runtime
from defense.stages.reference import reference
from defense.stages.trained import GivenNetwork
from tests.calls import score
from tests.conftest import scorer


@pytest.mark.parametrize("direction", [Direction.hessian, Direction.ekfac])
def test_it_is_the_score_by_that_direction_at_every_damping(digits: Dataset, direction: Direction) -> None:
    """One damping at a time, by the stage that scores; with an objective of two terms."""
    model = build({"_target_": "defense.models.networks.mlp", "hidden": [4]}, digits, seed=0).eval()
    clean = digits.validation
    moved = TensorImages(1 - clean.images.take(torch.arange(len(clean))))
    validation = Validation(clean, clean.with_images(moved))
    objective = Objective({ObjectiveName.utility: 0.3, ObjectiveName.robustness: 0.7}, positive=1)
    dampings, given, spec = [0.05, 2.0], GivenNetwork(model, 10), scorer(direction=direction)
    found = reference(Runtime(), given, digits.train, validation, objective, spec, dampings=dampings)
    assert found.table["id"].tolist() == digits.train.ids.tolist()
    record = dict(zip(found.record["name"], found.record["value"], strict=True))
    assert 0 < record["2 angle to grad v"] < record["0.05 angle to grad v"] < 180
    for damping in dampings:
        spec = scorer(direction=direction, damping=damping)
        expected = score(model, digits.train, validation, objective, spec, seed=0, progress=no_progress).table[
            "score"
        ]
        own = found.table[f"score.{damping:g}"]
        np.testing.assert_allclose(own, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
