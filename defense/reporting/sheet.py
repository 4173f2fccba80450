"""A page of tables and charts, for what is not about three arms: the answer first, then what it rests on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd

from defense.reporting.escaping import for_markdown, write
from defense.reporting.exports import Printed, Text, relative, sort_key, write_tables
from defense.reporting.page import write_text
from defense.reporting.tables import markdown

PAGE = "report"  # the stem of every page
FILTERED = 12  # rows: a table of more can be filtered, whatever it is of


@dataclass(frozen=True)
class Part:
    """A chart, a table, or both, and what there is to say of them."""

    name: str  # of its files
    heading: str
    text: str = ""
    header: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    chart: str = ""  # an <svg> element
    data: pd.DataFrame | None = None  # the table as plain numbers, for its CSV and Parquet
    paper: Printed | None = None  # the table as a paper prints it, for LaTeX; None: as the page has it
    caption: str = ""  # of it; the heading where there is none
    facets: Sequence[str] = ()  # columns of the table to choose rows by
    folded: bool = False  # the table opens on a click: it repeats what is above
    aside: bool = False  # for pages alone, not for a terminal

    @property
    def filtered(self) -> bool:
        """Whether rows of the table can be chosen: those of much are worth it."""
        return bool(self.facets) or len(self.rows) > FILTERED


@dataclass(frozen=True)
class Failure:
    """A cell of a sweep that did not finish."""

    folder: Path
    overrides: Sequence[str]
    error: str  # one line
    log: str  # the name of a file in the folder


@dataclass(frozen=True)
class Sheet:
    """One page."""

    title: str
    answer: str  # a paragraph a line
    command: str
    parts: Sequence[Part]
    made: str  # versions, device, times
    settings: str = ""  # JSON
    facts: Sequence[str] = ()  # what the numbers are of: data, model, threat, counts
    failures: Sequence[Failure] = ()


def write_sheet(sheet: Sheet, output: Path) -> None:
    """Write report.md, report.html, and every chart (figures/) and table (tables/) of `sheet` into `output`."""
    for part in sheet.parts:
        if part.chart:
            (output / "figures").mkdir(exist_ok=True)
            write(output / "figures" / f"{part.name}.svg", part.chart)
        if part.rows:
            write_tables(
                output / "tables",
                part.name,
                part.header,
                part.rows,
                part.data,
                caption=part.caption or part.heading,
                paper=part.paper,
            )
    for form in ("md", "html"):
        facts = {
            "sheet": sheet,
            "failed": failed(sheet.failures),
            "rows_of": partial(shown, form=form, output=output),
            "table": table_in_markdown,
        }
        write_text(output / f"{PAGE}.{form}", f"sheet.{form}", facts)


def table_in_markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table of a page in Markdown; the cells of `rows` are written for it, the header is not."""
    return markdown([for_markdown(name) for name in header], rows, form=str)


def shown(part: Part, *, form: str, output: Path) -> list[list[Shown]]:
    """Return the rows of a part for a page of the kind `form`, 'md' or 'html', in the folder `output`."""
    return [[Shown.of(cell, form, output) for cell in row] for row in part.rows]


class Shown(str):
    """A cell as a page shows it: with the link to where it leads, and what it sorts by."""

    link: str
    key: str
    tone: str

    @classmethod
    def of(cls, cell: str, form: str, output: Path) -> Shown:
        """Return a cell for a page of the kind `form`, 'md' or 'html', in the folder `output`."""
        leads = cell.href if isinstance(cell, Text) else None
        # a run's page in the same form; its log, and whatever else is a file, as it is
        target = leads / f"{PAGE}.{form}" if leads and leads.is_dir() else leads
        link = relative(target, output) if target and target.exists() else ""
        text = str(cell)
        if form == "md":
            text = for_markdown(text)
            text = f"[{text}]({link})" if link else text
        shown = cls(text)
        shown.link, shown.key, shown.tone = link, sort_key(cell), getattr(cell, "tone", "")
        return shown


def failed(failures: Sequence[Failure]) -> Part:
    """Return the table of cells that failed."""
    rows = [
        (
            failure.folder.name,
            " ".join(failure.overrides),
            failure.error,
            Text(failure.log, href=failure.folder / failure.log),
        )
        for failure in failures
    ]
    return Part("failed", "Cells that failed", header=("cell", "settings", "error", "log"), rows=rows)


def unfinished(failures: Sequence[Failure], missing: int = 0) -> Sheet:
    """Return the page of a sweep of which no cell has finished; `missing` of them have not failed, either."""
    count = "the only one failed" if len(failures) == 1 else f"all {len(failures)} failed"
    count = f"{len(failures)} failed" if missing else count
    said = f"No cell has finished: {count}. There is nothing to compare."
    return Sheet("A sweep without a result", said, "", (), "", failures=failures)
