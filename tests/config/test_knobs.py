"""Every knob of conf/config.yaml moves the keys of the stages that are said to read it here, and of no others.

A run is walked through without computing: the artifact of a stage does not depend on its arguments, so that a key
moves only if the stage itself reads the change. Elsewhere a knob is refused, said to be unread, or not a stage's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from defense.artifacts import (
    AdversarialSet,
    Checks,
    Contributions,
    DescentRound,
    Evaluation,
    Evasion,
    HeldOut,
    Measurement,
    Planted,
    Retrainings,
    Scores,
    Smoothness,
    TrainedModel,
    Trajectory,
    Treatment,
)
from defense.config.compose import composed
from defense.config.reads import unread
from defense.config.schema import plain
from defense.errors import InputError
from defense.pipeline import load as loading
from defense.runtime.distributed import SingleProcess
from defense.runtime.runtime import Runtime
from defense.stages.treat import untreated
from defense.store.fingerprint import canonical
from defense.store.stage import Stage
from defense.tasks.registry import TASKS
from tests.conftest import changed
from tests.same_numbers import write_inputs, write_texts
from tests.texts import tiny_encoder


def record() -> pd.DataFrame:
    return pd.DataFrame({"name": pd.Series(dtype=str), "value": pd.Series(dtype=float)})


def pictures(arguments: Mapping[str, Any], name: str) -> dict[str, torch.Tensor]:
    split = arguments[name]
    return {"pictures": torch.zeros((len(split), *split.images.shape))}


def scores(arguments: Mapping[str, Any]) -> Scores:
    train = arguments["data"].train if "trajectory" in arguments else arguments.get("train")
    if train is None:
        return next(iter(arguments["each"].values()))
    table = pd.DataFrame({"id": train.ids.numpy(), "score": np.arange(len(train), dtype=float)})
    table["label"] = table["prediction"] = train.labels.numpy()
    table["loss"] = 0.0
    return Scores(table.assign(**{f"score.{d:g}": 0.0 for d in arguments.get("dampings", ())}), record())


def treatment(arguments: Mapping[str, Any]) -> Treatment:
    table = untreated(arguments["train"]).table
    return Treatment(table.assign(keep=np.arange(len(table)) > 0, treated=np.arange(len(table)) == 0))


def evaluation(arguments: Mapping[str, Any]) -> Evaluation:
    test = arguments["test"]
    columns = {"id": test.ids.numpy(), "prediction": test.labels.numpy(), "clean": True, "adaptive.worst": True}
    return Evaluation(pd.DataFrame(columns), pictures(arguments, "test"))


def retrainings(arguments: Mapping[str, Any]) -> Retrainings:
    shape = (len(arguments["parts"]), len(arguments["validation"].clean), arguments["design"].data.classes)
    names = ("clean", "frozen", "adversarial")
    return Retrainings({name: torch.zeros(shape) for name in names})


LOSSES = cycle((1.0, 0.0))  # without a treatment, then with it: every descent is worth it


def contributions(arguments: Mapping[str, Any]) -> Contributions:
    ids = arguments["validation"].clean.ids.numpy()
    return Contributions(pd.DataFrame({"id": ids, "contribution": next(LOSSES)}))


def measurement(arguments: Mapping[str, Any]) -> Measurement:
    parts = arguments["parts"].items()
    tables = [
        pd.DataFrame({"id": split.ids, "label": split.labels.numpy(), "part": name}) for name, split in parts
    ]
    table = pd.concat(tables)
    return Measurement(table.assign(prediction=table["label"]))


def trained(arguments: Mapping[str, Any]) -> TrainedModel:
    history = pd.DataFrame({"epoch": [1], "learning_rate": [1.0], "kept": [True]})
    return TrainedModel({"weight": torch.zeros(1)}, {}, history)


def descent_round(arguments: Mapping[str, Any]) -> DescentRound:
    """Return a round in which the objective is lower, the more weights differ."""
    ids, spread = arguments["data"].train.ids.numpy(), arguments["treatment"].table["weight"].std()
    measured = pd.DataFrame({"part": ["validation", "choice"], "objective": -spread, "accuracy": 0.0})
    return DescentRound(pd.DataFrame({"id": ids, "score": np.arange(len(ids), dtype=float)}), measured)


ARTIFACTS = {
    Planted: lambda arguments: Planted(pd.DataFrame({"row": [0], "id": [0], "label": [0]}), {}),
    TrainedModel: trained,
    AdversarialSet: lambda arguments: AdversarialSet(pictures(arguments, "split")),
    Scores: scores,
    Retrainings: retrainings,
    Trajectory: lambda arguments: Trajectory({"0/form": torch.zeros(1)}),
    DescentRound: descent_round,
    Contributions: contributions,
    Smoothness: lambda arguments: Smoothness(record()),
    HeldOut: lambda arguments: HeldOut({"probabilities": torch.zeros(1)}),
    Treatment: treatment,
    Evaluation: evaluation,
    Measurement: measurement,
    Evasion: lambda arguments: Evasion(pd.DataFrame({"id": arguments["test"].ids.numpy()})),
    Checks: lambda arguments: Checks(pd.DataFrame({"id": arguments["test"].ids[:1].numpy()}), pd.DataFrame()),
}


class Walk:
    """Takes the keys of stages by label, and computes none."""

    def __init__(self, *_: object) -> None:
        self.identities: dict[str, dict[str, Any]] = {}
        self.keys, self.seconds, self.reused = dict[str, str](), dict[str, float](), list[str]()
        WALKS.append(self)

    def run_stage(self, stage: Stage, runtime: Runtime, arguments: Mapping[str, Any]) -> Any:
        self.identities[f"{stage.name} {runtime.label}"] = canonical(stage.identity(runtime, arguments))
        return ARTIFACTS[stage.hints["return"]](arguments)


class Pair(SingleProcess):
    """The first of two processes, which waits for nobody."""

    size = 2


WALKS: list[Walk] = []


@pytest.fixture
def walk(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return a function that walks through a run: the identity of every stage by label."""
    monkeypatch.chdir(tmp_path_factory.getbasetemp())
    for module in ("pipeline.load", "pipeline.run"):
        monkeypatch.setattr(f"defense.{module}.StageRunner", Walk)
    for task in TASKS.values():
        for name in [
            name for name in vars(__import__(task.__module__, fromlist=["x"])) if name.startswith("write_")
        ]:
            monkeypatch.setattr(f"{task.__module__}.{name}", lambda *_: {})
    monkeypatch.setattr("defense.pipeline.run.judge", lambda *_: {})
    monkeypatch.setattr("defense.tasks.speed.run.timed", lambda *_: ([], []))
    monkeypatch.setattr("defense.tasks.defend.run.compared_under", lambda *_: {})

    def through(overrides: list[str]) -> dict[str, dict[str, Any]]:
        config = changed(*overrides)
        ranks = Pair() if config.fabric.processes == 2 else SingleProcess()
        TASKS[config.task](loading.load_run(config, None, ranks), Path("."), overrides)
        return WALKS.pop().identities

    return through


