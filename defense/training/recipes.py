"""The losses of a batch: of its pictures as they are, or attacked at the network of the moment.

A recipe is one function of a batch that returns the loss of each sample, so that weights and relabels act on it
whatever it is; how it is lowered is the loop's.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from defense.config.choices import AttackName, Recipe
from defense.config.schema import Attack, Threat, Train, Training
from defense.errors import is_out_of_memory
from defense.models.modes import evaluating, frozen
from defense.robustness.attacks import perturb_batch

# network, pictures, labels, seed -> losses (b,), logits (b, classes); float32 in any precision of the network
Losses = Callable[[nn.Module, Tensor, Tensor, int], tuple[Tensor, Tensor]]
Perturb = Callable[[nn.Module, Tensor, Tensor, int], Tensor]  # network, pictures, labels, seed -> pictures

FAST_STEP = 1.25  # in eps: the step of Wong et al. 2020; larger ones overfit to it


def losses_of(training: Training, classes: int) -> Losses:
    """Return the losses that a recipe lowers."""
    return RECIPES[training.recipe.recipe](training.recipe, training.threat, classes)


def standard_loss(network: nn.Module, x: Tensor, labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Return the cross-entropy of each picture of x (b, C, H, W), and the logits."""
    logits: Tensor = network(x).float()
    return F.cross_entropy(logits, labels, reduction="none"), logits


def adversarial_loss(
    network: nn.Module, x: Tensor, labels: Tensor, seed: int, *, attacker: Perturb
) -> tuple[Tensor, Tensor]:
    """Return the cross-entropy of each picture once it is attacked, and the logits there (Madry et al. 2018)."""
    return standard_loss(network, attacker(network, x, labels, seed), labels, seed)


def trades(
    network: nn.Module, x: Tensor, labels: Tensor, seed: int, *, attacker: Perturb, beta: float
) -> tuple[Tensor, Tensor]:
    """Return CE(f(x_i), y_i) + beta KL(f(x_i) || f(x'_i)), and the logits f(x) (Zhang et al. 2019).

    x' makes the KL large. Its gradient there is that of the cross-entropy with the probabilities f(x) as labels,
    since they do not depend on x'.
    """
    with torch.no_grad(), evaluating(network):
        probabilities = network(x).float().softmax(1)
    adversarial = attacker(network, x, probabilities, seed)
    losses, logits = standard_loss(network, x, labels, seed)
    clean, other = (values.log_softmax(1) for values in (logits, network(adversarial).float()))
    return losses + beta * F.kl_div(other, clean, log_target=True, reduction="none").sum(1), logits


def attacked(
    network: nn.Module, x: Tensor, labels: Tensor, seed: int, *, attack: Attack, threat: Threat, classes: int
) -> Tensor:
    """Return the pictures attacked at `network` in eval mode, as Madry et al. 2018 train; it comes back as it was.

    labels: int64 (b,), or probabilities (b, classes). Raises FloatingPointError if there is no finite gradient.
    """
    purpose = (seed, "attack", attack.name.value)
    with evaluating(network), frozen(network):
        try:
            return perturb_batch(network, x, labels, attack, threat, classes=classes, purpose=purpose)
        except RuntimeError as error:
            if is_out_of_memory(error) or has_gradient(network, x, labels):
                raise
            raise FloatingPointError("the gradient that an attack follows is not finite") from error


@torch.enable_grad()
def has_gradient(network: nn.Module, x: Tensor, labels: Tensor) -> bool:
    """Return whether the gradient of the loss by the pictures is finite."""
    x = x.detach().clone().requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(network(x), labels), x)
    return bool(gradient.isfinite().all())


def pgd(recipe: Train, threat: Threat, classes: int) -> Perturb:
    """PGD from a random start, steps of 2.5 eps / attack_steps."""
    attack = Attack(AttackName.pgd, steps=recipe.attack_steps)
    return partial(attacked, attack=attack, threat=threat, classes=classes)


def one_step(recipe: Train, threat: Threat, classes: int) -> Perturb:
    """FGSM from a random start (Wong et al. 2020): PGD of one step."""
    attack = Attack(AttackName.pgd, steps=1, step_size=FAST_STEP * threat.eps)
    return partial(attacked, attack=attack, threat=threat, classes=classes)


RECIPES: dict[Recipe, Callable[[Train, Threat, int], Losses]] = {
    Recipe.standard: lambda recipe, threat, classes: standard_loss,
    Recipe.adversarial: lambda *said: partial(adversarial_loss, attacker=pgd(*said)),
    Recipe.fast: lambda *said: partial(adversarial_loss, attacker=one_step(*said)),
    Recipe.trades: lambda recipe, *said: partial(trades, attacker=pgd(recipe, *said), beta=recipe.beta),
}
