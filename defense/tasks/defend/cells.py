"""Cells of tables that are made of plain numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from defense.reporting.exports import Text
from defense.reporting.statistics import Mean


def numbers(data: pd.DataFrame, column: str, form: str | Callable[[float], str] = "{:.1f}") -> list[str]:
    """Return a column of plain numbers as cells that sort by them; '-' if there is none."""
    write = form if callable(form) else form.format
    if column not in data:
        return ["-"] * len(data)
    return ["-" if pd.isna(value) else Text(write(value), value=value) for value in data[column]]


def spans(data: pd.DataFrame, column: str) -> list[str]:
    """Return a column of means with their intervals as cells that sort by the mean; '-' if there is none."""
    if column not in data:
        return ["-"] * len(data)
    ends = (data.get(f"{column}_{end}", pd.Series(np.nan, index=data.index)) for end in ("low", "high"))
    return [
        "-" if pd.isna(mean) else Text(Mean(mean, low, high, 2).text(), value=mean)
        for mean, low, high in zip(data[column], *ends, strict=True)
    ]


def shares(data: pd.DataFrame, column: str, total: str) -> list[str]:
    """Return cells as '3 of 5'; '-' of nothing."""
    pairs = zip(data[column], data[total], strict=True)
    return [Text(f"{part} of {whole}", value=part / whole) if whole else "-" for part, whole in pairs]


def cell(value: Any) -> str:
    """Return a swept value as a cell that sorts by its number; '-' of none."""
    if value is None or pd.isna(value):
        return "-"
    return Text(f"{value:g}", value=value) if isinstance(value, float) else str(value)
