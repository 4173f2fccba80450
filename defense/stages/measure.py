"""Predict test samples by one arm, as they are: for measures where nobody attacks."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from defense import models
from defense.artifacts import Measurement
from defense.data.splits import Split
from defense.models.predict import predict
from defense.runtime.runtime import Runtime
from defense.stages.trained import Model
from defense.store.stage import stage


@stage(version=3, code=(models,), shared=True)
def measure(runtime: Runtime, model: Model, parts: Mapping[str, Split], *, batch_size: int) -> Measurement:
    """Return the class that `model` gives to every sample of `parts`, by name, with its id, label and group."""
    network, tables = model.network, []
    for name, split in parts.items():
        found = predict(network, split, batch_size=batch_size, ranks=runtime.ranks).argmax(1)
        columns = {"id": split.ids, "label": split.labels, "prediction": found}
        columns |= {} if split.groups is None else {"group": split.groups}
        tables.append(pd.DataFrame({key: value.cpu().numpy() for key, value in columns.items()}).assign(part=name))
    return Measurement(pd.concat(tables, ignore_index=True))
