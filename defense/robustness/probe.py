"""Attacks on a part of a split whose outcome is known beforehand, for `defense.robustness.checks` to look at."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from defense.config.choices import AttackName
from defense.config.schema import Attack, Threat, usual_step
from defense.data.images import TensorImages
from defense.data.splits import Split
from defense.models.loss import log_odds
from defense.models.predict import predict
from defense.randomness import generator, global_seed
from defense.robustness.attacks import Attacker
from defense.robustness.ball import distance, farthest, steepest
from defense.robustness.square import tiles
from defense.robustness.suite import attacking, perturb
from defense.runtime.runtime import Runtime

# A sample that is right costs at most 220 gradients, and where it still stands 60 more and 500 logits. 100 of them
# cost what two epochs of 10,000 do: with a ResNet-18 at 32x32 some seconds on a GPU, ten minutes on two CPU cores.
ONCE = Attack(AttackName.pgd, steps=20)
LONGER = Attack(AttackName.pgd, steps=50, restarts=2)
SQUARE = Attack(AttackName.square, queries=500)
AIMED = Attack(AttackName.apgd_t, steps=20)
AIMED_AT = 3  # classes, the likeliest after the own: they find nearly all that nine do
LEVELS = 4  # of eps, above the one of the threat


def chosen(labels: Tensor, count: int, *, seed: int) -> Tensor:
    """Return the rows of `count` samples, or of all if there are fewer, every class in its share; in order."""
    labels = labels.cpu()
    count = min(count, len(labels))
    order = torch.randperm(len(labels), generator=generator(seed, "checked"))
    by_class = order[labels[order].argsort(stable=True)]
    places = ((torch.arange(count) + 0.5) * len(labels) / count).long()
    return by_class[places].sort().values


def radii(threat: Threat, shape: tuple[int, int, int]) -> list[float]:
    """Return half of eps, eps, and larger ones in equal ratios, up to the distance of the farthest two pictures.

    In a ball of that radius, 1 in Linf and sqrt(C H W) in L2, is every picture, whatever the model calls it.
    """
    eps = threat.eps
    largest = farthest(threat.norm, shape)
    larger = np.geomspace(eps, largest, LEVELS + 1).tolist()[1:] if eps < largest else []
    return [eps / 2, eps, *larger]


def probe(attacker: Attacker, split: Split, runtime: Runtime) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return a row for each sample of `split`, and accuracy in percent by eps; the model comes back untouched.

    once, longer: right after ONCE, after LONGER; square: after both and SQUARE, where that exists; left: after all
    and AIMED; last: right at the largest eps; regained: right at some eps though wrong at a
    smaller one; distance: of the farthest perturbation, in eps; lowest, highest: pixels; gradient: largest entry
    of the gradient of the loss; rise: of the loss, by a step of ONCE along it; drift: of the logits in a second
    pass, in standard deviations.
    """
    model, threat, batch_size, classes = attacker.model, attacker.threat, attacker.batch_size, attacker.classes
    shape = split.images.shape
    levels = radii(threat, shape)
    reached: list[Tensor] = []

    def stand(attack: Attack, which: Tensor, eps: float = threat.eps) -> Tensor:
        aimed_at = min(classes, AIMED_AT + 1) if attack is AIMED else classes
        after, reach = attempted(
            replace(attacker, threat=replace(threat, eps=eps), classes=aimed_at), split, attack, which
        )
        reached.append(reach)
        runtime.progress(len(reached), len(levels) + 3)
        return after

    with global_seed(attacker.seed, "checks"):  # for models that draw from the global generator
        clean = right(model, split, batch_size)
        stands, broken, regained = {0.0: clean}, ~clean, torch.zeros_like(clean)
        for eps in levels:
            # if nothing stands any more, nothing can in a larger ball: it contains the smaller one
            stands[eps] = stand(ONCE, torch.zeros_like(clean) if broken.all() else clean, eps)
            regained |= stands[eps] & broken
            broken |= ~stands[eps]
        verdicts = {"once": stands[threat.eps], "longer": stand(LONGER, clean)}
        left = verdicts["once"] & verdicts["longer"]
        if tiles(shape, threat.norm):
            left = verdicts["square"] = stand(SQUARE, left)
        left = stand(AIMED, left)
        gradient, rise = slopes(model, split, threat, batch_size)
        drift = drifts(model, split, batch_size)
    reached_most, below, highest = torch.stack(reached).amax(0).unbind(1)
    verdicts |= {"left": left, "last": stands[levels[-1]], "regained": regained}
    pixels = {"distance": reached_most, "lowest": -below, "highest": highest}
    columns = verdicts | pixels | {"gradient": gradient, "rise": rise, "drift": drift}
    samples = pd.DataFrame({"id": split.ids.numpy(), **{name: value.numpy() for name, value in columns.items()}})
    accuracy = [100 * int(standing.sum()) / len(standing) for standing in stands.values()]
    return samples, pd.DataFrame({"eps": list(stands), "accuracy": accuracy})


