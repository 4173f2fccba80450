"""The lean rule for batch norm, and the order of memory, against torch as it is."""

from __future__ import annotations

import logging

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, jvp

from defense.influence.alignment import forward_derivative
from defense.influence.forward_mode import LeanBatchNorm
from defense.influence.layout import channels_first, channels_last, layout
from defense.influence.members import single
from defense.models.modes import evaluating
from defense.models.networks import cnn
from defense.runtime.progress import no_progress
from tests.calls import directional_derivatives
from tests.conftest import make_split
from tests.reference import inner_products

INPUTS = {
    nn.BatchNorm1d: (5, 3),
    nn.BatchNorm2d: (5, 3, 4, 4),
    nn.BatchNorm3d: (5, 3, 2, 2, 2),
}


def used(norm: nn.Module, x: Tensor) -> nn.Module:
    """Return the layer with statistics and parameters of its own."""
    norm = norm.double()
    norm(x)
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    return norm


@pytest.mark.parametrize("kind", INPUTS)
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_and_its_derivative_are_those_of_torch(
    kind: type[nn.Module], affine: bool, training: bool
) -> None:
    torch.manual_seed(0)
    x, dx = torch.randn(2, *INPUTS[kind], dtype=torch.float64)
    norm = used(kind(3, affine=affine, eps=1e-2), x).train(training)
    values = {name: value.detach() for name, value in norm.named_parameters()}
    tangents = {name: torch.randn_like(value) for name, value in values.items()}

    def function(x: Tensor, values: dict[str, Tensor]) -> Tensor:
        buffers = {name: value.clone() for name, value in norm.named_buffers()}
        return functional_call(norm, buffers | values, (x,))

    expected = jvp(function, (x, values), (dx, tangents))
    with LeanBatchNorm():
        found = jvp(function, (x, values), (dx, tangents))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert F.batch_norm.__module__ == "torch.nn.functional"


class Viewing(nn.Module):
    """As many a network is written: `view` behind a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4 * 36, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.convolution(x)
        return self.head(x.view(x.size(0), -1))


def test_a_network_that_views_memory_keeps_channels_first(caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    model, split = Viewing(), make_split(7, 4, (3, 8, 8))
    member, x = single(model), split.images.take(torch.arange(7))
    with caplog.at_level(logging.INFO), torch.no_grad():
        assert layout(model, member, x) is channels_first
    assert "channels first" in caplog.text
    direction = {name: value.grad for name, value in with_gradients(model, x, split.labels).named_parameters()}
    found = directional_derivatives(model, member, split, direction, batch_size=3, progress=no_progress)  # type: ignore[arg-type]
    torch.testing.assert_close(found, inner_products(model, split, split), rtol=1e-4, atol=1e-6)


def test_a_network_without_convolutions_keeps_channels_first() -> None:
    model, x = nn.Sequential(nn.Flatten(), nn.Linear(48, 4)), torch.rand(5, 3, 4, 4)
    assert layout(model, single(model), x) is channels_first


def with_gradients(model: nn.Module, x: Tensor, labels: Tensor) -> nn.Module:
    F.cross_entropy(model(x), labels).backward()
    return model


@pytest.mark.parametrize("channels", [1, 3])
def test_channels_last_reaches_every_layer(channels: int) -> None:
    torch.manual_seed(0)
    model = cnn(input_shape=(channels, 8, 8), classes=4, mean=[0.5] * channels, std=[0.3] * channels, width=8)
    seen = []
    for part in model.modules():
        if isinstance(part, nn.Conv2d | nn.MaxPool2d):
            part.register_forward_hook(lambda _, inputs, output: seen.append(output.stride()[1]))
    x = torch.rand(5, channels, 8, 8)
    with evaluating(model), torch.no_grad():
        arranged = layout(model, single(model), x)
        seen.clear()
        model(arranged(x))
    assert arranged is channels_last
    assert seen == [1] * 5
    assert torch.equal(arranged(x), x)


def test_the_derivative_alone_leaves_no_hooks() -> None:
    model = cnn(input_shape=(3, 8, 8), classes=4, mean=[0.5] * 3, std=[0.3] * 3, width=8).eval()
    member = single(model)
    with torch.no_grad():
        forward_derivative(model, member, member.parameters, torch.rand(2, 3, 8, 8), torch.tensor([0, 1]))
    assert not any(part._forward_pre_hooks for part in model.modules())
