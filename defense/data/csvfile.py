"""Files of tables as text: columns by the name in their header, cells without blanks around."""

from __future__ import annotations

import csv
import io
import logging
import string
import unicodedata
from collections.abc import Sequence

import numpy as np
import pandas as pd

from defense.data.collection import decoded, existing
from defense.data.parquet import is_parquet, read_parquet
from defense.errors import InputError

log = logging.getLogger(__name__)

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff" + string.whitespace + "\u00a0"  # around a value


def read_cells(path: str | None, field: str, named: Sequence[str], verbatim: Sequence[str] = ()) -> pd.DataFrame:
    """Return the cells of a CSV or Parquet file as text, with single blanks inside alone, NaN if empty.

    named: columns that the file should have; they tell what separates those of a CSV file. verbatim: columns whose
    cells are as they stand in the file. Raises InputError if the file cannot be read, two columns have one name,
    or no row is in it.
    """
    found = read_parquet(path, field) if is_parquet(path) else read_csv(path, field, named)
    twice = found.columns[found.columns.duplicated()]
    if len(twice):
        raise InputError(field, path, f"has two columns named {twice[0]}; expected a name for each")
    if found.empty:
        raise InputError(field, path, "no row in it; expected samples below a line of column names")
    return found.apply(lambda cells: cells if cells.name in verbatim else stripped(cells))


def read_csv(path: str | None, field: str, named: Sequence[str]) -> pd.DataFrame:
    """Return the cells of a CSV file in UTF-8 as they stand there; its first line names the columns."""
    expected = "a CSV file with a header, or a Parquet file"
    text = decoded(str(existing(path, field, expected)), field, expected)
    sign = separator(text, named)
    if sign != ",":
        log.info("%s=%s: columns are separated by %s", field, path, SEPARATORS[sign])
    usual = {"header": None, "dtype": str, "keep_default_na": False, "skipinitialspace": True, "sep": sign}
    try:
        cells = pd.read_csv(io.StringIO(text), **usual)
    except ValueError as error:  # pandas' errors of parsing are ValueErrors
        raise InputError(field, path, f"not a readable CSV file ({error})") from error
    names = stripped(cells.iloc[0])
    header = [name if isinstance(name, str) else f"Unnamed: {place}" for place, name in enumerate(names)]
    return cells.iloc[1:].set_axis(header, axis="columns").reset_index(drop=True)


def stripped(column: pd.Series) -> pd.Series:
    """Return texts without blanks and invisible signs around, in one form of Unicode, NaN if nothing is left."""
    places, texts = pd.factorize(column)  # each text once
    plain = [" ".join(unicodedata.normalize("NFC", text).strip(INVISIBLE).split()) or np.nan for text in texts]
    return pd.Series(np.array([*plain, np.nan], dtype=object)[places], index=column.index)


def separator(text: str, named: Sequence[str]) -> str:
    """Return the first of SEPARATORS that gives a header with the named columns.

    If none does, return the one with the longest header, for the error that lists the columns.
    """
    headers = {sign: header_of(text, sign) for sign in SEPARATORS}
    fitting = [sign for sign, header in headers.items() if set(named) <= set(header)]
    return fitting[0] if fitting else max(SEPARATORS, key=lambda sign: len(headers[sign]))


def header_of(text: str, sign: str) -> list[str]:
    """Return the names in the first line of a text whose columns are separated by `sign`."""
    rows = csv.reader(io.StringIO(text), delimiter=sign, skipinitialspace=True)
    try:
        return [name.strip() for name in next((row for row in rows if row), [])]
    except csv.Error:  # a header that csv cannot read; pandas says why
        return []
