"""Probing models whose behaviour under attack is known in closed form."""

from __future__ import annotations

import itertools
import math

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from defense.config.choices import AttackName, Norm
from defense.config.schema import Attack, Threat
from defense.data.images import TensorImages
from defense.data.splits import Split
from defense.models.loss import log_odds
from defense.robustness import probe as probes
from defense.robustness.attacks import Attacker, perturb_batch
from defense.robustness.probe import chosen, radii
from defense.robustness.square import tiles
from defense.runtime.progress import no_progress
from defense.runtime.runtime import Runtime
from tests.calls import probe
from tests.conftest import threat

# class 1 where the mean pixel is above a half: how far each sample is from the boundary is known
MEANS = torch.tensor([0.05, 0.2, 0.42, 0.56, 0.7, 0.95, 0.9])
LABELS = torch.tensor([0, 0, 0, 1, 1, 1, 0])  # the last is wrong without attack
SPLIT = Split(torch.arange(7) + 10, TensorImages(MEANS.view(7, 1, 1, 1).repeat(1, 1, 2, 2)), LABELS, LABELS)


class Threshold(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.at = nn.Parameter(torch.tensor(0.5))

    def forward(self, x: Tensor) -> Tensor:
        margin = x.flatten(1).mean(1) - self.at
        return torch.stack([-margin, margin], dim=1)


def run(model: nn.Module, spec: Threat, split: Split = SPLIT, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    return probe(model, split, spec, classes=2, batch_size=4, seed=seed, progress=no_progress)


@pytest.mark.parametrize("norm", list(Norm))
def test_a_linear_model_is_what_theory_says(norm: Norm) -> None:
    eps = {Norm.Linf: 0.1, Norm.L2: 0.2}[norm]  # both move the mean of four pixels by 0.1
    samples, curve = run(Threshold(), threat(norm=norm, eps=eps))
    assert samples["id"].tolist() == SPLIT.ids.tolist()
    room = (MEANS - 0.5).abs()[:6].tolist()
    assert curve["eps"].tolist() == [0, *radii(threat(norm=norm, eps=eps), (1, 2, 2))]
    for radius, accuracy in zip(curve["eps"], curve["accuracy"], strict=True):
        reach = radius if norm is Norm.Linf else radius / 2
        assert accuracy == pytest.approx(100 * sum(distance > reach for distance in room) / 7)
    expected = [True, True, False, False, True, True, False]
    attacks = {"once", "longer", "square", "left"} - ({"square"} if norm is Norm.L2 else set())
    assert attacks < set(samples)
    assert ("square" in samples) == (norm is Norm.Linf)
    for attack in attacks:
        assert samples[attack].tolist() == expected
    assert not samples[["last", "regained"]].to_numpy().any()
    assert samples["distance"][:6].between(0.999, 1.001).all()
    assert samples["distance"][6] == 0  # wrong as it is: nobody attacks it
    assert (samples["lowest"] >= 0).all()
    assert (samples["highest"] <= 1).all()
    # t is twice the margin of the wrong class, and the step moves the mean by an eighth of 0.1, inside the box
    torch.testing.assert_close(torch.tensor(samples["rise"]), torch.full((7,), 2 * 0.1 / 8, dtype=torch.float64))
    signs = torch.where(LABELS == 1, -1.0, 1.0)
    slope = 2 * torch.sigmoid(2 * signs * (MEANS - 0.5)) / 4
    torch.testing.assert_close(torch.tensor(samples["gradient"]), slope)
    assert (samples["drift"] < 1e-6).all()


def test_only_what_stands_is_attacked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sample that is wrong never is; and no larger ball is tried once nothing stands."""
    tried = []
    perturb = probes.perturb

    def counting(attacker: Attacker, split: Split, attack: Attack, runtime: Runtime) -> Tensor:
        tried.append((attack.name, attacker.threat.eps, len(split)))
        return perturb(attacker, split, attack, runtime)

    monkeypatch.setattr(probes, "perturb", counting)
    _, curve = run(Threshold(), threat(eps=0.4))
    assert curve["accuracy"].tolist() == pytest.approx([600 / 7, 300 / 7, 200 / 7, 0, 0, 0, 0])
    names, radius = AttackName, curve["eps"].tolist()
    steps = [(names.pgd, 0.2, 6), (names.pgd, 0.4, 6), (names.pgd, radius[3], 6), (names.pgd, 0.4, 6)]
    assert tried == [*steps, (names.square, 0.4, 2), (names.apgd_t, 0.4, 2)]


def test_three_classes_are_aimed_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """The likeliest three others, or all there are, on what the attacks before have left standing."""
    tried: list[tuple[AttackName, int, int]] = []

    def nothing(attacker: Attacker, split: Split, attack: Attack, runtime: Runtime) -> Tensor:
        tried.append((attack.name, attacker.classes, len(split)))
        return split.images.take(torch.arange(len(split)))

    monkeypatch.setattr(probes, "perturb", nothing)
    for classes in (3, 10):
        head = nn.Linear(4, classes)
        with torch.no_grad():  # always class 0
            head.weight.zero_()
            head.bias.copy_(torch.arange(classes) == 0)
        network = nn.Sequential(nn.Flatten(), head)
        probe(network, SPLIT, threat(eps=0.1), classes=classes, batch_size=4, seed=0, progress=no_progress)
        assert tried[-1] == (AttackName.apgd_t, min(classes, 4), 4)


@pytest.mark.parametrize("norm", list(Norm))
def test_square_is_left_out_exactly_where_it_cannot_run(norm: Norm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("defense.robustness.attacks.tiles", lambda shape, norm: True)  # else it is asked first

    class Standing(Threshold):
        def forward(self, x: Tensor) -> Tensor:
            return torch.tensor([1.0, 0.0]).repeat(len(x), 1)

    shapes = [*((n, n) for n in range(1, 34)), *itertools.product((5, 8, 12), (1, 8, 9, 13))]
    for height, width in shapes:
        x, labels = torch.full((1, 1, height, width), 0.5), torch.zeros(1, dtype=torch.int64)
        purpose = (0, "square", height, width)
        spec = Attack(AttackName.square, queries=12)
        try:
            perturb_batch(Standing(), x, labels, spec, threat(norm=norm), classes=2, purpose=purpose)
            runs = True
        except (RuntimeError, ZeroDivisionError):
            runs = False
        assert tiles((1, height, width), norm) == runs, (height, width)


def test_leaving_the_ball_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The distance is measured here, whatever the attack says of itself."""
    monkeypatch.setattr(
        probes,
        "perturb",
        lambda attacker, split, *_: split.images.take(torch.arange(len(split))) + 1.5 * attacker.threat.eps,
    )
    samples, _ = run(Threshold(), threat(eps=0.1))
    assert samples["distance"][:6].between(1.499, 1.501).all()
    assert samples["highest"][0] == pytest.approx(0.05 + 1.5)


def test_the_model_and_the_generator_come_back_and_the_seed_is_all_chance() -> None:
    class Noisy(Threshold):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x + 0.1 * torch.randn_like(x))

    model = Noisy().train()
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first = run(model, threat(eps=0.1))
    assert torch.equal(torch.rand(1), expected)
    assert model.training
    assert model.at.requires_grad
    assert model.at.grad is None
    for one, other in zip(first, run(model, threat(eps=0.1)), strict=True):
        pd.testing.assert_frame_equal(one, other)
    assert (first[0]["drift"] > 0.01).all()
    assert not first[0].equals(run(model, threat(eps=0.1), seed=1)[0])


def test_radii_end_where_every_picture_is() -> None:
    assert radii(threat(eps=0.1), (1, 8, 8)) == pytest.approx([0.05, *(10 ** (-1 + k / 4) for k in range(5))])
    assert radii(threat(norm=Norm.L2, eps=0.5), (3, 4, 3))[-1] == pytest.approx(6)
    farthest = torch.linalg.vector_norm(torch.ones(3, 4, 3) - torch.zeros(3, 4, 3))
    assert radii(threat(norm=Norm.L2, eps=0.5), (3, 4, 3))[-1] == pytest.approx(float(farthest))
    assert radii(threat(eps=1), (1, 8, 8)) == [0.5, 1]
    assert radii(threat(eps=1 / 255), (1, 8, 8))[1] == 1 / 255


@pytest.mark.parametrize("count", [1, 3, 10, 37, 100, 1000])
def test_every_class_has_its_share(count: int) -> None:
    labels = torch.tensor([0] * 50 + [1] * 30 + [2] * 20)  # in order, as pictures in folders are
    rows = chosen(labels, count, seed=0)
    assert rows.tolist() == sorted(set(rows.tolist()))
    assert len(rows) == min(count, 100)
    for kind, share in enumerate((0.5, 0.3, 0.2)):
        assert abs(int((labels[rows] == kind).sum()) - share * len(rows)) < 1
    assert torch.equal(rows, chosen(labels, count, seed=0))
    if 3 <= count < 100:
        assert not torch.equal(rows, chosen(labels, count, seed=1))


def test_the_loss_that_is_looked_at_does_not_saturate() -> None:
    logits = torch.tensor([[3.0, 1.0, -2.0], [900.0, -900.0, 0.0]])
    labels = torch.tensor([1, 0])
    found = log_odds(logits.double(), labels)
    assert float(found[0]) == pytest.approx(math.log(math.exp(3) + math.exp(-2)) - 1)
    assert float(found[1]) == pytest.approx(-900)
    loss = nn.functional.cross_entropy(logits[:1].double(), labels[:1])
    assert math.log1p(math.exp(float(found[0]))) == pytest.approx(float(loss))
