"""Do scores foresee what retraining without samples does?

data -> train -> attack -> retrain on parts -> score -> report
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from defense.artifacts import Scores
from defense.config.reads import reading
from defense.errors import InputError
from defense.influence.objectives import check_objective, objective_value
from defense.pipeline.run import Run
from defense.stages.retrain import parts_of_train, retrain
from defense.stages.score import mean
from defense.tasks.faithfulness.report import Foreseen, write_faithfulness
from defense.training.validation import spread

ATTACKED = {
    "anew": "adversarial",
    "frozen": "frozen",
}  # logits, by where samples were attacked


def faithfulness(run: Run, output: Path, overrides: list[str]) -> dict[str, Any]:
    """Does the sum of the scores that a part of the training split keeps foresee the objective after retraining?

    The linear datamodelling score (Park et al. 2023): the rank correlation, over parts, of the summed scores with
    -v of the retrained model; with leave_one_out it is the correlation with leave-one-out retraining. If v looks
    at attacked samples, these are attacked anew at each retrained model, and, beside it, at the baseline.
    """
    config, data = run.config, run.data
    spec = config.faithfulness
    for field, count, least in (("targets", spec.targets, 1), ("singles", spec.singles, 0)):
        if not least <= count <= len(data.validation):
            valid = f"expected {least} to {len(data.validation)}, of validation"
            raise InputError(f"faithfulness.{field}", count, valid)
    parts = parts_of_train(spec, len(data.train), seed=config.seed)
    baseline = run.baseline()
    validation = run.validation(baseline)
    every = torch.arange(len(data.validation))
    whole = every.tensor_split(spec.targets)
    single = tuple(row[None] for row in spread(len(every), spec.singles))
    for rows in (*whole, *single):
        check_objective(config.objective, data.validation.subset(rows), data.classes)
    retrained = retrain(
        run.runtime,
        run.design(),
        data,
        run.training(replace(config.train, checkpoints=1)),
        parts=parts,
        validation=validation,
        spec=spec,
        attack=config.attack.within(config.threat) if config.objective.reads_adversarial else None,
        threat=config.threat,
        start=run.starts(baseline),
    ).tensors
    scored = scores_by_target(run, "target", whole)
    scored_singles = scores_by_target(run, "single", single)
    together = scored[0] if len(set(map(id, scored))) == 1 else mean(named("target", scored))
    summary = run.summary(together, overrides)
    found = Foreseen(
        predicted=predictions(parts, scored),
        measured=measurements(run, retrained, whole),
        predicted_singles=predictions(parts, scored_singles),
        measured_singles=measurements(run, retrained, single),
    )
    return write_faithfulness(run.runtime, summary, found, output) if run.writes else {}


def named(name: str, scored: list[Scores]) -> dict[str, Scores]:
    """Return scores by the names of their targets."""
    return {f"{name}{number}": scores for number, scores in enumerate(scored)}


def scores_by_target(run: Run, name: str, targets: tuple[Tensor, ...]) -> list[Scores]:
    """Return the scores for each of some parts of validation, by their rows; one for all if none looks at it."""
    if not targets:
        return []
    models, all_at_once = run.scored_models(), len(targets[0]) == len(run.data.validation)
    if all_at_once or "objective" not in reading(run.config.scorer):
        return [run.scores(models)] * len(targets)
    return [run.scores(models, f"{name}{number}", rows) for number, rows in enumerate(targets)]


def predictions(parts: Tensor, scored: list[Scores]) -> np.ndarray:
    """Return the summed scores (targets, m) of the samples that each of `parts` bool (m, n) keeps."""
    kept = parts.double().numpy()
    return np.array([kept @ scores.table["score"].to_numpy(dtype=float) for scores in scored])


def measurements(run: Run, logits: dict[str, Tensor], targets: tuple[Tensor, ...]) -> dict[str, np.ndarray]:
    """Return -v (targets, m) of the retrained models, by where attacked samples were attacked: anew, frozen.

    logits: (m, v, classes), as `retrain` returns them. If v looks at no attacked sample it stands under clean.
    """
    objective, validation = run.config.objective, run.validation(run.baseline())
    kinds = ATTACKED if objective.reads_adversarial else {"clean": "clean"}

    def value(rows: Tensor, model: int, kind: str) -> float:
        seen = {"clean": logits["clean"][model, rows], "adversarial": logits[kind][model, rows]}
        return -objective_value(seen, validation.subset(rows), objective)

    count = len(logits["clean"])
    return {
        name: np.array([[value(rows, model, kind) for model in range(count)] for rows in targets])
        for name, kind in kinds.items()
    }
