"""The only door to torchattacks.

What the door mends: torchattacks draws from the global generator and seeds AutoAttack from the clock; it
restores the mode of the top module alone; and its AutoAttack takes 10 steps where the reference takes 100,
and asks for targets and a loss that do not exist for few classes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torchattacks
from torch import Tensor, nn
from torchattacks.wrappers.multiattack import MultiAttack

from defense.choices import AttackName, Norm
from defense.data.splits import Split
from defense.errors import out_of_memory_names
from defense.models.modes import evaluating, frozen
from defense.randomness import derive, global_seed
from defense.schema import Attack, Threat, number

TorchAttack = Callable[[Tensor, Tensor], Tensor]


def perturb(
    model: nn.Module,
    split: Split,
    attack: Attack,
    threat: Threat,
    *,
    classes: int,
    batch_size: int,
    seed: int,
    watch: Callable[..., None],
) -> Tensor:
    """Return the attacked pictures float32 (n, C, H, W), on the CPU: inside the ball and in [0, 1].

    The same seed gives the same result; the model comes back untouched. Raises RuntimeError when the attack
    leaves the threat model.
    """
    out = torch.empty((len(split), *split.images.shape))
    with evaluating(model), frozen(model), out_of_memory_names("evaluation.batch_size", batch_size):
        for rows, x, labels in split.batches(batch_size):
            purpose = (seed, "attack", attack.name.value, rows.start)
            out[rows] = perturb_batch(model, x, labels, attack, threat, classes=classes, purpose=purpose).cpu()
            watch(rows.stop, len(split))
    return out


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
    """Return pictures (b, C, H, W) attacked at `model`, which is in eval mode and frozen; see `perturb`.

    purpose: the seed, and what its draws are for.
    """
    run = ATTACKS[attack.name](model, attack, threat, classes, derive(*purpose))
    with global_seed(*purpose), torch.enable_grad():
        adversarial: Tensor = run(x, labels).detach()
    check_inside(x, adversarial, threat)
    return adversarial


def check_inside(x: Tensor, adversarial: Tensor, threat: Threat) -> None:
    """Raise RuntimeError unless `adversarial` is finite, in [0, 1] and within the ball around `x` (b, ...)."""
    order = {Norm.Linf: torch.inf, Norm.L2: 2}[threat.norm]
    distance = torch.linalg.vector_norm((adversarial - x).flatten(1), ord=order, dim=1).max()
    tolerance = 1e-6 + 1e-5 * threat.radius
    if not bool(distance <= threat.radius + tolerance):  # written so that NaN fails
        raise RuntimeError(f"the attack moved a sample by {distance:g}, eps is {threat.radius:g}")
    if adversarial.min() < 0 or adversarial.max() > 1:
        raise RuntimeError("the attack left the pixel range [0, 1]")


def fgsm(model: nn.Module, attack: Attack, threat: Threat, classes: int, seed: int) -> TorchAttack:
    """One step of size eps along the sign of the gradient (Goodfellow et al. 2015); for L2, along the gradient."""
    if threat.norm is Norm.Linf:
        return torchattacks.FGSM(model, eps=threat.radius)
    return torchattacks.PGDL2(model, eps=threat.radius, alpha=threat.radius, steps=1, random_start=False)


def pgd(model: nn.Module, attack: Attack, threat: Threat, classes: int, seed: int) -> TorchAttack:
    """Projected gradient ascent on the loss (Madry et al. 2018); steps of 2.5 eps / steps unless given."""
    size = 2.5 * threat.radius / attack.steps if attack.step_size is None else number(attack.step_size)
    kind = {Norm.Linf: torchattacks.PGD, Norm.L2: torchattacks.PGDL2}[threat.norm]
    return kind(model, eps=threat.radius, alpha=size, steps=attack.steps, random_start=attack.random_start)


def autoattack(model: nn.Module, attack: Attack, threat: Threat, classes: int, seed: int) -> TorchAttack:
    """APGD-CE, APGD-T, FAB-T and Square (Croce and Hein 2020), each on the samples that still stand.

    min(9, C - 1) target classes; APGD-T is left out below four classes, where its DLR loss does not exist.
    """
    common = {"eps": threat.radius, "norm": threat.norm.value, "seed": seed, "n_restarts": 1}
    gradient = {**common, "steps": attack.steps}
    targets = min(10, classes)
    parts = [torchattacks.APGD(model, loss="ce", **gradient)]
    if classes >= 4:
        parts.append(torchattacks.APGDT(model, n_classes=targets, **gradient))
    parts.append(torchattacks.FAB(model, multi_targeted=True, n_classes=targets, **gradient))
    parts.append(torchattacks.Square(model, n_queries=attack.queries, **common))
    return MultiAttack(parts)


ATTACKS: dict[AttackName, Callable[[nn.Module, Attack, Threat, int, int], TorchAttack]] = {
    AttackName.fgsm: fgsm,
    AttackName.pgd: pgd,
    AttackName.autoattack: autoattack,
}


def toward(model: nn.Module, x: Tensor, targets: Tensor, threat: Threat, *, steps: int) -> Tensor:
    """Return pictures (b, C, H, W) moved within `threat` toward what `model` calls `targets` (b,).

    Projected gradient descent on the loss of the targets, in steps of 2.5 eps / steps from the pictures as they
    are: nothing is drawn at random. The model is in eval mode and frozen.
    """
    kind = {Norm.Linf: torchattacks.PGD, Norm.L2: torchattacks.PGDL2}[threat.norm]
    run = kind(model, eps=threat.radius, alpha=2.5 * threat.radius / steps, steps=steps, random_start=False)
    run.set_mode_targeted_by_label(quiet=True)
    with torch.enable_grad():
        moved: Tensor = run(x, targets).detach()
    check_inside(x, moved, threat)
    return moved
