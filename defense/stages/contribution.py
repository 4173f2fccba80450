"""Tell what each validation sample contributes to the objective at one arm."""

from __future__ import annotations

import pandas as pd

from defense import influence, models
from defense.artifacts import Contributions
from defense.config.schema import Objective
from defense.data.validation import Validation
from defense.influence.objectives import contributions
from defense.models.predict import predict
from defense.runtime.runtime import Runtime
from defense.stages.trained import Model
from defense.store.stage import stage


@stage(version=1, code=(models, influence), shared=True)
def contribution(
    runtime: Runtime, model: Model, validation: Validation, objective: Objective, *, batch_size: int
) -> Contributions:
    """Return the contribution of every validation sample to the objective; see `contributions`."""
    logits = {
        name: predict(model.network, split, batch_size=batch_size, ranks=runtime.ranks).to(split.labels.device)
        for name, split in validation.splits.items()
    }
    found = contributions(logits, validation, objective)
    table = {"id": validation.clean.ids, "contribution": found}
    return Contributions(pd.DataFrame({name: values.cpu().numpy() for name, values in table.items()}))
