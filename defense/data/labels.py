"""Labels as a table writes them, words or whole numbers, as places among the classes of its training rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from defense.data.spelling import NO_VALUE, is_word, two_spellings
from defense.errors import InputError


def labels_of(labels: Sequence[str], classes: Sequence[str], field: str, path: str) -> Tensor:
    """Return the place of each label among `classes`: int64 (n,); raises InputError for another label."""
    places = {name: place for place, name in enumerate(classes)}
    for number, label in enumerate(labels, start=1):
        if label.strip() not in places:
            valid = f"sample {number} has label {label!r}; expected one of {', '.join(classes)}"
            raise InputError(field, path, valid)
    return torch.tensor([places[label.strip()] for label in labels])


def classes_of(labels: Sequence[str], target: str, field: str, path: str) -> list[str]:
    """Return the labels that there are, whole numbers in their order, others in that of the alphabet.

    target: the column that they are in. Raises InputError if one is a word for no value, or two are spellings of
    one.
    """
    found = Counter(label.strip() for label in labels)
    words = [name for name in found if is_word(name, NO_VALUE)]
    if words:
        said = f"column {target} has the value {words[0]} in {found[words[0]]} rows, a word for no value"
        raise InputError(field, path, f"{said}; expected a class in every row")
    if alike := two_spellings(found):
        each = " and ".join(f"{name} ({found[name]} rows)" for name in alike)
        raise InputError(field, path, f"column {target} has {each}: one class in two spellings; write one of them")
    return sorted(found, key=int) if all(name.isdecimal() for name in found) else sorted(found)
