"""Descents on the weights of training samples: a section of the page of a run, and of that of a sweep."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from defense.reporting.descent import ROUNDS, about_descent, descent_rows
from defense.reporting.figures import descent_curves
from defense.reporting.page import Section
from defense.reporting.record import Scoring
from defense.reporting.settings import Setting
from defense.reporting.statistics import mean_interval


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
