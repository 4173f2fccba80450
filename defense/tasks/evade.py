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

from defense.artifacts import AdversarialSet, Evasion, Scores, TrainedModel
from defense.config.choices import Protocol, Way
from defense.data.splits import Split
from defense.errors import InputError
from defense.influence.objectives import Validation
from defense.pipeline.arms import Arms
from defense.pipeline.cell import Cell, Seen
from defense.randomness import derive
from defense.reporting.record import Evaded
from defense.stages import evade as stage
from defense.stages.report import write_evaded
from defense.store.store import Stored
from defense.tasks.scoring import scoring

PARTS = {Protocol.published: "test", Protocol.strict: "validation"}  # that scores are aligned with


def evade(cell: Cell, output: Path, overrides: list[str]) -> dict[str, Any]:
    """For every share of moved points: score, treat and retrain by both protocols, and judge all arms on test."""
    if cell.data.classes != 2:
        raise InputError("task", cell.config.task, f"the data have {cell.data.classes} classes; expected two")
    site = cell.baseline()
    moved = {part: moved_at(cell, "baseline", site.trained, part) for part in ("validation", "test")}
    baseline = judged(cell, "baseline", site.trained, moved)
    tables, scores = {}, {}
    for share in cell.config.evade.shares:
        for protocol, part in PARTS.items():
            label, view = f"{protocol}_{share:g}", seen(cell, share, part, moved[part])
            scores[share, protocol] = cell.score(site, label, seen=view)
            found = arms(cell, label, scores[share, protocol], moved)
            tables[share, protocol] = {"baseline": baseline.table} | found
    largest = scores[max(cell.config.evade.shares), Protocol.strict].artifact
    chosen = {share: movers(cell, cell.data.test, "test", share).numpy() for share in cell.config.evade.shares}
    run = Evaded(**vars(scoring(cell, largest, overrides)), tables=tables, chosen=chosen)
    return write_evaded(run, output) if cell.crew.rank == 0 else {}


def arms(
    cell: Cell, label: str, scores: Stored[Scores], moved: dict[str, Stored[AdversarialSet]]
) -> dict[str, pd.DataFrame]:
    """Return what control and defended arm, treated by `scores`, make of test; see artifacts.Evasion."""
    make = Arms(cell, cell.config.treatment, f"_{label}")
    defended = make.treat(scores)
    treatments = {"control": make.control(scores, defended), "defended": defended.artifact}
    trained = {arm: cell.train(f"{arm}_{label}", treatment) for arm, treatment in treatments.items()}
    return {arm: judged(cell, f"{arm}_{label}", model, moved).table for arm, model in trained.items()}


def seen(cell: Cell, share: float, part: str, moved: Stored[AdversarialSet]) -> Seen:
    """Return what the objective sees: the split `part`, a `share` moved across the baseline's boundary."""
    split: Split = getattr(cell.data, part)
    chosen = movers(cell, split, part, share)
    attacked = stage.mixed(split, moved.artifact.tensors["pictures"], chosen)
    return Seen(Validation(split, attacked), {"moved": moved.key, "share": f"{share:g}", "part": part})


def movers(cell: Cell, split: Split, part: str, share: float) -> Tensor:
    """Return which points of a split are moved, the same at every model: bool (n,)."""
    return stage.movers(len(split), share, seed=derive(cell.config.seed, "evasion", part))


def moved_at(
    cell: Cell,
    name: str,
    trained: Stored[TrainedModel],
    part: str,
    usual: Stored[AdversarialSet] | None = None,
) -> Stored[AdversarialSet]:
    """Move all points of a split across the boundary of one model.

    usual: validation moved so at the undefended model; then no point goes farther than the median point there.
    """
    split: Split = getattr(cell.data, part)
    ratio, size = cell.config.evade.ratio, cell.config.evaluation.batch_size
    return cell.ledger.once(
        f"evade_{part}_{name}" if usual is None else f"evade_{part}_{name}_bounded",
        AdversarialSet,
        version=stage.VERSION,
        settings={"ratio": ratio, "batch_size": size},
        inputs=cell.inputs(part, model=trained.key, **({"usual": usual.key} if usual else {})),
        compute=lambda *_: stage.evade(
            cell.restore(trained),
            split,
            ratio=ratio,
            batch_size=size,
            reach=stage.median_length(cell.data.validation, usual.artifact.tensors["pictures"]) if usual else None,
        ),
    )


def judged(
    cell: Cell, name: str, trained: Stored[TrainedModel], moved: dict[str, Stored[AdversarialSet]]
) -> Evasion:
    """Return what one arm makes of test: as it is, moved at the baseline, and moved anew in two ways."""
    adaptive = moved_at(cell, name, trained, "test")
    bounded = moved_at(cell, name, trained, "test", usual=moved["validation"])
    ways = {Way.frozen: moved["test"], Way.bounded: bounded, Way.adaptive: adaptive}
    size = cell.config.evaluation.batch_size
    return cell.ledger.once(
        f"judge_{name}",
        Evasion,
        version=stage.VERSION,
        settings={"batch_size": size},
        inputs=cell.inputs("test", model=trained.key, **{str(way): each.key for way, each in ways.items()}),
        compute=lambda *_: stage.judge(
            cell.restore(trained),
            cell.data.test,
            {str(way): each.artifact.tensors["pictures"] for way, each in ways.items()},
            batch_size=size,
        ),
    ).artifact
