"""What a descent on the weights of training samples did, round by round, in words and tables."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from defense.reporting.record import Scoring

ROUNDS = ("round", "objective, driving", "objective, deciding", "accuracy, driving", "accuracy, deciding", "")
LIGHT = 0.1  # weight of a sample that hardly counts
ALIKE = 0.3  # rank correlation of derivatives from two orders of training, below which either says little
ADVICE = "a lower treatment.rate, a smoother network (model=smooth_cnn) or more validation samples may"


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


def about_descent(run: Scoring, rounds: pd.DataFrame | None, weights: np.ndarray) -> list[str]:
    """Return what a descent did and how it was stopped, a paragraph each; nothing of other treatments.

    weights: of the defended arm, (n,).
    """
    if rounds is None or run.data.choice is None:
        return []
    drive, decide = len(run.data.validation), len(run.data.choice)
    how = (
        f"{drive} validation samples drive the descent, {decide} others decide: the weights taken are those of "
        "the round in which the objective on them is lowest. Round 0 has all weights 1. Each round trains from "
        "first weights and in an order of its own; none of these trainings is an arm."
    )
    asked = run.config.treatment.rounds
    found = [lowered(rounds), *ended(len(rounds) - 1, asked), *weighed(run, weights), *alike(rounds)]
    return [" ".join(found), how]


def lowered(rounds: pd.DataFrame) -> str:
    """Return how far a descent lowered the objective on either part of validation."""
    taken = rounds[rounds["chosen"]].iloc[0]
    first, rest = rounds.iloc[0], rounds.iloc[1:]
    if taken["round"] > 0:
        return (
            f"In round {taken['round']} of {len(rest)} the objective on the part that drives is "
            f"{taken['driving']:.4g}, {first['driving']:.4g} with all weights 1; on the part that decides "
            f"{taken['deciding']:.4g}, {first['deciding']:.4g} with all weights 1."
        )
    if rest.empty:
        return "Nothing is treated."
    found = f"{first['deciding']:.4g} with all weights 1, {rest['deciding'].min():.4g} at best after"
    said = f"No round lowers the objective on the part that decides ({found}): nothing is treated."
    if rest["driving"].min() >= first["driving"]:
        found = f"{first['driving']:.4g}, then {rest['driving'].min():.4g} at best"
        said += f" The descent does not lower it on the part that drives either ({found}): {ADVICE}."
    return said


def ended(done: int, asked: int) -> list[str]:
    """Return that a descent ended before its last round, if it did."""
    if done == asked:
        return []
    return [f"It ended after {done} of {asked} rounds: the next step would leave a class with nearly no weight."]


def alike(rounds: pd.DataFrame) -> list[str]:
    """Return how alike the derivatives of a round and the next are, which other orders of training give."""
    mean = rounds["agreement"].mean()
    if pd.isna(mean):
        return []
    said = (
        f"Derivatives of a round and the next, by trainings in other orders, have a rank correlation of {mean:.2f}"
    )
    little = "one order says little of another. scorer.seeds=4 takes the mean over four orders"
    return [f"{said}: {little}." if mean < ALIKE else f"{said}."]


def weighed(run: Scoring, weights: np.ndarray) -> list[str]:
    """Return how the weights of the defended arm are spread, if it has any but 1."""
    if (weights == 1).all():
        return []
    said = [f"{(weights < 1).sum()} of {len(weights)} samples weigh less than 1, {(weights < LIGHT).sum()} less "]
    said[0] += f"than {LIGHT:g}, and the heaviest {weights.max():.2g}."
    wrong = (run.scores["label"] != run.scores["truth"]).to_numpy()
    if run.data.noise_known and 0 < wrong.mean() < 1:
        means = f"{weights[wrong].mean():.2f} on average, others {weights[~wrong].mean():.2f}"
        said.append(f"Samples whose label is known to be wrong weigh {means}.")
    return said
