"""A descent on the weights of training samples, round by round, in words and tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd

from defense.reporting.charts import COLOURS, STYLE, canvas, svg
from defense.reporting.frame import Setting
from defense.reporting.page import Section
from defense.reporting.run import Scoring
from defense.reporting.statistics import mean_interval

ROUNDS = ("round", "objective, driving", "objective, deciding", "accuracy, driving", "accuracy, deciding", "")
LIGHT = 0.1  # weight of a sample that hardly counts
ALIKE = 0.3  # rank correlation of derivatives from two orders of training, below which either says little
ADVICE = "Try a lower treatment.rate, a smoother network (model=smooth_cnn) or more validation samples"


def rounds_as_json(rounds: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rounds of a descent as result.json holds them."""
    return [
        {str(name): None if pd.isna(value) else value for name, value in row.items()}
        for row in rounds.to_dict("records")
    ]


def descent_rows(rounds: pd.DataFrame) -> list[tuple[str, ...]]:
    """Return one row a round, its weights being those that it begins with."""
    return [
        (
            str(row.round),
            f"{row.driving:.4g}",
            f"{row.deciding:.4g}",
            f"{row.driving_accuracy:.1f}",
            f"{row.deciding_accuracy:.1f}",
            "taken" if row.chosen else "",
        )
        for row in rounds.itertuples()
    ]


def about_descent(run: Scoring, rounds: pd.DataFrame | None) -> list[str]:
    """Return the outcome of a descent and the rule that chose its round, a paragraph each; nothing without one."""
    if rounds is None or run.data.choice is None:
        return []
    spec, seeds = run.config.treatment, run.config.scorer.seeds
    drive, decide = len(run.data.validation), len(run.data.choice)
    how = f"{drive} validation samples drive the descent, {decide} others decide. "
    if rounds["fall"].notna().any():
        trainings = "one training" if seeds == 1 else f"the mean over {seeds} trainings"
        how += (
            "The round with the lowest objective on those is the lowest of several, which flatters. So its "
            f"treatment is compared with none: {trainings} of each, from the same fresh first weights and in the "
            f"same order. It is taken if {tell_rule(spec.confidence)}. "
        )
    how += (
        "Round 0 has all weights 1. Each round trains from first weights and in an order of its own. None of "
        "these trainings is an arm."
    )
    found = [tell_outcome(rounds, spec.confidence), *tell_end(len(rounds) - 1, spec.rounds), *tell_weights(run)]
    return [" ".join([*found, *tell_agreement(rounds, seeds)]), how]


def tell_rule(confidence: float) -> str:
    """Return when a treatment is taken, at a treatment.confidence of `confidence`."""
    if confidence == 0:
        return "the objective falls"
    return f"the {100 * confidence:g} % interval of the fall lies above 0"


def tell_outcome(rounds: pd.DataFrame, confidence: float) -> str:
    """Return the objective on either part of validation in the lowest round and the first, and what is taken."""
    first, rest = rounds.iloc[0], rounds.iloc[1:]
    if rest.empty:
        return "Nothing is treated."
    best = rounds.iloc[int(rounds["deciding"].argmin())]
    if best["round"] > 0:
        found = (
            f"In round {best['round']} of {len(rest)} the objective on the part that drives is "
            f"{best['driving']:.4g}, {first['driving']:.4g} with all weights 1; on the part that decides "
            f"{best['deciding']:.4g}, {first['deciding']:.4g} with all weights 1. In a comparison from the same "
            f"fresh first weights it falls there by {best['fall']:.2g}"
        )
        if pd.notna(best["fall_low"]):
            found += f" (95 % interval {best['fall_low']:.2g} to {best['fall_high']:.2g} over samples)"
        if best["chosen"]:
            return f"{found}{'' if best['fall_low'] > 0 else ', which chance may explain'}."
        why = f", whose {100 * confidence:g} % interval includes 0" if best["fall"] > 0 else ""
        return f"{found}{why}: nothing is treated."
    found = f"{first['deciding']:.4g} with all weights 1, {rest['deciding'].min():.4g} at best after"
    said = f"No round lowers the objective on the part that decides ({found}): nothing is treated."
    if rest["driving"].min() >= first["driving"]:
        found = f"{first['driving']:.4g}, then {rest['driving'].min():.4g} at best"
        said += f" The descent does not lower it on the part that drives either ({found}). {ADVICE}."
    return said


def tell_end(done: int, asked: int) -> list[str]:
    """Return why a descent ended before its last round, if it did."""
    if done == asked:
        return []
    why = "the next step would leave a class with nearly no weight"
    return [f"The descent ended after {done} of {asked} rounds: {why}."]


