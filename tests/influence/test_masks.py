"""Along which axis units lie at the input of a masked layer."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from defense.errors import InputError
from defense.influence.masks import draw_masks
from defense.randomness import generator


class Mixer(nn.Module):
    """Pictures (b, C, H, W) as (b, H, W, C), with a linear layer on the last axis, as in Swin."""

    def __init__(self, between: nn.Module | None = None) -> None:
        super().__init__()
        self.mix, self.between, self.head = nn.Linear(6, 5), between or nn.Identity(), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.between(torch.relu(self.mix(x.permute(0, 2, 3, 1))))).mean((1, 2))
        return out


class Signal(nn.Module):
    """Pictures (b, 1, C, T) as a signal (b, C, T) of a 1d convolution."""

    def __init__(self, between: nn.Module | None = None) -> None:
        super().__init__()
        self.first, self.between = nn.Conv1d(5, 7, 3), between or nn.Identity()
        self.second, self.head = nn.Conv1d(7, 4, 3), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.second(self.between(torch.relu(self.first(x.squeeze(1))))).mean(2))
        return out


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.drop, self.head = nn.LayerNorm(9), nn.Dropout(0.1), nn.Linear(9, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.drop(self.norm(x.squeeze(1)))).mean(1)
        return out


class Functional(nn.Module):
    """A layer that is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.layer.weight.T


CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], dict[str, tuple[int, ...]]]] = {
    "linear on four axes": (Mixer, (6, 4, 3), {"mix": (6,), "head": (5,)}),
    "dropout before it": (lambda: Mixer(nn.Dropout(0.1)), (6, 4, 3), {"between": (5,)}),
    "1d convolution": (Signal, (1, 5, 20), {"first": (5, 1), "second": (7, 1), "head": (4,)}),
    "dropout of channels": (lambda: Signal(nn.Dropout1d(0.1)), (1, 5, 20), {"between": (7, 1)}),
    "plain dropout before a 1d convolution": (lambda: Signal(nn.Dropout(0.1)), (1, 5, 20), {"between": (7, 1)}),
    "tokens": (Tokens, (1, 7, 9), {"drop": (9,)}),
    "3d convolution": (
        lambda: nn.Sequential(nn.Unflatten(1, (2, 3)), nn.Conv3d(2, 4, 2), nn.Flatten(), nn.LazyLinear(3)),
        (6, 4, 4),
        {"1": (2, 1, 1, 1), "3": (4 * 2 * 3 * 3,)},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_mask_has_a_number_for_each_unit(name: str) -> None:
    make, shape, expected = CASES[name]
    model, x = make().eval(), torch.rand(2, *shape)
    model(x)
    masks = draw_masks(model, x, 0.5, generator(0, "masks"))
    assert {key: tuple(mask.shape) for key, mask in masks.items()} == expected
    for mask in masks.values():
        assert set(mask.unique().tolist()) <= {0.0, 2.0}


def test_where_nothing_can_be_masked_there_is_no_ensemble() -> None:
    with pytest.raises(InputError, match=r"scorer\.members=dropout: .* nothing to drop"):
        draw_masks(Functional().eval(), torch.rand(2, 1, 2, 4), 0.5, generator(0, "masks"))
