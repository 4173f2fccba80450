"""Copy the training samples of a list into a folder: pictures as their source has them, or rows of its file."""

from __future__ import annotations

from contextlib import chdir
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from defense.cli.caller import find_modules_here
from defense.cli.replay import SUBDIR
from defense.cli.samples import ScoredRun, is_list, with_class_names
from defense.config.checks import OF_PICTURES
from defense.config.compose import typed_data
from defense.config.schema import Data
from defense.errors import InputError
from defense.pipeline.originals import (
    digest_of,
    has_pictures,
    has_rows,
    load_again,
    picture_names,
    rows_of,
    write_pictures,
)
from defense.reporting.exports import write_csv

LIST, ROWS = "samples.csv", "rows.csv"
FLAG = "--copy"


def copy_samples(run: ScoredRun, table: pd.DataFrame, folder: Path) -> str:
    """Write the samples of a list into a folder, and the list itself, samples.csv; return what was written.

    Raises InputError if the folder has other files, the data are no longer those of the run, or samples are
    neither pictures nor rows of a file.
    """
    target, listed = folder.absolute(), with_class_names(table, run.classes)
    check_folder(target, folder)
    with chdir(started_in(run)):
        find_modules_here()
        spec = typed_data(run.result["config"]["data"])
        data = load_again(spec, seed=int(run.result["seed"]), store=Path(run.result["config"]["store"]))
        if digest_of(data.train) != run.result["data"].get("digest"):
            said = "its data have changed since it was made; the same command makes another of those of today"
            raise InputError("PATH", run.folder, said)
        if not (has_rows(spec) or has_pictures(data)):
            said = f"samples of data={spec.source} are neither pictures nor rows of a file; expected --csv"
            raise InputError(FLAG, folder, said)
        try:
            target.mkdir(parents=True, exist_ok=True)
            clear(target)
            if has_rows(spec):
                write_csv(listed, target / LIST)
                write_csv(rows_of(spec, table["id"].tolist()), target / ROWS)
                return f"{len(table)} rows: {folder / ROWS}, and in the same order {folder / LIST}"
            names = picture_names(data, table.index.tolist(), table["rank"].tolist())
            write_csv(listed.assign(file=names), target / LIST)
            write_pictures(data, table.index.tolist(), names, target)
        except OSError as error:
            raise InputError(
                FLAG, error.filename or folder, f"cannot be read or written ({error.strerror or error})"
            ) from error
    return f"{len(table)} pictures, and {LIST}: {folder}{about_harm(spec)}"


def about_harm(spec: Data) -> str:
    """Return that pictures are without the harm that the run has planted; nothing of others."""
    if spec.harm not in OF_PICTURES:
        return ""
    return f"\nThe pictures are those of the source: data.harm={spec.harm} has changed some for the run."


def check_folder(target: Path, given: Path) -> None:
    """Raise InputError if a folder is a file, or has files and no list of samples; given: as it was typed."""
    if target.exists() and not target.is_dir():
        raise InputError(FLAG, given, "is a file; expected a folder")
    if target.is_dir() and any(target.iterdir()) and not is_list(target / LIST):
        raise InputError(FLAG, given, "has files that this command has not written; expected a new folder")


def clear(target: Path) -> None:
    """Remove what this command wrote into a folder before: the files in its list, and rows."""
    if not (target / LIST).exists():
        return
    listed: Any = pd.read_csv(target / LIST, dtype=str).get("file", [])
    for name in [*listed, ROWS]:
        file = target / str(name)
        if file.parent == target and file.is_file():
            file.unlink()


def started_in(run: ScoredRun) -> Path:
    """Return the folder that a run was started in, which relative paths are of; here if Hydra did not start it.

    Raises InputError if it is not there, or Hydra's note of it cannot be read.
    """
    file = run.folder / SUBDIR / "hydra.yaml"
    if not file.exists():
        return Path.cwd()
    try:
        folder = Path(str(OmegaConf.select(OmegaConf.load(file), "hydra.runtime.cwd", throw_on_missing=True)))
    except (OSError, ValueError, YAMLError, OmegaConfBaseException) as error:
        raise InputError("PATH", file, f"not what Hydra writes of a run ({error})") from error
    if not folder.is_dir():
        raise InputError(
            "PATH", run.folder, f"was started in {folder}, which is not there; its data are found from there"
        )
    return folder
