"""Networks as people have them: each is scored as by vmap(grad), attacked, evaluated, and left as it was."""

from __future__ import annotations

import copy
import random
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

import defense
from tests.conftest import make_split
from tests.reference import inner_products

CLASSES, SHAPE = 3, (3, 32, 32)
TRAIN, VALIDATION = make_split(6, CLASSES, SHAPE), make_split(4, CLASSES, SHAPE, seed=1)


def of_torchvision(name: str, **arguments: Any) -> nn.Module:
    return torchvision.models.get_model(name, weights=None, num_classes=CLASSES, **arguments)


def of_timm() -> nn.Module:
    timm = pytest.importorskip("timm")
    model: nn.Module = timm.create_model("resnet10t", pretrained=False, num_classes=CLASSES)
    return model


def small(*middle: nn.Module, width: int = 8) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, width, 3, stride=2), *middle, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(16 * width, 3)
    )


class Dicts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = small(nn.ReLU())

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        logits = self.body(x)
        return {"loss": logits.mean(), "logits": logits, "doubled": 2 * logits}


class Rows(nn.Module):
    """An LSTM over the rows of a picture."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(96, 12, batch_first=True), nn.Linear(12, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.lstm(x.transpose(1, 2).flatten(2))
        logits: Tensor = self.head(states[:, -1])
        return logits


class Tied(nn.Module):
    """Two maps of one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(48, 48), nn.Linear(48, 48), nn.Linear(48, CLASSES)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        pooled = nn.functional.adaptive_avg_pool2d(x, 4).flatten(1)
        logits: Tensor = self.head(self.second(self.first(pooled).tanh()).tanh())
        return logits


def frozen() -> nn.Module:
    model = small(nn.BatchNorm2d(8), nn.ReLU())
    model[0].requires_grad_(False)
    return model


LARGE = {
    "torchvision resnet18": lambda: of_torchvision("resnet18"),
    "torchvision vit_b_16": lambda: of_torchvision("vit_b_16", image_size=32),
    "mobilenet_v3": lambda: of_torchvision("mobilenet_v3_small"),
    "convnext_tiny": lambda: of_torchvision("convnext_tiny"),
    "timm": of_timm,
}
SMALL: dict[str, Callable[[], nn.Module]] = {
    "sequential": lambda: small(nn.BatchNorm2d(8), nn.ReLU()),
    "without batch norm": lambda: small(nn.ReLU()),
    "layer norm": lambda: small(nn.Flatten(2), nn.LayerNorm(225), nn.Unflatten(2, (15, 15)), nn.GELU()),
    "dropout": lambda: small(nn.ReLU(), nn.Dropout2d(0.5)),
    "dict output": Dicts,
    "float64": lambda: small(nn.BatchNorm2d(8), nn.ReLU()).double(),
    "frozen layers": frozen,
    "weight tying": Tied,
    "spectral norm": lambda: nn.Sequential(
        OrderedDict(body=small(nn.ReLU()), head=spectral_norm(nn.Linear(CLASSES, CLASSES)))
    ),
    "LSTM over rows": Rows,
}


def state_of(model: nn.Module) -> dict[str, Any]:
    """Return all that must be left as it was: weights, buffers, modes, flags, hooks and random state."""
    return {
        "state": {name: value.clone() for name, value in model.state_dict().items()},
        "modes": [module.training for module in model.modules()],
        "flags": [(weight.requires_grad, weight.grad) for weight in model.parameters()],
        "hooks": [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()],
        "random": [torch.get_rng_state(), random.getstate()],
    }


class Logits(nn.Module):
    """The reference: the logits alone, of a copy of the network in eval mode."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).eval()

    def forward(self, x: Tensor) -> Tensor:
        output = self.model(x.to(next(self.model.parameters()).dtype))
        logits: Tensor = output["logits"] if isinstance(output, dict) else output
        return logits.float()


def check(make: Callable[[], nn.Module]) -> None:
    """Score, attack and evaluate a network, and compare."""
    torch.manual_seed(0)
    model = make().train()
    before = state_of(model)
    train, validation = ((split.images.pixels, split.labels) for split in (TRAIN, VALIDATION))  # type: ignore[attr-defined]
    scores = torch.as_tensor(np.asarray(defense.score(model, train, validation)))
    reference = Logits(model)
    expected = inner_products(reference, TRAIN, VALIDATION)
    assert float((scores - expected).abs().max()) <= 1e-4 * float(expected.abs().max())
    moved = defense.attack(model, validation, eps=4 / 255)
    assert 0 < float((moved - validation[0]).abs().max()) <= 4 / 255 + 1e-6
    accuracies = defense.evaluate(model, validation, suite="quick", eps=4 / 255)
    right = reference(validation[0]).argmax(1) == validation[1]
    assert accuracies["clean"] == 100 * float(right.double().mean())
    assert accuracies["worst"] <= accuracies["clean"]
    torch.testing.assert_close(state_of(model), before, rtol=0, atol=0)


@pytest.mark.parametrize("name", SMALL)
def test_a_small_network_of_someone_elses(name: str) -> None:
    check(SMALL[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_a_large_network_of_someone_elses(name: str) -> None:
    check(LARGE[name])
