from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from defense.models.networks import cnn, mlp, resnet18, resnet34


@pytest.mark.parametrize("builder", [mlp, cnn, resnet18, resnet34])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32)])
def test_logits_of_any_shape_with_a_dropout_slot(
    builder: Callable[..., nn.Module], shape: tuple[int, int, int]
) -> None:
    model = builder(input_shape=shape, classes=5, mean=[0.5] * shape[0], std=[0.2] * shape[0], dropout=0.3)
    assert model.eval()(torch.rand(2, *shape)).shape == (2, 5)
    assert [m.p for m in model.modules() if isinstance(m, nn.Dropout)].count(0.3) >= 1


def test_normalisation_is_inside() -> None:
    model = mlp(input_shape=(2, 1, 1), classes=2, mean=[0.5, 0.25], std=[0.5, 0.1])
    normalised = model[0](torch.tensor([[1.0, 0.35], [0.5, 0.25]]).view(2, 2, 1, 1)).flatten(1)
    torch.testing.assert_close(normalised, torch.tensor([[1.0, 1.0], [0.0, 0.0]]))
