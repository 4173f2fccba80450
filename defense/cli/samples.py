"""The command `defense-report samples`: list the training samples of the lowest or the highest scores of a run.

Of several runs that differ in their seed alone, such as a sweep, samples are in order of their mean rank. The list
is printed, written as CSV, or written into a folder together with the pictures of the samples.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from defense.cli.results import Result, find_results
from defense.errors import InputError
from defense.reporting.escaping import markdown
from defense.reporting.reading import FOLDER, LABEL

if TYPE_CHECKING:
    import pandas as pd

SCORES = "scores.parquet"
READ = ("id", "name", "score", "label", "truth", "prediction", "loss")  # columns of it
USUAL = 20  # samples that are listed unless a number is given
CLASSES = ("label", "truth", "prediction")  # columns of classes
LISTED = ("rank", "id", "name", *(f"{column}{end}" for column in CLASSES for end in ("", "_name")))
LISTED += ("loss", "score", "treated", "mean_rank", "lowest_in", "runs", "file")  # all columns of a list
DRAWN = ("blobs", "moons")  # sources whose samples are others for every seed
AGAIN = "the same command writes them again, with its stages from the store"


@dataclass(frozen=True)
class ScoredRun:
    """A finished run, and its training samples in order of rank."""

    result: Result
    ranked: pd.DataFrame  # READ, rank: from 1, the lowest score, and treated if there is a treatment; by row

    @property
    def folder(self) -> Path:
        """Where the run is."""
        return Path(self.result[FOLDER])

    @property
    def classes(self) -> list[str]:
        """The names of the classes."""
        return list(self.result["data"]["classes"])


def run_samples_command(arguments: Sequence[str]) -> str:
    """Carry out `defense-report samples` and return its output; raises InputError."""
    parser = argparse.ArgumentParser(prog="defense-report samples", description=__doc__)
    parser.add_argument(
        "paths",
        nargs="+",
        type=Path,
        metavar="PATH",
        help="folder of a run, of a sweep over seeds, or of runs",
    )
    parser.add_argument("--lowest", metavar="N", help=f"samples of the lowest scores; default {USUAL}")
    parser.add_argument("--highest", metavar="N", help="samples of the highest scores, listed after the lowest")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--csv", type=Path, metavar="FILE", help="write the list with plain values")
    action.add_argument("--copy", type=Path, metavar="FOLDER", help="write the list, and pictures or rows too")
    given = parser.parse_args(arguments)
    lowest, highest = number("--lowest", given.lowest), number("--highest", given.highest)
    if given.lowest is None and given.highest is None:
        lowest = USUAL
    if lowest + highest == 0:
        raise InputError("--lowest", lowest, "expected one sample at least")
    runs = runs_of(given.paths)
    if given.copy is not None and len(runs) > 1:
        raise InputError("--copy", given.copy, f"{len(runs)} runs; expected the folder of one run")
    every = runs[0].ranked if len(runs) == 1 else pooled(runs, lowest or highest)
    table = ends(every, lowest, highest)
    if given.copy is not None:
        from defense.cli.copies import copy_samples

        return copy_samples(runs[0], table, given.copy)
    if given.csv is not None:
        write_list(with_class_names(table, runs[0].classes), given.csv)
        return f"{len(table)} of {len(every)} training samples: {given.csv}"
    return f"{as_text(table, runs[0].classes)}\n\n{told(table, every, runs)}"


def number(flag: str, value: str | None) -> int:
    """Return how many samples a flag asks for, 0 if it is not given; raises InputError for no whole number."""
    if value is not None and not (value.isascii() and value.isdecimal()):
        raise InputError(flag, value, "expected a whole number of at least 0, as in 50")
    return int(value or 0)


def runs_of(paths: Sequence[Path]) -> list[ScoredRun]:
    """Return the runs below `paths`, one for each seed.

    Raises InputError if none has finished, or they differ in more than their seed.
    """
    from defense.reporting.frame import group

    results = find_results(paths)
    if not results:
        raise InputError("PATH", paths[0], "all of its runs have failed; expected the folder of a finished run")
    settings = group(results)
    if len(settings) > 1:
        first = [f"{runs[0][LABEL]} ({label})" for label, runs in settings[:3]]
        more = f" and {len(settings) - 3} more" if len(settings) > 3 else ""
        found = f"runs that differ in more than their seed: {', '.join(first)}{more}"
        raise InputError("PATH", paths[0], f"{found}; expected those of one setting, or one of them")
    ((_, results),) = settings
    return [ScoredRun(result, ranked(result)) for result in results]


def ranked(result: Result) -> pd.DataFrame:
    """Return the scores of a run in order of rank; raises InputError if it has none, or is of another version."""
    import pandas as pd

    file = Path(result[FOLDER]) / SCORES
    if not file.exists():
        raise InputError("PATH", result[FOLDER], f"no {SCORES} in it; expected a run that has scored its samples")
    try:
        table = pd.read_parquet(file)
        columns = [*READ, *(["treated"] if "treated" in table else [])]
        ordered = table[columns].sort_values("score", kind="stable")
        if "classes" not in result.get("data", {}):
            raise KeyError("data.classes")
    except (OSError, ValueError, KeyError) as error:
        said = f"not what a run of this version leaves ({error}); {AGAIN}"
        raise InputError("PATH", file, said) from error
    return ordered.assign(rank=range(1, len(ordered) + 1))


def ends(every: pd.DataFrame, lowest: int, highest: int) -> pd.DataFrame:
    """Return the first samples, and after them the last ones, the very last first; each once."""
    import pandas as pd

    first, last = every.head(lowest), every.iloc[lowest:].tail(highest)[::-1]
    return pd.concat([first, last])


def pooled(runs: Sequence[ScoredRun], count: int) -> pd.DataFrame:
    """Return the samples that half of the runs or more trained on, in order of their mean rank over those runs.

    The mean of a few ranks says little. lowest_in: the number of runs in which a sample is among the `count`
    lowest. label: NaN if it differs between runs, as planted noise does. Raises InputError if an id stands for
    several samples, or there is no such sample.
    """
    import pandas as pd

    source = runs[0].result["config"]["data"]["source"]
    if source in DRAWN:
        raise InputError("PATH", runs[0].folder.parent, f"data={source} has other samples for every seed")
    rows = pd.concat([run.ranked for run in runs])
    samples = rows.groupby("id")
    several = samples[["name", "truth"]].nunique().gt(1).any(axis="columns")
    if several.any():
        said = f"sample {several.idxmax()} of one run is another in the next; expected runs on the same data"
        raise InputError("PATH", runs[0].folder.parent, said)
    one_label = samples["label"].nunique().eq(1)
    table = pd.DataFrame(
        {
            "name": samples["name"].first(),
            "label": samples["label"].first().where(one_label).astype("Int64"),
            "truth": samples["truth"].first(),
            "mean_rank": samples["rank"].mean(),
            "lowest_in": rows["rank"].le(count).groupby(rows["id"]).sum(),
            "runs": samples.size(),
        }
    )
    common = table[2 * table["runs"] >= len(runs)]
    if common.empty:
        said = (
            f"no training sample is in half of its {len(runs)} runs; expected one run, or a larger data.train_size"
        )
        raise InputError("PATH", runs[0].folder.parent, said)
    ordered = common.sort_values("mean_rank", kind="stable").reset_index()
    return ordered.assign(rank=range(1, len(ordered) + 1))


def with_class_names(table: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """Return a list with the names of the classes beside their numbers, its columns in the order of LISTED."""
    out = table.copy()
    for column in set(CLASSES) & set(table.columns):
        out[f"{column}_name"] = named(table[column], classes)
    return out[[column for column in LISTED if column in out]]


def named(labels: pd.Series, classes: Sequence[str]) -> list[str]:
    """Return the names of classes by their numbers; nothing of NaN."""
    return ["" if label != label else classes[int(label)] for label in labels.astype(float)]


def as_text(table: pd.DataFrame, classes: Sequence[str]) -> str:
    """Return a list as a table for a terminal, without names that are ids, and truth that is the label."""
    shown: dict[str, list[str]] = {name: table[name].astype(str).tolist() for name in ("rank", "id")}
    if (table["name"] != table["id"].astype(str)).any():
        shown["name"] = table["name"].tolist()
    for column in (name for name in CLASSES if name in table):
        shown[column] = [name or "differs" for name in named(table[column], classes)]
    if shown["truth"] == shown["label"]:
        del shown["truth"]
    if "score" in table:
        shown["score"] = [f"{score:.3g}" for score in table["score"]]
    if "treated" in table:
        shown["treated"] = ["yes" if treated else "" for treated in table["treated"]]
    if "runs" in table:
        shown["mean rank"] = [f"{rank:.1f}" for rank in table["mean_rank"]]
        shown["lowest in"] = [f"{row.lowest_in} of {row.runs} runs" for row in table.itertuples()]
    return markdown(list(shown), list(zip(*shown.values(), strict=True)))


def told(table: pd.DataFrame, every: pd.DataFrame, runs: Sequence[ScoredRun]) -> str:
    """Return what the table has, and how to get more."""
    if len(runs) == 1:
        more = "--csv FILE writes this list, --copy FOLDER the pictures or rows as well."
        return f"{len(table)} of {len(every)} training samples; rank 1 is the lowest score. {more}"
    return (
        f"{len(table)} of {len(every)} samples that at least half of {len(runs)} runs trained on; rank 1 is the "
        "lowest mean rank. --csv FILE writes this list."
    )


def write_list(table: pd.DataFrame, file: Path) -> None:
    """Write a list as CSV; raises InputError if it cannot be written, or the file there is something else."""
    from defense.reporting.exports import write_csv

    if file.exists() and not is_list(file):
        raise InputError("--csv", file, "is there, and not a list of this command; expected another name")
    try:
        write_csv(table, file)
    except OSError as error:
        raise InputError("--csv", file, f"cannot be written ({error.strerror or error})") from error


def is_list(file: Path) -> bool:
    """Return whether a file is a list of samples as this command writes it, without further columns."""
    try:
        with file.open(encoding="utf-8") as lines:
            columns = lines.readline().rstrip("\n").split(",")
    except (OSError, UnicodeDecodeError):
        return False
    return columns[:2] == ["rank", "id"] and set(columns) <= set(LISTED)
