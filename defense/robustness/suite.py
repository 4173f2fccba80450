"""Attacks on a whole split: one attack on every sample, or several in turn on those that still stand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from defense.choices import AttackName
from defense.data.splits import Split
from defense.errors import out_of_memory_names
from defense.memory import Forgetful, Memory
from defense.models.modes import channels_last, evaluating, frozen
from defense.models.predict import predict
from defense.randomness import derive
from defense.robustness.attacks import AUTOATTACK, perturb_batch
from defense.schema import Attack, Threat

Watch = Callable[..., None]


@dataclass(frozen=True)
class Attacked:
    """What a suite did to each sample of a split, row by row."""

    pictures: Tensor  # float32 (n, C, H, W): the one that broke the sample, else the last that was tried
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
) -> Tensor:
    """Return every picture of `split` attacked: float32 (n, C, H, W) on the CPU, inside the ball and in [0, 1].

    Of `attack.restarts` tries the one with the highest loss; autoattack stops at the first that is mistaken. The
    same seed gives the same result; the model comes back untouched. Raises RuntimeError when the attack leaves the
    threat model.
    """
    if attack.name is AttackName.autoattack:
        chain = {"autoattack": attack}
        return in_turn(
            model, split, chain, threat, classes=classes, batch_size=batch_size, seed=seed, watch=watch
        ).pictures
    out = torch.empty((len(split), *split.images.shape))
    with attacking(model, batch_size):
        for rows, x, labels in split.batches(batch_size):
            best, highest = x, torch.full((len(x),), -torch.inf, device=x.device)
            for restart in range(attack.restarts):
                purpose = (restarted(seed, restart), "attack", attack.name.value, rows.start)
                tried = perturb_batch(model, x, labels, attack, threat, classes=classes, purpose=purpose)
                losses = F.cross_entropy(model(tried), labels, reduction="none")
                better = losses > highest
                best = torch.where(better.view(-1, 1, 1, 1), tried, best)
                highest = torch.where(better, losses, highest)
            out[rows] = best.cpu()
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
    staying put is open to every attacker. memory: what is finished, try by try.
    """
    memory = Forgetful() if memory is None else memory
    labels = split.labels.cpu()
    tries = [
        (name, part, restart)
        for name, attack in attacks.items()
        for part in parts(attack)
        for restart in range(part.restarts)
    ]
    known = memory.recall("attacked")
    if known is None:
        clean = predict(model, split, batch_size=batch_size).argmax(1) == labels
        pictures = split.images.take(torch.arange(len(split))).float().cpu()
        known = {"pictures": pictures, "after": clean[None]}
    pictures, after = known["pictures"], list(known["after"])  # after[k]: what stands after k tries
    with attacking(model, batch_size):
        for number, (name, part, restart) in enumerate(tries[len(after) - 1 :], start=len(after) - 1):
            stands = after[-1].clone()
            for rows in filter(len, stands.nonzero().flatten().split(batch_size)):
                x, own = split.images.take(rows), split.labels[rows.to(split.labels.device)]
                purpose = (restarted(seed, restart), "attack", name, part.name.value, int(rows[0]))
                tried = perturb_batch(model, x, own, part, threat, classes=classes, purpose=purpose)
                with torch.no_grad():
                    stands[rows] = model(tried).argmax(1).cpu() == labels[rows]
                pictures[rows] = tried.cpu()
                watch(number * len(split) + int(rows[-1]), len(tries) * len(split), standing=int(stands.sum()))
            after.append(stands)
            memory.keep("attacked", {"pictures": pictures, "after": torch.stack(after)})
    last = {name: number for number, (name, _, _) in enumerate(tries, start=1)}
    standing = {name: after[number] for name, number in last.items()}
    return Attacked(pictures, after[0], standing)


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
