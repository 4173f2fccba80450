"""The command `defense-report`: many runs on one page, seeds folded into means."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from defense.cli.results import RESULT, Result, find_cells
from defense.config.choices import Task
from defense.errors import InputError
from defense.reporting.escaping import for_terminal, markdown
from defense.reporting.reading import FOLDER

if TYPE_CHECKING:
    from defense.reporting.archive import Cells, Units
    from defense.reporting.page import Failure, Page

COMMANDS = (
    "defense-report samples RUN lists the training samples of the lowest scores, and copies their pictures. "
    "defense-report store --list shows what is in the store, --prune removes what no run needs, --why A B shows "
    "how two entries differ."
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; what a person can mend is one line on stderr and exit code 2."""
    try:
        print(answer(sys.argv[1:] if arguments is None else arguments))
        sys.stdout.flush()
    except InputError as error:
        print(f"defense-report: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # whoever reads has read enough, as head does; the page is written
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def answer(arguments: Sequence[str]) -> str:
    """Carry out a command and return its output; raises InputError."""
    if arguments[:1] == ["store"]:
        from defense.cli.store import run_store_command

        return run_store_command(arguments[1:])
    if arguments[:1] == ["samples"]:
        from defense.cli.samples import run_samples_command

        return for_terminal(run_samples_command(arguments[1:]))
    parser = argparse.ArgumentParser(prog="defense-report", description=__doc__, epilog=COMMANDS)
    parser.add_argument(
        "paths", nargs="+", type=Path, metavar="PATH", help="folder of a sweep, or of runs, or a cells.parquet"
    )
    parser.add_argument(
        "--output", type=Path, metavar="FOLDER", help="where the page goes; else into the one sweep"
    )
    parser.add_argument("--version", action="version", version=f"defense {version('defense')}")
    chosen = parser.parse_args(arguments)
    cells = find_cells(chosen.paths)
    output = chosen.output or own_folder(chosen.paths)
    return published(cells, output) if output else text_of(page_of_cells(cells))


def own_folder(paths: Sequence[Path]) -> Path | None:
    """Return the folder of the one sweep that `paths` name, which its page goes into; None if there are several.

    The page of a single run is its own, and stays.
    """
    folders = [path.parent if path.is_file() else path for path in paths]
    return folders[0] if len(folders) == 1 and not (folders[0] / RESULT).exists() else None


def published(cells: Cells, output: Path) -> str:
    """Write the page of some cells, and cells.parquet, into `output`; return the page as text."""
    from defense.reporting.archive import write_archive
    from defense.reporting.page import write_page

    page = page_of_cells(cells)
    try:
        output.mkdir(parents=True, exist_ok=True)
        write_page(page, output)
        write_archive(cells, output, units_of(cells))
    except OSError as error:
        raise InputError(
            "--output", output, f"expected a folder that can be written ({error.strerror})"
        ) from error
    return for_terminal(f"{text_of(page)}\n\nreport: {output / 'report.html'}")


def units_of(cells: Cells) -> Units:
    """Return the function that makes the rows of each result in cells.parquet; of no result, none."""
    from defense.tasks.reports import REPORTS

    return REPORTS[Task(cells.results[0]["task"])].units if cells.results else lambda result: []


def page_of_cells(cells: Cells) -> Page:
    """Return the page of some cells; see `page_of`."""
    return page_of(cells.results, cells.failures, cells.missing, cells.others)


def page_of(
    results: Sequence[Result], failures: Sequence[Failure] = (), missing: int = 0, others: int = 0
) -> Page:
    """Return the page of results of one task, of what failed, and how many cells of a sweep are missing.

    others: how many results in the folder of the sweep are not its own; they are not among those given. Raises
    InputError if the results are of several tasks.
    """
    from defense.reporting.page import unfinished
    from defense.tasks.reports import REPORTS

    tasks = sorted({result["task"] for result in results})
    if len(tasks) > 1:
        folders = {result["task"]: result.get(FOLDER) for result in results}
        found = ", ".join(f"task={task} in {folder}" for task, folder in sorted(folders.items()))
        raise InputError("PATH", found, "runs of several tasks; expected those of one")
    cells = "1 cell of the sweep is" if missing == 1 else f"{missing} cells of the sweep are"
    said = [f"{cells} missing: it was ended early, or still runs. The same command goes on."] if missing else []
    if others:
        runs = "1 other run is" if others == 1 else f"{others} other runs are"
        said.append(f"{runs} in this folder, of another sweep into it, and not on this page.")
    if not tasks:
        return replace(unfinished(failures, missing), notes=said)
    names = dict.fromkeys(result["name"] for result in results)
    page = REPORTS[Task(tasks[0])].page(results, ", ".join(names))
    return replace(page, notes=[*said, *page.notes], failures=failures)


def text_of(page: Page) -> str:
    """Return the page for a terminal."""
    parts = [page.headline, *page.notes]
    if page.failures:
        cells = zip(names_of(page.failures), page.failures, strict=True)
        parts.append("\n".join(f"failed: cell {name}: {cell.error}" for name, cell in cells))
    for section in (section for section in page.sections if not section.html_only):
        parts += [f"## {section.heading}", *([section.text] if section.text else [])]
        parts += [markdown(section.header, section.rows)] if section.rows else []
    return for_terminal("\n\n".join(parts))


def names_of(failures: Sequence[Failure]) -> list[str]:
    """Return the names of the folders of cells, as far as they differ: '3', 'ip/0'."""
    if not failures:
        return []
    common = os.path.commonpath([cell.folder.parent for cell in failures])
    return [os.path.relpath(cell.folder, common) for cell in failures]


if __name__ == "__main__":
    main()
