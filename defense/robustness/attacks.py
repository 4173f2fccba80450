"""Every attack by its name, one batch at a time; the only door to torchattacks.

FAB, PMA and Square are the project's own. What the door mends: torchattacks draws from the global generator and
seeds AutoAttack from the clock; it restores the mode of the top module alone; its AutoAttack takes 10 steps where
the reference takes 100, and asks for targets and a loss that do not exist for few classes; what CW and DeepFool
find is unbounded. Where an attack is weaker than its reference, its adapter says how it is mended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torchattacks
from torch import Tensor, nn

from defense.config.choices import AttackName, Norm
from defense.config.schema import Attack, Threat, usual_step
from defense.errors import InputError
from defense.randomness import derive, global_seed
from defense.robustness.aiming import at_each_target, margin, margin_ratio
from defense.robustness.ball import check_inside, project
from defense.robustness.fab import fab
from defense.robustness.probability_margin import margin_attack
from defense.robustness.square import square_attack, tiles
from defense.robustness.user_attack import own

TorchAttack = Callable[[Tensor, Tensor], Tensor]
PGD = {Norm.Linf: torchattacks.PGD, Norm.L2: torchattacks.PGDL2}
OFF = 1e-6


def perturb_batch(
    model: nn.Module,
    x: Tensor,
    labels: Tensor,
    attack: Attack,
    threat: Threat,
    *,
    classes: int,
    purpose: tuple[int, *tuple[str | int, ...]],
) -> Tensor:
    """Return pictures (b, C, H, W) attacked at `model`, which is in eval mode and frozen.

    They are inside the ball and in [0, 1]; what apgd_t, fab_t or square does not break comes back as it was.
    purpose: the seed, and what its draws are for; the same gives the same pictures. Raises RuntimeError when the
    attack leaves the threat model, InputError when a function of the user does.
    """
    x = x.float()  # torchattacks keeps pictures in float32
    run = ATTACKS[attack.name](model, attack, threat, classes, derive(*purpose))
    with global_seed(*purpose), torch.enable_grad(), gradient_names(model):
        adversarial = run(x, labels).detach()
    check_inside(x, adversarial, threat)
    return adversarial


@contextmanager
def gradient_names(model: nn.Module) -> Iterator[None]:
    """Turn the lack of a gradient into an InputError."""
    try:
        yield
    except RuntimeError as error:
        if "does not require grad" in str(error):
            found = type(model).__name__
            raise InputError("model", found, "its logits have no gradient by the pictures") from error
        raise


@dataclass(frozen=True)
class Attacker:
    """The model under attack, and what every attack on it shares."""

    model: nn.Module
    threat: Threat
    classes: int  # logits of the model
    batch_size: int
    seed: int


def fgsm(model: nn.Module, attack: Attack, threat: Threat, classes: int, seed: int) -> TorchAttack:
    """One step of size eps along the sign of the gradient (Goodfellow et al. 2015); for L2, along the gradient."""
    if threat.norm is Norm.Linf:
        return torchattacks.FGSM(model, eps=threat.eps)
    return torchattacks.PGDL2(model, eps=threat.eps, alpha=threat.eps, steps=1, random_start=False)


def pgd(model: nn.Module, attack: Attack, threat: Threat, classes: int, seed: int) -> TorchAttack:
    """Projected gradient ascent on the loss (Madry et al. 2018); steps of 2.5 eps / steps unless given."""
    size = usual_step(threat, attack.steps) if attack.step_size is None else attack.step_size
    return PGD[threat.norm](
        model, eps=threat.eps, alpha=size, steps=attack.steps, random_start=attack.random_start
    )


def apgd_ce(model: nn.Module, attack: Attack, threat: Threat, classes: int, seed: int) -> TorchAttack:
    """Auto-PGD on the cross-entropy: it finds its step sizes itself (Croce and Hein 2020).

    What it does not break it leaves where the loss was highest; torchattacks' own forward gives it back unmoved.
    """

    def run(x: Tensor, labels: Tensor) -> Tensor:
        search = torchattacks.APGD(model, steps=attack.steps, loss="ce", **common(threat, seed))
        highest, right, _, mistaken = search.attack_single_run(x, labels)
        return torch.where(right.view(-1, 1, 1, 1), highest, mistaken)

    return run


def apgd_t(model: nn.Module, attack: Attack, threat: Threat, classes: int, seed: int) -> TorchAttack:
    """Auto-PGD toward each of the min(9, C - 1) likeliest other classes t (Croce and Hein 2020).

        loss = (z_t - z_y) / (z_(1) - (z_(3) + z_(4)) / 2),   z_(k) the k-th highest logit

    Below four classes, where that ratio does not exist, its numerator alone. torchattacks' own APGDT has no such
    case, and in L2 it gives all samples the step size of the first.
    """

    def aimed(x: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
        run = torchattacks.APGD(model, steps=attack.steps, loss="dlr", **common(threat, seed))
        run.dlr_loss = partial(margin_ratio if classes >= 4 else margin, targets=targets)
        *_, moved = run.attack_single_run(x, labels)  # forward would leave out some samples, but not their targets
        return moved

    return partial(at_each_target, model, aimed, min(9, classes - 1))


def pma(model: nn.Module, attack: Attack, threat: Threat, classes: int, seed: int) -> TorchAttack:
    """The probability margin attack (Xie et al. 2025)."""
    return lambda x, labels: margin_attack(model, x, labels, threat, steps=attack.steps)


def fab_t(model: nn.Module, attack: Attack, threat: Threat, classes: int, seed: int) -> TorchAttack:
    """The shortest way over the linearised boundary to each of min(9, C - 1) classes (Croce and Hein 2020)."""

    def aimed(x: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
        return fab(model, x, labels, targets, threat, steps=attack.steps)

    return partial(at_each_target, model, aimed, min(9, classes - 1))


def square(model: nn.Module, attack: Attack, threat: Threat, classes: int, seed: int) -> TorchAttack:
    """Random search over squares that asks for logits alone (Andriushchenko et al. 2020)."""

    def run(x: Tensor, labels: Tensor) -> Tensor:
        if not tiles(x.shape, threat.norm):
            height, width = x.shape[-2:]
            raise InputError("evaluation.attacks", "square", f"does not fit pictures of {height}x{width} in L2")
        return square_attack(model, x, labels, threat, queries=attack.queries, seed=seed)

    return run


def cw(model: nn.Module, attack: Attack, threat: Threat, classes: int, seed: int) -> TorchAttack:
    """Adam on squared distance plus margin (Carlini and Wagner 2017), brought back into the ball."""
    return bounded(
        torchattacks.CW(FromZero(model).eval(), steps=attack.steps), threat
    )  # else it comes back in train


def deepfool(model: nn.Module, attack: Attack, threat: Threat, classes: int, seed: int) -> TorchAttack:
    """Steps to the nearest linearised boundary (Moosavi-Dezfooli et al. 2016), brought back into the ball."""
    return bounded(torchattacks.DeepFool(model, steps=attack.steps), threat)


def common(threat: Threat, seed: int) -> dict[str, Any]:
    """Return the arguments that the parts of AutoAttack share."""
    return {"eps": threat.eps, "norm": threat.norm.value, "seed": seed, "n_restarts": 1}


class FromZero(nn.Module):
    """A model with its lowest logit at zero: torchattacks' CW takes no logit to be below that."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (b, classes) that differ by the same margins."""
        logits: Tensor = self.model(x)
        return logits - logits.detach().amin(1, keepdim=True)


