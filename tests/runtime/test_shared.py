"""Every shared stage gives two processes what it gives one: scores, attacked pictures, metrics and weights."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from defense.config.choices import AttackName, Direction, Keep, Members, Method, ObjectiveName
from defense.config.schema import Attack, Evaluation, Objective, Train
from defense.data.load import load
from defense.data.splits import Dataset
from defense.data.validation import Validation
from defense.errors import InputError
from defense.models.build import build
from defense.models.checkpoints import Checkpoint
from defense.runtime import checkpoint as checkpoint
from defense.runtime.checkpoint import NoCheckpoint
from defense.runtime.devices import join_process_group
from defense.runtime.distributed import SINGLE_PROCESS, Ranks
from defense.runtime.processes import spawned
from defense.runtime.progress import no_progress
from defense.runtime.ranks import RankInfo
from defense.stages.treat import untreated
from defense.store.store import FileCheckpointer
from tests.calls import attack, evaluate, fit, losses_of, perturb, retrain, run_suite, score, train
from tests.conftest import data, recipe, scorer, threat

pytestmark = pytest.mark.slow
CPU = torch.device("cpu")
CNN = {"_target_": "defense.models.networks.cnn", "width": 4}  # with batch norm
MLP = {"_target_": "defense.models.networks.mlp", "hidden": [16]}
BOTH = Objective({ObjectiveName.robustness: 0.7, ObjectiveName.utility: 0.3}, positive=1)


@cache
def digits() -> Dataset:
    return load(data(train_size=205, validation_size=70, test_size=90), seed=0)


@cache
def network() -> nn.Module:
    """A trained network, so that attacks have something to do."""
    model = build(CNN, digits(), seed=0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    x, labels = digits().train.images.take(torch.arange(205)), digits().train.labels
    for _ in range(15):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), labels).backward()
        optimizer.step()
    return model.eval()


def validation() -> Validation:
    clean = digits().validation
    adversarial = clean.images.take(torch.arange(len(clean))).flip(-1)
    return Validation(clean, clean.with_images(type(clean.images)(adversarial)))  # type: ignore[call-arg]


SCORERS: list[dict[str, Any]] = [
    {"batch_size": 16},
    {"batch_size": 500},  # one batch: a process has none
    {"members": Members.dropout, "count": 3, "max_rate": 0.1, "cosine": True, "batch_size": 16},
    {"members": Members.checkpoints, "batch_size": 16},
    {"direction": Direction.cg, "parameters": "head.*", "batch_size": 64},
    {"direction": Direction.datainf, "batch_size": 64},
    {"method": Method.self_influence, "batch_size": 16},
    {"method": Method.loss, "batch_size": 16},
    {"precision": "bf16", "batch_size": 16},
]


def scored(ranks: Ranks, changes: dict[str, Any]) -> dict[str, Any]:
    states = [Checkpoint("one", 0.1, network().state_dict()), Checkpoint("two", 0.2, network().state_dict())]
    found = score(
        network(),
        digits().train,
        validation(),
        BOTH,
        scorer(**changes),
        states=states,
        seed=0,
        progress=no_progress,
        ranks=ranks,
    )
    return {"table": found.table, "record": found.record}


ATTACKS = [
    Attack(AttackName.pgd, steps=3, restarts=2),
    Attack(AttackName.square, queries=20),
    Attack(AttackName.autoattack, steps=2, queries=5),
]


def attacked(ranks: Ranks, spec: Attack) -> Tensor:
    common: dict[str, Any] = {"classes": 10, "batch_size": 16, "seed": 1, "progress": no_progress, "ranks": ranks}
    return attack(network(), digits().validation, spec, threat(), **common).tensors["pictures"]


def evaluated(ranks: Ranks) -> dict[str, Any]:
    attacks = {"fgsm": Attack(AttackName.fgsm), "pgd": ATTACKS[0], "apgd_t": Attack(AttackName.apgd_t, steps=3)}
    suite = Evaluation(attacks, batch_size=16)
    frozen = digits().test.images.take(torch.arange(90)).flip(-1)
    common: dict[str, Any] = {"classes": 10, "seed": 1, "keep": True, "progress": no_progress, "ranks": ranks}
    found = evaluate(network(), digits().test, suite, threat(), frozen, **common)
    return {"table": found.table, "pictures": found.tensors["pictures"]}


TRAININGS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (MLP, {"ema": 0.8, "keep": Keep.clean}),
    (CNN, {"crop": 1, "flip": True}),
    (CNN, {"keep": Keep.robust, "validation_steps": 2, "channels_last": True}),
]


def trained(
    ranks: Ranks, settings: dict[str, Any], spec: Train, checkpoint: Any = None, progress: Any = no_progress
) -> dict[str, Any]:
    fabric = Fabric(accelerator="cpu", devices=1)
    common: dict[str, Any] = {
        "threat": threat(),
        "seed": 3,
        "fabric": fabric,
        "progress": progress,
        "ranks": ranks,
    }
    found = train(settings, digits(), spec, untreated(digits().train), checkpoint=checkpoint, **common)
    return {"weights": found.weights, "checkpoints": found.checkpoints, "history": found.history}


def short(**changes: Any) -> Train:
    return recipe(**{"epochs": 3, "batch_size": 33, "checkpoints": 2, "learning_rate": 0.02} | changes)


def retrained(ranks: Ranks) -> dict[str, Tensor]:
    parts = torch.stack([(torch.arange(205) + row) % 2 == 0 for row in range(3)])
    fabric = Fabric(accelerator="cpu", devices=1)
    baseline = train(
        MLP,
        digits(),
        short(),
        untreated(digits().train),
        threat=threat(),
        seed=3,
        fabric=fabric,
        progress=no_progress,
    )
    common: dict[str, Any] = {
        "threat": threat(),
        "seed": 3,
        "fabric": fabric,
        "progress": no_progress,
        "ranks": ranks,
        "attack": Attack(AttackName.pgd, steps=2, step_size=0.05),
    }
    found = retrain(MLP, digits(), short(), parts, baseline, validation(), checkpoint=NoCheckpoint(), **common)
    return found.tensors


def everything(ranks: Ranks) -> dict[str, Any]:
    return {
        "scores": [scored(ranks, changes) for changes in SCORERS],
        "attacks": [attacked(ranks, spec) for spec in ATTACKS],
        "evaluation": evaluated(ranks),
        "trainings": [trained(ranks, settings, short(**changes)) for settings, changes in TRAININGS],
        "retrainings": retrained(ranks),
    }


def in_processes(info: RankInfo, folder: Path) -> list[dict[str, Any]]:
    ranks = join_process_group(info, CPU)
    found = everything(ranks) | {"small": on_a_small_device(ranks), "resumed": resumed(ranks, folder)}
    return ranks.exchange(found)


class Small(nn.Module):
    """A network for a device that has room for `room` samples."""

    def __init__(self, network: nn.Module, room: float) -> None:
        super().__init__()
        self.network, self.room = network, room

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        logits: Tensor = self.network(x)
        return logits


def on_a_small_device(ranks: Ranks) -> dict[str, Any]:
    """Scores where memory runs out on the second process alone: both have to go on with smaller batches."""
    model = Small(network(), 9 if ranks.rank == 1 else float("inf")).eval()
    objective = Objective({ObjectiveName.utility: 1.0}, positive=1)
    common: dict[str, Any] = {"seed": 0, "progress": no_progress, "ranks": ranks}
    found = score(model, digits().train, validation(), objective, scorer(batch_size=None), **common)
    norms = score(
        model,
        digits().train,
        validation(),
        objective,
        scorer(batch_size=None, method=Method.self_influence),
        **common,
    )
    return {"table": found.table, "norms": norms.table}


class Killed(Exception):
    """Stands for a kill in the middle of a stage."""


def killing(at: int) -> Any:
    calls = []

    def progress(done: int, total: int, **numbers: float) -> None:
        calls.append(done)
        if len(calls) == at:
            raise Killed

    return progress


def resumed(ranks: Ranks, folder: Path) -> dict[str, Any]:
    """Each shared stage, killed once in both processes and begun again."""
    checkpoint.KEPT_EVERY = 0.0
    suite = {"pgd": Attack(AttackName.pgd, steps=2, restarts=2), "square": Attack(AttackName.square, queries=9)}
    attacks: dict[str, Any] = {"classes": 10, "batch_size": 16, "seed": 1, "ranks": ranks}
    objective = Objective({ObjectiveName.utility: 1.0}, positive=1)
    works: dict[str, Any] = {
        "train": lambda progress, kept: trained(ranks, MLP, short(), kept, progress)["weights"],
        "perturb": lambda progress, kept: perturb(
            network(), digits().test, suite["pgd"], threat(), progress=progress, checkpoint=kept, **attacks
        ),
        "in turn": lambda progress, kept: (
            run_suite(
                network(), digits().test, suite, threat(), progress=progress, checkpoint=kept, **attacks
            ).pictures
        ),
        "score": lambda progress, kept: score(
            network(),
            digits().train,
            validation(),
            objective,
            scorer(batch_size=16),
            seed=0,
            progress=progress,
            checkpoint=kept,
            ranks=ranks,
        ).table["score"],
    }
    found = {}
    for name, work in works.items():
        progress = FileCheckpointer(folder / name)
        killed = False
        try:
            work(killing(3 if name != "train" else 9), progress)
        except Killed:
            killed = True
        found[name] = (work(no_progress, NoCheckpoint()), work(no_progress, progress), killed)
    checkpoint.KEPT_EVERY = 30.0
    return found


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes finds, and one alone; all of one thread, since sums differ with their number."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        alone = everything(SINGLE_PROCESS) | {"small": on_a_small_device(SINGLE_PROCESS)}
        return [*spawned(in_processes, 2, tmp_path_factory.mktemp("kept")), alone]
    finally:
        torch.set_num_threads(threads)


def close(one: pd.DataFrame, other: pd.DataFrame, tolerance: float = 1e-5) -> None:
    pd.testing.assert_frame_equal(one, other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("number", range(len(SCORERS)), ids=lambda number: str(SCORERS[number]))
def test_scores(found: list[dict[str, Any]], rank: int, number: int) -> None:
    mine, alone = found[rank]["scores"][number], found[2]["scores"][number]
    assert alone["table"]["score"].std() > 0
    close(mine["table"], alone["table"])
    close(mine["record"], alone["record"], 1e-4)


@pytest.mark.parametrize("rank", [0, 1])
def test_attacks_and_metrics_are_the_same_bit_for_bit(found: list[dict[str, Any]], rank: int) -> None:
    for mine, alone in zip(found[rank]["attacks"], found[2]["attacks"], strict=True):
        assert torch.equal(mine, alone)
    mine, alone = found[rank]["evaluation"], found[2]["evaluation"]
    pd.testing.assert_frame_equal(mine["table"], alone["table"])
    assert torch.equal(mine["pictures"], alone["pictures"])
    assert 0 < alone["table"]["adaptive.worst"].mean() < alone["table"]["clean"].mean()


@pytest.mark.parametrize("number", range(len(TRAININGS)), ids=lambda number: str(TRAININGS[number]))
def test_trainings_agree_and_processes_have_the_same_weights(found: list[dict[str, Any]], number: int) -> None:
    first, second, alone = (each["trainings"][number] for each in found)
    for part in ("weights", "checkpoints"):
        assert all(torch.equal(first[part][name], second[part][name]) for name in first[part])
        torch.testing.assert_close(first[part], alone[part], rtol=1e-3, atol=1e-5)
    pd.testing.assert_frame_equal(first["history"], second["history"])
    close(first["history"], alone["history"], 1e-4)


def test_retrainings_are_the_same(found: list[dict[str, Any]]) -> None:
    for name in ("clean", "frozen", "adversarial"):
        first, second, alone = (each["retrainings"][name] for each in found)
        assert torch.equal(first, alone)
        assert torch.equal(second, alone)


def test_all_go_on_with_smaller_batches_where_memory_runs_out_on_one(found: list[dict[str, Any]]) -> None:
    first, second, alone = (each["small"] for each in found)
    for name in ("table", "norms"):
        pd.testing.assert_frame_equal(first[name], second[name])
        close(first[name], alone[name])


@pytest.mark.parametrize("name", ["train", "perturb", "in turn", "score"])
def test_what_is_killed_goes_on_to_the_same_result(found: list[dict[str, Any]], name: str) -> None:
    for each in found[:2]:
        whole, again, killed = each["resumed"][name]
        assert killed
        torch.testing.assert_close(again, whole, rtol=0, atol=0) if name != "score" else close_columns(
            again, whole
        )


def close_columns(one: pd.Series, other: pd.Series) -> None:
    pd.testing.assert_series_equal(one, other, check_exact=True)


def draws_of(ranks: Ranks) -> list[int]:
    """What dropout draws in a training of this process."""
    drawn: list[int] = []

    class Drawing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(64, 10)

        def forward(self, x: Tensor) -> Tensor:
            if self.training:
                drawn.append(int(torch.randint(0, 2**31, ())))
            logits: Tensor = self.layer(x.flatten(1))
            return logits

    fabric = Fabric(accelerator="cpu", devices=1)
    kept, seed = torch.ones(205, dtype=torch.bool), {"seed": 3, "fabric": fabric, "progress": no_progress}
    losses = losses_of(short(), threat(), 10)
    measure: Any = lambda network, epoch: {"validation_accuracy": 0.0}  # noqa: E731
    list(
        fit(
            Drawing(), digits().train, short(epochs=1), keep=kept, weights=torch.ones(205), losses=losses,
            measure=measure, ranks=ranks, **seed,
        )
    )  # fmt: skip
    return drawn


def drawn_in_processes(info: RankInfo) -> list[list[int]]:
    ranks = join_process_group(info, CPU)
    return ranks.exchange(draws_of(ranks))


def test_processes_draw_each_its_own() -> None:
    first, second = spawned(drawn_in_processes, 2)
    assert len(first) == len(second) == 7
    assert not set(first) & set(second)


def too_few_to_share(info: RankInfo) -> None:
    trained(join_process_group(info, CPU), MLP, short(batch_size=1))


def test_a_batch_without_a_sample_for_each_is_refused() -> None:
    with pytest.raises(InputError, match=r"^train.batch_size=1: leaves batches of 1 samples for 2 processes"):
        spawned(too_few_to_share, 2)
