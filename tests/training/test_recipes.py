from __future__ import annotations

import torch
from lightning_fabric import Fabric

from defense.choices import AttackName, Recipe
from defense.data.splits import Dataset
from defense.models.build import build
from defense.reporting.progress import silent
from defense.robustness.suite import perturb
from defense.schema import Attack
from defense.stages.train import restore, train
from defense.stages.treat import untreated
from defense.training.recipes import hardening
from tests.conftest import recipe, threat

SETTINGS = {"_target_": "defense.models.networks.mlp", "hidden": [32]}


def test_pictures_stay_as_they_are_or_move_within_the_ball(digits: Dataset) -> None:
    model = build(SETTINGS, digits, seed=0).train()
    model[1].eval()
    modes = [module.training for module in model.modules()]
    x, labels = digits.train.images.take(torch.arange(20)), digits.train.labels[:20]
    standard = hardening(recipe(), threat(), digits.classes)
    assert standard(model, x, labels, 0) is x
    adversarial = hardening(recipe(recipe=Recipe.adversarial), threat(eps="0.1"), digits.classes)
    first, again, other = (adversarial(model, x, labels, seed) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert 0.05 < float((first - x).abs().max()) <= 0.1 + 1e-6
    loss = torch.nn.functional.cross_entropy
    assert loss(model(first), labels).item() > loss(model(x), labels).item()
    assert [module.training for module in model.modules()] == modes
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())


def test_adversarial_training_makes_a_model_harder_to_attack(digits: Dataset, fabric: Fabric) -> None:
    robust = []
    for name in (Recipe.standard, Recipe.adversarial):
        spec = recipe(recipe=name, epochs=40, learning_rate=0.1, attack_steps=4)
        common = {"threat": threat(eps="0.1"), "seed": 0, "fabric": fabric, "watch": silent}
        trained = train(SETTINGS, digits, spec, untreated(digits.train), **common)
        model = restore(SETTINGS, digits, trained, seed=0, device=torch.device("cpu"))
        attack = {"classes": digits.classes, "batch_size": 80, "seed": 0, "watch": silent}
        pictures = perturb(model, digits.test, Attack(AttackName.pgd), threat(eps="0.1"), **attack)
        robust.append(float((model(pictures).argmax(1) == digits.test.labels).double().mean()))
    assert robust[1] > robust[0] + 0.1
