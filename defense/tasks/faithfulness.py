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
from defense.stages.report import write_faithfulness
from defense.stages.retrain import parts_of_train, retrain
from defense.stages.score import mean


def faithfulness(run: Run, output: Path, overrides: list[str]) -> dict[str, Any]:
    """Does the sum of the scores that a part of the training split keeps foresee the objective after retraining?

    The linear datamodelling score (Park et al. 2023): the rank correlation, over parts, of the summed scores with
    -v of the retrained model; with leave_one_out it is the correlation with leave-one-out retraining.
    """
    config, data = run.config, run.data
    spec = config.faithfulness
    if not 1 <= spec.targets <= len(data.validation):
        raise InputError(
            "faithfulness.targets", spec.targets, f"expected 1 to {len(data.validation)}, of validation"
        )
    parts = parts_of_train(spec.subsets, len(data.train), spec.count, seed=config.seed)
    baseline = run.baseline()
    validation = run.validation(baseline)
    targets = [validation.subset(rows) for rows in torch.arange(len(data.validation)).tensor_split(spec.targets)]
    for target in targets:
        check_objective(config.objective, target.clean, data.classes)
    retrained = retrain(
        run.runtime,
        run.design(),
        data,
        run.training(replace(config.train, checkpoints=1)),
        parts=parts,
        validation=validation,
        start=run.starts(baseline),
    ).tensors
    each = scores_by_target(run, spec.targets)
    measured = [
        [
            -objective_value({of: values[model] for of, values in logits.items()}, target, config.objective)
            for model in range(len(parts))
        ]
        for target, logits in zip(targets, split_logits(retrained, spec.targets), strict=True)
    ]
    predicted = [parts.double().numpy() @ scores.table["score"].to_numpy(dtype=float) for scores in each.values()]
    together = next(iter(each.values())) if len(set(map(id, each.values()))) == 1 else mean(each)
    summary = run.summary(together, overrides)
    return write_faithfulness(summary, np.array(predicted), np.array(measured), output) if run.writes else {}


def scores_by_target(run: Run, count: int) -> dict[str, Scores]:
    """Return the scores for each of `count` parts of the validation split; one for all if none looks at it."""
    names, models = [f"target{number}" for number in range(count)], run.scored_models()
    if count == 1 or "objective" not in reading(run.config.scorer):
        return dict.fromkeys(names, run.scores(models))
    parts = torch.arange(len(run.data.validation)).tensor_split(count)
    return {name: run.scores(models, name, rows) for name, rows in zip(names, parts, strict=True)}


def split_logits(logits: dict[str, Tensor], count: int) -> list[dict[str, Tensor]]:
    """Return logits (m, v, classes) cut into `count` parts of the validation samples."""
    parts = zip(*(values.tensor_split(count, dim=1) for values in logits.values()), strict=True)
    return [dict(zip(logits, part, strict=True)) for part in parts]
