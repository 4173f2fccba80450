"""The losses of a batch: of its images as they are, or attacked at the network of the moment.

A recipe is one function of a batch that returns the loss of each sample, so that weights and relabels act on it
whatever it is; how it is lowered is the loop's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from defense.config.choices import AttackName, Recipe
from defense.config.schema import Attack, Threat, Train, Training
from defense.errors import is_out_of_memory
from defense.models.modes import evaluating, frozen
from defense.robustness.attacks import perturb_batch

Perturb = Callable[[nn.Module, Tensor, Tensor, int], Tensor]  # network, images, labels, seed -> images


@dataclass(frozen=True)
class Losses:
    """The losses that a recipe lowers: of images, and of what an attack at the network makes of them.

    The attack is a step of its own, so that a replay can hold its images fixed.
    """

    attack: Perturb
    # network, images, the same attacked, labels -> losses (b,), logits (b, classes); in float32 at least
    of: Callable[[nn.Module, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]

    def __call__(self, network: nn.Module, x: Tensor, labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """Return the losses (b,) of images x (b, C, H, W) attacked at `network`, and the logits (b, classes)."""
        return self.of(network, x, self.attack(network, x, labels, seed), labels)


FAST_STEP = 1.25  # in eps: the step of Wong et al. 2020; larger ones overfit to it


def losses_of(training: Training, classes: int) -> Losses:
    """Return the losses that a recipe lowers."""
    return RECIPES[training.recipe.recipe](training.recipe, training.threat, classes)


def cross_entropies(network: nn.Module, x: Tensor, attacked: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the cross-entropy of each attacked image (b, C, H, W), and the logits there (Madry et al. 2018)."""
    logits = exact(network(attacked))
    return F.cross_entropy(logits, labels, reduction="none"), logits


def trades(
    network: nn.Module, x: Tensor, attacked: Tensor, labels: Tensor, *, beta: float
) -> tuple[Tensor, Tensor]:
    """Return CE(f(x_i), y_i) + beta KL(f(x_i) || f(x'_i)), and the logits f(x) (Zhang et al. 2019).

    x' = attacked: see `away_from_prediction`.
    """
    losses, logits = cross_entropies(network, x, x, labels)
    clean, other = (values.log_softmax(1) for values in (logits, exact(network(attacked))))
    return losses + beta * F.kl_div(other, clean, log_target=True, reduction="none").sum(1), logits


def exact(logits: Tensor) -> Tensor:
    """Return logits in float32 at least."""
    return logits if logits.dtype is torch.float64 else logits.float()


def unmoved(network: nn.Module, x: Tensor, labels: Tensor, seed: int) -> Tensor:
    """Return the images as they are."""
    return x


def away_from_prediction(network: nn.Module, x: Tensor, labels: Tensor, seed: int, *, attacker: Perturb) -> Tensor:
    """Return images x' that make KL(f(x) || f(x')) large, as TRADES does.

    Its gradient there is that of the cross-entropy with the probabilities f(x) as labels, since they do not depend
    on x'.
    """
    with torch.no_grad(), evaluating(network):
        probabilities = exact(network(x)).softmax(1)
    return attacker(network, x, probabilities, seed)


def attacked(
    network: nn.Module, x: Tensor, labels: Tensor, seed: int, *, attack: Attack, threat: Threat, classes: int
) -> Tensor:
    """Return the images attacked at `network` in eval mode, as Madry et al. 2018 train; it comes back as it was.

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
    """Return whether the gradient of the loss by the images is finite."""
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
    Recipe.standard: lambda recipe, threat, classes: Losses(unmoved, cross_entropies),
    Recipe.adversarial: lambda *said: Losses(pgd(*said), cross_entropies),
    Recipe.fast: lambda *said: Losses(one_step(*said), cross_entropies),
    Recipe.trades: lambda recipe, *said: Losses(
        partial(away_from_prediction, attacker=pgd(recipe, *said)), partial(trades, beta=recipe.beta)
    ),
}
