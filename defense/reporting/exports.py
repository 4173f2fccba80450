"""The tables of a page for other programs: CSV, LaTeX (booktabs) and Parquet."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import pandas as pd

from defense.reporting.escaping import UTF8, for_csv, for_latex, write
from defense.reporting.reading import FOLDER

Printed = tuple[Sequence[str], Sequence[Sequence[str]]]  # the header and the rows of a table


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
    return quote(os.fsencode(Path(os.path.relpath(target.resolve(), output.resolve())).as_posix()))


def write_csv(table: pd.DataFrame, file: Path) -> None:
    """Write a table as CSV in UTF-8, its texts and the names of its columns as `for_csv` returns them."""

    def shown(column: pd.Series) -> pd.Series:
        if pd.api.types.is_numeric_dtype(column):
            return column
        return column.map(lambda value: for_csv(value) if isinstance(value, str) else value)

    safe = table.apply(shown).rename(columns=lambda name: for_csv(str(name)))
    safe.to_csv(file, index=False, encoding=UTF8, errors="backslashreplace", lineterminator="\n")


def write_tables(
    folder: Path,
    name: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    data: pd.DataFrame | None,
    *,
    caption: str = "",
    paper: Printed | None = None,
) -> None:
    """Write name.csv and name.tex into `folder`; of `data`, its plain numbers, name.parquet, and the CSV too.

    paper: the table as a paper prints it, if that is another than the one of the page.
    """
    folder.mkdir(exist_ok=True)
    file = folder / f"{name}.csv"
    if data is None:
        with file.open("w", newline="", encoding=UTF8, errors="backslashreplace") as out:
            cells = ([for_csv(cell) for cell in row] for row in (header, *rows))
            csv.writer(out, lineterminator="\n").writerows(cells)
    else:
        own = data.copy()
        if FOLDER in own:
            page = folder.parent
            own[FOLDER] = [
                None if found is None else os.path.relpath(found, page.resolve()) for found in own[FOLDER]
            ]
        write_csv(own, file)
        own.to_parquet(folder / f"{name}.parquet", index=False)
    write(folder / f"{name}.tex", latex(*(paper or (header, rows)), caption=caption, label=f"tab:{name}"))


def latex(header: Sequence[str], rows: Sequence[Sequence[str]], *, caption: str, label: str) -> str:
    """Return a table for LaTeX with the booktabs package: the first column left, the others right."""

    def line(cells: Sequence[str]) -> str:
        return " & ".join(for_latex(str(cell)) for cell in cells) + r" \\"

    written = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{for_latex(caption)}}}",
        rf"\label{{{label}}}",
        rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}",
        r"\toprule",
        line(header),
        r"\midrule",
        *map(line, rows),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(written) + "\n"