SIZES = ["data.train_size=40", "data.validation_size=20", "data.test_size=20", "evaluation.checked=0"]
MOONS = ["data=moons", *SIZES]
TABLE = [
    "data=table", "data.path=inputs/table.csv", "data.target=income", "data.validation_size=30",
    "data.test_size=40", "task=repair", "objective=utility",
]  # fmt: skip
FAIR = [*TABLE, "data.sensitive=sex", "objective=demographic_parity"]
TEXT = [
    "data=text", "data.path=inputs/train.tsv", "data.test_path=inputs/test.tsv", "data.validation_size=20",
    "data.tokenizer=inputs/encoder", "data.length=16", "model=lora", "model.encoder=inputs/encoder", "task=repair",
    "objective=utility",
]  # fmt: skip
GIVEN = [
    *TEXT,
    "data.given_path=inputs/given.json",
    "data.given_key=sst2",
    "data.given_text=[sentence]",
    "objective=robustness",
]
NPZ = ["data=npz", "data.validation_size=20", "task=detect", "data.harm=symmetric"]
FOLDER = [
    "data=image_folder", "data.path=inputs/folder", "data.validation_size=10", "data.image_size=8", "task=detect",
    "scorer=loss", "data.harm=symmetric",
]  # fmt: skip
LISTED = [
    "data=image_table", "data.path=inputs/list.csv", "data.validation_size=10", "data.test_size=10",
    "data.image_size=8", "task=detect", "scorer=loss", "data.harm=symmetric",
]  # fmt: skip
STORED = ["data=huggingface", "data.path=inputs/stored", "data.image=picture", *LISTED[2:]]
SETS = ["data=dataset", "data._target_=tests.sets.noise", "data.validation_size=12", *LISTED[5:]]
AUTO = [*SIZES, "treatment.budget=auto", "data.validation_size=40"]
OPTIMIZE = [*SIZES, "treatment=optimize", "data.validation_size=40"]
HALVES = [*SIZES, "task=faithfulness", "faithfulness.count=3"]

