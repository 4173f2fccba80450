"""The page of a run or a sweep: the headline first, then sections; as HTML and Markdown, and its tables apart."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from defense.reporting.escaping import for_markdown, markdown, visible, write
from defense.reporting.exports import Printed, Text, relative, sort_key, write_tables

PAGE = "report"  # the stem of every page
WIDE = 7  # columns: a table of more has smaller letters, on a wider page
FILTERED = 12  # rows: a table of more can be filtered, whatever it is of


@dataclass(frozen=True)
class Picture:
    """A picture of a page: the stem of its file, its bytes, and the words for those who do not see it."""

    name: str
    png: bytes
    alt: str
    wrong: bool = False  # its label is known to be wrong

    @property
    def uri(self) -> str:
        """The picture as a data URI."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode()


@dataclass(frozen=True)
class Section:
    """A chart, a table, pictures, or several of these, and what there is to say of them."""

    name: str  # of its files
    heading: str
    text: str = ""  # a paragraph a line
    header: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    chart: str = ""  # an <svg> element
    pictures: Sequence[Sequence[Picture]] = ()  # groups of them; each has a row of the table, if there is one
    data: pd.DataFrame | None = None  # the table as plain numbers, for its CSV and Parquet
    paper: Printed | None = None  # the table as a paper prints it, for LaTeX; None: as the page has it
    caption: str = ""  # of it; the heading if there is none
    facets: Sequence[str] = ()  # columns of the table to choose rows by
    collapsed: bool = False  # the table opens on a click: it repeats what is above, or few want it
    html_only: bool = False  # for pages alone, not for a terminal

    @property
    def filtered(self) -> bool:
        """Whether rows of the table can be chosen: those of much are worth it."""
        return bool(self.facets) or len(self.rows) > FILTERED

    @property
    def wide(self) -> bool:
        """Whether the table has more columns than stand side by side in the usual size."""
        return len(self.header) > WIDE and not self.pictures


@dataclass(frozen=True)
class Failure:
    """A cell of a sweep that did not finish."""

    folder: Path
    overrides: Sequence[str]
    error: str  # one line
    log: str  # the name of a file in the folder


@dataclass(frozen=True)
class Page:
    """One page."""

    title: str
    headline: str  # a paragraph a line
    command: str
    sections: Sequence[Section]
    provenance: str  # versions, device
    settings: str = ""  # JSON
    notes: Sequence[str] = ()  # what the numbers are of: data, model, threat, counts
    warning: str = ""  # why not to believe the headline
    failures: Sequence[Failure] = ()


def write_page(page: Page, output: Path) -> None:
    """Write report.md, report.html, and what sections have of figures/ and tables/ into `output`.

    Nothing in them depends on when they were made: the same page gives the same bytes.
    """
    for section in page.sections:
        write_figures(section, output / "figures")
        if section.rows:
            write_tables(
                output / "tables",
                section.name,
                section.header,
                section.rows,
                section.data,
                caption=section.caption or section.heading,
                paper=section.paper,
            )
    for form in ("md", "html"):
        filled = (
            templates()
            .get_template(f"page.{form}.j2")
            .render(
                page=page,
                failed=failed(page.failures),
                rows_of=partial(shown, form=form, output=output),
                table=table_in_markdown,
            )
        )
        write(output / f"{PAGE}.{form}", filled.rstrip() + "\n")


def write_figures(section: Section, folder: Path) -> None:
    """Write the chart and the pictures of a section into `folder`."""
    if section.chart or section.pictures:
        folder.mkdir(exist_ok=True)
    if section.chart:
        write(folder / f"{section.name}.svg", section.chart)
    for picture in (picture for group in section.pictures for picture in group):
        (folder / f"{picture.name}.png").write_bytes(picture.png)


@cache
def templates() -> Environment:
    """Return the templates of this package, each compiled once; what goes into HTML is escaped."""
    environment = Environment(
        loader=PackageLoader("defense.reporting"),
        autoescape=lambda name: bool(name and name.endswith(".html.j2")),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"md": for_markdown, "visible": visible}
    return environment


def table_in_markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table of a page in Markdown; the cells of `rows` are written for it, the header is not."""
    return markdown([for_markdown(name) for name in header], rows, form=str)


def shown(section: Section, *, form: str, output: Path) -> list[list[Shown]]:
    """Return the rows of a section for a page of the kind `form`, 'md' or 'html', in the folder `output`."""
    return [[Shown.of(cell, form, output) for cell in row] for row in section.rows]


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


def failed(failures: Sequence[Failure]) -> Section:
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
    return Section("failed", "Cells that failed", header=("cell", "settings", "error", "log"), rows=rows)


def unfinished(failures: Sequence[Failure], missing: int = 0) -> Page:
    """Return the page of a sweep of which no cell has finished; `missing` of them have not failed, either."""
    count = "the only one failed" if len(failures) == 1 else f"all {len(failures)} failed"
    count = f"{len(failures)} failed" if missing else count
    said = f"No cell has finished: {count}. There is nothing to compare."
    return Page("A sweep without a result", said, "", (), "", failures=failures)
