"""The names that a user gave to samples, beside the ids that a run knows them by."""

from __future__ import annotations

import pandas as pd

from defense.data.splits import Dataset

ID, NAME = "id", "name"  # columns of every table of samples


def named(table: pd.DataFrame, data: Dataset) -> pd.DataFrame:
    """Return a table of samples, by their column of ids, with the column of their names beside it."""
    place = table.columns.tolist().index(ID) + 1
    out = table.copy()
    out.insert(place, NAME, data.names_of(table[ID].to_numpy()))
    return out
