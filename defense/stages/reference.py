"""The influence that the order of scores is compared with: by one inverse, at every damping."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
from torch import nn

from defense.artifacts import Scores
from defense.config.schema import Objective, Order, Scorer
from defense.data.splits import Split
from defense.influence.alignment import directional_derivatives
from defense.influence.batching import fitted
from defense.influence.curvature import Curvature
from defense.influence.directions import Record, direction_of
from defense.influence.members import Parameters, single
from defense.influence.objectives import Validation, parts_of
from defense.influence.scorers import sum_of
from defense.runtime.progress import Watch
from defense.stages.score import as_table

VERSION = 2


def reference(
    model: nn.Module,
    train: Split,
    validation: Validation,
    objective: Objective,
    scorer: Scorer,
    order: Order,
    *,
    watch: Watch,
) -> Scores:
    """Return u . grad loss_i at the model, u = P grad v by `order.reference`, a column for each damping.

    v is the whole objective, its terms weighed. scorer: what an inverse reads beside its damping. The record tells
    the angle between u and grad v in degrees at each damping. What does not depend on it is computed once.
    """
    member, size = single(model, pattern=scorer.parameters), scorer.batch_size
    parts = parts_of(model, member, validation, objective, batch_size=size)
    gradient = {name: sum_of([part.weight * part.gradient[name] for part in parts]) for name in member.parameters}
    columns, record = {"id": train.ids.numpy()}, {"objective": sum(part.weight * part.value for part in parts)}

    def solved(size: int) -> list[tuple[Parameters, Record]]:
        curvature = Curvature(model, member, train, size)
        specs = [replace(scorer, direction=order.reference, damping=damping) for damping in order.dampings]
        return [direction_of(gradient, curvature, spec) for spec in specs]

    found = fitted(size, train, solved)
    for damping, (direction, said) in zip(order.dampings, found, strict=True):
        scores = directional_derivatives(model, member, train, direction, batch_size=size, watch=watch)
        columns[f"score.{damping:g}"] = scores.numpy()
        record |= {f"{damping:g} {name}": value for name, value in said.items()}
    return Scores(pd.DataFrame(columns), as_table(record))
