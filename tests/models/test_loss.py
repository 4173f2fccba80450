"""The cross-entropy and its derivatives where a sample is fitted, against float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import grad, jvp

from defense.models.loss import cross_entropy, log_odds

LABELS = torch.arange(60) % 5


def logits(gap: float) -> Tensor:
    """Return logits (60, 5) whose own class is `gap` above the others, more or less."""
    values = torch.randn(60, 5, generator=torch.Generator().manual_seed(0))
    values[torch.arange(60), LABELS] += gap
    return values


def relative(found: Tensor, exact: Tensor) -> float:
    return float(((found.double() - exact) / exact).abs().max())


def reference(values: Tensor) -> Tensor:
    """Return log(1 + sum_{c != y} exp(z_c - z_y)) in float64, written out."""
    z = values.double()
    odds = [
        sum((z[i, c] - z[i, y]).exp() for c in range(z.shape[1]) if c != y) for i, y in enumerate(LABELS.tolist())
    ]
    return torch.log1p(torch.stack([torch.as_tensor(each) for each in odds]))


@pytest.mark.parametrize("gap", [-30.0, 0.0, 15.0, 20.0, 60.0])
def test_all_digits_are_kept(gap: float) -> None:
    values = logits(gap)
    assert relative(cross_entropy(values, LABELS), reference(values)) < 1e-5
    torch.testing.assert_close(cross_entropy(values.double(), LABELS), reference(values), rtol=1e-12, atol=0)


def test_the_usual_form_loses_them() -> None:
    """Else there would be no need for another."""
    values = logits(20.0)
    assert relative(F.cross_entropy(values, LABELS, reduction="none"), reference(values)) > 0.1


@pytest.mark.parametrize("gap", [0.0, 15.0, 20.0, 60.0])
def test_both_derivatives_keep_them(gap: float) -> None:
    values, way = logits(gap), torch.randn(60, 5, generator=torch.Generator().manual_seed(1))

    def total(z: Tensor) -> Tensor:
        return reference(z).sum()

    z = values.double().requires_grad_()
    (exact,) = torch.autograd.grad(total(z), z)
    forward = jvp(lambda z: cross_entropy(z, LABELS), (values,), (way,))[1]
    size = (exact * way.double()).abs().sum(1)
    assert float(((forward.double() - (exact * way.double()).sum(1)).abs() / size).max()) < 1e-5
    backward = grad(lambda z: cross_entropy(z, LABELS).sum())(values)
    assert relative(backward, exact) < 1e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_widened_before_the_loss(dtype: torch.dtype) -> None:
    values = logits(8.0).to(dtype)
    found = cross_entropy(values, LABELS)
    assert found.dtype is torch.float32
    assert relative(found, reference(values.float())) < 1e-5


def test_log_odds_of_two_classes_is_the_difference() -> None:
    values = torch.tensor([[1.0, 4.0], [2.0, -1.0]])
    assert log_odds(values, torch.tensor([0, 0])).tolist() == [3.0, -3.0]
