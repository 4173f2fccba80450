"""The reverse of a training run beside central differences: the run again, in float64, with one weight changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from defense.config.choices import Norm, ObjectiveName, Recipe
from defense.config.schema import Objective, Threat
from defense.data.images import TensorImages
from defense.data.splits import Dataset, Split
from defense.data.validation import Validation
from defense.errors import InputError
from defense.influence.objectives import objective_value
from defense.metagradients.replay import State, marks, record_states, segments, state_of, take
from defense.metagradients.scores import metagradients
from defense.models.predict import predict
from defense.runtime.runtime import Runtime
from defense.training.inputs import TrainingSet
from defense.training.recipes import Losses
from defense.training.sgd import TrainingRun
from tests.calls import losses_of
from tests.conftest import recipe, threat

COUNT, STEP = 30, 1e-4
ROBUSTNESS = Objective({ObjectiveName.robustness: 1.0}, 1)
WEIGHTS = (0.5 + torch.rand(COUNT, generator=torch.Generator().manual_seed(3))).double()
NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm2d,
    "batch, momentum 0.5": lambda width: nn.BatchNorm2d(width, momentum=0.5),
    "batch, cumulative": lambda width: nn.BatchNorm2d(width, momentum=None),
    "batch, no scale": lambda width: nn.BatchNorm2d(width, affine=False),
    "batch, not tracked": lambda width: nn.BatchNorm2d(width, track_running_stats=False),
    "group": lambda width: nn.GroupNorm(2, width),
}


class Doubles(TensorImages):
    """Pictures in float64."""

    def take(self, indices: Tensor) -> Tensor:
        return super().take(indices).double()

    def subset(self, indices: Tensor) -> Doubles:
        return Doubles(self.pixels[indices])


class Unused(nn.Module):
    """A network with a parameter that its logits do not depend on, and one that is frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.idle, self.fixed = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(1), requires_grad=False)
        self.layers = network("mlp")

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.layers(x) * self.fixed
        return logits


def network(kind: str) -> nn.Module:
    """Return a small smooth network in float64, always the same of one kind."""
    torch.manual_seed(0)
    if kind == "linear":
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).double()
    if kind == "mlp":
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.GELU(), nn.Linear(12, 10)).double()
    if kind == "unused":
        return Unused().double()
    norm = NORMS[kind]
    first = [nn.Conv2d(1, 4, 3, padding=1, bias=False), norm(4), nn.GELU(), nn.AvgPool2d(2)]
    second = [nn.Conv2d(4, 6, 3, padding=1), norm(6), nn.GELU(), nn.AdaptiveAvgPool2d(1)]
    return nn.Sequential(*first, *second, nn.Flatten(), nn.Linear(6, 10)).double()


class Case:
    """A training of a kind of network by a recipe, run as often as asked with other weights of its samples."""

    def __init__(self, digits: Dataset, kind: str, ball: Threat | None = None, **changes: Any) -> None:
        usual: dict[str, Any] = {"epochs": 3, "batch_size": 10, "learning_rate": 0.2, "attack_steps": 3}
        self.kind, self.recipe = kind, recipe(**usual | {"weight_decay": 0.05} | changes)
        self.train, clean = (
            split.subset(torch.arange(size)).with_images(Doubles(split.images.pixels[:size]))
            for split, size in ((digits.train, COUNT), (digits.validation, 60))
        )
        noise = 0.05 * torch.randn(clean.images.pixels.shape, generator=torch.Generator().manual_seed(1))
        moved = clean.with_images(Doubles((clean.images.pixels + noise).clamp(0, 1)))
        self.validation = Validation(with_groups(clean), with_groups(moved))
        self.losses = losses_of(self.recipe, ball or threat(eps=0.1), 10)
        self.recorded: dict[int, Tensor] = {}

    def attack(self, net: nn.Module, x: Tensor, labels: Tensor, seed: int) -> Tensor:
        """Return the pictures that the first run has seen at this step: the attack is held fixed."""
        if seed not in self.recorded:
            moved = self.losses.attack(net, x, labels, seed)
            self.recorded[seed] = x if moved is x else moved.to(x)
        return self.recorded[seed] if self.recipe.recipe is not Recipe.standard else x

    def run(self, weights: Tensor = WEIGHTS) -> TrainingRun:
        samples = TrainingSet(self.train, torch.ones(COUNT, dtype=torch.bool), weights)
        return TrainingRun(
            network(self.kind), samples, self.recipe, Runtime(), Losses(self.attack, self.losses.of), seed=0
        )

    def states(self, epochs: int | None = None) -> dict[int, State]:
        run = self.run()
        return record_states(run, run.steps * (epochs or self.recipe.epochs), Runtime())

    def scores(self, objective: Objective = ROBUSTNESS, epochs: int | None = None) -> Tensor:
        return metagradients(self.run(), self.states(epochs), self.validation, objective, Runtime())[0]

    def difference(self, row: int, objective: Objective = ROBUSTNESS, epochs: int | None = None) -> float:
        """Return -(phi(w_i + h) - phi(w_i - h)) / 2h."""
        found = []
        for sign in (1, -1):
            weights = WEIGHTS.clone()
            weights[row] += sign * STEP
            run = self.run(weights)
            take(run, 0, run.steps * (epochs or self.recipe.epochs))
            parts = {
                "clean": self.validation.clean,
                "adversarial": self.validation.seen_by(ObjectiveName.robustness, attacked=True),
            }
            logits = {name: predict(run.result, split, batch_size=64) for name, split in parts.items()}
            found.append(objective_value(logits, self.validation, objective))
        return -(found[0] - found[1]) / (2 * STEP)

    def agrees(self, objective: Objective = ROBUSTNESS, epochs: int | None = None) -> None:
        scores = self.scores(objective, epochs)
        for row in range(0, COUNT, 7):
            expected = self.difference(row, objective, epochs)
            assert abs(scores[row].item() - expected) < 1e-4 * scores.abs().mean().item()


