"""The losses of a batch against loops and peers, and what every recipe has to honour."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchattacks
from lightning_fabric import Fabric
from torch import Tensor, nn

from defense.artifacts import Treatment
from defense.config.choices import AttackName, Norm, Recipe
from defense.config.schema import Attack, Threat
from defense.data.splits import Dataset
from defense.models.build import build
from defense.randomness import global_seed
from defense.robustness.attacks import perturb_batch
from defense.runtime.progress import no_progress
from defense.stages.treat import untreated
from defense.training import recipes
from defense.training.recipes import RECIPES, attacked
from tests.calls import fit, losses_of, restore, train
from tests.conftest import recipe, threat

SETTINGS = {"_target_": "defense.models.networks.mlp", "hidden": [32]}
BALL = threat(eps=0.1)
L2 = Threat(Norm.L2, 0.5)
ALL = list(RECIPES)


@pytest.fixture
def batch(digits: Dataset) -> tuple[nn.Module, Tensor, Tensor]:
    """A network in eval mode, which has no batch norm, and 20 pictures with their labels."""
    model = build(SETTINGS, digits, seed=0).eval()
    return model, digits.train.images.take(torch.arange(20)), digits.train.labels[:20]


def test_standard_is_cross_entropy(batch: tuple[nn.Module, Tensor, Tensor]) -> None:
    model, x, labels = batch
    losses, logits = losses_of(recipe(), BALL, 10)(model, x, labels, 0)
    assert torch.equal(logits, model(x))
    for loss, row, label in zip(losses, logits, labels, strict=True):
        assert loss.item() == pytest.approx((row.logsumexp(0) - row[label]).item(), rel=1e-5)


@pytest.mark.parametrize("name", [Recipe.adversarial, Recipe.fast])
def test_attacks_are_seeded_stay_in_the_ball_and_leave_the_network_as_it_was(
    digits: Dataset, name: Recipe
) -> None:
    model = build(SETTINGS, digits, seed=0).train()
    model[1].eval()
    modes = [module.training for module in model.modules()]
    x, labels = digits.train.images.take(torch.arange(20)), digits.train.labels[:20]
    seen: list[Tensor] = []
    model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    lower = losses_of(recipe(recipe=name), BALL, digits.classes)
    losses, last = [], []
    for seed in (0, 0, 1):
        losses.append(lower(model, x, labels, seed)[0])
        last.append(seen[-1])
    first, again, other = last
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert 0.05 < float((first - x).abs().max()) <= 0.1 + 1e-6
    assert torch.equal(losses[0], F.cross_entropy(model(first), labels, reduction="none"))
    assert losses[0].mean().item() > F.cross_entropy(model(x), labels).item()
    assert [module.training for module in model.modules()] == modes
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())


def test_fast_is_the_ffgsm_of_torchattacks(
    batch: tuple[nn.Module, Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its start is drawn in the same way but for normal numbers that it draws first and overwrites."""
    model, x, labels = batch
    found = recipes.one_step(recipe(), BALL, 10)(model, x, labels, 3)
    monkeypatch.setattr(torch, "randn_like", torch.empty_like)
    with global_seed(3, "attack", "pgd"):
        peer = torchattacks.FFGSM(model, eps=0.1, alpha=0.125)(x, labels)
    assert torch.equal(found, peer)


def test_the_inner_maximum_of_trades_is_ascent_on_the_divergence(batch: tuple[nn.Module, Tensor, Tensor]) -> None:
    """A loop over steps of 2.5 eps / steps on KL(f(x) || f(x')), from the same start."""
    model, x, _ = batch
    spec = recipe(recipe=Recipe.trades, attack_steps=3)
    clean = model(x).detach().softmax(1)
    found = recipes.pgd(spec, BALL, 10)(model, x, clean, 5)
    with global_seed(5, "attack", "pgd"):
        moved = (x + torch.empty_like(x).uniform_(-0.1, 0.1)).clamp(0, 1)
    for _ in range(3):
        moved.requires_grad_(True)
        divergence = (clean * (clean.log() - model(moved).log_softmax(1))).sum()
        (gradient,) = torch.autograd.grad(divergence, moved)
        moved = x + (moved.detach() + 2.5 * 0.1 / 3 * gradient.sign() - x).clamp(-0.1, 0.1)
        moved = moved.clamp(0, 1)
    assert float(((found - moved).abs() < 1e-6).double().mean()) > 0.999  # the sign of a gradient of about zero


