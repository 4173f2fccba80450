"""A page of tables and charts, for what is not about three arms: the answer first, then what it rests on."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from defense.reporting.page import write_text
from defense.reporting.tables import markdown


@dataclass(frozen=True)
class Part:
    """A chart, a table, or both, and what there is to say of them."""

    name: str  # of its files
    heading: str
    text: str = ""
    header: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    chart: str = ""  # an <svg> element


@dataclass(frozen=True)
class Sheet:
    """One page."""

    title: str
    answer: str
    command: str
    parts: Sequence[Part]
    made: str  # versions, device, times
    settings: str = ""  # JSON


def write_sheet(sheet: Sheet, output: Path) -> None:
    """Write report.md, report.html, and every chart (figures/) and table (tables/) of `sheet` into `output`."""
    for part in sheet.parts:
        if part.chart:
            (output / "figures").mkdir(exist_ok=True)
            (output / "figures" / f"{part.name}.svg").write_text(part.chart)
        if part.rows:
            (output / "tables").mkdir(exist_ok=True)
            with (output / "tables" / f"{part.name}.csv").open("w", newline="") as file:
                csv.writer(file, lineterminator="\n").writerows([part.header, *part.rows])
    for form in ("md", "html"):
        write_text(output / f"report.{form}", f"sheet.{form}", {"sheet": sheet, "markdown": markdown})
