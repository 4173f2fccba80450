"""One run: the stages in their order, for each question that a run can ask.

defend        data -> train -> attack -> score -> treat -> retrain -> evaluate -> check -> report
detect        data -> train -> attack -> score -> report
faithfulness  data -> train -> attack -> retrain on parts -> score -> report

Harm that takes a model is planted between data and train, at a model trained on the unharmed samples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from defense.arms import Arms
from defense.artifacts import Planted, Scores
from defense.cell import Cell
from defense.choices import AUTO, Harm, Keep, Method, Recipe, Task
from defense.choosing import choose
from defense.crew import ALONE, Crew, first
from defense.data.load import held_out, load
from defense.data.splits import Dataset
from defense.devices import make_fabric
from defense.errors import InputError
from defense.influence.objectives import check_objective, objective_value
from defense.influence.scorers import check_scorer
from defense.ledger import Ledger
from defense.models.build import build
from defense.randomness import derive
from defense.reporting.record import Arm, Run, Scoring
from defense.reporting.tracking import check_tracker
from defense.robustness.suite import check_shape
from defense.schema import Config, plain
from defense.stages import plant, treat
from defense.stages.report import write_detection, write_faithfulness, write_report
from defense.stages.retrain import parts_of_train
from defense.stages.score import mean


def run(
    config: Config, output: Path, overrides: list[str], fabric: Fabric | None = None, crew: Crew = ALONE
) -> dict[str, Any]:
    """Run every stage that the store does not hold yet, write the report into `output`, return its result.

    fabric, crew: the device of this process, and the processes that share the run. Each of them calls this; that
    of rank 0 writes the report, and the others return nothing.
    """
    check_tracker(config.track)
    fabric = fabric or make_fabric(config.fabric)
    common = {"seed": config.seed, "precision": config.fabric.precision, "device": fabric.device.type}
    ledger = Ledger(Path(config.store), common, crew)
    data = first(crew, lambda: load(config.data, seed=config.seed))
    if config.task is Task.defend and config.treatment.budget == AUTO:
        data = held_out(data, config.treatment.held_out, seed=config.seed)
    data = data.to(fabric.device)
    if config.train.crop >= min(data.shape[1:]):
        raise InputError(
            "train.crop", config.train.crop, f"expected less than the side of a picture, {data.shape}"
        )
    if config.task is Task.detect and config.data.harm is Harm.none and data.train.labels.equal(data.train.truth):
        raise InputError("task", config.task, "expected data with known noise, as data.harm plants it")
    model = build(config.model, data, seed=config.seed)  # fails here, before any compute, where it does not fit
    used = {"attack": config.attack}  # made by every task
    if config.task is Task.defend:
        used |= {f"evaluation.attacks.{name}": attack for name, attack in config.evaluation.attacks.items()}
    check_shape("threat.eps", used.items(), config.threat, data.shape)
    noise = data.noise_known
    check_scorer(model, data.validation, config.objective, config.scorer, classes=data.classes, noise_known=noise)
    data = planted(config, data, fabric, ledger)
    return TASKS[config.task](Cell(config, data, fabric, ledger), output, overrides)


def planted(config: Config, data: Dataset, fabric: Fabric, ledger: Ledger) -> Dataset:
    """Return the data with the harm that takes a model, or as they are where there is none of that kind.

    The model is the run's, trained ordinarily whatever the run's recipe, so that runs share the harm; and from
    first weights of its own, so that harm is not made at the very model that it is found with.
    """
    spec = config.data
    if spec.harm not in plant.PLANTERS:
        return data
    recipe = replace(config.train, recipe=Recipe.standard, checkpoints=1, keep=Keep.last, ema=None)
    ordinary = Cell(replace(config, train=recipe, seed=derive(config.seed, "planter")), data, fabric, ledger)
    trained = ordinary.train("planter", treat.untreated(data.train))
    ball = plant.ball(spec, config.threat)
    found = ledger.once(
        "plant",
        Planted,
        version=plant.VERSION,
        settings={
            "harm": spec.harm,
            "rate": spec.harm_rate,
            "ball": ball if spec.harm is Harm.poison else None,
            "classes": data.classes,
        },
        inputs=ordinary.inputs("train", model=trained.key),
        compute=lambda watch, _: plant.plant(
            ordinary.restore(trained),
            data.train,
            spec,
            ball,
            classes=data.classes,
            batch_size=recipe.batch_size,
            seed=config.seed,
            watch=watch,
        ),
    )
    return replace(data, train=plant.harmed(data.train, found.artifact))


def defend(cell: Cell, output: Path, overrides: list[str]) -> dict[str, Any]:
    """Does treating the samples with the lowest scores help, by more than luck?"""
    data = cell.data
    baseline = cell.baseline()
    sites = cell.scored_at()
    scores = cell.scores(sites)
    chosen = choose(cell, scores) if cell.config.treatment.budget == AUTO else None
    spec = chosen.spec if chosen else cell.config.treatment
    make = Arms(cell, spec)
    defended = make.treat(scores)
    treatments = {
        "baseline": treat.untreated(data.train),
        "control": make.control(scores, defended),
        "defended": defended.artifact,
    }
    measured = make.evaluate("baseline", baseline.trained)
    checked = make.check("baseline", baseline.trained, measured)
    proxy = sites[0].trained if sites[0].trained.key != baseline.trained.key else None
    if proxy:  # who can afford to train it may as well deploy it
        treatments["proxy"] = treatments["baseline"]
    arms = {}
    for name, treatment in treatments.items():
        trained, evaluation, checks = baseline.trained, measured, checked
        if name == "proxy" and proxy:
            trained = proxy
        elif name != "baseline":
            trained = cell.train(name, treatment)
        if trained.key != baseline.trained.key:  # else nothing was treated: it is the baseline
            evaluation = make.evaluate(name, trained, measured)
            checks = make.check(name, trained, evaluation)
        arms[name] = Arm(treatment.table, trained.artifact.history, evaluation.artifact.table, checks)
    adversarial = sites[0].adversarial.artifact.tensors["pictures"]
    common = vars(scoring(cell, scores.artifact, overrides)) | {"config": replace(cell.config, treatment=spec)}
    candidates = chosen.candidates if chosen else None
    run = Run(**common, arms=arms, adversarial=adversarial, candidates=candidates)
    return write_report(run, output) if cell.crew.rank == 0 else {}


def detect(cell: Cell, output: Path, overrides: list[str]) -> dict[str, Any]:
    """Do the samples that are known to be wrong score lowest?"""
    scores = cell.scores(cell.scored_at())
    run = scoring(cell, scores.artifact, overrides)
    return write_detection(run, output) if cell.crew.rank == 0 else {}


def faithfulness(cell: Cell, output: Path, overrides: list[str]) -> dict[str, Any]:
    """Does the sum of the scores that a part of the training split keeps foresee the objective after retraining?

    The linear datamodelling score (Park et al. 2023): the rank correlation, over parts, of the summed scores with
    -v of the retrained model; with leave_one_out it is the correlation with leave-one-out retraining.
    """
    config, data = cell.config, cell.data
    spec = config.faithfulness
    if not 1 <= spec.targets <= len(data.validation):
        raise InputError(
            "faithfulness.targets", spec.targets, f"expected 1 to {len(data.validation)}, of validation"
        )
    parts = parts_of_train(spec.subsets, len(data.train), spec.count, seed=config.seed)
    baseline = cell.baseline()
    validation = cell.validation(baseline)
    targets = [validation.subset(rows) for rows in torch.arange(len(data.validation)).tensor_split(spec.targets)]
    for target in targets:
        check_objective(config.objective, target.clean, data.classes)
    retrained = cell.retrain(baseline, parts).artifact.tensors
    each = scores_by_target(cell, spec.targets)
    measured = [
        [
            -objective_value({of: values[model] for of, values in logits.items()}, target, config.objective)
            for model in range(len(parts))
        ]
        for target, logits in zip(targets, split_logits(retrained, spec.targets), strict=True)
    ]
    predicted = [parts.double().numpy() @ scores.table["score"].to_numpy(dtype=float) for scores in each.values()]
    together = next(iter(each.values())) if len(set(map(id, each.values()))) == 1 else mean(each)
    run = scoring(cell, together, overrides)
    return write_faithfulness(run, np.array(predicted), np.array(measured), output) if cell.crew.rank == 0 else {}


def scores_by_target(cell: Cell, count: int) -> dict[str, Scores]:
    """Return the scores for each of `count` parts of the validation split; the same for all where they are."""
    names = [f"target{number}" for number in range(count)]
    if count == 1 or cell.config.scorer.method is not Method.alignment:  # the others look at no objective
        return dict.fromkeys(names, cell.scores(cell.scored_at()).artifact)
    parts = torch.arange(len(cell.data.validation)).tensor_split(count)
    sites = cell.scored_at()
    return {name: cell.scores(sites, name, rows).artifact for name, rows in zip(names, parts, strict=True)}


def split_logits(logits: dict[str, Tensor], count: int) -> list[dict[str, Tensor]]:
    """Return logits (m, v, classes) cut into `count` parts of the validation samples."""
    parts = zip(*(values.tensor_split(count, dim=1) for values in logits.values()), strict=True)
    return [dict(zip(logits, part, strict=True)) for part in parts]


def scoring(cell: Cell, scores: Scores, overrides: list[str]) -> Scoring:
    """Return what the report of every task begins with."""
    return Scoring(
        config=cell.config,
        settings=plain(cell.config),
        overrides=overrides,
        data=cell.data,
        scores=scores.table,
        record=dict(zip(scores.record["name"], scores.record["value"], strict=True)),
        keys=cell.ledger.keys,
        seconds=cell.ledger.seconds,
        reused=cell.ledger.reused,
        device=str(cell.fabric.device),
    )


TASKS: dict[Task, Callable[[Cell, Path, list[str]], dict[str, Any]]] = {
    Task.defend: defend,
    Task.detect: detect,
    Task.faithfulness: faithfulness,
}
