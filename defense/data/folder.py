"""Pictures in folders, one for each class, without the files that are no part of the data."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path

import pandas as pd
import torch
from PIL import Image
from torch import Tensor

from defense.config.schema import Data
from defense.data.collection import PARTS, Collection, existing, number_samples
from defense.data.images import FolderImages
from defense.data.spelling import two_spellings
from defense.errors import InputError, printable

log = logging.getLogger(__name__)

EXPECTED = "expected PATH/train/<class>/<picture>"
HIDDEN = {"thumbs.db", "desktop.ini", "__macosx", "@eadir", "$recycle.bin", "__pycache__", "lost+found"}
NO_PICTURES = ("BUFR", "GRIB", "HDF5", "MPEG", "WMF")  # formats that Pillow recognises but does not decode
UNKNOWN = {".heic", ".heif", ".hif", ".avif", ".jxl", ".svg", ".dcm", ".exr", ".dng", ".cr2", ".nef", ".arw"}


def image_folder(spec: Data) -> Collection:
    """Return pictures in PATH/train/<class>/ and, if present, PATH/val/<class>/ and PATH/test/<class>/.

    A sample is named by its path below PATH. `defense.data.readable` says whether each can be read. The log counts
    files that are no pictures.
    """
    path = existing(spec.path, "data.path", "a folder with train/<class>/<picture> in it")
    if spec.image_size is None:
        raise InputError("data.image_size", None, "expected the side, in pixels, that pictures are fitted to")
    parts: dict[str, tuple[FolderImages, Tensor, Tensor]] = {}
    names: dict[str, pd.Series] = {}
    classes: list[str] = []
    others: list[str] = []
    folders = folders_of(path)
    for part, folder in folders.items():
        found = classes_in(folder)
        if part != "train" and found != classes:
            differ = ", ".join(sorted(set(found) ^ set(classes)))
            raise InputError("data.path", folder, f"its classes differ from those of train in {differ}")
        classes = found
        files = [pictures_in(folder / name, others) for name in classes]
        loose = [name for name in listed(folder) if name not in classes]
        if loose:
            log.info("%s: files outside of class folders are left out: %s", folder, counted(loose))
        labels = torch.tensor([label for label, pictures in enumerate(files) for _ in pictures])
        parts[part] = (FolderImages([*chain(*files)], spec.image_size), labels, labels)
        names[part] = pd.Series([printable(file.relative_to(path).as_posix()) for file in chain(*files)])
    if others:
        log.info("%s: files that are no pictures are left out: %s", path, counted(others))
    origins = {part: ("data.path", str(folder)) for part, folder in folders.items()}
    return replace(number_samples(parts, class_names=classes, names=names), origins=origins)


def folders_of(path: Path) -> dict[str, Path]:
    """Return the folder of each part that there is; raises InputError if there is none of train, or two of one.

    The log names other folders, which are not read.
    """
    if not path.is_dir():
        raise InputError("data.path", path, f"is a file; {EXPECTED}")
    names = [name for name in listed(path) if (path / name).is_dir()]
    if "train" not in names:
        nearer = f"; data.path={path.parent} has it" if path.name == "train" else ""
        inside = f"has the folders {', '.join(names[:10])}" if names else "has no folder"
        raise InputError("data.path", path, f"no folder train in it, it {inside}; {EXPECTED}{nearer}")
    found = {}
    for part, known in PARTS.items():
        there = [name for name in known if name in names]
        if len(there) > 1:
            raise InputError("data.path", path, f"has the folders {' and '.join(there)}; expected one of them")
        if there:
            found[part] = path / there[0]
    unread = [name for name in names if path / name not in found.values()]
    if unread:
        log.info("%s: folders that are not read: %s", path, printable(", ".join(unread)))
    return found


def classes_in(folder: Path) -> list[str]:
    """Return the names of the folders of classes in order.

    Raises InputError if there is none, for a name that is not in UTF-8, and for two that are one.
    """
    names = [name for name in listed(folder) if (folder / name).is_dir()]
    if not names:
        raise InputError("data.path", folder, f"no folder of classes with pictures in it; {EXPECTED}")
    for name in names:
        if printable(name) != name:
            raise InputError("data.path", folder / name, "its name is not in UTF-8; rename it, it names a class")
    alike = two_spellings(Counter(name for name in names if len(name) > 1))
    if alike:
        raise InputError("data.path", folder, f"has the folders {' and '.join(alike)}, which name one class")
    return names


def pictures_in(folder: Path, others: list[str]) -> list[Path]:
    """Return the pictures of a class, in the order of torchvision's ImageFolder.

    The names of other files are added to `others`. Raises InputError if there is no picture.
    """
    pictures: list[Path] = []
    left_out: list[str] = []
    for file in files_in(folder):
        if is_picture(file):
            pictures.append(file)
        else:
            left_out.append(file.name)
    if not pictures:
        held = f"no picture in it but files: {counted(left_out)}" if left_out else "no picture in it"
        raise InputError("data.path", folder, f"{held}; expected pictures of the class, or no such folder")
    others += left_out
    return pictures


def counted(names: list[str]) -> str:
    """Return how many files have which ending, as in 3 .csv, 1 .txt."""
    endings = Counter(Path(name).suffix.lower() or "without ending" for name in names)
    return ", ".join(f"{count} {ending}" for ending, count in sorted(endings.items()))


def files_in(folder: Path) -> Iterator[Path]:
    """Yield all files below a folder that are not hidden, in order; raises InputError if one may not be read."""

    def refused(error: OSError) -> None:
        raise InputError("data.path", error.filename, f"cannot be read ({error.strerror})") from error

    for root, _, names in sorted(os.walk(folder, followlinks=True, onerror=refused)):
        inside = Path(root).relative_to(folder).parts
        if not any(map(is_hidden, inside)):
            yield from (Path(root) / name for name in sorted(names) if not is_hidden(name))


def listed(folder: Path) -> list[str]:
    """Return the names in a folder that are not hidden, in order."""
    return sorted(name for name in os.listdir(folder) if not is_hidden(name))


def is_hidden(name: str) -> bool:
    """Return whether a file or folder was put there by a system or a tool, as .DS_Store and Thumbs.db."""
    return name.startswith(".") or name.lower() in HIDDEN


def is_picture(file: Path) -> bool:
    """Return whether a file is to be read: it ends as pictures do, or Pillow knows its first bytes."""
    ending = file.suffix.lower()
    kind = Image.registered_extensions().get(ending)
    if (kind in Image.OPEN and kind not in NO_PICTURES) or ending in UNKNOWN:
        return True
    try:
        with Image.open(file) as picture:
            return picture.format not in NO_PICTURES
    except Exception:  # no picture, whatever a decoder says of it
        return False
