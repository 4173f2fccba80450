from __future__ import annotations

import pytest
import torch
from torch import nn

from defense.data.splits import Dataset
from defense.errors import InputError
from defense.models.build import build

MLP = {"_target_": "defense.models.networks.mlp", "hidden": [8]}


class Own(nn.Module):
    """A user's network: it asks for the number of classes alone."""

    def __init__(self, classes: int, width: int = 4) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.Linear(width, classes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


class Narrow(Own):
    def __init__(self) -> None:
        super().__init__(classes=3)


def pairs() -> nn.Module:
    class Pair(Own):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return {"a": self.layers(x), "b": self.layers(x)}  # type: ignore[return-value]

    return Pair(classes=10)


def test_the_seed_makes_the_weights_and_nothing_else_does(digits: Dataset) -> None:
    torch.manual_seed(1)
    first = build(MLP, digits, seed=0)
    torch.manual_seed(2)
    again, other = build(MLP, digits, seed=0), build(MLP, digits, seed=1)
    assert first.training
    assert torch.equal(first[2].weight, again[2].weight)
    assert not torch.equal(first[2].weight, other[2].weight)


def test_statistics_of_the_training_pixels(digits: Dataset) -> None:
    pixels = digits.train.images.take(torch.arange(len(digits.train)))
    model = build(MLP, digits, seed=0)
    assert float(model[0].mean) == pytest.approx(float(pixels.mean()), rel=1e-5)
    assert float(model[0].std) == pytest.approx(float(pixels.std(correction=0)), rel=1e-5)


def test_a_users_own_network(digits: Dataset) -> None:
    model = build({"_target_": "tests.models.test_build.Own", "width": 5}, digits, seed=0)
    assert model.layers[1].out_features == 5
    assert model.layers[2].out_features == 10


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"_target_": "no.such.place"}, "model._target_=no.such.place: cannot be imported"),
        ({"_target_": "defense.models.networks.vgg"}, "cannot be imported"),
        ({"_target_": "defense.models.networks.math"}, "expected a class or a function"),
        ({**MLP, "widht": 3}, "unexpected keyword argument 'widht'"),
        ({"_target_": "tests.models.test_build.Narrow"}, r"gives \(8, 3\) for 8 pictures; expected \(8, 10\)"),
        ({"_target_": "tests.models.test_build.pairs"}, "gives a dict of a, b; expected logits"),
        ({"_target_": "types.SimpleNamespace"}, "no signature found"),
        ({"_target_": "fractions.Fraction"}, "made a Fraction; expected a torch.nn.Module"),
        ({"_target_": "torch.nn.Identity"}, r"gives \(8, 1, 8, 8\) of torch.float32 for 8 pictures"),
        (
            {"_target_": "torch.nn.Linear", "in_features": 3, "out_features": 10},
            "fails on pictures of shape 1x8x8",
        ),
    ],
)
def test_a_model_that_does_not_fit(digits: Dataset, settings: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        build(settings, digits, seed=0)
    assert "\n" not in str(caught.value)


class Lazy(nn.Module):
    """Draws its weights in the first forward pass; `late`: in the first of training."""

    def __init__(self, classes: int, late: bool = False) -> None:
        super().__init__()
        self.head: nn.Module | None = None
        self.body, self.classes, self.late = nn.LazyLinear(6), classes, late

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.head is None and (self.training or not self.late):
            self.head = nn.Linear(6, self.classes)
        h = torch.relu(self.body(x.flatten(1)))
        return self.head(h) if self.head is not None else h @ torch.ones(6, self.classes)


@pytest.mark.parametrize("late", [False, True])
def test_weights_drawn_in_the_first_forward_pass_come_from_the_seed(digits: Dataset, late: bool) -> None:
    spec = {"_target_": "tests.models.test_build.Lazy", "late": late}
    torch.manual_seed(1)
    first = build(spec, digits, seed=0)
    torch.manual_seed(2)
    again, other = build(spec, digits, seed=0), build(spec, digits, seed=1)
    assert set(first.state_dict()) == {"body.weight", "body.bias", "head.weight", "head.bias"}
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
        assert not torch.equal(value, other.state_dict()[name])


class Auxiliary(Own):
    """Two outputs in training, as GoogLeNet has."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.layers(x), self.layers(x)) if self.training else self.layers(x)  # type: ignore[return-value]


class Soft(Own):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x).softmax(1)


@pytest.mark.parametrize(
    ("name", "said"),
    [("Auxiliary", "gives a tuple in training; expected logits"), ("Soft", "gives probabilities")],
)
def test_networks_of_other_habits_are_refused_before_any_training(digits: Dataset, name: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        build({"_target_": f"tests.models.test_build.{name}"}, digits, seed=0)


def test_looking_at_a_network_in_training_leaves_its_statistics_alone(digits: Dataset) -> None:
    model = build({"_target_": "defense.models.networks.cnn", "width": 4}, digits, seed=0)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert all(not norm.running_mean.any() and int(norm.num_batches_tracked) == 0 for norm in norms)


def test_a_wrapped_network_is_built_without_its_wrapper(digits: Dataset) -> None:
    model = build({"_target_": "tests.models.test_build.wrapped"}, digits, seed=0)
    assert type(model).__name__ == "Own"


def wrapped() -> nn.Module:
    return nn.DataParallel(Own(classes=10))
