"""What is valid of the settings of the data: which of them a source reads; a part of `defense.valid`."""

from __future__ import annotations

from defense.choices import Source
from defense.errors import InputError, within
from defense.schema import Data

READ_BY_SOURCE: dict[str, tuple[Source, ...]] = {  # settings of the data that few sources read
    "path": (Source.npz, Source.image_folder, Source.table),
    "image_size": (Source.image_folder,),
    "train_labels": (Source.npz,),
    "validation_path": (Source.table,),
    "test_path": (Source.table,),
    "target": (Source.table,),
    "columns": (Source.table,),
    "sensitive": (Source.table,),
    "groups": (Source.table,),
}


def check_source(data: Data) -> None:
    """Raise InputError where something is set that the source does not read."""
    for name, readers in READ_BY_SOURCE.items():
        value = getattr(data, name)
        if value is not None and data.source not in readers:
            where = " or ".join(f"data={reader}" for reader in readers)
            raise InputError(f"data.{name}", value, f"not read by data={data.source}; expected null, or {where}")
    within("data.positive", data.positive, data.positive >= 0, "a class, from 0 up")
    if data.groups is not None and data.sensitive is None:
        raise InputError("data.groups", data.groups, "expected data.sensitive, the column that they are values of")
