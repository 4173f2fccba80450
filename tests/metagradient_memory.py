"""Metagradients of an mlp with large states, in a process of its own:  python -m tests.metagradient_memory WHAT

WHAT: nothing, which stops before the first step; a step; or the scores of the whole training. Prints the largest
resident size in bytes, the bytes of a state, and the number of steps.
"""

from __future__ import annotations

import resource
import sys

from defense.config.choices import ObjectiveName
from defense.config.schema import Objective, Training
from defense.data.validation import Validation
from defense.metagradients.replay import state_of, take
from defense.models.build import Design
from defense.runtime.runtime import Runtime
from defense.stages.metagradient import metagradient
from defense.stages.train import train
from defense.stages.trained import Trained
from defense.stages.trajectory import plainly, training_run, trajectory
from defense.stages.treat import untreated
from tests.conftest import data, recipe, threat

WIDE = {"_target_": "defense.models.networks.mlp", "hidden": [1500, 1500]}
RECIPE = recipe(epochs=10, batch_size=20)


def measured(what: str) -> tuple[int, int, int]:
    """Return the largest resident size of this process, the size of a state, and the number of steps."""
    from defense.data.load import load

    digits = load(data(train_size=200, validation_size=60, test_size=80), seed=0)
    design, training = Design(WIDE, digits, 0), Training(plainly(RECIPE), threat())
    made_of = (digits, training, untreated(digits.train))
    run = training_run(Runtime(), design, *made_of)
    if what != "nothing":
        take(run, 0, 1)
    size, total = sum(value.nbytes for value in state_of(run, 0).values()), run.total
    if what == "scores":
        del run
        model = Trained(design, train(Runtime(), design, *made_of))
        states = trajectory(Runtime(), design, *made_of, epochs=RECIPE.epochs, threads=1)
        objective = Objective({ObjectiveName.utility: 1.0}, positive=1)
        seen = Validation(digits.validation, None)
        metagradient(Runtime(), model, states, *made_of, validation=seen, objective=objective, batch_size=None)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, size, total


if __name__ == "__main__":
    print(*measured(sys.argv[1]))
