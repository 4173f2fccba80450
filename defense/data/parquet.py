"""Parquet files as text: a table is the same in every kind of file, and its checks are those of CSV files."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet

from defense.data.collection import existing
from defense.errors import InputError

ENDINGS = (".parquet", ".pq")
INDEX = re.compile(r"__index_level_\d+__")  # as pandas stores an index without a name, which is no column


def is_parquet(path: str | None) -> bool:
    """Return whether a file is named as a Parquet file."""
    return path is not None and Path(path).suffix.lower() in ENDINGS


def read_parquet(path: str | None, field: str) -> pd.DataFrame:
    """Return the cells of a Parquet file as text, None if empty: 3 for 3.0, true, 2020-01-31, [1, 2].

    A number has as many digits as tell it apart. Raises InputError if the file is not there, or is none.
    """
    expected = "a Parquet file"
    try:
        table = pyarrow.parquet.ParquetFile(existing(path, field, expected)).read()
    except (pa.ArrowException, OSError) as error:
        raise InputError(field, path, f"not a readable Parquet file ({error})") from error
    texts = {place: pd.Series(texts_of(column), dtype=object) for place, column in enumerate(table.columns)}
    found = pd.DataFrame(texts).set_axis([name.strip() for name in table.column_names], axis="columns")
    return found.loc[:, [INDEX.fullmatch(name) is None for name in found]]


def texts_of(column: pa.ChunkedArray) -> list[str | None]:
    """Return the cells of a column as Arrow writes them; those of lists and bytes as Python does."""
    values = column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
    try:
        return list(values.cast(pa.string()).to_pylist())
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        return [None if value is None else str(value) for value in values.to_pylist()]
