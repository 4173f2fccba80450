"""The metagradient of every training sample: -d phi / d w_i at the end of a run, through all its steps."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from torch import Tensor

from defense.config.schema import Objective
from defense.data.validation import Validation
from defense.errors import InputError
from defense.metagradients.objective import final_gradients
from defense.metagradients.replay import State, replayed
from defense.metagradients.reverse import Adjoints, reverse
from defense.runtime.checkpoint import Checkpointer, ThrottledCheckpoint, packed, unpacked
from defense.runtime.runtime import Runtime
from defense.training.sgd import TrainingRun

ADJOINTS = "adjoints"  # their part of a checkpoint


def metagradients(
    run: TrainingRun,
    states: Mapping[int, State],
    validation: Validation,
    objective: Objective,
    runtime: Runtime,
    *,
    batch_size: int | None = None,
) -> tuple[Tensor, dict[str, float]]:
    """Return score_i = -d phi / d w_i, float64 (n,), and each term of phi at the end of the run.

    states: by step, as `defense.metagradients.replay.marks` keeps them; phi is that of the last. It is exact for
    standard training; of a recipe that attacks, it holds the attack fixed. Samples that are not trained on have 0.
    The checkpoint of `runtime` keeps the adjoints between segments now and then, and a killed pass goes on there.
    Raises InputError if a segment does not end at the bits of the next state.
    """
    marks = sorted(states)
    run.state.begin(unpacked(states[marks[-1]]))
    values, weights, statistics = final_gradients(run.result, validation, objective, batch_size)
    if not any(bool(value.any()) for value in weights.values()):
        found = "its gradient is zero: every validation sample is fitted, or no parameter changes a prediction"
        raise InputError("objective", " + ".join(values), found)
    checkpoint = ThrottledCheckpoint(runtime.checkpoint)
    known = kept(checkpoint)
    adjoints, end = known or (Adjoints.at_end(run, weights, statistics), marks[-1])
    for start, stop in reversed([pair for pair in itertools.pairwise(marks) if pair[1] <= end]):
        for step, before in reversed(replayed(run, states, start, stop)):
            reverse(run, step, before, adjoints)
            runtime.progress(marks[-1] - step.number, marks[-1])
        if checkpoint.due() and start > 0:
            checkpoint.save(ADJOINTS, packed({"adjoints": vars(adjoints), "before": start}))
    return -adjoints.by_sample, values


def kept(checkpoint: Checkpointer) -> tuple[Adjoints, int] | None:
    """Return the adjoints that a killed pass has kept, and the step that they stand before."""
    found = checkpoint.load(ADJOINTS)
    if found is None:
        return None
    state = unpacked(found)
    return Adjoints(**state["adjoints"]), int(state["before"])
