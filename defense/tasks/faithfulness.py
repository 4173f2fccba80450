"""Do scores foresee what retraining without samples does?

data -> train -> attack -> retrain on parts -> score -> report
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from defense.artifacts import Scores
from defense.config.choices import Method
from defense.errors import InputError
from defense.influence.objectives import check_objective, objective_value
from defense.pipeline.cell import Cell
from defense.stages.report import write_faithfulness
from defense.stages.retrain import parts_of_train
from defense.stages.score import mean
from defense.tasks.scoring import scoring


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