def with_groups(split: Split) -> Split:
    return Split(split.ids, split.images, split.labels, split.truth, torch.arange(len(split)) % 2)


@pytest.mark.parametrize("kind", ["linear", "mlp", "unused", *NORMS])
def test_networks(digits: Dataset, kind: str) -> None:
    Case(digits, kind).agrees()


OPTIONS: list[Mapping[str, Any]] = [
    {"momentum": 0.0},
    {"weight_decay": 0.0},
    {"batch_size": 7},
    {"ema": 0.5},
    {"crop": 1, "flip": True},
    {"channels_last": True},
]


@pytest.mark.parametrize("changes", OPTIONS, ids=str)
@pytest.mark.parametrize("kind", ["batch", "group"])
def test_options_of_a_recipe(digits: Dataset, kind: str, changes: Mapping[str, Any]) -> None:
    Case(digits, kind, **changes).agrees()


@pytest.mark.parametrize("kind", ["mlp", "batch", "batch, cumulative"])
@pytest.mark.parametrize("name", [Recipe.adversarial, Recipe.fast, Recipe.trades])
def test_recipes_that_attack_with_the_attack_held_fixed(digits: Dataset, name: Recipe, kind: str) -> None:
    case = Case(digits, kind, recipe=name)
    case.agrees()
    first, second, *_ = case.recorded.values()
    assert float((first - second).abs().max()) > 0.01


def test_recipes_in_l2(digits: Dataset) -> None:
    Case(digits, "mlp", threat(norm=Norm.L2, eps=0.5), recipe=Recipe.trades, ema=0.3, crop=1).agrees()


@pytest.mark.parametrize(
    "weights",
    [
        {ObjectiveName.utility: 1.0},
        {ObjectiveName.utility: 0.3, ObjectiveName.robustness: -2.0},
        {ObjectiveName.demographic_parity: 1.0},
        {ObjectiveName.equal_opportunity: 0.5, ObjectiveName.robustness: 0.5},
    ],
    ids=lambda weights: "+".join(map(str, weights)),
)
def test_objectives(digits: Dataset, weights: dict[ObjectiveName, float]) -> None:
    Case(digits, "batch", ema=0.5).agrees(Objective(weights, 1))


def test_an_epoch_that_is_kept_is_the_end(digits: Dataset) -> None:
    Case(digits, "batch", epochs=4).agrees(epochs=2)


def test_samples_that_are_left_out_have_no_score(digits: Dataset) -> None:
    case = Case(digits, "mlp")
    keep = torch.arange(COUNT) % 5 > 0
    run = TrainingRun(
        network("mlp"), TrainingSet(case.train, keep, WEIGHTS), case.recipe, Runtime(), case.losses, seed=0
    )
    states = {0: state_of(run, 0)}
    take(run, 0, run.total)
    states[run.total] = state_of(run, run.total)
    scores, _ = metagradients(run, states, case.validation, ROBUSTNESS, Runtime())
    assert bool((scores[~keep] == 0).all())
    assert bool((scores[keep] != 0).all())


@pytest.mark.parametrize("total", [1, 2, 3, 9, 10, 350])
def test_states_are_about_as_many_as_the_root_of_the_steps(total: int) -> None:
    found = marks(total)
    assert (found[0], found[-1]) == (0, total)
    assert found == sorted(set(found))
    longest = max(stop - start for start, stop in segments(total))
    assert max(len(found) - 1, longest) <= total**0.5 + 1
    assert [stop for _, stop in segments(total)] == found[1:]


def test_a_segment_that_ends_elsewhere_stops_in_one_line(digits: Dataset) -> None:
    case = Case(digits, "mlp")
    states = case.states()
    *_, before, end = states
    own = states[before]
    name = next(name for name, value in own.items() if value.dtype == torch.float64 and value.numel() > 9)
    own[name] = own[name] + 1e-15
    with pytest.raises(InputError, match=rf"steps {before + 1} to {end} of the training end at other bits"):
        metagradients(case.run(), states, case.validation, ROBUSTNESS, Runtime())
