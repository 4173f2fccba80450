"""The influence that the order of scores is compared with: by one inverse, at every damping."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import pandas as pd

from defense import influence, models
from defense.artifacts import Scores
from defense.config.schema import Objective, Scorer
from defense.data.splits import Split
from defense.data.validation import Validation
from defense.influence.alignment import directional_derivatives
from defense.influence.batching import with_auto_batch_size
from defense.influence.curvature import Curvature
from defense.influence.directions import Record, direction_of
from defense.influence.members import Parameters, single
from defense.influence.objectives import parts_of
from defense.influence.scorers import sum_of
from defense.runtime.runtime import Runtime
from defense.stages.score import ELSEWHERE, as_table
from defense.stages.trained import Model
from defense.store.stage import stage, unread


@stage(version=3, code=(influence, models))
def reference(
    runtime: Runtime,
    model: Model,
    train: Split,
    validation: Validation,
    objective: Objective,
    scorer: Annotated[Scorer, unread(*ELSEWHERE, "damping", "compile", "precision")],
    *,
    dampings: Sequence[float],
) -> Scores:
    """Return u . grad loss_i at the model, u = P grad v by `scorer.direction`, a column for each damping.

    v is the whole objective, its terms weighed. The record holds the angle between u and grad v in degrees at each
    damping.
    """
    network = model.network
    member, size = single(network, pattern=scorer.parameters), scorer.batch_size
    parts = parts_of(network, member, validation, objective, batch_size=size)
    gradient = {name: sum_of([part.weight * part.gradient[name] for part in parts]) for name in member.parameters}
    columns, record = {"id": train.ids.numpy()}, {"objective": sum(part.weight * part.value for part in parts)}

    def solved(size: int) -> list[tuple[Parameters, Record]]:
        curvature = Curvature(network, member, train, size)
        specs = [replace(scorer, damping=damping) for damping in dampings]
        return [direction_of(gradient, curvature, spec) for spec in specs]

    found = with_auto_batch_size(size, train, solved)
    for damping, (direction, said) in zip(dampings, found, strict=True):
        scores = directional_derivatives(
            network, member, train, direction, batch_size=size, runtime=runtime.named(f"{damping:g}")
        )
        columns[f"score.{damping:g}"] = scores.numpy()
        record |= {f"{damping:g} {name}": value for name, value in said.items()}
    return Scores(pd.DataFrame(columns), as_table(record))
