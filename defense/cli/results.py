"""Find the results of runs, and the cells of a sweep that failed, below a folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from defense.cli.folders import CELL, left, sweep_above, uncounted
from defense.cli.sweep_files import MULTIRUN, command_of_sweep, missing_of
from defense.errors import InputError
from defense.reporting.escaping import storable
from defense.reporting.reading import COMMAND, FOLDER, LABEL, check_result

if TYPE_CHECKING:
    from defense.reporting.archive import Cells
    from defense.reporting.page import Failure

Result = dict[str, Any]
RESULT, FAILED = "result.json", "failed.json"  # what a cell leaves that has finished, and one that has failed


def find_cells(paths: Sequence[Path]) -> Cells:
    """Return the cells below `paths`: of runs, or of a cells.parquet, if a path is one or has no runs below.

    Raises InputError if there is none, or a file is another.
    """
    from defense.reporting.archive import read_archive  # SciPy: not for --help

    paths = [*{path.resolve(): path for path in paths}.values()]
    archives = {path: found for path in paths if (found := archive_of(path)) is not None}
    paths = [path for path in paths if path not in archives or archives[path].parent not in {*paths} - {path}]
    folders = [path for path in paths if path not in archives]
    read = {path: read_archive(file) for path, file in archives.items()}
    results = [read[path].results if path in read else find_results([path]) for path in paths]
    return cells_of(
        [*chain.from_iterable(results)],
        [*find_failures(folders), *chain.from_iterable(found.failures for found in read.values())],
        missing_of(folders, (RESULT, FAILED)) + sum(found.missing for found in read.values()),
        uncounted(folders, (RESULT, FAILED)) + sum(found.others for found in read.values()),
    )


def cells_of(results: Sequence[Result], failures: Sequence[Failure], missing: int, others: int) -> Cells:
    """Return cells with what the tables in their folders tell of them."""
    from defense.reporting.archive import Cells
    from defense.reporting.frame import with_mcnemar

    return Cells([with_mcnemar(result) for result in results], failures, missing, others)


def archive_of(path: Path) -> Path | None:
    """Return the file of cells that a path is, or holds if no run lies below it; None if there is none."""
    from defense.reporting.archive import ARCHIVE

    if path.is_file():
        return path
    runs = (file for name in (RESULT, FAILED) for file in path.rglob(name))
    return path / ARCHIVE if (path / ARCHIVE).is_file() and next(runs, None) is None else None


def find_results(paths: Sequence[Path], sweep: str | None = None) -> list[Result]:
    """Return the content of every result.json below `paths`, with its folder and the command of its sweep, if any.

    In the folder of a sweep those of the last one into it count, or of the one named `sweep`. Raises InputError
    if there is none, unless all that there is below a path has failed.
    """
    results = []
    commands: dict[Path, str] = {}
    for path in paths:
        if not path.is_dir():
            found = "a file" if path.exists() else "no such file or folder"
            raise InputError("PATH", path, f"{found}; expected the folder of a sweep, as in runs/<name>/<time>")
        files = sorted(left([path], RESULT, sweep), key=in_number)
        if not files and not left([path], FAILED, sweep):
            which = " of the last sweep into it" if uncounted([path], (RESULT, FAILED), sweep) else ""
            raise InputError("PATH", path, f"no result.json below it{which}; expected the folder of finished runs")
        for file in files:
            try:
                content = read_result(file)
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise InputError("PATH", file, f"not a result of this version of defense ({error!r})") from error
            folder = file.resolve().parent
            results.append(content | {FOLDER: folder, LABEL: storable("/".join(folder.parts[-2:]))})
            if started := multirun_of(folder):
                commands[started] = commands.get(started) or command_of_sweep(started)
                results[-1][COMMAND] = commands[started]
    return results


def multirun_of(folder: Path) -> Path | None:
    """Return what Hydra wrote of the sweep that a cell in `folder` is of; None if there is none, or of another."""
    if (folder / CELL).exists():
        above = sweep_above(folder)
        return above / MULTIRUN if above is not None and (above / MULTIRUN).exists() else None
    return next(filter(Path.exists, (parent / MULTIRUN for parent in folder.parents[:2])), None)


def find_failures(paths: Sequence[Path], sweep: str | None = None) -> list[Failure]:
    """Return every cell below `paths` that left a failed.json and no result; see `find_results`.

    Raises InputError if the file is another.
    """
    from defense.reporting.page import Failure

    found = []
    for file in sorted((file for path in paths for file in left([path], FAILED, sweep)), key=in_number):
        if (file.parent / RESULT).exists():
            continue
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            words = [str(word) for word in content["overrides"]]
            found.append(Failure(file.resolve().parent, words, str(content["error"]), str(content["log"])))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError("PATH", file, f"not what a cell leaves that has failed ({error!r})") from error
    return found


def in_number(file: Path) -> list[tuple[int, str]]:
    """Return a key that puts cell 2 before cell 10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in file.parts]


def read_result(file: Path) -> Result:
    """Return the content of a result.json; raises KeyError or ValueError if it is not one."""
    text = file.read_text(encoding="utf-8")
    result: Result = storable(json.loads(text)) if "\\ud" in text else json.loads(text)
    check_result(result)
    return result
