"""Cells of a table as values, and whether they are one thing in every file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from defense.config.schema import Data
from defense.data.kinds import FEW, Column, Kind, label
from defense.data.refusals import override
from defense.data.spelling import is_word, two_spellings
from defense.errors import InputError

KNOWN = 0.5  # of the rows of another file, at least: those whose category training has
Tables = Mapping[str, pd.DataFrame]  # by part


def file_of(part: str, spec: Data) -> tuple[str, str | None]:
    """Return the field that names the file of a part, and its value."""
    name = "path" if part == "train" else f"{part}_path"
    return f"data.{name}", getattr(spec, name)


def compared(texts: Tables, spec: Data) -> Tables:
    """Return the rows of the groups that are compared, each with its number in the file; all if none are named."""
    if spec.groups is None or spec.sensitive is None:
        return texts
    column = label(texts["train"][spec.sensitive], spec)
    groups = {part: values_of(rows[column.name], column) for part, rows in texts.items()}
    check_spelling({part: found.to_frame() for part, found in groups.items()}, column, spec)
    kept = {}
    for part, found in groups.items():
        absent = sorted(set(spec.groups) - set(found.astype(str)))
        if absent:
            valid = ", ".join(sorted(found.dropna().astype(str).unique())[:FEW])
            raise InputError("data.groups", absent[0], f"no such value in column {spec.sensitive}; it has {valid}")
        kept[part] = texts[part][found.astype(str).isin(spec.groups)]
    return kept


def values_of(cells: pd.Series, column: Column) -> pd.Series:
    """Return the values of a column: numbers, NaN if a text is none; True and False as text; or other texts."""
    if column.kind is Kind.number:
        if column.notation is None:
            return pd.to_numeric(cells, errors="coerce")
        return cells.map(column.notation.read, na_action="ignore").astype(np.float64)
    if column.kind is Kind.truth:
        words = {text: text.title() for text in cells.dropna().unique() if text.casefold() in ("true", "false")}
        return cells.replace(words)
    return cells


def typed(rows: pd.DataFrame, columns: Sequence[Column], part: str, spec: Data) -> pd.DataFrame:
    """Return the values of the columns that are looked at.

    Raises InputError if a cell is empty or has a word for no value, or is no finite number in a column of numbers.
    """
    values = {column.name: values_of(rows[column.name], column) for column in columns}
    odd = {name: rows[name][found.isna() & rows[name].notna()] for name, found in values.items()}
    words = {
        column.name: [text for text in odd[column.name].unique() if is_word(text, column.no_value)]
        for column in columns
    }
    check_filled({name: rows[name].mask(rows[name].isin(words[name])) for name in values}, words, part, spec)
    for column in columns:
        if column.kind is Kind.number:
            check_finite(column.name, values[column.name], odd[column.name], part, spec)
    return pd.DataFrame(values)


def check_filled(
    columns: Mapping[str, pd.Series], words: Mapping[str, Sequence[str]], part: str, spec: Data
) -> None:
    """Raise InputError if columns lack a value: of the first its first row is told, of the others their number."""
    lacking = {name: cells for name, cells in columns.items() if cells.isna().any()}
    if not lacking:
        return
    name, cells = next(iter(lacking.items()))
    said = f"{int(cells.isna().sum())} of {len(cells)} rows have no value in column {name}"
    said += f" but {words[name][0]}" if words[name] else ""
    said += f", the first is row {cells.isna().idxmax() + 1} below the header"
    others = [f"{other} ({int(found.isna().sum())})" for other, found in lacking.items() if other != name]
    said += f"; so do rows in {', '.join(others)}" if others else ""
    features = [each for each in lacking if each not in (spec.target, spec.sensitive)]
    ways = f", or {override(spec, 'drop', features)}" if features else ""
    coded = [each for each in features if words[each]]
    ways += f"; {override(spec, 'categories', coded)} takes every value as a category" if coded else ""
    raise InputError(*file_of(part, spec), f"{said}; fill them in{ways}")


def check_finite(name: str, numbers: pd.Series, odd: pd.Series, part: str, spec: Data) -> None:
    """Raise InputError for the first of the `odd` texts of a column of numbers, or one that is infinite."""
    others = odd if len(odd) else numbers[np.isinf(numbers.to_numpy(dtype=np.float64))]
    if others.empty:
        return
    said = f"the {part} rows have the value {others.iloc[0]}"
    if name in (spec.target, spec.sensitive):
        raise InputError(label_field(name, spec), name, f"{said}, which training has not")
    raise InputError("data.columns", name, f"{said} in it; expected finite numbers alone")


def check_spelling(tables: Tables, column: Column, spec: Data) -> None:
    """Raise InputError if a value is spelled in two ways in a column, in one file or two."""
    if column.kind is not Kind.category or column.name in (spec.categories or ()):
        return
    counts = pd.concat([rows[column.name].dropna() for rows in tables.values()]).value_counts()
    pair = two_spellings(counts.to_dict())
    if pair is None:
        return
    by_part = {part: rows[column.name].value_counts() for part, rows in tables.items()}
    each = " and ".join(
        f"{text} ({', '.join(f'{found[text]} {part} rows' for part, found in by_part.items() if text in found)})"
        for text in pair
    )
    ways = f"Write one of them, or {override(spec, 'categories', [column.name])} takes them as two"
    said = f"column {column.name} has {each}: one value in two spellings? {ways}"
    raise InputError(*file_of("train", spec), said)


def check_known(tables: Tables, column: Column, spec: Data) -> None:
    """Raise InputError if hardly a row of another file has a category of training; of a chosen column, no row."""
    if column.kind is Kind.number:
        return
    known = tables["train"][column.name].unique()
    for part, rows in tables.items():
        share = rows[column.name].isin(known).mean()
        if len(known) < 2 or share >= KNOWN or (share > 0 and column.name in (spec.categories or ())):
            continue
        other = rows[column.name][~rows[column.name].isin(known)]
        said = f"column {column.name}: {len(other)} of {len(rows)} rows have a value that training has not, as"
        valid = (
            f"training has {', '.join(known[:3])}; write them alike, or {override(spec, 'drop', [column.name])}"
        )
        raise InputError(*file_of(part, spec), f"{said} {other.iloc[0]}; {valid}")


def label_field(name: str, spec: Data) -> str:
    """Return the setting that names the column of the classes or of the groups."""
    return "data.target" if name == spec.target else "data.sensitive"


def groups_in(column: pd.Series, spec: Data) -> list[object]:
    """Return the values of the sensitive column in order; raises InputError if they are one, or too many."""
    found = in_order(column)
    if len(found) < 2:
        said = f"has the one value {found[0]}; expected two groups to compare"
        raise InputError("data.sensitive", spec.sensitive, said)
    if len(found) > FEW:
        said = f"has {len(found)} values; expected {FEW} at most, or data.groups that names those to compare"
        raise InputError("data.sensitive", spec.sensitive, said)
    return found


def in_order(column: pd.Series) -> list[object]:
    """Return the values of a column: numbers by size, others as text in that of the alphabet."""
    by_size = pd.api.types.is_numeric_dtype(column)
    return sorted(column.unique(), key=None if by_size else str)


def coded(column: pd.Series, names: list[object], field: str, part: str) -> Tensor:
    """Return the place of each value in `names` int64 (n,); raises InputError for one that is not there."""
    codes = pd.Index(names).get_indexer(column)
    if (codes < 0).any():
        value = column.iloc[int(np.argmax(codes < 0))]
        raise InputError(field, column.name, f"the {part} rows have the value {value}, which training has not")
    return torch.from_numpy(codes.astype(np.int64))
