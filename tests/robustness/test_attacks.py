from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from defense.config.choices import AttackName, Norm
from defense.config.schema import Attack, Threat
from defense.data.images import TensorImages
from defense.data.splits import Split
from defense.errors import InputError
from defense.models.networks import cnn
from defense.robustness.aiming import at_each_target, margin, margin_ratio
from defense.robustness.attacks import check_inside
from defense.runtime.progress import no_progress
from tests.calls import perturb
from tests.conftest import make_split
from tests.conftest import threat as default_threat

FGSM = Attack(name=AttackName.fgsm, steps=1, random_start=False)
PGD = Attack(name=AttackName.pgd, steps=5)
AUTO = Attack(name=AttackName.autoattack, steps=3, queries=20)
ALL = [
    FGSM,
    PGD,
    *(Attack(name=name, steps=3, queries=20) for name in AttackName if name.value not in ("fgsm", "pgd", "own")),
    Attack(name=AttackName.own, _target_="my_parts.ascent"),
]


def attacked(
    model: nn.Module, split: Split, attack: Attack, threat: Threat, *, classes: int = 4, seed: int = 0
) -> torch.Tensor:
    return perturb(model, split, attack, threat, classes=classes, batch_size=16, seed=seed, progress=no_progress)


def network(classes: int = 4) -> nn.Module:
    torch.manual_seed(0)
    return cnn(input_shape=(1, 8, 8), classes=classes, mean=[0.5], std=[0.3], width=4)


@pytest.mark.parametrize("norm", list(Norm))
@pytest.mark.parametrize("attack", ALL, ids=lambda attack: str(attack.name))
def test_inside_seeded_and_harmless(attack: Attack, norm: Norm) -> None:
    model, split = network().train(), make_split(24, 4, (1, 8, 8))
    model.dropout.eval()
    modes = [module.training for module in model.modules()]
    threat = default_threat(norm=norm, eps=0.3)
    torch.manual_seed(3)
    expected_next = torch.rand(1)
    torch.manual_seed(3)
    first = attacked(model, split, attack, threat)
    assert torch.equal(torch.rand(1), expected_next)
    assert [module.training for module in model.modules()] == modes
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert torch.equal(first, attacked(model, split, attack, threat))
    clean = split.images.take(torch.arange(24))
    order = {Norm.Linf: math.inf, Norm.L2: 2}[norm]
    assert float(torch.linalg.vector_norm((first - clean).flatten(1), ord=order, dim=1).max()) <= 0.3 + 1e-5
    assert float(first.min()) >= 0
    assert float(first.max()) <= 1
    if attack is PGD:
        assert not torch.equal(first, attacked(model, split, attack, threat, seed=1))


