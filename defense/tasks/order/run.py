"""Do scores put the training samples in the order that influence by an inverse puts them in?

data -> train -> score -> reference -> report
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from defense.config.choices import Direction, Members, Method
from defense.config.schema import Scorer
from defense.pipeline.run import Run
from defense.stages.reference import reference
from defense.tasks.order.report import Reference, write_order


def order(run: Run, output: Path, overrides: list[str]) -> dict[str, Any]:
    """Compare the order of the run's scores with that of the influence at the baseline, at every damping.

    The gradients of the training samples, too, are compared with that of the objective: by their angle.
    """
    baseline, spec, scorer = run.baseline(), run.config.order, run.config.scorer
    scores = run.scores(run.scored_models())
    inverse = replace(plainest(scorer), direction=spec.reference)
    seen, objective = run.seen(baseline), run.config.objective
    other = reference(
        run.runtime, baseline.model, run.data.train, seen, objective, inverse, dampings=spec.dampings
    )
    cosines = run.with_scorer(cosine(scorer)).scores([baseline], "angles").table["score"].to_numpy()
    summary = run.summary(scores, overrides)
    influence = Reference(
        {damping: other.table[f"score.{damping:g}"].to_numpy() for damping in spec.dampings},
        dict(zip(other.record["name"], other.record["value"], strict=True)),
        cosines,
    )
    return write_order(run.runtime, summary, influence, output) if run.writes else {}


def plainest(scorer: Scorer) -> Scorer:
    """Return the inner product at the model itself, the same for all runs of a sweep."""
    plain = replace(
        scorer, name="ip", method=Method.alignment, members=Members.single, direction=Direction.identity
    )
    return replace(plain, cosine=False, attacked_train=False, count=1, proxy=None, seeds=1)


def cosine(scorer: Scorer) -> Scorer:
    """Return the scorer by the cosine of the angle between the gradients of sample and objective."""
    return replace(plainest(scorer), name="ip_cosine", cosine=True)
