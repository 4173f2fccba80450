"""The one Jacobian-vector product against vmap(grad), finite differences, and descent itself."""

from __future__ import annotations

import logging
from functools import partial

import pytest
import torch
from torch import nn
from torchvision.models import VisionTransformer

from defense.data.images import TensorImages
from defense.data.splits import Split
from defense.influence.alignment import losses_at
from defense.influence.members import single
from defense.influence.objectives import mean_loss, value_and_gradient
from defense.models.networks import cnn, mlp, resnet18, smooth_cnn
from defense.runtime.progress import no_progress
from tests.calls import directional_derivatives
from tests.conftest import make_split
from tests.reference import inner_products

MODELS = {"mlp": mlp, "cnn": cnn, "smooth_cnn": smooth_cnn, "resnet18": resnet18}


class Doubles(TensorImages):
    """Pictures that come in float64."""

    def take(self, indices: torch.Tensor) -> torch.Tensor:
        return super().take(indices).double()


def trained_a_little(name: str, shape: tuple[int, int, int]) -> nn.Module:
    """Return a network whose batch norms have statistics of their own, in eval mode."""
    torch.manual_seed(0)
    model = MODELS[name](input_shape=shape, classes=4, mean=[0.5] * shape[0], std=[0.3] * shape[0])
    with torch.no_grad():
        for _ in range(3):
            model(torch.rand(32, *shape))
    return model.eval()


def gradient(model: nn.Module, split: Split, batch_size: int) -> tuple[float, dict[str, torch.Tensor]]:
    function = partial(mean_loss, positive=0)
    return value_and_gradient(model, single(model), split, function, batch_size=batch_size)


def scores(model: nn.Module, train: Split, validation: Split, batch_size: int) -> torch.Tensor:
    _, direction = gradient(model, validation, batch_size)
    return directional_derivatives(
        model, single(model), train, direction, batch_size=batch_size, progress=no_progress
    )


@pytest.mark.parametrize("name", ["mlp", "cnn", "smooth_cnn", pytest.param("resnet18", marks=pytest.mark.slow)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-9)])
def test_equals_per_sample_gradients(name: str, dtype: torch.dtype, tolerance: float) -> None:
    shape = (3, 8, 8)
    model = trained_a_little(name, shape).to(dtype)
    train, validation = make_split(7, 4, shape), make_split(5, 4, shape, seed=1)
    if dtype is torch.float64:
        train, validation = (s.with_images(Doubles(s.images.pixels)) for s in (train, validation))
    expected = inner_products(model, train, validation)
    found = scores(model, train, validation, batch_size=3)
    assert found.dtype == dtype
    assert float((found - expected).norm() / expected.norm()) < tolerance
    # sample by sample too, relative to the size of a typical score
    assert float((found - expected).abs().max() / expected.abs().max()) < tolerance


def test_equals_a_finite_difference() -> None:
    shape = (1, 8, 8)
    model = trained_a_little("mlp", shape).double()
    train, validation = make_split(6, 4, shape), make_split(6, 4, shape, seed=1)
    train, validation = (s.with_images(Doubles(s.images.pixels)) for s in (train, validation))
    _, direction = gradient(model, validation, 6)
    step, member = 1e-6, single(model)
    x = train.images.take(torch.arange(6))
    moved = [
        losses_at(
            model,
            member,
            {k: v + sign * step * direction[k] for k, v in member.parameters.items()},
            x,
            train.labels,
        )
        for sign in (1, -1)
    ]
    expected = (moved[0] - moved[1]) / (2 * step)
    torch.testing.assert_close(scores(model, train, validation, 4), expected.detach(), rtol=1e-6, atol=1e-8)


def test_positive_helps() -> None:
    """A descent step on the sample of the highest score lowers the objective, of the lowest raises it."""
    shape = (1, 8, 8)
    model = trained_a_little("mlp", shape)
    train, validation = make_split(40, 4, shape), make_split(20, 4, shape, seed=1)
    found = scores(model, train, validation, 16)
    before, _ = gradient(model, validation, 20)
    changes = []
    for row in (int(found.argmax()), int(found.argmin())):
        state = {name: value.clone() for name, value in model.state_dict().items()}
        _, own = gradient(model, train.subset(torch.tensor([row])), 1)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter -= 1e-3 * own[name]
        changes.append(gradient(model, validation, 20)[0] - before)
        model.load_state_dict(state)
    assert changes[0] < 0 < changes[1]


def test_batches_do_not_matter_and_the_model_comes_back() -> None:
    shape = (1, 8, 8)
    model = trained_a_little("cnn", shape).train()
    model.dropout.eval()
    train, validation = make_split(20, 4, shape), make_split(11, 4, shape, seed=1)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    torch.testing.assert_close(
        scores(model, train, validation, 3), scores(model, train, validation, 20), rtol=1e-4, atol=1e-6
    )
    assert [module.training for module in model.modules()] == modes
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name])


def test_a_score_that_is_not_finite_names_the_sample() -> None:
    shape = (1, 8, 8)
    model = trained_a_little("mlp", shape)
    train, validation = make_split(10, 4, shape), make_split(8, 4, shape, seed=1)
    train.images.pixels[7] = torch.inf
    with pytest.raises(FloatingPointError, match="training sample 7 is not finite"):
        scores(model, train, validation, 4)


def test_a_user_asking_for_gradients_nowhere_else_is_not_disturbed() -> None:
    """Frozen parameters take no part, as in training."""
    shape = (1, 8, 8)
    model = trained_a_little("mlp", shape)
    model[2].weight.requires_grad_(False)
    _, direction = gradient(model, make_split(8, 4, shape), 8)
    assert "2.weight" not in direction
    assert "2.bias" in direction


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_transformer(dtype: torch.dtype) -> None:
    """Attention goes through its plain operations: the fused kernels have no forward mode."""
    torch.manual_seed(0)
    shape = (3, 8, 8)
    model = VisionTransformer(8, 4, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=4).to(dtype)
    torch.nn.init.normal_(model.heads.head.weight, std=0.1)  # its default of zero stops every gradient below
    train, validation = make_split(7, 4, shape), make_split(5, 4, shape, seed=1)
    if dtype is torch.float64:
        train, validation = (s.with_images(Doubles(s.images.pixels)) for s in (train, validation))
    expected = inner_products(model, train, validation)
    found = scores(model, train, validation, 3)
    tolerance = {torch.float32: 1e-4, torch.float64: 1e-9}[dtype]
    assert float((found - expected).abs().max() / expected.abs().max()) < tolerance


class NoForwardMode(torch.autograd.Function):
    """Squares, with a backward rule alone."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: torch.Tensor) -> torch.Tensor:
        return x**2

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, grad: torch.Tensor) -> torch.Tensor:  # type: ignore[no-untyped-def]
        return 2 * ctx.saved_tensors[0] * grad


class Squares(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return NoForwardMode.apply(x)


def test_an_operator_without_forward_mode_falls_back_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), Squares(), nn.Linear(8, 4)).eval()
    train, validation = make_split(7, 4, (1, 8, 8)), make_split(5, 4, (1, 8, 8), seed=1)
    with caplog.at_level(logging.WARNING):
        found = scores(model, train, validation, 3)
    assert caplog.text.count("gradients per sample instead") == 1
    torch.testing.assert_close(found, inner_products(model, train, validation), rtol=1e-4, atol=1e-6)