def right(model: nn.Module, split: Split, batch_size: int) -> Tensor:
    """Return where the model is right, bool (n,) on the CPU."""
    return predict(model, split, batch_size=batch_size).argmax(1) == split.labels.cpu()


def attempted(attacker: Attacker, split: Split, attack: Attack, which: Tensor) -> tuple[Tensor, Tensor]:
    """Attack the samples `which`, bool (n,); return where the model is right then, and how far the attack went.

    right: bool (n,), False if nothing was attacked. reach: float64 (n, 3), the distance in eps, minus the
    lowest pixel, and the highest.
    """
    stands, rows = torch.zeros_like(which), which.nonzero().flatten()
    reach = torch.tensor([0.0, -1.0, 0.0], dtype=torch.float64).repeat(len(which), 1)
    if len(rows):
        part = split.subset(rows)
        pictures = perturb(attacker, part, attack, Runtime())
        moved_part = part.with_images(TensorImages(pictures.to(part.labels.device)))
        stands[rows] = right(attacker.model, moved_part, attacker.batch_size)
        before, after = part.images.take(torch.arange(len(part))).cpu().double(), pictures.double()
        moved, pixels = distance(before, after, attacker.threat.norm) / attacker.threat.eps, after.flatten(1)
        reach[rows] = torch.stack([moved, -pixels.amin(1), pixels.amax(1)], dim=1)
    return stands, reach


def slopes(model: nn.Module, split: Split, threat: Threat, batch_size: int) -> tuple[Tensor, Tensor]:
    """Return the largest entry of every picture's gradient, and by how much a step along it raises the loss; (n,).

    The gradient is that of the cross-entropy, as attacks see it. The step is that of ONCE, along it in the norm of
    the threat. The loss is the log-odds against the label, which never saturate.
    """
    size, rise = [], []
    with attacking(model, batch_size), torch.enable_grad():
        for _, batch, labels in split.batches(batch_size):
            x = batch.clone().requires_grad_()
            logits = model(x)
            (slope,) = torch.autograd.grad(F.cross_entropy(logits, labels, reduction="sum"), x)
            way = steepest(slope, threat.norm)
            with torch.no_grad():
                moved = model((x + usual_step(threat, ONCE.steps) * way).clamp(0, 1))
            own = labels.cpu()
            before, after = (log_odds(each.detach().cpu().double(), own) for each in (logits, moved))
            rise.append(after - before)
            size.append(slope.flatten(1).abs().amax(1).cpu())
    return torch.cat(size), torch.cat(rise)


def drifts(model: nn.Module, split: Split, batch_size: int) -> Tensor:
    """Return how far the logits of a second pass, in reverse order, are from those of a first: float (n,).

    In standard deviations of all logits. The other order gives away a model that looks at its batch as a whole.
    """
    back = torch.arange(len(split)).flip(0)
    first = predict(model, split, batch_size=batch_size)
    second = predict(model, split.subset(back), batch_size=batch_size)[back]
    return (first - second).abs().amax(1) / first.std().clamp_min(1e-12)