def bounded(attack: TorchAttack, threat: Threat) -> TorchAttack:
    """Return an unbounded attack whose perturbation is clipped (Linf) or shortened (L2) to eps.

    It starts from pictures that are moved off the ends of [0, 1] by `OFF`: in CW's space those are infinitely far.
    """

    def run(x: Tensor, labels: Tensor) -> Tensor:
        return project(x, attack(x.clamp(OFF, 1 - OFF), labels).detach(), threat)

    return run


ATTACKS: dict[AttackName, Callable[[nn.Module, Attack, Threat, int, int], TorchAttack]] = {
    AttackName.fgsm: fgsm,
    AttackName.pgd: pgd,
    AttackName.apgd_ce: apgd_ce,
    AttackName.apgd_t: apgd_t,
    AttackName.pma: pma,
    AttackName.fab_t: fab_t,
    AttackName.square: square,
    AttackName.cw: cw,
    AttackName.deepfool: deepfool,
    AttackName.own: own,
}

AUTOATTACK = (AttackName.apgd_ce, AttackName.apgd_t, AttackName.fab_t, AttackName.square)  # as the reference does


def toward(model: nn.Module, x: Tensor, targets: Tensor, threat: Threat, *, steps: int) -> Tensor:
    """Return pictures (b, C, H, W) moved within `threat` toward what `model` calls `targets` (b,).

    Projected gradient descent on the loss of the targets, in steps of 2.5 eps / steps from the pictures as they
    are: nothing is drawn at random. The model is in eval mode and frozen.
    """
    size = usual_step(threat, steps)
    run = PGD[threat.norm](model, eps=threat.eps, alpha=size, steps=steps, random_start=False)
    run.set_mode_targeted_by_label(quiet=True)
    with torch.enable_grad():
        moved: Tensor = run(x, targets).detach()
    check_inside(x, moved, threat)
    return moved
