"""Names of samples: those that their user gave them, or the rows that they have in their file.

A name leads from a page back to a sample of the user. It enters no key of the store, and no number.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from defense.errors import InputError


def check_names(names: pd.Series, field: str, value: object, source: str) -> None:
    """Raise InputError for the setting or array `field` if a sample of `source` has no name, or two have one.

    names: texts, NaN or "" if missing, by the row in the source.
    """
    missing = (names.isna() | (names == "")).to_numpy(dtype=bool)
    if missing.any():
        first = names.index[int(missing.argmax())] + 1
        said = f"{missing.sum()} of {len(names)} samples in {source} have no name, the first is number {first}"
        raise InputError(field, value, f"{said}; expected a name for each")
    repeated = names[names.duplicated()]
    if len(repeated):
        raise InputError(
            field, value, f"the name {repeated.iloc[0]} is there twice in {source}; expected one for each sample"
        )


def numbered(count: int) -> pd.Series:
    """Return the names of `count` samples without names of their own: their rows as text, from 0."""
    return pd.Series(pd.RangeIndex(count).astype(str))


def by_id(parts: Sequence[pd.Series]) -> pd.Series:
    """Return the names of the samples of all parts by id; parts: in the order in which ids are given."""
    return pd.concat(parts, ignore_index=True).astype(str)
