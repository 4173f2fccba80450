"""What a source holds, numbered: its samples in up to three parts, before a run draws from them.

A source numbers its samples once and for all: training samples first, then its own validation samples if it
has some, then its test samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from defense.data.arrays import check_classes, check_every_class
from defense.data.given import Given
from defense.data.images import Images
from defense.data.names import by_id, numbered
from defense.data.splits import Split
from defense.errors import InputError

PARTS = {
    "train": ("train",),
    "validation": ("val", "valid", "validation"),
    "test": ("test",),
}  # as people call them
Encoder = Callable[[Mapping[str, Images]], dict[str, Images]]  # of samples by part, as those of train tell


@dataclass(frozen=True)
class Collection:
    """All that a source has; a part it lacks is None and is cut from `train`."""

    train: Split
    validation: Split | None
    test: Split | None
    class_names: list[str]
    names: pd.Series  # of samples, by id
    group_names: list[str] = field(default_factory=list)
    encoder: Encoder | None = None  # of samples that are encoded once it is known which of them are trained on
    given: Given | None = None  # samples that others have attacked
    origins: dict[str, tuple[str, str]] = field(default_factory=dict)  # by part: the setting, and where labels are
    left_out: list[str] = field(default_factory=list)  # files that cannot be read, each with the reason


def number_samples(
    parts: Mapping[str, tuple[Images, Tensor, Tensor]],
    class_names: list[str] | None = None,
    fields: Mapping[str, str] | None = None,
    groups: Mapping[str, Tensor] | None = None,
    names: Mapping[str, pd.Series] | None = None,
) -> Collection:
    """Return the collection of parts (pictures, labels, truth), numbered in order: train, validation, test.

    fields: what the labels of each part are called in the source, for the error if they are out of range.
    groups: int64 (n,) by part, whom a fairness objective compares. names: of the samples of each part; a part
    without them takes the rows that its samples have in it. Raises InputError if a label of training is
    missing, or one of another part is not in training.
    """
    classes = len(class_names) if class_names else int(parts["train"][2].max()) + 1
    splits: dict[str, Split] = {}
    called: list[pd.Series] = []
    start = 0
    for part in ("train", "validation", "test"):
        if part in parts:
            images, labels, truth = parts[part]
            ids = torch.arange(start, start + len(images))
            splits[part] = Split(ids, images, labels, truth, (groups or {}).get(part))
            called.append(names[part] if names and part in names else numbered(len(images)))
            start += len(images)
            label = (fields or {}).get(part, f"{part} labels")
            for values in (labels, truth):
                check_classes(values, label, classes)
            if part == "train":
                check_every_class(labels, label, classes, named=class_names is not None)
    class_names = class_names or [str(c) for c in range(classes)]
    own = splits["train"], splits.get("validation"), splits.get("test")
    return Collection(*own, class_names, by_id(called))


def parts_among(names: Iterable[str], field: str, value: object) -> dict[str, str]:
    """Return the name of each part that there is, as people call it: valid for validation.

    field, value: the setting that has them, for the error. Raises InputError if none is train, or two name one
    part.
    """
    given, found = [*names], dict[str, str]()
    for part, known in PARTS.items():
        there = [name for name in given if name in known]
        if len(there) > 1:
            raise InputError(field, value, f"has {' and '.join(there)}, each for {part}; expected one of them")
        if there:
            found[part] = there[0]
    if "train" not in found:
        valid = "expected train, and validation and test if they are there"
        raise InputError(field, value, f"no train in it; it has {', '.join(given) or 'nothing'}; {valid}")
    return found


def existing(path: str | None, field: str, expected: str) -> Path:
    """Return the path that a setting names; raises InputError if it is not given or not there."""
    if path is None:
        raise InputError(field, "null", f"expected {expected}")
    if not Path(path).exists():
        raise InputError(field, path, f"no such path; expected {expected}")
    return Path(path)


def decoded(path: str, field: str, expected: str) -> str:
    """Return the text of a file; raises InputError if it is not there or not in UTF-8."""
    try:
        found = Path(path).read_bytes()
        if found.startswith(b"PK\x03\x04"):
            raise InputError(field, path, f"a workbook or another archive; expected {expected}: save it as text")
        if found.startswith(b"PAR1"):
            raise InputError(field, path, "a Parquet file; expected its name to end in .parquet")
        return found.decode("utf-8-sig")
    except OSError as error:
        raise InputError(field, path, f"expected {expected} ({error.strerror})") from error
    except UnicodeDecodeError as error:
        where = f"byte {error.object[error.start]:#04x} at position {error.start}"
        raise InputError(field, path, f"not in UTF-8: {where}; expected a file saved in UTF-8") from error
