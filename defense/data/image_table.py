"""Pictures in files that a table lists with their labels, read batch by batch as those of folders are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
from torch import Tensor

from defense.config.schema import Data
from defense.data.cells import file_of
from defense.data.collection import PARTS, Collection, number_samples, parts_among
from defense.data.csvfile import read_cells
from defense.data.images import FolderImages
from defense.data.labels import classes_of, labels_of
from defense.data.names import check_names
from defense.errors import InputError, printable

SPLIT = "split"  # the column that tells the part of a row, if the table has it


def image_table(spec: Data) -> Collection:
    """Return the pictures in the files that tables list, `data.path` and perhaps those of validation and test.

    `data.file` is the column of files, each as it lies beside its table, `data.target` that of classes. A column
    `split`, if there is one, has train, and perhaps validation and test. A sample is named by its file, or by the
    column `data.ids`. Raises InputError if a column or a cell is missing, or a file is there twice.
    """
    if spec.image_size is None:
        raise InputError("data.image_size", None, "expected the side, in pixels, that pictures are fitted to")
    own = {part: rows_of(part, spec) for part in PARTS if part == "train" or file_of(part, spec)[1]}
    tables = divided(own, spec)
    target, classes = str(spec.target), list[str]()
    parts: dict[str, tuple[FolderImages, Tensor, Tensor]] = {}
    names: dict[str, pd.Series] = {}
    origins: dict[str, tuple[str, str]] = {}
    for part, rows in tables.items():
        field, path = file_of(part if part in own else "train", spec)
        words, origins[part] = rows[target].tolist(), (field, f"{path}, column {target}")
        classes = classes or classes_of(words, target, field, str(path))
        labels = labels_of(words, classes, field, str(path))
        files = [Path(str(path)).parent / name for name in rows[str(spec.file)]]
        parts[part] = FolderImages(files, spec.image_size), labels, labels
        names[part] = rows[spec.ids or str(spec.file)].map(printable)
        if spec.ids is not None:
            check_names(rows[spec.ids], "data.ids", spec.ids, str(path))
    check_once([file for images, _, _ in parts.values() for file in images.paths], spec)
    return replace(number_samples(parts, classes, names=names), origins=origins)


def check_once(files: Sequence[Path], spec: Data) -> None:
    """Raise InputError if a file stands for two samples, which could be one of training and one of test."""
    twice = [file for file, count in Counter(files).items() if count > 1]
    if twice:
        raise InputError("data.file", spec.file, f"{twice[0]} is there twice; expected each file once")


def rows_of(part: str, spec: Data) -> pd.DataFrame:
    """Return the rows of the table of a part, as text; raises InputError if a column or a cell is missing."""
    field, path = file_of(part, spec)
    columns = {"data.file": spec.file, "data.target": spec.target, "data.ids": spec.ids}
    for setting in ("data.file", "data.target"):
        if columns[setting] is None:
            raise InputError(setting, None, "expected the name of a column")
    named = {setting: column for setting, column in columns.items() if column is not None}
    found = read_cells(path, field, [*named.values()], verbatim=[str(spec.file)])
    for setting, column in named.items():
        if column not in found:
            raise InputError(setting, column, f"no such column in {path}; it has {', '.join(found)}")
    found[str(spec.file)] = found[str(spec.file)].str.strip()
    for column in (str(spec.file), str(spec.target)):
        empty = found[column].isna() | (found[column] == "")
        if empty.any():
            said = f"row {int(empty.idxmax()) + 1} below the header has nothing in column {column}; expected one"
            raise InputError(field, path, said)
    return found


def divided(tables: dict[str, pd.DataFrame], spec: Data) -> dict[str, pd.DataFrame]:
    """Return the rows by part, as the column `split` tells them apart if `data.path` has it.

    Raises InputError for another word in it, and if there are tables of validation or test as well.
    """
    train = tables["train"]
    if SPLIT not in train or spec.target == SPLIT:
        return tables
    if len(tables) > 1:
        said = f"has a column {SPLIT}; expected it, or data.validation_path and data.test_path"
        raise InputError("data.path", spec.path, said)
    words = train[SPLIT].fillna("")
    names = parts_among(sorted(set(words)), "data.path", f"{spec.path}, column {SPLIT}")
    odd = sorted(set(words) - set(names.values()))
    if odd:
        said = f"column {SPLIT} has {odd[0]!r} in {int((words == odd[0]).sum())} rows"
        raise InputError("data.path", spec.path, f"{said}; expected train, validation or test")
    return {part: train[words == name] for part, name in names.items()}
