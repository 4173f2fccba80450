"""Attacks on a whole split: one attack on every sample, or several in turn on those that still stand."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from defense.config.choices import AttackName
from defense.config.schema import Attack, Threat, as_fraction
from defense.data.splits import Split
from defense.errors import InputError, out_of_memory_names
from defense.models.modes import channels_last, evaluating, frozen
from defense.models.predict import predict
from defense.randomness import derive
from defense.robustness.attack_pass import AttackPass, correct_and_losses, finite_logits
from defense.robustness.attacks import AUTOATTACK, Attacker, perturb_batch
from defense.robustness.ball import farthest
from defense.robustness.square import tiles
from defense.runtime.checkpoint import ThrottledCheckpoint
from defense.runtime.distributed import (
    Ranks,
    SharedCheckpoint,
    raise_on_all,
    rank_name,
    shard,
    shard_batches,
)
from defense.runtime.runtime import Runtime

LOOK, LOOK_QUERIES = 32, 500  # samples and queries that show whether Square breaks what gradients leave


@dataclass(frozen=True)
class Attacked:
    """What a suite did to each sample of a split, row by row."""

    pictures: Tensor  # float32 (n, C, H, W): the one that broke the sample, else the one of the highest loss
    clean: Tensor  # bool (n,): right without attack
    standing: dict[str, Tensor]  # bool (n,) by attack: right after it, and after all before it


def perturb(attacker: Attacker, split: Split, attack: Attack, runtime: Runtime) -> Tensor:
    """Return every picture of `split` attacked: float32 (n, C, H, W) on the CPU, inside the ball and in [0, 1].

    Of all restarts, returns a misclassified picture if there is any, and among those the one of the highest loss;
    autoattack stops at the first. What apgd_t, fab_t and square do not break stays as it is. The same seed gives
    the same result; the model comes back untouched. Raises RuntimeError if the attack leaves the threat model,
    FloatingPointError for logits that are not finite. runtime: its ranks share the batches.
    """
    if attack.name is AttackName.autoattack:
        return run_suite(attacker, split, {"autoattack": attack}, runtime).pictures
    size, ranks = attacker.batch_size, runtime.ranks
    mine = shard_batches(ranks, len(split), size)
    out = torch.empty((len(mine), *split.images.shape))
    part = rank_name(ranks, "perturbed")

    def own() -> Tensor:
        checkpoint = ThrottledCheckpoint(runtime.checkpoint)
        known = (checkpoint.load(part) or {}).get("pictures", out[:0])
        out[: len(known)] = known
        for rows, x, labels in split.batches(size, start=mine.start + len(known), stop=mine.stop):
            done = rows.stop - mine.start
            worst = worst_of_restarts(attacker, x, labels, attack, first=rows.start)
            out[rows.start - mine.start : done] = worst.cpu()
            if checkpoint.due():
                checkpoint.save(part, {"pictures": out[:done]})
            runtime.progress(done, len(mine))
        return out

    with attacking(attacker.model, size):
        return ranks.gather(raise_on_all(ranks, own))


def worst_of_restarts(attacker: Attacker, x: Tensor, labels: Tensor, attack: Attack, *, first: int) -> Tensor:
    """Return pictures (b, C, H, W), from row `first` on, as the worst restart of `attack` leaves them."""
    model, threat, classes, seed = attacker.model, attacker.threat, attacker.classes, attacker.seed
    best, highest = x, torch.full((len(x),), -torch.inf, device=x.device)
    mistaken = torch.zeros_like(labels, dtype=torch.bool)
    for restart in range(attack.restarts):
        purpose = (restarted(seed, restart), "attack", attack.name.value, first)
        tried = perturb_batch(model, x, labels, attack, threat, classes=classes, purpose=purpose)
        right, losses = correct_and_losses(model, tried, labels)
        better = (~right & ~mistaken) | ((right != mistaken) & (losses > highest))
        mistaken = mistaken | ~right
        best = torch.where(better.view(-1, 1, 1, 1), tried, best)
        highest = torch.where(better, losses, highest)
    return best


def run_suite(
    attacker: Attacker,
    split: Split,
    attacks: Mapping[str, Attack],
    runtime: Runtime,
    *,
    masked: Collection[str] = (),
) -> Attacked:
    """Attack `split` with each of `attacks`, every one on the samples that the ones before have left standing.

    Each restart is a try of its own. A sample that is wrong without attack counts as broken from the start, since
    staying put is open to every attacker. masked: names of squares that are first tried on LOOK samples, and on
    all that stand only if that breaks one: a sign that gradients are masked. runtime: its ranks share the batches
    of a try; its checkpoint keeps every finished try, and parts of a long one.
    """
    model, batch_size, ranks = attacker.model, attacker.batch_size, runtime.ranks
    tries = [each for name, attack in attacks.items() for each in tries_of(name, attack, look=name in masked)]
    checkpoint = ThrottledCheckpoint(runtime.checkpoint)
    common = SharedCheckpoint(checkpoint, ranks)
    with attacking(model, batch_size):
        known = common.load("attacked") or unattacked(model, split, batch_size, ranks)
        pictures, highest, after = known["pictures"], known["highest"], list(known["after"])  # after[k]: k tries
        for number, each in enumerate(tries[len(after) - 1 :], start=len(after) - 1):

            def attempt(x: Tensor, labels: Tensor, first: int, each: Try = each) -> Tensor:
                threat, classes = attacker.threat, attacker.classes
                seed, drawn_for = restarted(attacker.seed, each.restart), (*each.purpose, first)
                purpose: tuple[int, *tuple[str | int, ...]] = (seed, *drawn_for)
                return perturb_batch(model, x, labels, each.attack, threat, classes=classes, purpose=purpose)

            def seen(row: int, standing: int, number: int = number) -> None:
                runtime.progress(number * len(split) + row + 1, len(tries) * len(split), standing=standing)

            batches = list(filter(len, rows_of(each, after).split(batch_size)))
            mine = [batches[index] for index in shard(ranks, len(batches))]
            turn = AttackPass(model, split, pictures, highest, after[-1].clone(), number)
            raise_on_all(ranks, partial(turn.take, mine, attempt, seen, checkpoint, rank_name(ranks, "try")))
            turn.tell(ranks, batches, mine)
            after.append(turn.stands)
            common.save("attacked", {"pictures": pictures, "highest": highest, "after": torch.stack(after)})
    last = {each.name: number for number, each in enumerate(tries, start=1)}
    standing = {name: after[number] for name, number in last.items()}
    return Attacked(pictures, after[0], standing)


@dataclass(frozen=True)
class Try:
    """One try of a suite: an attack, or a part of autoattack, from one start."""

    name: str  # of the attack in the suite
    attack: Attack
    restart: int = 0
    look: bool = False  # on LOOK samples alone
    look_before: int = 0  # only if the look, so many tries before it, breaks a sample

    @property
    def purpose(self) -> tuple[str | int, ...]:
        """What its draws are for."""
        return ("attack", self.name, self.attack.name.value, *(["look"] if self.look else []))


def tries_of(name: str, attack: Attack, *, look: bool) -> list[Try]:
    """Return the tries of an attack of a suite; look: the first is on a few samples, the others hang on it."""
    tries = [Try(name, part, restart) for part in parts(attack) for restart in range(part.restarts)]
    if not look:
        return tries
    few = Try(name, replace(attack, queries=min(attack.queries, LOOK_QUERIES)), look=True)
    return [few, *(replace(each, look_before=number) for number, each in enumerate(tries, start=1))]


def rows_of(each: Try, after: Sequence[Tensor]) -> Tensor:
    """Return the rows that a try attacks, int64 (k,), given what stands after the tries before it."""
    standing = after[-1].nonzero().flatten()
    if each.look:
        return few_of(standing)
    if each.look_before:
        before, since = after[-1 - each.look_before], after[-each.look_before]
        return standing if bool((before & ~since).any()) else standing[:0]
    return standing


def few_of(rows: Tensor) -> Tensor:
    """Return LOOK of the rows, evenly spread, or all if there are fewer."""
    count = min(LOOK, len(rows))
    return rows[torch.arange(count) * len(rows) // max(count, 1)]


def unattacked(model: nn.Module, split: Split, batch_size: int, ranks: Ranks) -> dict[str, Tensor]:
    """Return what there is before the first try: the pictures, their losses, and where the model is right."""
    logits = finite_logits(predict(model, split, batch_size=batch_size, ranks=ranks))
    labels = split.labels.cpu()
    pictures = split.images.take(torch.arange(len(split))).float().cpu()
    losses = F.cross_entropy(logits, labels, reduction="none")
    return {"pictures": pictures, "highest": losses, "after": (logits.argmax(1) == labels)[None]}


def check_shape(field: str, attacks: Iterable[tuple[str, Attack]], threat: Threat, shape: tuple[int, ...]) -> None:
    """Raise InputError if pictures (C, H, W) are too small for the radius (named `field`), or for an attack.

    attacks: each with the name of its setting.
    """
    most = farthest(threat.norm, shape)
    if threat.eps > most:
        found = f"the farthest two pictures are {most:.3g} apart; expected less"
        raise InputError(field, as_fraction(threat.eps), found)
    for name, attack in attacks:
        if any(part.name is AttackName.square for part in parts(attack)) and not tiles(shape, threat.norm):
            raise InputError(name, attack.name, f"square does not fit pictures of {shape[-2]}x{shape[-1]} in L2")


def parts(attack: Attack) -> list[Attack]:
    """Return the attacks that `attack` is made of: four for autoattack."""
    names = AUTOATTACK if attack.name is AttackName.autoattack else (attack.name,)
    return [replace(attack, name=name) for name in names]


def restarted(seed: int, restart: int) -> int:
    """Return the seed of one try; the first has that of the run."""
    return derive(seed, "restart", restart) if restart else seed


@contextmanager
def attacking(model: nn.Module, batch_size: int) -> Iterator[None]:
    """Make the model ready to be attacked, and put it back; out of memory names the size of a batch.

    Its logits are in float32, as torchattacks keeps them.
    """
    field = "evaluation.batch_size"
    with evaluating(model), frozen(model), channels_last(model), out_of_memory_names(field, batch_size):
        single = model.register_forward_hook(lambda _, given, logits: logits.float())
        try:
            yield
        finally:
            single.remove()