TREATED = {"treat", "control"}
BY_USER = {"treat_by_user", "control_of_user"}
RETRAINED = TREATED | {"train"}
SHOWN = {"train", "score", "attack", "evaluate"}  # stages that look at pictures
ALL = SHOWN | TREATED
META = {"train", "trajectory", "metagradient", "smoothness"}
DESCENT = {"descent", "contribution"}
REPAIRED = {"train", "score", "measure"}


@dataclass(frozen=True)
class Case:
    """A change of a knob in a context, and the stages that read it there."""

    knob: str
    change: str
    moves: set[str]
    context: list[str]

    def __str__(self) -> str:
        return f"{self.change} in {' '.join(self.context)}"


def case(knob: str, value: object, moves: set[str], context: list[str] = SIZES) -> Case:
    return Case(knob, f"{knob}={value}", moves, context)


ATTACK = {"name": "fgsm", "steps": 3, "step_size": 0.01, "random_start": "false", "restarts": 2}
CASES = [
    case("seed", 1, ALL),
    case("task", "detect", {"treat", "control", "train", "evaluate"}),
    case("data.source", "blobs", ALL),
    case("data._target_", "tests.sets.other_noise", {"train", "score"}, SETS),
    case("data.arguments", "{seed:2}", {"train", "score"}, SETS),
    case("data.file", "other", {"train", "score"}, LISTED),
    case("data.ids", "who", set(), LISTED),
    case("data.test_path", "inputs/apart.csv data.test_size=null", {"train", "score"}, LISTED),
    case("data.image", "other", {"train", "score"}, STORED),
    case("data.target", "colour", {"train", "score"}, STORED),
    case("data.path", "inputs/other.csv", REPAIRED | TREATED, TABLE),
    case("data.validation_path", "inputs/other.csv", REPAIRED | TREATED, TABLE),
    case("data.test_path", "inputs/other.csv", {"measure"}, [*TABLE, "data.test_path=inputs/third.csv",
         "data.test_size=null"]),
    case("data.target", "sex", REPAIRED | TREATED, TABLE),
    case("data.columns", "[age]", REPAIRED, TABLE),
    case("data.ids", "key", REPAIRED, [*TABLE, "data.path=inputs/named.csv"]),
    case("data.drop", "[job]", REPAIRED, TABLE),
    case("data.categories", "[age]", REPAIRED, TABLE),
    case("data.numbers", "[age] data.categories=null", REPAIRED, [*TABLE, "data.path=inputs/commas.csv",
         "data.categories=[age]"]),
    case("data.outliers", "clip", REPAIRED, [*TABLE, "data.path=inputs/far.csv", "data.outliers=keep"]),
    case("data.sensitive", "sex", REPAIRED, TABLE),
    case("data.groups", "[clerk,nurse]", REPAIRED | TREATED, [*TABLE, "data.sensitive=job"]),
    case("data.positive", 0, {"score"}, FAIR),
    case("data.train_labels", "train_y_noisy", {"train", "score"}, [*NPZ[:-1], "data.path=inputs/pictures.npz",
         "data.train_labels=train_y_other"]),
    case("data.train_size", 50, ALL),
    case("data.validation_size", 30, ALL),
    case("data.test_size", 30, ALL),
    case("data.harm", "none", RETRAINED | {"score"}),
    case("data.harm_rate", 0.3, RETRAINED | {"score"}),
    case("data.harm_target", 1, ALL, [*SIZES, "data.harm=trigger"]),
    case("data.harm_patch", 2, SHOWN, [*SIZES, "data.harm=trigger"]),
    case("data.harm_eps", 0.3, {"plant"}, [*SIZES, "data.harm=poison"]),
    case("data.harm_eps", 0.3, {"train", "plant"}, [*SIZES, "data.harm=hypocritical"]),
    case("data.harm_rate", 1, {"plant"}, [*SIZES, "data.harm=hypocritical"]),
    case("data.harm", "hypocritical", {"train", "plant"}, [*SIZES, "data.harm=poison"]),
    case("data.image_size", 9, {"train", "score"}, FOLDER),
    case("data.unreadable", "skip", set(), FOLDER),
    case("data.channels", "last", {"train", "score", "attack"}, [*NPZ, "data.path=inputs/odd.npz",
         "data.channels=first"]),
    case("data.spread", 0.2, SHOWN, MOONS),
    case("data.eps", 0.2, {"attack", "evaluate"}),
    case("data.crop", 1, {"train"}),
    case("data.flip", "true", {"train"}),
    case("data.text", "[label,text]", REPAIRED, TEXT),
    case("data.tokenizer", "inputs/encoder2", REPAIRED, TEXT),
    case("data.length", 8, REPAIRED, TEXT),
    case("data.given_path", "inputs/other.json", {"score", "measure"}, GIVEN),
    case("data.given_key", "mnli", {"score", "measure"}, GIVEN),
    case("data.given_text", "[other]", {"score", "measure"}, GIVEN),
    case("model._target_", "defense.models.networks.cnn", SHOWN),
    case("model.hidden", "[8]", SHOWN),
    case("model.activation", "gelu", SHOWN),
    *(
        case(f"train.{name}", value, {"train"})
        for name, value in {
            "recipe": "trades", "epochs": 5, "batch_size": 16, "learning_rate": 0.1, "momentum": 0.5, "crop": 1,
            "weight_decay": 0.1, "flip": "true", "ema": 0.9, "channels_last": "true", "compile": "true",
            "optimizer": "lbfgs", "checkpoints": 3, "keep": "clean",
        }.items()
    ),
    case("train.attack_steps", 3, {"train"}, [*SIZES, "train=adversarial"]),
    case("train.attack_steps", 3, {"train"}, [*SIZES, "data.harm=hypocritical"]),
    case("train.beta", 3, {"train"}, [*SIZES, "train=trades"]),
    case("train.validation_steps", 3, {"train"}, [*SIZES, "train=fast"]),
    case("train.tolerance", 0.1, {"train"}, [*MOONS, "model=logistic", "train=converged"]),
    case("threat.norm", "L2", {"attack", "evaluate"}, [*SIZES, "threat.eps=0.5"]),
    case("threat.eps", 0.2, {"attack", "evaluate"}),
    case("threat.eps", 0.2, {"attack", "evaluate", "train"}, [*SIZES, "train=adversarial"]),
    case("threat.eps", 0.2, {"attack", "evaluate", "train", "plant"}, [*SIZES, "data.harm=hypocritical"]),
    *(case(f"attack.{name}", value, {"attack"}) for name, value in ATTACK.items()),
    case("attack.queries", 7, {"attack"}, [*SIZES, "attack=square"]),
    case("objective.weights.robustness", 0.5, {"score"}),
    case("objective.positive", 0, {"score"}, FAIR),
    *(
        case(f"scorer.{name}", value, {"score"})
        for name, value in {
            "method": "loss", "batch_size": 8, "compile": "true", "precision": "bf16", "parameters": "'*weight'",
            "members": "gaussian", "direction": "datainf", "cosine": "true",
        }.items()
    ),
    case("scorer.proxy", "fast", {"train", "attack", "score"}, [*SIZES, "task=detect"]),
    case("scorer.seeds", 2, {"train", "attack", "score", "score_mean"}),
    case("scorer.folds", 3, {"crossval"}, [*SIZES, "scorer.method=confident_learning"]),
    case("scorer.attacked_train", "true", {"score", "attack"}),
    case("scorer.count", 3, {"score"}, [*SIZES, "scorer.members=dropout"]),
    case("scorer.max_rate", 0.2, {"score"}, [*SIZES, "scorer.members=dropout"]),
    case("scorer.std", 0.2, {"score"}, [*SIZES, "scorer.members=gaussian"]),
    case("scorer.damping", 1, {"score"}, [*SIZES, "scorer=datainf"]),
    case("scorer.iterations", 30, {"score"}, [*SIZES, "scorer.direction=cg"]),
    case("scorer.tolerance", 0.1, {"score"}, [*SIZES, "scorer.direction=cg"]),
    case("scorer.scale", 0.1, {"score"}, [*SIZES, "scorer.direction=lissa"]),
    case("scorer.path", "inputs/scores2.csv", {"score_by_file"}, [*SIZES, "scorer=file",
         "scorer.path=inputs/scores.csv"]),
    case("scorer._target_", "my_parts.error_norm", {"score"}),
    case("scorer._target_", "my_parts.error_norm", {"score"}, [*SIZES, "scorer._target_=my_parts.alignment"]),
    case("scorer.arguments", "{order:1}", {"score"}, [*SIZES, "scorer._target_=my_parts.error_norm"]),
    case("objective._target_", "my_parts.margin", {"score"}),
    case("objective.arguments", "{least:-1}", {"score"}, [*SIZES, "objective._target_=my_parts.margin"]),
    case("objective.attacked", "false", {"score"}, [*SIZES, "objective._target_=my_parts.margin"]),
    case("objective.attacked", "false", {"descent", "contribution", "attack", "metagradient"},
         [*OPTIMIZE, "objective._target_=my_parts.margin"]),
    case("attack._target_", "my_parts.ascent", {"attack"}),
    case("attack._target_", "my_parts.ascent", {"attack", "descent"}, OPTIMIZE),
    case("attack.arguments", "{steps:2}", {"attack"}, [*SIZES, "attack._target_=my_parts.ascent"]),
    case("treatment._target_", "my_parts.drop_lowest", TREATED | BY_USER),
    case("treatment.arguments", "{share:0.2}", BY_USER, [*SIZES, "treatment._target_=my_parts.correct_or_drop"]),
    case("treatment.budget", 0.2, BY_USER, [*SIZES, "treatment._target_=my_parts.correct_or_drop"]),
    *(
        case(f"treatment.{name}", value, TREATED)
        for name, value in {"name": "reweight", "budget": 0.2, "threshold": 1, "balance": "class"}.items()
    ),
    case("treatment.budgets", "[0.3]", TREATED | {"train", "evaluate"}, AUTO),
    case("treatment.names", "[relabel]", TREATED | {"train", "evaluate"}, AUTO),
    case("treatment.held_out", 0.6, SHOWN, AUTO),
    case("treatment.rounds", 2, TREATED | {"descent"}, OPTIMIZE),
    case("treatment.rate", 0.5, TREATED | {"descent"}, OPTIMIZE),
    case("treatment.confidence", 0.5, TREATED, OPTIMIZE),
    case("treatment.discrete", "true", TREATED, OPTIMIZE),
    case("treatment.budget", 0.2, TREATED, [*OPTIMIZE, "treatment.discrete=true"]),
    case("treatment.held_out", 0.6, TREATED | DESCENT | {"train", "attack", "metagradient"}, OPTIMIZE),
    case("attack.steps", 3, {"attack", "descent"}, OPTIMIZE),
    case("scorer.seeds", 2, META | DESCENT | {"attack", "score_mean"}, OPTIMIZE),
    case("evaluation.batch_size", 8, DESCENT | {"attack", "evaluate"}, OPTIMIZE),
    *(
        Case(f"evaluation.attacks.{name}", f"evaluation.attacks.pgd.{name}={value}", {"evaluate"}, SIZES)
        for name, value in ATTACK.items()
    ),
    Case("evaluation.attacks.queries", "evaluation.attacks.square.queries=7", {"evaluate"},
         [*SIZES, "evaluation=standard", "evaluation.checked=0"]),
    Case("evaluation.attacks._target_", "evaluation.attacks.pgd._target_=my_parts.ascent", {"evaluate"}, SIZES),
    Case("evaluation.attacks.arguments", "evaluation.attacks.pgd.arguments={steps:2}", {"evaluate"},
         [*SIZES, "evaluation.attacks.pgd._target_=my_parts.ascent"]),
    case("evaluation.masked", "[square]", {"evaluate"}, [*SIZES, "evaluation=standard"]),
    case("evaluation.batch_size", 8, {"attack", "evaluate"}),
    case("evaluation.checked", 6, {"check"}, [*SIZES, "evaluation.checked=5"]),
    case("evaluation.checked", 6, {"check"}, [*SIZES, "evaluation.checked=5", "task=score"]),
    case("evaluation.trusted", "false", {"train"}),  # the walk evaluates one model: all have the same weights
    case("evaluation.trusted_weights", "[3]", {"train"}),
    case("evaluation.controls", 2, {"control", "train", "evaluate"}),
    case("faithfulness.subsets", "leave_one_out", {"retrain"}, HALVES),
    case("faithfulness.count", 4, {"retrain"}, HALVES),
    case("scorer.method", "metagradient", {"score", "trajectory", "metagradient", "smoothness"}),
    case("train.epochs", 5, META, [*SIZES, "scorer=metagradient"]),
    case("objective.weights.robustness", 0.5, {"metagradient"}, [*SIZES, "scorer=metagradient"]),
    case("scorer.batch_size", 8, {"metagradient"}, [*SIZES, "scorer=metagradient"]),
    case("attack.steps", 3, {"attack"}, [*SIZES, "scorer=metagradient"]),
    case("train.keep", "clean", {"train"}, [*SIZES, "scorer=metagradient"]),
    case("faithfulness.targets", 2, {"score"}, HALVES),
    case("faithfulness.dropped", 0.2, {"retrain"}, HALVES),
    case("faithfulness.by", "weight", {"retrain"}, HALVES),
    case("faithfulness.fresh", "true", {"retrain"}, HALVES),
    case("faithfulness.singles", 1, {"score"}, HALVES),
    case("evade.shares", "[0.3]", TREATED | {"train", "score", "evade", "judge"}, [*MOONS, "task=evade",
         "evade.shares=[0.2]"]),
    case("evade.ratio", 2, {"evade"}, [*MOONS, "task=evade"]),
    case("order.reference", "datainf", {"reference"}, [*MOONS, "task=order"]),
    case("order.dampings", "[0.5]", {"reference"}, [*MOONS, "task=order"]),
    case("fabric.precision", "bf16-mixed", ALL),
    case("fabric.devices", 2, {"train"}),
    case("fabric.num_nodes", 2, {"train"}),
]  # fmt: skip
BY_THE_RUN = {  # knobs that no stage reads, in any context, and what does
    "name": "names the folder of the run",
    "store": "is where stages are kept",
    "data.root": "is where files are, which enter by content",
    "scorer.name": "names the scorer on pages",
    "order.share": "is how many of the lowest a page compares",
    "order.draw": "is whether a page draws points",
    "fabric.accelerator": "chooses the device, which enters by its kind",
    "fabric.strategy": "says how processes share a run",
    **{f"speed.{name}": "is of times, which no store keeps"
       for name in ("scorers", "peers", "works", "clock", "rounds", "seconds")},
    **{f"track.{name}": "says where else a result is logged" for name in ("name", "project", "online")},
}  # fmt: skip


