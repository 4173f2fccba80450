"""Do scores put the training samples in the order that influence by an inverse puts them in?

data -> train -> score -> reference -> report
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from defense.artifacts import Scores
from defense.config.choices import Direction, Members, Method, ObjectiveName
from defense.config.schema import Scorer
from defense.pipeline.cell import Cell, Site, scoring_settings
from defense.reporting.ordering import Reference
from defense.stages import reference
from defense.stages.report import write_order
from defense.store.store import Stored
from defense.tasks.scoring import scoring


def order(cell: Cell, output: Path, overrides: list[str]) -> dict[str, Any]:
    """Compare the order of the run's scores with that of the influence at the baseline, at every damping.

    The gradients of the training samples, too, are compared with that of the objective: by their angle.
    """
    baseline = cell.baseline()
    scores = cell.scores(cell.scored_at())
    other = reference_of(cell, baseline)
    between = Cell(replace(cell.config, scorer=cosine(cell.config.scorer)), cell.data, cell.fabric, cell.ledger)
    cosines = between.scores([baseline], "angles").artifact.table["score"].to_numpy()
    run = scoring(cell, scores.artifact, overrides)
    columns = {damping: f"score.{damping:g}" for damping in cell.config.order.dampings}
    found = Reference(
        {damping: other.artifact.table[column].to_numpy() for damping, column in columns.items()},
        dict(zip(other.artifact.record["name"], other.artifact.record["value"], strict=True)),
        cosines,
    )
    return write_order(run, found, output) if cell.crew.rank == 0 else {}


def reference_of(cell: Cell, site: Site) -> Stored[Scores]:
    """Return the influence that the order is compared with, at one site."""
    config, data = cell.config, cell.data
    scorer = plainest(config.scorer)
    used = scoring_settings(replace(scorer, direction=config.order.reference))
    return cell.ledger.once(
        "reference",
        Scores,
        version=reference.VERSION,
        settings={
            "objective": config.objective,
            "dampings": config.order.dampings,
            **{name: value for name, value in used.items() if name != "damping"},
        },
        inputs=cell.inputs(
            "train",
            "validation",
            model=site.trained.key,
            **(site.attacked if ObjectiveName.robustness in config.objective.weights else {}),
        ),
        compute=lambda watch, _: reference.reference(
            site.model, data.train, cell.validation(site), config.objective, scorer, config.order, watch=watch
        ),
    )


def plainest(scorer: Scorer) -> Scorer:
    """Return the inner product at the model itself, whatever the run's scorer: alike for all runs of a sweep."""
    plain = replace(
        scorer, name="ip", method=Method.alignment, members=Members.single, direction=Direction.identity
    )
    return replace(plain, cosine=False, attacked_train=False, count=1, proxy=None, seeds=1)


def cosine(scorer: Scorer) -> Scorer:
    """Return the scorer that tells the cosine of the angle between the gradients of sample and objective."""
    return replace(plainest(scorer), name="ip_cosine", cosine=True)
