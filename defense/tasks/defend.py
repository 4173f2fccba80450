"""Does treating the samples with the lowest scores help, by more than luck?

data -> train -> attack -> score -> treat -> retrain -> evaluate -> check -> report
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from defense.config.choices import AUTO, ObjectiveName
from defense.config.schema import plain
from defense.pipeline.arms import Arms
from defense.pipeline.cell import Cell
from defense.pipeline.selection import choose
from defense.reporting.record import Arm, Run
from defense.robustness.checks import compared_under
from defense.stages import treat
from defense.stages.report import write_report
from defense.tasks.scoring import scoring


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
        table = evaluation.artifact.table
        arms[name] = Arm(treatment.table, trained.artifact.history, table, checks, make.learned(evaluation))
    adversarial = cell.validation(sites[0]).seen_by(ObjectiveName.robustness).images
    common = vars(scoring(cell, scores.artifact, overrides)) | {"config": replace(cell.config, treatment=spec)}
    candidates = chosen.candidates if chosen else None
    compared = ("baseline", "control", "defended")  # a proxy is no part of the answer
    tables = {name: arms[name].evaluation for name in compared}
    attacked, clean = (
        {name: own[what].to_numpy() for name, own in tables.items()} for what in ("adaptive.worst", "clean")
    )
    standing = compared_under(attacked, clean)
    found = {"arms": arms, "adversarial": adversarial, "candidates": candidates, "standing": plain(standing)}
    run = Run(**common, **found)
    return write_report(run, output) if cell.crew.rank == 0 else {}