def knobs(settings: Mapping[str, Any], name: str = "") -> set[str]:
    """Return the dotted names of all knobs; those of an attack of the suite once for all attacks."""
    found: set[str] = set()
    for key, value in settings.items():
        full = f"{name}.{key}".lstrip(".")
        found |= knobs(value, full) if isinstance(value, dict) and value else {full}
    return {re.sub(r"(evaluation\.attacks)\.\w+\.", r"\1.", each) for each in found}


def test_every_knob_has_a_case() -> None:
    assert {each.knob for each in CASES} | BY_THE_RUN.keys() == knobs(plain(composed())) | {
        "model.hidden",
        "model.activation",
    }


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with small inputs of every source."""
    folder = tmp_path_factory.mktemp("knobs")
    inputs, rng = folder / "inputs", np.random.default_rng(0)
    write_inputs(inputs)
    scores = pd.read_csv(inputs / "scores.csv")
    scores.assign(score=-scores["score"]).to_csv(inputs / "scores2.csv", index=False)
    table = pd.read_csv(inputs / "table.csv")
    table.head(120).to_csv(inputs / "other.csv", index=False)
    table.assign(key=rng.permutation(len(table)) / 7).to_csv(inputs / "named.csv", index=False)
    table.tail(90).to_csv(inputs / "third.csv", index=False)
    table.assign(age=table["age"].astype(str) + ",5").to_csv(inputs / "commas.csv", index=False)
    table.assign(hours=table["hours"].mask(table.index.isin([0, 50, 100]), 1e9)).to_csv(
        inputs / "far.csv", index=False
    )
    labels = {"train_y": np.arange(60) % 3, "test_y": np.arange(30) % 3}
    odd = {f"{part}_x": rng.integers(0, 256, (count, 3, 8, 3), dtype=np.uint8) for part, count in PARTS}
    np.savez(inputs / "odd.npz", **odd, **labels)
    pictures = dict(np.load(inputs / "pictures.npz"))
    np.savez(inputs / "pictures.npz", **pictures, train_y_other=np.roll(pictures["train_y_noisy"], 1))
    for part, count in PARTS:
        for name in "ab":
            (inputs / "folder" / part / name).mkdir(parents=True)
            for number in range(count // 3):
                picture = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8))
                picture.save(inputs / f"folder/{part}/{name}/{number}.png")
    listed = [file.relative_to(inputs).as_posix() for file in sorted(inputs.glob("folder/train/*/*.png"))]
    columns = {"file": listed, "other": listed[::-1], "who": range(100, 100 + len(listed))}
    pd.DataFrame(columns | {"label": [Path(name).parts[2] for name in listed]}).to_csv(
        inputs / "list.csv", index=False
    )
    apart = [file.relative_to(inputs).as_posix() for file in sorted(inputs.glob("folder/test/*/*.png"))]
    pd.DataFrame({"file": apart, "label": [Path(name).parts[2] for name in apart]}).to_csv(
        inputs / "apart.csv", index=False
    )
    return folder


@pytest.fixture(scope="module")
def stored(files: Path) -> Path:
    """The same folder with pictures that the package datasets has stored."""
    import datasets

    pictures = [str(file) for file in sorted(files.glob("inputs/folder/train/*/*.png"))]
    columns = {"picture": pictures, "other": pictures[::-1], "label": [n % 2 for n in range(len(pictures))]}
    kinds = {
        "picture": datasets.Image(),
        "other": datasets.Image(),
        "label": datasets.ClassLabel(names=["a", "b"]),
    }
    kinds["colour"] = datasets.Value("int64")
    found = datasets.Dataset.from_dict(
        columns | {"colour": [n // 2 % 2 for n in range(len(pictures))]}, datasets.Features(kinds)
    )
    found.save_to_disk(str(files / "inputs/stored"))
    return files


@pytest.fixture(scope="module")
def texts(files: Path) -> Path:
    """The same folder with texts, and encoders of other tokens."""
    inputs = files / "inputs"
    write_texts(inputs)
    records = json.loads((inputs / "given.json").read_text(encoding="utf-8"))["sst2"]
    twice = [record | {"other": record["sentence"][::-1]} for record in records]
    few = twice[: len(twice) // 2]
    (inputs / "given.json").write_text(json.dumps({"sst2": twice, "mnli": few}), encoding="utf-8")
    (inputs / "other.json").write_text(json.dumps({"sst2": few}), encoding="utf-8")
    tokenizer = Path(tiny_encoder(inputs / "encoder2")) / "tokenizer.json"
    content = json.loads(tokenizer.read_text(encoding="utf-8"))
    vocabulary = content["model"]["vocab"]
    *_, first, second = sorted(vocabulary, key=vocabulary.get)
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    tokenizer.write_text(json.dumps(content), encoding="utf-8")
    return files


PARTS = (("train", 60), ("test", 30))
BEFORE: dict[tuple[str, ...], dict[str, dict[str, Any]]] = {}  # walks by their context


def moved(walk: Any, context: list[str], change: str) -> set[str]:
    """Return the stages whose keys a change moves, or that only one of both runs has."""
    if tuple(context) not in BEFORE:
        BEFORE[tuple(context)] = walk(context)
    before, after = BEFORE[tuple(context)], walk([*context, *change.split(" ")])
    labels = before.keys() | after.keys()
    return {label.split()[0] for label in labels if before.get(label) != after.get(label)}


def marked(each: Case) -> Any:
    """Return a case that is skipped without the packages that it needs, and given the files that it needs."""
    of_texts = each.context[:1] == TEXT[:1]
    of_stored = each.context[:1] == STORED[:1]
    packages = ("transformers", "peft") if of_texts else ("datasets",) if of_stored else ()
    packages += ("cleanlab",) if "scorer.method=confident_learning" in each.context else ()
    packages += ("fairlearn",) if "data.sensitive" in str(each) else ()
    marks = [pytest.mark.extra(*packages)] if packages else []
    inputs = "texts" if of_texts else "stored" if of_stored else "files"
    return pytest.param(each, inputs, marks=marks, id=str(each))


@pytest.mark.parametrize(("each", "inputs"), map(marked, CASES))
def test_a_knob_moves_the_keys_of_the_stages_that_read_it(
    each: Case, inputs: str, walk: Any, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(request.getfixturevalue(inputs))
    assert moved(walk, each.context, each.change) == each.moves


@pytest.mark.parametrize("each", [each for each in CASES if each.context is not SIZES], ids=str)
def test_a_knob_that_moves_no_key_elsewhere_is_refused_or_said_to_be_unread(
    each: Case, walk: Any, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(files)
    changes = each.change.split(" ")
    try:
        silent = not unread(changed(*SIZES, *changes), changes) and not moved(walk, SIZES, each.change)
    except InputError:
        return
    assert not silent
