"""Many results in one table: rows by scorer, columns by whatever else was swept, seeds folded."""

from __future__ import annotations

import json
import shlex
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from defense.errors import InputError
from defense.reporting.reading import differing, proxy_of, read

Result = dict[str, Any]
Value = TypeVar("Value")
COMMAND = "command"  # of a result: the command of the sweep that it was found in
FOLDER = "folder"  # of a result: where it was found
LABEL = "label"  # of a result: what a page calls it, the last two folders of where it was found
MCNEMAR = "mcnemar_p"  # of a result: the p-value of McNemar's test on what its arms get right, NaN of none
NAMED_BY_FILE = ("objective=", "data=", "model=", "+experiment/")  # overrides that a page calls by their value
COMMANDS = 12  # shown at most


@dataclass(frozen=True)
class Grid(Generic[Value]):
    """A value for every row, column and seed that there is a result of."""

    cells: dict[tuple[str, str], dict[int, Value]]

    @classmethod
    def of(cls, results: Sequence[Result], value: Callable[[Result], Value]) -> Grid[Value]:
        """Return the grid of `value`; a seed found twice in a cell counts once, however often it was repeated.

        Raises InputError where the two are not the same run: by their settings, versions or device.
        """
        cells: dict[tuple[str, str], dict[int, Value]] = {}
        found: dict[tuple[str, str, int], Result] = {}
        for result in results:
            row, column, seed = row_of(result, results), column_of(result, results), result["seed"]
            known = found.setdefault((row, column, seed), result)
            if differ := differing(identity(known), identity(result)):
                place = ", ".join(filter(None, (row, column, f"seed {seed}")))
                others = f"two runs that differ in {', '.join(differ)}; expected one of them on a page"
                raise InputError("PATH", place, others)
            cells.setdefault((row, column), {})[seed] = value(result)
        return cls(cells)

    @property
    def rows(self) -> list[str]:
        """The rows, in order of appearance."""
        return list(dict.fromkeys(row for row, _ in self.cells))

    def values(self, row: str, column: str) -> list[Value]:
        """Return the values of one cell, by seed; none where nothing was run."""
        return [value for _, value in sorted(self.cells.get((row, column), {}).items())]


def highest(grid: Grid[float], form: str, but: Sequence[str] = ()) -> str:
    """Return the row with the highest mean of each column, `but` some, and ip beside it.

    As in 'utility: loss 0.997 is the highest of 12, ip 0.817'.
    """
    said = []
    for column in dict.fromkeys(column for _, column in grid.cells):
        values = {row: grid.values(row, column) for row in grid.rows if row not in but}
        means = {row: sum(of) / len(of) for row, of in values.items() if of}
        if means:
            best = max(means, key=lambda row: means[row])
            words = f"{best} {form.format(means[best])}"
            words += f" is the highest of {len(means)}" if len(means) > 1 else ""
            words += f", ip {form.format(means['ip'])}" if "ip" in means and best != "ip" else ""
            said.append(f"{column}: {words}" if column else words)
    return "; ".join(said)


def swept(result: Result, results: Sequence[Result]) -> list[str]:
    """Return the overrides of one result that not all of its name share, without its seed."""
    alike = [other for other in results if other["name"] == result["name"]]
    shared = set.intersection(*(set(other["overrides"]) for other in alike))
    return [part for part in result["overrides"] if part not in shared and not part.startswith("seed=")]


def row_of(result: Result, results: Sequence[Result]) -> str:
    """Return the scorer of a result with what was swept of it: 'ip', 'ip proxy=adversarial'.

    A proxy that no score comes from is left out.
    """
    config = result["config"]
    own = [part.removeprefix("scorer.") for part in swept(result, results) if part.startswith("scorer.")]
    if proxy_of(config) is None:
        own = [part for part in own if not part.startswith("proxy=")]
    return " ".join([config["scorer"]["name"], *(part for part in own if not part.endswith("=null"))])


def column_of(result: Result, results: Sequence[Result], *, but: tuple[str, ...] = ()) -> str:
    """Return what else was swept, the name of the run first where there are several: 'digits, utility'.

    but: names of overrides to leave out.
    """
    names = {other["name"] for other in results}
    others = [
        part.partition("=")[2] if part.startswith(NAMED_BY_FILE) else part
        for part in swept(result, results)
        if not part.startswith(("scorer", "experiment=", "store=", *but))
    ]
    return ", ".join([result["name"], *others] if len(names) > 1 else others)


def columns_of(results: Sequence[Result]) -> list[str]:
    """Return the columns of a table, in order of appearance; one without a name where nothing else was swept."""
    return list(dict.fromkeys(column_of(result, results) for result in results))


def command_of(results: Sequence[Result]) -> str:
    """Return the commands that the results came from, one a line, and how many cells there are of each.

    That is the command of its sweep for a result that knows it, as those that `defense-report` finds do, and its
    own for any other; at most COMMANDS of them.
    """
    counts = Counter(result.get(COMMAND) or alone(result) for result in results)
    lines = [f"{words}   # {count} cells" if count > 1 else words for words, count in counts.items()]
    left = f"# and {len(lines) - COMMANDS} commands more, each in the result.json of its run"
    return "\n".join([*lines[:COMMANDS], left] if len(lines) > COMMANDS else lines)


def alone(result: Result) -> str:
    """Return the command that runs one result again."""
    return shlex.join(["defense", *(part for part in result["overrides"] if not part.startswith("store="))])


def made_of(results: Sequence[Result]) -> str:
    """Return versions and devices in one line; each that occurs, should they differ."""
    kinds = dict.fromkeys(
        ", ".join(f"{name} {version}" for name, version in result["versions"].items())
        + f"; device {result['device']}"
        for result in results
    )
    return " / ".join(kinds) + "." + "".join(f" {line}" for line in dict.fromkeys(map(left_out, results)) if line)


def left_out(result: Result, *, shown: int = 5) -> str:
    """Return which files were left out as unreadable, at most `shown` by name; nothing if there is none."""
    files = result.get("left_out", [])
    if not files:
        return ""
    more = f" and {len(files) - shown} more" if len(files) > shown else ""
    kind = "picture that cannot be read is" if len(files) == 1 else "pictures that cannot be read are"
    return f"{len(files)} {kind} left out: {', '.join(files[:shown])}{more}."


def identity(result: Result) -> dict[str, Any]:
    """Return what two runs of one seed must share to be the same run."""
    return {**read(result["config"]), "versions": result["versions"], "device": result["device"]}


def group(results: Sequence[Result]) -> list[tuple[str, list[Result]]]:
    """Return the results that differ in nothing but their seed, under what they were run with.

    The same run found twice counts once: a seed is one observation however often it was repeated. So do runs that
    differ in what their scorer does not read. Runs that differ in versions or device are apart, and say so where
    their command was the same.
    """
    groups: dict[str, dict[str, Result]] = defaultdict(dict)
    for result in results:
        groups[json.dumps(identity(result), sort_keys=True)][str(result["seed"])] = result
    labels = [label(next(iter(seeds.values()))) for seeds in groups.values()]
    numbered = [
        f"{name} ({labels[:i].count(name) + 1})" if labels.count(name) > 1 else name
        for i, name in enumerate(labels)
    ]
    return [(name, list(seeds.values())) for name, seeds in zip(numbered, groups.values(), strict=True)]


def label(result: Result) -> str:
    """Return the overrides that a run was started with, without its seed."""
    return " ".join(part for part in result["overrides"] if not part.startswith(("seed=", "store="))) or "default"
