"""What a training step sees of its batch: the pictures as they are, or attacked at the model of the moment."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from defense.choices import AttackName, Recipe
from defense.models.modes import evaluating, frozen
from defense.robustness.attacks import perturb_batch
from defense.schema import Attack, Threat, Train

Harden = Callable[[nn.Module, Tensor, Tensor, int], Tensor]  # model, pictures, labels, seed -> pictures


def as_they_are(model: nn.Module, x: Tensor, labels: Tensor, seed: int) -> Tensor:
    """Return the pictures (b, C, H, W) untouched."""
    return x


def attacked(
    model: nn.Module, x: Tensor, labels: Tensor, seed: int, *, attack: Attack, threat: Threat, classes: int
) -> Tensor:
    """Return the pictures attacked at `model` in eval mode, as Madry et al. 2018 train; the model comes back."""
    with evaluating(model), frozen(model):
        return perturb_batch(
            model, x, labels, attack, threat, classes=classes, purpose=(seed, "attack", attack.name.value)
        )


def hardening(recipe: Train, threat: Threat, classes: int) -> Harden:
    """Return what `recipe` does to the pictures of a batch."""
    return RECIPES[recipe.recipe](recipe, threat, classes)


def pgd(recipe: Train, threat: Threat, classes: int) -> Harden:
    """PGD from a random start, steps of 2.5 eps / attack_steps."""
    attack = Attack(AttackName.pgd, steps=recipe.attack_steps)
    return partial(attacked, attack=attack, threat=threat, classes=classes)


RECIPES: dict[Recipe, Callable[[Train, Threat, int], Harden]] = {
    Recipe.standard: lambda recipe, threat, classes: as_they_are,
    Recipe.adversarial: pgd,
}
