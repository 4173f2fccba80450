"""How much of a gain under evasion survives a strict protocol? Points of two classes, moved across the boundary.

    data -> train -> evade -> score -> treat -> retrain -> judge -> report

The published protocol takes the attacked test set as its validation set, and keeps the attack that was made at
the undefended model. The strict one scores by a disjoint validation set and makes the attack anew at every arm, of
what that has right: as far as it takes, and no farther than the median point had to go at the undefended model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor

from defense.artifacts import AdversarialSet, Scores
from defense.config.choices import Protocol, Way
from defense.data.splits import Split
from defense.data.validation import Validation
from defense.errors import InputError
from defense.pipeline.run import Run
from defense.randomness import derive
from defense.stages import evade as stage
from defense.stages.trained import Trained
from defense.tasks.evade.report import Evaded, write_evaded

PARTS = {Protocol.published: "test", Protocol.strict: "validation"}  # that scores are aligned with
Moved = dict[str, AdversarialSet]  # points moved at the undefended model, by part


def evade(run: Run, output: Path, overrides: list[str]) -> dict[str, Any]:
    """For every share of moved points: score, treat and retrain by both protocols, and judge all arms on test."""
    if run.data.classes != 2:
        raise InputError("task", run.config.task, f"the data have {run.data.classes} classes; expected two")
    undefended, shares = run.baseline(), run.config.evade.shares
    moved = {part: moved_at(run, "baseline", undefended.model, part) for part in ("validation", "test")}
    baseline = judged(run, "baseline", undefended.model, moved)
    tables, scores = {}, {}
    for share in shares:
        for protocol, part in PARTS.items():
            label, view = f"{protocol}_{share:g}", seen(run, share, part, moved[part])
            scores[share, protocol] = run.score(undefended, label, view)
            tables[share, protocol] = {"baseline": baseline} | arms(run, label, scores[share, protocol], moved)
    largest = scores[max(shares), Protocol.strict]
    chosen = {share: movers(run, run.data.test, "test", share).numpy() for share in shares}
    finished = Evaded(**vars(run.summary(largest, overrides)), tables=tables, chosen=chosen)
    return write_evaded(run.runtime, finished, output) if run.writes else {}


def arms(run: Run, label: str, scores: Scores, moved: Moved) -> dict[str, pd.DataFrame]:
    """Return how control and defended arm, treated by `scores`, predict test; see artifacts.Evasion."""
    spec = run.config.treatment
    defended = run.treat(scores, spec, label)
    treatments = {"control": run.control(scores, defended, spec, label), "defended": defended}
    trained = {arm: run.train(f"{arm}_{label}", treatment) for arm, treatment in treatments.items()}
    return {arm: judged(run, f"{arm}_{label}", model, moved) for arm, model in trained.items()}


def seen(run: Run, share: float, part: str, moved: AdversarialSet) -> Validation:
    """Return what the objective sees: the split `part`, a `share` moved across the baseline's boundary."""
    split: Split = getattr(run.data, part)
    return Validation(split, stage.mixed(split, moved.tensors["pictures"], movers(run, split, part, share)))


def movers(run: Run, split: Split, part: str, share: float) -> Tensor:
    """Return which points of a split are moved, the same at every model: bool (n,)."""
    return stage.movers(len(split), share, seed=derive(run.config.seed, "evasion", part))


def moved_at(
    run: Run, name: str, model: Trained, part: str, usual: AdversarialSet | None = None
) -> AdversarialSet:
    """Move all points of a split across the boundary of one model.

    usual: validation moved so at the undefended model; then no point goes farther than the median point there.
    """
    reach = stage.median_length(run.data.validation, usual.tensors["pictures"]) if usual else None
    return stage.evade(
        run.runtime.named(part, name, "bounded" if usual else ""),
        model,
        getattr(run.data, part),
        ratio=run.config.evade.ratio,
        batch_size=run.config.evaluation.batch_size,
        reach=reach,
    )


def judged(run: Run, name: str, model: Trained, moved: Moved) -> pd.DataFrame:
    """Return how one arm predicts test: as it is, moved at the baseline, and moved anew in two ways."""
    adaptive = moved_at(run, name, model, "test")
    bounded = moved_at(run, name, model, "test", usual=moved["validation"])
    ways = {str(Way.frozen): moved["test"], str(Way.bounded): bounded, str(Way.adaptive): adaptive}
    size = run.config.evaluation.batch_size
    return stage.judge(run.runtime.named(name), model, run.data.test, ways, batch_size=size).table