@pytest.mark.parametrize("norm", list(Norm))
def test_pgd_finds_the_optimum_on_a_linear_model(norm: Norm) -> None:
    """Two classes, logits +-w.x: the strongest attack is known in closed form where the box does not bind."""
    torch.manual_seed(0)
    w = torch.randn(16)

    class Linear(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(w.clone())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            margin = (x.flatten(1) - 0.5) @ self.w
            return torch.stack([-margin, margin], dim=1)

    x = 0.5 + 0.1 * (torch.rand(12, 1, 4, 4) - 0.5)
    labels = torch.arange(12) % 2
    split = Split(torch.arange(12), TensorImages(x), labels, labels)
    best = attacked(
        Linear(), split, Attack(name=AttackName.pgd, steps=40), default_threat(norm=norm, eps=0.1), classes=2
    )
    step = {Norm.Linf: w.sign() * 0.1, Norm.L2: w / w.norm() * 0.1}[norm].view(1, 4, 4)
    reached = ((best - x).flatten(1) @ w) * (1 - 2 * labels)
    optimum = float(step.flatten() @ w)
    assert float(reached.max()) <= optimum * (1 + 1e-5)
    assert float(reached.min()) > 0.97 * optimum  # 2.5 eps of way in all, with a random start


@pytest.mark.parametrize("classes", [2, 3, 4, 10])
def test_autoattack_runs_for_any_number_of_classes_and_is_at_least_as_strong_as_fgsm(classes: int) -> None:
    model, split = network(classes), make_split(12, classes, (1, 8, 8))
    labels = model.eval()(split.images.take(torch.arange(12))).argmax(1)
    split = Split(split.ids, split.images, labels, labels)  # right on every sample without attack
    threat = default_threat(eps=0.02)
    standing = [
        int((model(attacked(model, split, attack, threat, classes=classes)).argmax(1) == labels).sum())
        for attack in (FGSM, AUTO)
    ]
    assert standing[1] <= standing[0] <= 12


def test_margins_by_a_loop() -> None:
    torch.manual_seed(0)
    logits, labels, targets = torch.randn(7, 5), torch.arange(7) % 5, (torch.arange(7) + 2) % 5
    found, ratio = margin(logits, labels, targets=targets), margin_ratio(logits, labels, targets=targets)
    for row in range(7):
        high = sorted(logits[row].tolist(), reverse=True)
        own = logits[row, targets[row]] - logits[row, labels[row]]
        assert float(found[row]) == pytest.approx(float(own), rel=1e-6)
        assert float(ratio[row]) == pytest.approx(float(own) / (high[0] - (high[2] + high[3]) / 2), rel=1e-5)
    torch.testing.assert_close(margin_ratio(1000 * logits, labels, targets=targets), ratio)


def test_targets_are_tried_from_the_likeliest_on_until_one_succeeds() -> None:
    """A model that shows its pixels as logits; an attack that succeeds toward one class of each sample alone."""
    x = torch.tensor([[9.0, 5, 4, 3], [9.0, 1, 5, 4], [9.0, 6, 4, 5]]).view(3, 4, 1, 1)
    gives_way_to = {5.0: 1, 1.0: 3, 6.0: 9}  # by the second pixel; the last sample gives way to none
    tried: list[tuple[float, int]] = []

    def attack(x: torch.Tensor, labels: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        moved = x.clone()
        for row, target in enumerate(targets.tolist()):
            sample = float(x[row, 1])
            tried.append((sample, target))
            if target == gives_way_to[sample]:
                moved[row, target] = 10
        return moved

    out = at_each_target(nn.Flatten(), attack, 3, x, torch.zeros(3, dtype=torch.int64))
    # three pairs at a time: the likeliest of each, then what is left of those that stand
    assert tried == [(5.0, 1), (1.0, 2), (6.0, 1), (1.0, 3), (6.0, 3), (1.0, 1), (6.0, 2)]
    assert out.flatten(1).argmax(1).tolist() == [1, 3, 0]
    assert torch.equal(out[2], x[2])


@pytest.mark.parametrize("norm", list(Norm))
@pytest.mark.parametrize("name", [AttackName.cw, AttackName.deepfool])
def test_smallest_perturbations_are_found_and_held_in_the_ball(name: AttackName, norm: Norm) -> None:
    """On a linear model the distance to the boundary is known: what is nearer falls, what is farther stands."""
    w = torch.tensor([3.0, -4.0]) / 5

    class Linear(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(w.clone())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            along = (x.flatten(1) - 0.5) @ self.w
            return torch.stack([-along, along], dim=1)

    distance = torch.tensor([0.02, 0.05, 0.2, -0.02, -0.05, -0.2])
    x = (0.5 + distance[:, None] * w).view(6, 1, 1, 2)
    labels = (distance > 0).long()
    split = Split(torch.arange(6), TensorImages(x), labels, labels)
    spec = Attack(name=name, steps=300)
    moved = attacked(Linear(), split, spec, default_threat(norm=norm, eps=0.1), classes=2)
    stands = Linear()(moved).argmax(1) == labels
    assert stands.tolist() == [False, False, True, False, False, True]
    order = {Norm.Linf: math.inf, Norm.L2: 2}[norm]
    assert float((moved - x).flatten(1).norm(p=order, dim=1).max()) <= 0.1 + 1e-6


@pytest.mark.parametrize("shape", [(1, 6, 10), (3, 10, 6), (1, 5, 5)])
@pytest.mark.parametrize("norm", list(Norm))
def test_square_fits_pictures_of_every_shape(norm: Norm, shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), 3))
    split = make_split(12, 3, shape)
    spec, threat = Attack(name=AttackName.square, queries=200), default_threat(norm=norm, eps=0.4)
    moved = attacked(model, split, spec, threat, classes=3)
    x = split.images.take(torch.arange(12))
    margins = [
        float((model(y).gather(1, split.labels[:, None]).squeeze(1) - model(y).amax(1)).mean()) for y in (x, moved)
    ]
    assert margins[1] < margins[0]
    assert not moved.is_inference()


def test_square_says_which_pictures_are_too_small_for_it() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    spec, threat = Attack(name=AttackName.square, queries=20), default_threat(norm=Norm.L2, eps=0.4)
    with pytest.raises(InputError, match="does not fit pictures of 4x4 in L2"):
        attacked(model, make_split(6, 3, (1, 4, 4)), spec, threat, classes=3)


def test_more_budget_lowers_the_loss_of_nobody_but_the_defender() -> None:
    model, split = network().eval(), make_split(24, 4, (1, 8, 8))
    loss = [
        F.cross_entropy(model(attacked(model, split, PGD, default_threat(eps=eps))), split.labels).item()
        for eps in ("0.01", "0.1", "1")
    ]
    assert loss == sorted(loss)


@pytest.mark.parametrize("name", [AttackName.pgd, AttackName.apgd_ce])
def test_what_is_not_broken_is_moved_to_where_the_loss_is_higher(name: AttackName) -> None:
    """Else an objective that is taken on attacked pictures sees pictures as they are."""
    model = network().eval()
    given = make_split(24, 4, (1, 8, 8))
    clean = given.images.take(torch.arange(24))
    split = Split(given.ids, given.images, model(clean).argmax(1), given.truth)
    moved = attacked(model, split, Attack(name=name, steps=10), default_threat(eps=0.001))
    right = model(moved).argmax(1) == split.labels
    assert right.sum() > 20
    losses = [F.cross_entropy(model(x), split.labels, reduction="none") for x in (clean, moved)]
    assert (losses[1] > losses[0])[right].all()


def test_leaving_the_threat_model_is_an_error() -> None:
    x = torch.full((2, 1, 2, 2), 0.5)
    check_inside(x, x + 0.1, default_threat(eps=0.1))
    with pytest.raises(RuntimeError, match=r"moved a sample by 0\.2"):
        check_inside(x, x + 0.2, default_threat(eps=0.1))
    with pytest.raises(RuntimeError, match="moved a sample by nan"):
        check_inside(x, x * torch.nan, default_threat(eps=0.1))
    with pytest.raises(RuntimeError, match="pixel range"):
        check_inside(x, x + 0.6, default_threat(eps=1))
