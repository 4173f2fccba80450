"""Evasion beside its closed form for linear models, and what it does at others."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from defense.models.networks import mlp
from defense.robustness.evasion import evade

X = torch.rand((40, 3, 1, 1), generator=torch.Generator().manual_seed(0))


def linear(seed: int = 1) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(3, 2)).eval()


def gap(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        logits = model(x)
    return logits[:, 1] - logits[:, 0]


def test_a_linear_model_is_crossed_as_the_paper_says() -> None:
    model = linear()
    weight, bias = (value[1] - value[0] for value in model[1].parameters())
    f = X.flatten(1) @ weight + bias
    expected = X.flatten(1) - 1.3 * (f / weight.square().sum())[:, None] * weight
    assert torch.allclose(evade(model, X, ratio=1.3).flatten(1), expected, atol=1e-5)
    assert torch.allclose(gap(model, evade(model, X, ratio=1.3)), -0.3 * f, atol=1e-5)


def test_a_curved_boundary_is_crossed_too() -> None:
    torch.manual_seed(0)
    model = mlp(input_shape=(3, 1, 1), classes=2, mean=[0.5] * 3, std=[0.3] * 3, hidden=(16, 16)).eval()
    with torch.no_grad():
        model[-1].bias[1] += 2 * -gap(model, X).median()  # so that points are on both sides
    before = gap(model, X)
    after = gap(model, evade(model, X, ratio=1.3))
    assert ((before > 0) != (after > 0)).float().mean() > 0.9


def test_no_point_goes_farther_than_the_reach() -> None:
    model = linear()
    free, bounded = evade(model, X, ratio=1.3), evade(model, X, ratio=1.3, reach=0.2)
    far, near = ((moved - X).flatten(1).norm(dim=1) for moved in (free, bounded))
    assert torch.allclose(near, far.clamp_max(0.2), atol=1e-5)
    along = nn.functional.cosine_similarity((free - X).flatten(1), (bounded - X).flatten(1))
    assert torch.allclose(along, torch.ones(len(X)), atol=1e-4)


def test_a_model_without_a_gradient_leaves_points_where_they_are() -> None:
    model = linear()
    with torch.no_grad():
        model[1].weight.zero_()
    assert torch.equal(evade(model, X, ratio=1.3), X)


def test_what_is_not_finite_is_an_error() -> None:
    model = linear()
    with torch.no_grad():
        model[1].weight.fill_(torch.nan)
    with pytest.raises(FloatingPointError, match="not finite"):
        evade(model, X, ratio=1.3)
