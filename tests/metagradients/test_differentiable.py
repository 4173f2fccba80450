"""Networks that a training cannot be differentiated through are refused, with the reason, and ours are not."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from defense.data.splits import Dataset
from defense.errors import InputError
from defense.metagradients.contract import check_differentiable
from defense.models.build import Design


class Noisy(nn.Sequential):
    """A network that draws noise in training."""

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = super().forward(x)
        return logits + torch.rand(()) if self.training else logits


class Counting(nn.Sequential):
    """A network that counts its batches in training, and looks at the count."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__(*layers)
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.count += 1
        logits: Tensor = super().forward(x)
        return logits / (1 + self.count)


class Remembering(nn.Sequential):
    """A network that counts its batches in Python."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += self.training
        logits: Tensor = super().forward(x)
        return logits / (1 + self.calls)


class Once(torch.autograd.Function):
    """x, with a gradient that has none."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, given: Tensor) -> Tensor:  # type: ignore[override]
        return given


class OnceDifferentiable(nn.Sequential):
    """A network that can be differentiated once."""

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = Once.apply(super().forward(x))
        return logits


class Hidden(nn.Module):
    """A network that can be differentiated once, below a head that begins at zero."""

    def __init__(self) -> None:
        super().__init__()
        self.below, self.head = nn.Linear(64, 12), nn.Linear(12, 10)
        nn.init.zeros_(self.head.weight)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(Once.apply(self.below(x.flatten(1)).tanh()))
        return logits


class Activated(nn.BatchNorm1d):
    """A batch norm with its activation inside."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).relu()


class Aside(nn.Module):
    """A network that uses its batch norm as a holder of statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm, self.head = nn.Linear(64, 12), nn.BatchNorm1d(12), nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        h, n = self.layer(x.flatten(1)), self.norm
        found = F.batch_norm(h, n.running_mean, n.running_var, n.weight, n.bias, training=self.training)
        logits: Tensor = self.head(found)
        return logits


def flat(kind: type[nn.Sequential], *layers: nn.Module) -> nn.Module:
    return kind(nn.Flatten(), nn.Linear(64, 10), *layers)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: flat(Noisy), "draws random numbers in training, as dropout does; expected model.dropout=0"),
        (lambda: flat(nn.Sequential, nn.Dropout(0.1)), "draws random numbers in training"),
        (lambda: flat(Counting), "the buffer count changes in training"),
        (lambda: flat(Remembering), "keeps a state outside its buffers"),
        (lambda: flat(OnceDifferentiable), "OnceDifferentiable cannot be differentiated twice"),
        (Hidden, "Hidden cannot be differentiated twice"),
        (lambda: flat(nn.Sequential, Activated(10)), r"the batch norm 2 has a forward of its own \(Activated\)"),
        (Aside, "the running statistics of norm change outside its own call"),
    ],
)
def test_networks_without_a_derivative_through_training_are_refused(
    digits: Dataset, make: Callable[[], nn.Module], said: str
) -> None:
    torch.manual_seed(0)
    with pytest.raises(InputError, match=f"scorer.method=metagradient: .*{said}"):
        check_differentiable(make(), digits.train)


def test_a_second_derivative_that_torch_has_wrong_is_refused(digits: Dataset) -> None:
    """Of weight norm, in some versions; if a version has it right, it passes."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.utils.parametrizations.weight_norm(nn.Linear(64, 10)))
    v, g = (torch.randn(3, size, dtype=torch.float64, requires_grad=True) for size in (4, 1))
    own = partial(torch._weight_norm, dim=0)
    if torch.autograd.gradgradcheck(own, (v, g), raise_exception=False):
        check_differentiable(model, digits.train)
    else:
        with pytest.raises(InputError, match="cannot be differentiated twice"):
            check_differentiable(model, digits.train)


@pytest.mark.parametrize("name", ["mlp", "cnn", "smooth_cnn", "resnet18"])
def test_our_networks_pass(digits: Dataset, name: str) -> None:
    check_differentiable(Design({"_target_": f"defense.models.networks.{name}"}, digits, 0).build(), digits.train)


def test_batch_norm_is_no_buffer_of_unknown_kind(digits: Dataset) -> None:
    check_differentiable(flat(nn.Sequential, nn.BatchNorm1d(10, momentum=None)), digits.train)
