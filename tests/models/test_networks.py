from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, jvp

from defense.config.compose import composed
from defense.data.splits import Dataset
from defense.errors import InputError
from defense.models.build import build
from defense.models.networks import cnn, mlp, resnet18, resnet34, smooth_cnn

PICTURES = {"input_shape": (1, 8, 8), "classes": 10, "mean": [0.3], "std": [0.4]}
SMALL = {"cnn": {"width": 8}, "smooth_cnn": {"width": 8}, "mlp": {"hidden": [32]}, "smooth_mlp": {"hidden": [32]}}


def named(model: str, **changes: Any) -> dict[str, Any]:
    """Return the settings of a model in conf/model, with changes."""
    return composed(f"model={model}").model | changes


@pytest.mark.parametrize("builder", [mlp, cnn, smooth_cnn, resnet18, resnet34])
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


def test_a_default_mlp_is_linear_maps_with_relu_between() -> None:
    torch.manual_seed(3)
    model = mlp(**PICTURES, hidden=[16, 8])
    torch.manual_seed(3)
    known = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 10)
    )
    weights = [value for name, value in model.state_dict().items() if name not in ("0.mean", "0.std")]
    assert len(weights) == len(known.state_dict())
    assert all(map(torch.equal, weights, known.state_dict().values()))
    x = torch.rand(5, 1, 8, 8)
    assert torch.equal(model(x), known((x - 0.3) / 0.4))


def test_gelu_normalised_and_scaled() -> None:
    """The smooth multilayer perceptron of one hidden layer, by hand."""
    torch.manual_seed(3)
    model = mlp(**PICTURES, hidden=[16], activation="gelu", norm=True, scale=0.1)
    torch.manual_seed(3)
    first, head = nn.Linear(64, 16), nn.Linear(16, 10)
    x = torch.rand(5, 1, 8, 8)
    h = first(((x - 0.3) / 0.4).flatten(1))
    h = (h - h.mean(1, keepdim=True)) / (h.var(1, correction=0, keepdim=True) + 1e-5).sqrt()
    h = h * (1 + torch.erf(h / math.sqrt(2))) / 2
    torch.testing.assert_close(model(x), head(h) / 10, rtol=1e-4, atol=1e-6)


def test_a_smooth_network_has_smooth_parts_alone(digits: Dataset) -> None:
    for name, norms in {"smooth_cnn": [nn.GroupNorm] * 3, "smooth_mlp": [nn.LayerNorm]}.items():
        model = build(named(name), digits, seed=0)
        parts = [module for module in model.modules() if not list(module.children())]
        kinds = [type(part) for part in parts]
        assert not {nn.ReLU, nn.MaxPool2d, nn.BatchNorm2d} & set(kinds)
        before = [kinds[place - 1] for place, kind in enumerate(kinds) if kind is nn.GELU]
        assert before == norms
    kinds = [type(part) for part in build(named("smooth_cnn"), digits, seed=0).modules()]
    assert kinds.count(nn.AvgPool2d) == 2


@pytest.mark.parametrize("model", ["smooth_cnn", "smooth_mlp"])
def test_logits_are_scaled_down(digits: Dataset, model: str) -> None:
    x = digits.train.images.take(torch.arange(20))
    small, large = (build(named(model, scale=scale), digits, seed=0)(x) for scale in (0.1, 2.0))
    torch.testing.assert_close(20 * small, large)


def differences(model: nn.Module) -> tuple[Tensor, Tensor]:
    """Return derivatives of the loss along 6 directions of the parameters, exact and by h = 1e-2, in float64."""
    chance = torch.Generator().manual_seed(0)
    x = torch.rand((32, 1, 8, 8), generator=chance, dtype=torch.float64)
    labels = torch.randint(0, 10, (32,), generator=chance)
    weights = {name: value.detach() for name, value in model.double().eval().named_parameters()}

    def along(direction: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        def loss(step: Tensor) -> Tensor:
            moved = {name: value + step * direction[name] for name, value in weights.items()}
            return F.cross_entropy(functional_call(model, moved, (x,)), labels)

        zero, step = torch.zeros((), dtype=torch.float64), torch.tensor(1e-2, dtype=torch.float64)
        exact = jvp(loss, (zero,), (torch.ones_like(zero),))[1]
        return exact, (loss(step) - loss(-step)) / (2 * step)

    def direction() -> dict[str, Tensor]:
        drawn = {
            name: torch.randn(value.shape, generator=chance, dtype=torch.float64)
            for name, value in weights.items()
        }
        return {name: value * weights[name].norm() / value.norm() for name, value in drawn.items()}

    pairs = [along(direction()) for _ in range(6)]
    return torch.stack([exact for exact, _ in pairs]), torch.stack([central for _, central in pairs])


@pytest.mark.parametrize("model", SMALL)
def test_finite_differences_agree_where_a_network_is_smooth(digits: Dataset, model: str) -> None:
    """Kinks of ReLU and of the maximum leave an error of first order in the step."""
    exact, central = differences(build(named(model, **SMALL[model]), digits, seed=0))
    error = float((central - exact).norm() / exact.norm())
    assert error < 3e-3 if model.startswith("smooth") else error > 1e-2


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (named("mlp", activation="swish"), "model.activation=swish: expected one of relu, gelu"),
        (named("smooth_cnn", width=12), "model.groups=8: expected a divisor of model.width, 12"),
        (named("smooth_cnn", groups=0), "model.groups=0: expected a divisor of model.width, 32"),
        (named("smooth_cnn", scale=0), "model.scale=0: expected a number above 0"),
        (named("mlp", scale=-1), "model.scale=-1: expected a number above 0"),
    ],
)
def test_bad_arguments_are_one_line(digits: Dataset, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as caught:
        build(settings, digits, seed=0)
    assert str(caught.value) == said
