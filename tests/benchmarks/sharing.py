"""How much faster two processes of one thread score, attack, evaluate and train than one.

    python -m tests.benchmarks.sharing        a table of seconds, the best of some rounds

All ways alternate in the same two processes; while one works alone the other waits. Two cores have to be free. The
time of the processor is compared with that of two processes that both do the whole work: two busy cores slow each
other down, more or less by the machine, and that is no fault of the sharing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn

from defense.config.choices import AttackName, ObjectiveName
from defense.config.schema import Attack, Evaluation, Objective
from defense.data.splits import Dataset
from defense.data.validation import Validation
from defense.models.networks import cnn
from defense.runtime.devices import join_process_group
from defense.runtime.distributed import SINGLE_PROCESS, Ranks
from defense.runtime.processes import spawned
from defense.runtime.progress import no_progress
from defense.runtime.ranks import RankInfo
from defense.stages.treat import untreated
from tests.calls import attack, evaluate, score, train
from tests.conftest import make_split, recipe, scorer, threat

SHAPE = (3, 32, 32)
TRAIN, HELD_OUT, TEST = (make_split(count, 10, SHAPE, seed=seed) for seed, count in enumerate((2048, 512, 128)))
ROUNDS = 4


@dataclass
class Taken:
    """Seconds of one kind of work, round by round: on the clock, and of the processor (of the busier process)."""

    alone: list[float] = field(default_factory=list)
    shared: list[float] = field(default_factory=list)
    both_busy: list[float] = field(default_factory=list)
    shared_busy: list[float] = field(default_factory=list)

    @property
    def factor(self) -> float:
        """How many times as fast two are."""
        return min(self.alone) / min(self.shared)

    @property
    def busy_factor(self) -> float:
        """How many times as much time of its processor each takes if it does the whole work."""
        return min(self.both_busy) / min(self.shared_busy)


def network() -> nn.Module:
    torch.manual_seed(0)
    return cnn(input_shape=SHAPE, classes=10, mean=[0.5] * 3, std=[0.2] * 3, width=16).eval()


def scoring(ranks: Ranks) -> None:
    objective = Objective({ObjectiveName.robustness: 1.0}, positive=1)
    spec = scorer(batch_size=64)
    score(
        network(),
        TRAIN,
        Validation(HELD_OUT, HELD_OUT),
        objective,
        spec,
        seed=0,
        progress=no_progress,
        ranks=ranks,
    )


def attacking(ranks: Ranks) -> None:
    common: dict[str, Any] = {"classes": 10, "batch_size": 32, "seed": 0, "progress": no_progress, "ranks": ranks}
    attack(network(), HELD_OUT, Attack(AttackName.pgd, steps=10), threat(), **common)


def evaluating(ranks: Ranks) -> None:
    attacks = {"pgd": Attack(AttackName.pgd, steps=20), "apgd_t": Attack(AttackName.apgd_t, steps=10)}
    suite = Evaluation(attacks, batch_size=16)
    model = network()
    labels = model(TEST.images.take(torch.arange(len(TEST)))).argmax(1)  # so that all are right, and most stand
    common: dict[str, Any] = {"classes": 10, "seed": 0, "progress": no_progress, "ranks": ranks}
    evaluate(model, replace(TEST, labels=labels), suite, threat(eps="1/2550"), None, **common)


def training(ranks: Ranks) -> None:
    data = Dataset(TRAIN, HELD_OUT, TEST, [str(label) for label in range(10)], noise_known=False)
    settings = {"_target_": "defense.models.networks.cnn", "width": 16}
    fabric = Fabric(accelerator="cpu", devices=1)
    common: dict[str, Any] = {
        "threat": threat(),
        "seed": 0,
        "fabric": fabric,
        "progress": no_progress,
        "ranks": ranks,
    }
    train(settings, data, recipe(epochs=1, batch_size=128, checkpoints=1), untreated(TRAIN), **common)


WORKS: dict[str, Callable[[Ranks], None]] = {
    "score": scoring,
    "attack": attacking,
    "evaluate": evaluating,
    "train": training,
}


def measured(place: RankInfo, names: list[str], rounds: int) -> dict[str, Taken]:
    """Return what each work takes, as one of the two processes."""
    ranks = join_process_group(place, torch.device("cpu"))
    found = {name: Taken() for name in names}
    for number in range(rounds):
        for name, taken in found.items():
            alone, _ = timed(ranks, lambda name=name: WORKS[name](SINGLE_PROCESS) if ranks.rank == 0 else None)
            _, both_busy = timed(ranks, lambda name=name: WORKS[name](SINGLE_PROCESS))
            shared, shared_busy = timed(ranks, lambda name=name: WORKS[name](ranks))
            if number:  # the first is to warm up
                taken.alone.append(alone)
                taken.shared.append(shared)
                taken.both_busy.append(both_busy)
                taken.shared_busy.append(shared_busy)
    return found


def timed(ranks: Ranks, work: Callable[[], None]) -> tuple[float, float]:
    """Return the seconds from when both begin to when both have ended, and those that the busier was busy."""
    ranks.exchange(None)
    begin, busy = time.perf_counter(), time.process_time()
    work()
    busy = time.process_time() - busy
    ranks.exchange(None)
    seconds = time.perf_counter() - begin
    return seconds, max(ranks.exchange(busy))


def table(found: dict[str, Taken]) -> str:
    """Return the seconds and factors as a table."""
    lines = ["| work | one, s | two, s | factor | of processor time |", "| --- | ---: | ---: | ---: | ---: |"]
    for name, taken in found.items():
        numbers = (
            f"{min(taken.alone):.2f} | {min(taken.shared):.2f} | {taken.factor:.2f} | {taken.busy_factor:.2f}"
        )
        lines.append(f"| {name} | {numbers} |")
    return "\n".join(lines)


if __name__ == "__main__":
    from tests.benchmarks import sharing  # by a name that the processes find it by

    before = os.getloadavg()[0]
    torch.set_num_threads(1)
    print(table(spawned(sharing.measured, 2, list(WORKS), ROUNDS)))
    print(f"\nload before: {before:.2f}; above 0.5 the seconds are not to be believed")