@pytest.mark.parametrize("ball", [BALL, L2])
def test_trades_by_hand(batch: tuple[nn.Module, Tensor, Tensor], ball: Threat) -> None:
    """CE(f(x), y) + beta KL(f(x) || f(x')), sample by sample; more attack steps find more divergence."""
    model, x, labels = batch
    sums = []
    for steps in (1, 10):
        spec = recipe(recipe=Recipe.trades, attack_steps=steps, beta=2.5)
        losses, logits = losses_of(spec, ball, 10)(model, x, labels, 7)
        moved = recipes.pgd(spec, ball, 10)(model, x, model(x).detach().softmax(1), 7)
        assert torch.equal(logits, model(x))
        clean, other = logits.softmax(1), model(moved).softmax(1)
        for row, (p, q) in enumerate(zip(clean, other, strict=True)):
            divergence = sum((a * (a / b).log()).item() for a, b in zip(p, q, strict=True))
            expected = -p[labels[row]].log().item() + 2.5 * divergence
            assert losses[row].item() == pytest.approx(expected, rel=1e-3)
        sums.append(losses.sum().item())
    assert sums[1] > sums[0]


def test_gradients_of_trades_go_through_both_pictures(batch: tuple[nn.Module, Tensor, Tensor]) -> None:
    model, x, labels = batch
    moved = (x + 0.05).clamp(0, 1)
    losses, _ = recipes.trades(model, x, moved, labels, beta=3.0)
    found = torch.autograd.grad(losses.sum(), list(model.parameters()))
    logits = model(x)
    p, q = logits.softmax(1), model(moved).softmax(1)
    total = F.cross_entropy(logits, labels, reduction="sum") + 3.0 * (p * (p / q).log()).sum()
    for one, other in zip(found, torch.autograd.grad(total, list(model.parameters())), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def of_the_picture_alone(
    model: nn.Module, x: Tensor, labels: Tensor, attack: Attack, threat: Threat, **_: object
) -> Tensor:
    """Move along the gradient from a start that the picture decides: copies of a sample are attacked alike."""
    start = (x + 0.02 * (1e3 * x).sin()).requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(F.cross_entropy(model(start), labels, reduction="sum"), start)
    return (x + 0.1 * gradient.sign()).clamp(0, 1)


@pytest.mark.parametrize("name", ALL)
def test_whole_weights_are_repetitions_and_none_leaves_out(
    digits: Dataset, fabric: Fabric, monkeypatch: pytest.MonkeyPatch, name: Recipe
) -> None:
    """Two steps on everything at once; the network has no batch norm, which would see what has no weight."""
    monkeypatch.setattr(recipes, "perturb_batch", of_the_picture_alone)
    weights = torch.tensor([0.0, 2.0, 1.0, 1.0]).repeat(50)
    spec = recipe(recipe=name, epochs=2, batch_size=1000, learning_rate=0.2)
    models = []
    for split, weight in (
        (digits.train, weights),
        (digits.train.subset(torch.arange(200).repeat_interleave(weights.long())), torch.ones(200)),
        (digits.train, torch.ones(200)),
    ):
        model = build(SETTINGS, digits, seed=0)
        keep = torch.ones(len(split), dtype=torch.bool)
        arguments: dict[str, Any] = {"keep": keep, "weights": weight, "losses": losses_of(spec, BALL, 10)}
        list(
            fit(
                model, split, spec, **arguments, measure=lambda *_: {}, seed=0, fabric=fabric, progress=no_progress
            )
        )
        models.append(torch.cat([parameter.detach().flatten() for parameter in model.parameters()]))
    weighted, repeated, unweighted = models
    torch.testing.assert_close(weighted, repeated, rtol=1e-3, atol=1e-5)
    assert float((weighted - unweighted).abs().max()) > 1e-3


@pytest.mark.parametrize("name", ALL)
def test_treated_labels_are_learned_and_attacked(
    digits: Dataset, fabric: Fabric, monkeypatch: pytest.MonkeyPatch, name: Recipe
) -> None:
    """A sample that is relabelled, and one that is left out, by what every attack in training is given."""
    table = untreated(digits.train).table
    changed = (table["label"] + 1) % 10
    keep = table["id"].rank() > 20
    given: list[Tensor] = []

    def spy(model: nn.Module, x: Tensor, labels: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        given.append(labels)
        return perturb_batch(model, x, labels, *args, **kwargs)

    monkeypatch.setattr(recipes, "perturb_batch", spy)
    spec = recipe(recipe=name, epochs=1, batch_size=1000, attack_steps=2, validation_steps=1)
    common: dict[str, Any] = {"threat": BALL, "seed": 0, "fabric": fabric, "progress": no_progress}
    found = train(SETTINGS, digits, spec, Treatment(table.assign(label=changed, keep=keep)), **common)
    if name in (Recipe.adversarial, Recipe.fast):
        assert sorted(given[0].tolist()) == sorted(changed[keep].tolist())
    if name is Recipe.trades:
        assert given[0].shape == (180, 10)
    other = digits.train.subset(torch.arange(200))
    relabelled = replace(digits, train=replace(other, labels=torch.tensor(changed.to_numpy())))
    expected = train(
        SETTINGS, relabelled, spec, Treatment(untreated(relabelled.train).table.assign(keep=keep)), **common
    )
    plain = train(SETTINGS, digits, spec, Treatment(table.assign(keep=keep)), **common)
    for key, value in found.weights.items():
        assert torch.equal(value, expected.weights[key])
    assert not torch.equal(found.weights["5.weight"], plain.weights["5.weight"])


class Precision(nn.Module):
    """Notes in which precision it computes, in training and in eval mode."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(64, classes)
        self.seen: dict[bool, set[torch.dtype]] = {True: set(), False: set()}

    def forward(self, x: Tensor) -> Tensor:
        assert x.dtype is torch.float32  # a perturbation can be smaller than what half precision rounds off
        out: Tensor = self.head(x.flatten(1))
        self.seen[self.training].add(out.dtype)
        return out


@pytest.mark.parametrize("name", [Recipe.adversarial, Recipe.fast, Recipe.trades])
def test_attacks_are_made_in_the_precision_of_training(digits: Dataset, name: Recipe) -> None:
    """And the pass that needs gradients of the parameters is not given copies that were made without."""
    spec = recipe(recipe=name, epochs=1, batch_size=100, attack_steps=2)
    moved = {}
    for precision in ("32-true", "bf16-mixed"):
        torch.manual_seed(0)
        model = Precision(10)
        start = model.head.weight.detach().clone()
        arguments: dict[str, Any] = {"keep": torch.ones(200, dtype=torch.bool), "weights": torch.ones(200)}
        arguments |= {
            "losses": losses_of(spec, BALL, 10),
            "measure": lambda *_: {},
            "seed": 0,
            "progress": no_progress,
        }
        device = Fabric(accelerator="cpu", devices=1, precision=precision)  # type: ignore[arg-type]
        list(fit(model, digits.train, spec, **arguments, fabric=device))
        kind = torch.float32 if precision == "32-true" else torch.bfloat16
        assert model.seen == {True: {kind}, False: {kind}}
        moved[precision] = model.head.weight.detach() - start
        assert model.head.weight.dtype is torch.float32
    change = float((moved["bf16-mixed"] - moved["32-true"]).norm() / moved["32-true"].norm())
    assert change < 0.1


@pytest.mark.parametrize("name", [Recipe.adversarial, Recipe.fast, Recipe.trades])
def test_adversarial_training_makes_a_model_harder_to_attack(
    digits: Dataset, fabric: Fabric, name: Recipe
) -> None:
    robust = []
    for kind in (Recipe.standard, name):
        spec = recipe(recipe=kind, epochs=40, learning_rate=0.1, attack_steps=4, validation_steps=4)
        common: dict[str, Any] = {"threat": BALL, "seed": 0, "fabric": fabric, "progress": no_progress}
        trained = train(SETTINGS, digits, spec, untreated(digits.train), **common)
        model = restore(SETTINGS, digits, trained, seed=0, device=torch.device("cpu"))
        x, labels = digits.test.images.take(torch.arange(80)), digits.test.labels
        moved = attacked(model, x, labels, 0, attack=Attack(AttackName.pgd), threat=BALL, classes=10)
        robust.append(float((model(moved).argmax(1) == labels).double().mean()))
    assert robust[1] > robust[0] + 0.1


def test_a_gradient_that_is_not_finite_is_told_from_a_fault_of_the_attack(
    batch: tuple[nn.Module, Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x, labels = batch
    arguments: dict[str, Any] = {"attack": Attack(AttackName.pgd), "threat": L2, "classes": 10}

    def faulty(*_: object, **__: object) -> Tensor:
        raise RuntimeError("a fault")

    with monkeypatch.context() as patch:
        patch.setattr(recipes, "perturb_batch", faulty)
        with pytest.raises(RuntimeError, match="a fault"):
            attacked(model, x, labels, 0, **arguments)
    with torch.no_grad():
        model[-1].weight[0, 0] = torch.nan
    with pytest.raises(FloatingPointError, match="not finite"):
        attacked(model, x, labels, 0, **arguments)
