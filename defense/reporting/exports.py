"""The tables of a page for other programs: CSV, LaTeX (booktabs) and Parquet."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import pandas as pd

from defense.reporting.sweeps import FOLDER


class Text(str):
    """A cell of a table: what is shown, the number that it sorts by, where it leads, and its tone."""

    value: float | None
    href: Path | None
    tone: str

    def __new__(cls, shown: str, *, value: float | None = None, href: Path | None = None, tone: str = "") -> Text:
        """Make a cell; `href`: a file or folder, `tone`: a class of style.css."""
        cell = super().__new__(cls, shown)
        cell.value = None if value is None or value != value else float(value)
        cell.href, cell.tone = href, tone
        return cell


def sort_key(cell: str) -> str:
    """Return what a cell of a page sorts by: its number, or the one that it begins with; nothing of none."""
    if isinstance(cell, Text) and cell.value is not None:
        return repr(cell.value)
    found = re.match(r"[<>+]?(-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)(?![\w./]|-\d)", cell)
    return found.group(1) if found else ""


def relative(target: Path, output: Path) -> str:
    """Return the link from a page in the folder `output` to `target`, as in a URL."""
    return quote(Path(os.path.relpath(target.resolve(), output.resolve())).as_posix())


def write_tables(
    folder: Path, name: str, header: Sequence[str], rows: Sequence[Sequence[str]], data: pd.DataFrame | None
) -> None:
    """Write name.csv and name.tex into `folder`; of `data`, its plain numbers, name.parquet, and the CSV too."""
    folder.mkdir(exist_ok=True)
    if data is None:
        with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows([header, *rows])
    else:
        own = data.copy()
        if FOLDER in own:
            page = folder.parent
            own[FOLDER] = [
                None if found is None else os.path.relpath(found, page.resolve()) for found in own[FOLDER]
            ]
        own.to_csv(folder / f"{name}.csv", index=False)
        own.to_parquet(folder / f"{name}.parquet", index=False)
    (folder / f"{name}.tex").write_text(latex(header, rows), encoding="utf-8")


def latex(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table for LaTeX with the booktabs package: the first column left, the others right."""
    table = pd.DataFrame([[str(cell) for cell in row] for row in rows], columns=[str(name) for name in header])
    style = table.style.format(escape="latex").format_index(escape="latex", axis="columns").hide(axis="index")
    written: str = style.to_latex(hrules=True, column_format="l" + "r" * (len(header) - 1))
    return re.sub(r"(?<![\w$.-])-(?=\d)", "$-$", written)  # of a number below zero: a minus, not a hyphen
