"""Find the results of runs, and the cells of a sweep that failed, below a folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from defense.cli.folders import CELL, left, sweep_above, uncounted
from defense.cli.sweep_files import MULTIRUN, command_of_sweep
from defense.config.choices import Task
from defense.errors import InputError
from defense.reporting.escaping import storable
from defense.reporting.sweeps import COMMAND, FOLDER

if TYPE_CHECKING:
    from defense.reporting.sheet import Failure

Result = dict[str, Any]
RESULT, FAILED = "result.json", "failed.json"  # what a cell leaves that has finished, and one that has failed


def find_results(paths: Sequence[Path], sweep: str | None = None) -> list[Result]:
    """Return the content of every result.json below `paths`, with its folder and the command of its sweep, if any.

    In the folder of a sweep those of the last one into it count, or of the one named `sweep`. Raises InputError
    where there is none, unless all that there is below a path has failed.
    """
    results = []
    commands: dict[Path, str] = {}
    for path in paths:
        if not path.is_dir():
            found = "a file" if path.exists() else "no such folder"
            raise InputError("PATH", path, f"{found}; expected the folder of a sweep, as in runs/<name>/<time>")
        files = sorted(left([path], RESULT, sweep), key=in_number)
        if not files and not left([path], FAILED, sweep):
            which = " of the last sweep into it" if uncounted([path], (RESULT, FAILED), sweep) else ""
            raise InputError("PATH", path, f"no result.json below it{which}; expected the folder of finished runs")
        for file in files:
            try:
                results.append(read_result(file) | {FOLDER: file.resolve().parent})
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise InputError("PATH", file, f"not a result of this version of defense ({error!r})") from error
            if started := multirun_of(file.resolve().parent):
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

    Raises InputError where the file is another.
    """
    from defense.reporting.sheet import Failure

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
    """Return the content of a result.json; raises KeyError or ValueError where it is not one."""
    text = file.read_text(encoding="utf-8")
    result: Result = storable(json.loads(text)) if "\\ud" in text else json.loads(text)
    Task(result["task"])
    for field in ("seed", "name", "device"):
        result[field]
    for field, kind in (("config", dict), ("overrides", list), ("versions", dict)):
        if not isinstance(result[field], kind):
            raise TypeError(f"{field} is no {kind.__name__}")
    missing = {"scorer", "treatment", "objective", "train"} - result["config"].keys()
    if missing:
        raise KeyError(f"config.{min(missing)}")
    return result