def tell_agreement(rounds: pd.DataFrame, seeds: int) -> list[str]:
    """Return the rank correlation of derivatives from round to round, and advice if it is low.

    seeds: trainings in a round.
    """
    mean = rounds["agreement"].astype(float).mean()
    if pd.isna(mean):
        return []
    said = (
        "From round to round, which train in other orders and with other weights, the derivatives have a rank "
        f"correlation of {mean:.2f}."
    )
    if mean >= ALIKE or seeds > 1:
        return [said]
    return [said, "If one order says little of another, scorer.seeds=4 takes the mean over four in each round."]


def tell_weights(run: Scoring) -> list[str]:
    """Return the spread of the weights, and how well they tell wrong labels; nothing if all are 1."""
    from sklearn.metrics import roc_auc_score

    weights = run.scores["descent_weight"].to_numpy()
    if (weights == 1).all():
        return []
    light, least = (weights < 1).sum(), (weights < LIGHT).sum()
    said = [
        f"By these weights, {light} of {len(weights)} samples count for less than 1, {least} for less than "
        f"{LIGHT:g}, and the heaviest for {weights.max():.2g}."
    ]
    wrong = (run.scores["label"] != run.scores["truth"]).to_numpy()
    if run.data.noise_known and 0 < wrong.mean() < 1:
        means = f"{weights[wrong].mean():.2f} on average, others {weights[~wrong].mean():.2f}"
        auc = f"ROC AUC of the weights {roc_auc_score(wrong, -weights):.3f}"
        said.append(f"Samples whose label is known to be wrong weigh {means} ({auc}).")
    return said


def descent_section(run: Scoring, rounds: pd.DataFrame | None) -> list[Section]:
    """Return the descent of one run, round by round; no section without one."""
    if rounds is None:
        return []
    text = "\n".join(about_descent(run, rounds))
    return [Section("descent", "Descent", text, ROUNDS, descent_rows(rounds), descent_curves(rounds))]


def descents(settings: Sequence[Setting]) -> list[Section]:
    """Return the outcome of the descents of a sweep, a row a setting; no section without one."""
    rows = []
    for setting in settings:
        tables = [pd.DataFrame(run["descent"]) for run in setting.runs if run.get("descent")]
        if not tables:
            continue
        taken = [table[table["chosen"]].iloc[0] for table in tables]
        nothing = sum(row["round"] == 0 for row in taken)
        first = [table.iloc[0] for table in tables]
        change = {
            part: mean_interval([row[part] - begin[part] for row, begin in zip(taken, first, strict=True)])
            for part in ("driving_accuracy", "deciding_accuracy")
        }
        agreement = pd.concat(tables)["agreement"].astype(float).mean()
        rounds = (
            f"{np.mean([row['round'] for row in taken]):.1f} of {np.mean([len(each) - 1 for each in tables]):g}"
        )
        alike = "-" if pd.isna(agreement) else f"{agreement:.2f}"
        rows.append((setting.name, rounds, f"{nothing} of {len(tables)}", *map(str, change.values()), alike))
    text = (
        "Of treatment=optimize: the round whose weights are taken, on average, the seeds in which that is round 0 "
        "and nothing is treated, and the change of accuracy on either part of validation from round 0 to it. "
        "Nothing is treated if no round lowers the objective on the deciding part, or if it does not fall, as "
        "surely as treatment.confidence asks for, in a comparison from the same first weights. As that part has "
        "chosen the round, its change flatters. agreement: rank correlation of derivatives from round to round, "
        "which train in other orders and with other weights."
    )
    head = ("setting", "round taken", "nothing treated", "driving, points", "deciding, points", "agreement")
    return [Section("descents", "What the descents did", text, head, rows)] if rows else []


def descent_curves(rounds: pd.DataFrame) -> str:
    """Return the objective and the accuracy by round of a descent, on either part of validation."""
    colours = {"driving": COLOURS["baseline"], "deciding": COLOURS["defended"]}
    chosen = np.flatnonzero(rounds["chosen"]).tolist()
    with mpl.rc_context(STYLE):
        figure, (objective, accuracy) = canvas(1.9, columns=2)
        for part, colour in colours.items():
            for axes, column in ((objective, part), (accuracy, f"{part}_accuracy")):
                (curve,) = axes.plot(rounds["round"], rounds[column], "o-", color=colour, label=part)
                curve.set(markevery=chosen, markersize=4)
        objective.set(xlabel="round", title="objective")
        accuracy.set(xlabel="round; dot: taken", title="validation accuracy, %")
        for axes in (objective, accuracy):
            axes.locator_params("x", integer=True)
        return svg(figure, objective)
