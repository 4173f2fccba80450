"""Let one arm say what it makes of test samples, as they are: for what is measured where nobody attacks."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from torch import nn

from defense.artifacts import Measurement
from defense.data.splits import Split
from defense.models.predict import predict
from defense.runtime.distributed import ALONE, Crew

VERSION = 2


def measure(model: nn.Module, parts: Mapping[str, Split], *, batch_size: int, crew: Crew = ALONE) -> Measurement:
    """Return the class that `model` gives to every sample of `parts`, by name, beside what is known of it."""
    tables = []
    for name, split in parts.items():
        found = predict(model, split, batch_size=batch_size, crew=crew).argmax(1)
        columns = {"id": split.ids, "label": split.labels, "prediction": found}
        columns |= {} if split.groups is None else {"group": split.groups}
        tables.append(pd.DataFrame({key: value.cpu().numpy() for key, value in columns.items()}).assign(part=name))
    return Measurement(pd.concat(tables, ignore_index=True))
