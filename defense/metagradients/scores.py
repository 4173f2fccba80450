"""The metagradient of every training sample: -d phi / d w_i at the end of a run, through all its steps."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from torch import Tensor

from defense.config.schema import Objective
from defense.data.validation import Validation
from defense.errors import InputError
from defense.metagradients.objective import final_gradients
from defense.metagradients.replay import State, replay
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
    steps = sorted(states)
    run.state.begin(unpacked(states[steps[-1]]))
    values, weights, statistics = final_gradients(run.result, validation, objective, batch_size)
    if not any(bool(value.any()) for value in weights.values()):
        found = "its gradient is zero: every validation sample is fitted, or no parameter changes a prediction"
        raise InputError("objective", " + ".join(values), found)
    checkpoint, adjoints = ThrottledCheckpoint(runtime.checkpoint), Adjoints.at_end(run, weights, statistics)
    end = restore(adjoints, checkpoint, steps[-1])
    for start, stop in reversed([pair for pair in itertools.pairwise(steps) if pair[1] <= end]):
        for step, before in reversed(replay(run, states, start, stop)):
            reverse(run, step, before, adjoints)
            runtime.progress(steps[-1] - step.number, steps[-1])
        if checkpoint.due() and start > 0:
            checkpoint.save(ADJOINTS, packed({ADJOINTS: vars(adjoints), "before": start}))
    return -adjoints.by_sample, values


def restore(adjoints: Adjoints, checkpoint: Checkpointer, end: int) -> int:
    """Take over the adjoints of a killed pass, in place, and return the step before which they stand.

    end: the step to return if nothing is saved.
    """
    found = checkpoint.load(ADJOINTS)
    if found is None:
        return end
    saved = unpacked(found)
    for part in ("weights", "momentum", "statistics", "averages"):
        for name, value in getattr(adjoints, part).items():
            value.copy_(saved[ADJOINTS][part][name])
    adjoints.by_sample.copy_(saved[ADJOINTS]["by_sample"])
    return int(saved["before"])
