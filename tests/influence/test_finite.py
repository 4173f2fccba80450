"""A number that is not finite stops every scorer and names the sample, by id and not by row."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from defense.config.choices import Direction, Method, ObjectiveName
from defense.config.schema import Objective
from defense.data.images import TensorImages
from defense.data.splits import Split
from defense.data.validation import Validation
from defense.influence.members import single
from defense.influence.objectives import value_and_gradient
from defense.influence.scorers import METHODS, ScoringContext
from tests.conftest import make_split, scorer

UTILITY = Objective({ObjectiveName.utility: 1.0}, positive=1)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(9, 6), nn.Tanh(), nn.Linear(6, 3)).eval()


def split(seed: int = 0, broken: tuple[int, ...] = ()) -> Split:
    """Return 20 samples with ids 100, 101, ...; the pictures of `broken` rows are not finite."""
    made = make_split(20, 3, (1, 3, 3), seed=seed)
    pixels = made.images.take(torch.arange(20))
    pixels[list(broken)] = torch.nan
    return replace(made, ids=made.ids + 100, images=TensorImages(pixels))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"cosine": True},
        {"direction": Direction.identity, "precision": "bf16"},
        {"method": Method.self_influence},
        {"method": Method.loss},
        {"method": Method.adversarial_loss},
    ],
    ids=str,
)
@pytest.mark.parametrize("batch_size", [3, None])
def test_every_scorer_names_the_first_training_sample(settings: dict[str, object], batch_size: int | None) -> None:
    train, held_out = split(broken=(13, 7)), split(1)
    spec = scorer(batch_size=batch_size, **settings)
    given = ScoringContext(network(), train, train, Validation(held_out, held_out), UTILITY, spec, 0)
    with pytest.raises(FloatingPointError, match="the score of training sample 107 is not finite"):
        METHODS[spec.method](given)


def objective(held_out: Split, model: nn.Module, function: object = None) -> tuple[float, dict[str, Tensor]]:
    def mean(logits: Tensor, split: Split) -> Tensor:
        return nn.functional.cross_entropy(logits, split.labels)

    return value_and_gradient(model, single(model), held_out, function or mean, batch_size=6)  # type: ignore[arg-type]


def test_an_objective_names_the_first_validation_sample() -> None:
    with pytest.raises(FloatingPointError, match="the prediction of validation sample 104 is not finite"):
        objective(split(broken=(9, 4)), network())


def test_a_loss_that_overflows_names_its_sample() -> None:
    class Huge(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(1.0))

        def forward(self, x: Tensor) -> Tensor:
            large = torch.where(torch.arange(len(x)) % 6 == 2, 3e38, 1.0)
            return self.scale * torch.stack([large, -large, -large], 1)

    with pytest.raises(FloatingPointError, match="the loss of validation sample 102 is not finite"):
        objective(split(), Huge())


def test_a_gradient_that_is_not_finite_is_said_where_every_loss_is() -> None:
    def root(logits: Tensor, split: Split) -> Tensor:
        return (logits.sum() * 0).abs().sqrt()  # 0, with an infinite derivative

    with pytest.raises(FloatingPointError, match="the gradient of the objective is not finite"):
        objective(split(), network(), root)
