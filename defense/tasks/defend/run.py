"""Does treating the samples with the lowest scores help, by more than luck?

data -> train -> attack -> score -> treat -> retrain -> evaluate -> check -> report
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from defense.artifacts import Evaluation, Scores, Treatment
from defense.config.choices import AUTO, ObjectiveName
from defense.config.schema import Treat, plain
from defense.pipeline.descent import descended, with_weights
from defense.pipeline.run import Run
from defense.pipeline.selection import choose
from defense.robustness.checks import compared_under
from defense.stages.trained import Trained
from defense.stages.treat import untreated
from defense.tasks.defend.result import Arm
from defense.tasks.defend.result import Run as Finished
from defense.tasks.defend.run_page import write_report


def defend(run: Run, output: Path, overrides: list[str]) -> dict[str, Any]:
    """Does treating the samples with the lowest scores help, by more than luck?"""
    finished, _ = compare_arms(run, overrides)
    return write_report(run.runtime, finished, output) if run.writes else {}


def compare_arms(run: Run, overrides: list[str]) -> tuple[Finished, dict[str, Trained]]:
    """Train, attack and check every arm; return the finished run, and the models by arm."""
    baseline = run.baseline()
    scored = run.scored_models()
    scores = run.scores(scored)
    chosen = choose(run, scores) if run.config.treatment.budget == AUTO else None
    descent = descended(run, scores)
    spec = chosen.spec if chosen else descent.spec
    defended = run.treat(descent.scores, spec)
    everything = untreated(run.data.train)
    treatments = {
        "baseline": everything,
        "control": run.control(descent.scores, defended, spec),
        "defended": defended,
    }
    measured = run.evaluate("baseline", baseline.model)
    checked = run.check("baseline", baseline.model, measured)
    models = {"baseline": baseline.model}
    models |= {arm: run.train(arm, treatments[arm]) for arm in ("control", "defended")}
    for arm in run.config.evaluation.trusted_arms:  # who has a trusted set may as well train on it
        treatments[arm], models[arm] = run.train_trusted(arm, baseline.model)
    if scored[0].name != "baseline":  # who can afford to train a proxy may as well deploy it
        treatments["proxy"], models["proxy"] = everything, scored[0].model
    arms: dict[str, Arm] = {}
    for name, model in models.items():
        if model.identity == baseline.model.identity:  # nothing was treated
            evaluation, checks = measured, checked
        else:
            evaluation = run.evaluate(name, model, measured)
            # checks take nearly as long as an evaluation: a trusted arm has them if the verdict may name it
            spared = name in run.config.evaluation.trusted_arms and not higher(evaluation.table, arms["defended"])
            checks = {} if spared else run.check(name, model, evaluation)
        history = model.artifact.history
        arms[name] = Arm(treatments[name].table, history, evaluation.table, checks, run.learned(evaluation))
    further = {
        f"control_{number}": evaluate_draw(run, number, descent.scores, defended, spec, measured)
        for number in range(2, run.config.evaluation.controls + 1)
    }
    tables = {name: arms[name].evaluation for name in ("baseline", "control", "defended")}  # others treat nothing
    attacked, clean = (
        {name: own[what].to_numpy() for name, own in tables.items()} for what in ("adaptive.worst", "clean")
    )
    summary = run.summary(with_weights(scores, descent), overrides)
    common = vars(summary) | {"config": replace(run.config, treatment=spec)}
    finished = Finished(
        **common,
        arms=arms,
        adversarial=run.validation(scored[0]).seen_by(ObjectiveName.robustness, attacked=True).images,
        candidates=chosen.candidates if chosen else None,
        descent=descent.rounds,
        standing=plain(compared_under(attacked, clean)),
        further_controls=further,
    )
    return finished, models


def evaluate_draw(
    run: Run, number: int, scores: Scores, defended: Treatment, spec: Treat, baseline: Evaluation
) -> pd.DataFrame:
    """Return the evaluation of a further random control, by its number from 2 up; the baseline's if it is that."""
    name = f"control_{number}"
    treatment = run.control(scores, defended, spec, str(number), index=number - 1)
    if not treatment.table["treated"].any():
        return baseline.table
    return run.evaluate(name, run.train(name, treatment), baseline).table


def higher(evaluation: pd.DataFrame, defended: Arm) -> bool:
    """Return whether an arm has more test samples right under adaptive attack than the defended arm."""
    return bool(evaluation["adaptive.worst"].sum() > defended.evaluation["adaptive.worst"].sum())
