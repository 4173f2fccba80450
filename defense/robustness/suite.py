"""Attacks on a whole split: one attack on every sample, or several in turn on those that still stand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from defense.choices import AttackName
from defense.data.splits import Split
from defense.errors import InputError, out_of_memory_names
from defense.memory import Memory, Seldom
from defense.models.modes import channels_last, evaluating, frozen
from defense.models.predict import predict
from defense.randomness import derive
from defense.robustness.attacks import AUTOATTACK, perturb_batch, tiles
from defense.robustness.ball import farthest
from defense.schema import Attack, Threat
from defense.watch import Watch


@dataclass(frozen=True)
class Attacked:
    """What a suite did to each sample of a split, row by row."""

    pictures: Tensor  # float32 (n, C, H, W): the one that broke the sample, else the one of the highest loss
    clean: Tensor  # bool (n,): right without attack
    standing: dict[str, Tensor]  # bool (n,) by attack: right after it, and after all before it


def perturb(
    model: nn.Module,
    split: Split,
    attack: Attack,
    threat: Threat,
    *,
    classes: int,
    batch_size: int,
    seed: int,
    watch: Watch,
    memory: Memory | None = None,
) -> Tensor:
    """Return every picture of `split` attacked: float32 (n, C, H, W) on the CPU, inside the ball and in [0, 1].

    Of `attack.restarts` tries one that is mistaken, and of several the highest loss; autoattack stops at the first
    that is mistaken. What apgd_t, fab_t and square do not break stays as it is. The same seed
    gives the same result; the model comes back untouched. Raises RuntimeError when the attack leaves the threat
    model, FloatingPointError for logits that are not finite. memory: what is finished, now and then.
    """
    if attack.name is AttackName.autoattack:
        chain = {"autoattack": attack}
        return in_turn(
            model,
            split,
            chain,
            threat,
            classes=classes,
            batch_size=batch_size,
            seed=seed,
            watch=watch,
            memory=memory,
        ).pictures
    out = torch.empty((len(split), *split.images.shape))
    seldom = Seldom(memory)
    known = (seldom.recall("perturbed") or {}).get("pictures", out[:0])
    out[: len(known)] = known
    with attacking(model, batch_size):
        for rows, x, labels in split.batches(batch_size, start=len(known)):
            best, highest = x, torch.full((len(x),), -torch.inf, device=x.device)
            mistaken = torch.zeros_like(labels, dtype=torch.bool)
            for restart in range(attack.restarts):
                purpose = (restarted(seed, restart), "attack", attack.name.value, rows.start)
                tried = perturb_batch(model, x, labels, attack, threat, classes=classes, purpose=purpose)
                right, losses = judged(model, tried, labels)
                better = (~right & ~mistaken) | ((right != mistaken) & (losses > highest))
                mistaken = mistaken | ~right
                best = torch.where(better.view(-1, 1, 1, 1), tried, best)
                highest = torch.where(better, losses, highest)
            out[rows] = best.cpu()
            if seldom.due():
                seldom.keep("perturbed", {"pictures": out[: rows.stop]})
            watch(rows.stop, len(split))
    return out


def in_turn(
    model: nn.Module,
    split: Split,
    attacks: Mapping[str, Attack],
    threat: Threat,
    *,
    classes: int,
    batch_size: int,
    seed: int,
    watch: Watch,
    memory: Memory | None = None,
) -> Attacked:
    """Attack `split` with each of `attacks`, every one on the samples that the ones before have left standing.

    Each restart is a try of its own. A sample that is wrong without attack counts as broken from the start, since
    staying put is open to every attacker. memory: what is finished, after every try and now and then within one.
    """
    seldom = Seldom(memory)
    labels = split.labels.cpu()
    tries = [
        (name, part, restart)
        for name, attack in attacks.items()
        for part in parts(attack)
        for restart in range(part.restarts)
    ]
    known = seldom.recall("attacked")
    if known is None:
        logits = finite_logits(predict(model, split, batch_size=batch_size))
        pictures = split.images.take(torch.arange(len(split))).float().cpu()
        highest = F.cross_entropy(logits, labels, reduction="none")
        right = logits.argmax(1) == labels
        known = {"pictures": pictures, "highest": highest, "after": right[None], "stands": right.clone()}
        known |= {"done": torch.tensor(0)}
    pictures, highest, after = known["pictures"], known["highest"], list(known["after"])  # after[k]: k tries
    stands, done = known["stands"], int(known["done"])  # in the try in hand: after so many of its samples

    def keep() -> None:
        now = {"after": torch.stack(after), "stands": stands, "done": torch.tensor(done)}
        seldom.keep("attacked", known | now)

    with attacking(model, batch_size):
        for number, (name, part, restart) in enumerate(tries[len(after) - 1 :], start=len(after) - 1):
            for rows in filter(len, after[-1].nonzero().flatten()[done:].split(batch_size)):
                x, own = split.images.take(rows), split.labels[rows.to(split.labels.device)]
                purpose = (restarted(seed, restart), "attack", name, part.name.value, int(rows[0]))
                tried = perturb_batch(model, x, own, part, threat, classes=classes, purpose=purpose)
                right, losses = (found.cpu() for found in judged(model, tried, own))
                worse = ~right | (losses > highest[rows])
                pictures[rows[worse]] = tried.cpu().float()[worse]
                highest[rows], stands[rows] = torch.maximum(highest[rows], losses), right
                done += len(rows)
                if seldom.due():
                    keep()
                watch(number * len(split) + int(rows[-1]) + 1, len(tries) * len(split), standing=int(stands.sum()))
            after.append(stands)
            stands, done = stands.clone(), 0
            keep()
    last = {name: number for number, (name, _, _) in enumerate(tries, start=1)}
    standing = {name: after[number] for name, number in last.items()}
    return Attacked(pictures, after[0], standing)


def check_shape(field: str, attacks: Iterable[tuple[str, Attack]], threat: Threat, shape: tuple[int, ...]) -> None:
    """Raise InputError where pictures (C, H, W) are too small for the radius (named `field`), or for an attack.

    attacks: each with the name of its setting.
    """
    most = farthest(threat.norm, shape)
    if threat.radius > most:
        raise InputError(field, threat.eps, f"the farthest two pictures are {most:.3g} apart; expected less")
    for name, attack in attacks:
        if any(part.name is AttackName.square for part in parts(attack)) and not tiles(shape, threat.norm):
            raise InputError(name, attack.name, f"square does not fit pictures of {shape[-2]}x{shape[-1]} in L2")


@torch.no_grad()
def judged(model: nn.Module, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return where the model is right on pictures (b, C, H, W), bool (b,), and its losses (b,)."""
    logits = finite_logits(model(x))
    return logits.argmax(1) == labels, F.cross_entropy(logits, labels, reduction="none")


def finite_logits(logits: Tensor) -> Tensor:
    """Return `logits`; raises FloatingPointError where one is not finite: the highest of NaN is no class."""
    if not bool(logits.isfinite().all()):
        raise FloatingPointError("the model gives logits that are not finite; it cannot be attacked")
    return logits


def parts(attack: Attack) -> list[Attack]:
    """Return the attacks that `attack` is made of: four for autoattack."""
    names = AUTOATTACK if attack.name is AttackName.autoattack else (attack.name,)
    return [replace(attack, name=name) for name in names]


def restarted(seed: int, restart: int) -> int:
    """Return the seed of one try; the first has that of the run."""
    return derive(seed, "restart", restart) if restart else seed


@contextmanager
def attacking(model: nn.Module, batch_size: int) -> Iterator[None]:
    """Make the model ready to be attacked, and put it back; out of memory names the size of a batch."""
    field = "evaluation.batch_size"
    with evaluating(model), frozen(model), channels_last(model), out_of_memory_names(field, batch_size):
        yield
