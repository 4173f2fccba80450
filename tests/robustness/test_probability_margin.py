"""The probability margin attack: its directions, its schedule, and samples whose fate is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from defense.config.choices import AttackName, Norm
from defense.config.schema import Attack
from defense.data.images import TensorImages
from defense.data.splits import Split
from defense.robustness import probability_margin
from defense.robustness.probability_margin import away_from_label, margin_attack, margin_slope, toward_runner_up
from defense.runtime.progress import no_progress
from tests.calls import perturb
from tests.conftest import threat


class Linear(nn.Module):
    """Two classes, logits -+ scale * w.(x - 1/2); counts the pictures that it is shown."""

    def __init__(self, pixels: int, scale: float = 1) -> None:
        super().__init__()
        self.w, self.scale = torch.linspace(-1, 2, pixels), scale
        self.shown: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.shown.append(len(x))
        along = self.scale * ((x.flatten(1) - 0.5) @ self.w)
        return torch.stack([-along, along], dim=1)


def by_autograd(logits: Tensor, labels: Tensor, slope: object) -> Tensor:
    """Return the gradient of a term of the margin by the logits, over 1 - p_y."""
    logits = logits.double().requires_grad_()
    p = logits.softmax(1)
    own = p.gather(1, labels[:, None]).squeeze(1)
    most = p.scatter(1, labels[:, None], -1).amax(1)
    term = {away_from_label: -own, toward_runner_up: most, margin_slope: most - own}[slope]  # type: ignore[index]
    (found,) = torch.autograd.grad(term.sum(), logits)
    return found / (1 - own).detach()[:, None]


@pytest.mark.parametrize("slope", [away_from_label, toward_runner_up, margin_slope])
@pytest.mark.parametrize("classes", [2, 3, 10])
def test_directions_are_gradients_of_probabilities(slope: object, classes: int) -> None:
    torch.manual_seed(0)
    logits, labels = 2 * torch.randn(20, classes), torch.randint(classes, (20,))
    found = slope(logits, labels)  # type: ignore[operator]
    torch.testing.assert_close(found, by_autograd(logits, labels, slope).float(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("slope", [away_from_label, toward_runner_up, margin_slope])
def test_a_sure_model_still_has_directions(slope: object) -> None:
    """float32 knows no 1 - p_y below 6e-8, and no p_m below 1e-45."""
    logits = torch.tensor([[200.0, 1, 2, 0], [30.0, 0, 0, 1]])
    p = logits.softmax(1)
    assert p[:, 0].tolist() == [1, 1]
    q = logits[:, 1:].double().softmax(1)
    away = torch.cat([-torch.ones(2, 1), q], dim=1)
    toward = torch.zeros(2, 4, dtype=torch.float64)
    most = q.amax(1)
    toward[:, 0], toward[[0, 1], [2, 3]] = -most, most
    expected = {away_from_label: away, toward_runner_up: toward, margin_slope: away + toward}[slope]  # type: ignore[index]
    found = slope(logits, torch.zeros(2, dtype=torch.int64))  # type: ignore[operator]
    torch.testing.assert_close(found, expected.float(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scale", [1, 1000])
@pytest.mark.parametrize("norm", list(Norm))
def test_what_is_nearer_than_eps_falls_however_sure_the_model_is(norm: Norm, scale: float) -> None:
    model = Linear(16, scale)
    reach = {Norm.Linf: model.w.abs().sum(), Norm.L2: model.w.norm()}[
        norm
    ]  # of a step of length 1 along the gradient
    part = torch.tensor([0.5, 0.9, 0.98, 1.02, 1.5])  # of the way that eps = 0.1 allows
    signs = torch.tensor([1.0, -1, 1, -1, 1])
    x = 0.5 + (0.1 * part * signs * reach)[:, None] * model.w / model.w.square().sum()
    labels = (signs > 0).long()
    split = Split(torch.arange(5), TensorImages(x.view(5, 1, 4, 4)), labels, labels)
    spec = Attack(AttackName.pma, steps=40)
    common = {"classes": 2, "batch_size": 5, "seed": 0, "progress": no_progress}
    moved = perturb(model, split, spec, threat(norm=norm, eps=0.1), **common)
    assert (model(moved).argmax(1) == labels).tolist() == [False, False, False, True, True]


def test_terms_and_steps_of_both_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    schedules = []

    def note(model: nn.Module, x: Tensor, labels: Tensor, within: object, schedule: list, *rest: Tensor) -> Tensor:
        schedules.append(schedule)
        return rest[0]

    monkeypatch.setattr(probability_margin, "climb", note)
    margin_attack(Linear(4), torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 0]), threat(eps=0.1), steps=5)
    assert [[slope for slope, _ in each] for each in schedules] == [
        [away_from_label] * 2 + [margin_slope] * 3,
        [toward_runner_up] * 2 + [margin_slope] * 3,
    ]
    lengths = [2, 1, 2, 1 + math.cos(math.pi / 3), 1 + math.cos(2 * math.pi / 3)]
    assert all([length for _, length in each] == pytest.approx(lengths) for each in schedules)


def test_a_broken_sample_is_left_alone_and_the_others_end_at_the_edge() -> None:
    model = Linear(1)
    x, labels = torch.tensor([0.52, 0.9, 0.95]).view(3, 1, 1, 1), torch.tensor([1, 1, 1])
    model.w = torch.ones(1)
    torch.manual_seed(0)
    moved = margin_attack(model, x, labels, threat(eps=0.1), steps=6)
    assert float(moved[0]) < 0.5
    assert moved[1:].flatten().tolist() == pytest.approx([0.8, 0.85], abs=1e-6)
    assert model.shown[0] == 3  # the first look, at all
    assert model.shown[-1] == 2  # the last, at what stands
    assert model.shown == sorted(model.shown, reverse=True)


def test_nothing_to_attack() -> None:
    x = torch.full((2, 1, 2, 2), 0.9)
    labels = (Linear(4)(x).argmax(1) + 1) % 2  # wrong as they are
    moved = margin_attack(Linear(4), x, labels, threat(eps=0.01), steps=2)
    assert (Linear(4)(moved).argmax(1) != labels).all()
