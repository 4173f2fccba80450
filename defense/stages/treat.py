"""From scores to what a retraining sees of each training sample."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from defense.artifacts import Treatment
from defense.data.splits import Split
from defense.errors import InputError
from defense.schema import Treat, TreatmentName

VERSION = 1


def untreated(train: Split) -> Treatment:
    """Return the treatment that leaves everything as it is."""
    table = {"id": train.ids.numpy(), "keep": True, "label": train.labels.cpu().numpy(), "weight": 1.0}
    return Treatment(pd.DataFrame(table))


def treat(train: Split, scores: np.ndarray, spec: Treat) -> Treatment:
    """Treat the round(budget * n) samples with the lowest scores (n,); ties go to the lower row.

    Raises InputError where the treatment leaves a class without samples.
    """
    count = round(spec.budget * len(train))
    lowest = np.argsort(scores, kind="stable")[:count]
    treatment = TREATMENTS[spec.name](untreated(train), lowest)
    table = treatment.table
    lost = set(table["label"]) - set(table["label"][table["keep"]])
    if lost:
        valid = f"removes every sample of class {min(lost)}; expected a smaller fraction"
        raise InputError("treatment.budget", spec.budget, valid)
    return treatment


def remove(treatment: Treatment, rows: np.ndarray) -> Treatment:
    """Leave the samples at `rows` out."""
    keep = treatment.table["keep"].to_numpy().copy()
    keep[rows] = False
    return Treatment(treatment.table.assign(keep=keep))


TREATMENTS: dict[TreatmentName, Callable[[Treatment, np.ndarray], Treatment]] = {TreatmentName.remove: remove}
