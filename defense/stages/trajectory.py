"""Train again, and keep the states that a reverse pass starts from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated

from defense import influence, metagradients, models, robustness, training
from defense.artifacts import Tensors, Trajectory, Treatment
from defense.config.choices import Keep, reads
from defense.config.schema import Train, Training
from defense.data.splits import Dataset
from defense.errors import InputError
from defense.metagradients.replay import State, segments, state_of, take
from defense.models.build import Design
from defense.runtime.checkpoint import Checkpointer, ThrottledCheckpoint, unpacked
from defense.runtime.runtime import Runtime
from defense.stages.train import SEEN, training_set
from defense.store.stage import stage
from defense.training.recipes import losses_of
from defense.training.sgd import TrainingRun

READ = ("train.images", "classes")  # of the data: labels are the treatment's, and nothing is measured
CODE = (influence, metagradients, models, robustness, training)


@stage(version=1, code=CODE)
def trajectory(
    runtime: Runtime,
    design: Design,
    data: Annotated[Dataset, reads(*READ)],
    training: Training,
    treatment: Annotated[Treatment, reads(*SEEN)],
    *,
    epochs: int,
    threads: int,
) -> Trajectory:
    """Return the states of a training up to the end of so many epochs; see `defense.metagradients.replay.marks`.

    threads: of torch, on whose number the last bits depend. A killed training goes on after the states that the
    checkpoint of `runtime` has. Raises InputError if the disk has no room for the states.
    """
    run = training_run(runtime, design, data, training, treatment)
    checkpoint = ThrottledCheckpoint(runtime.checkpoint)
    parts, states = segments(epochs * run.steps), states_kept(checkpoint)
    if states:
        run.state.begin(unpacked(states[max(states)]))
    else:
        states[0] = state_of(run, 0)
    check_room(states[max(states)], 2 * len(parts), checkpoint)  # those that a kill leaves, and those of the entry
    done, saved = max(states), 0 if len(states) == 1 else len(states)
    for start, stop in parts:
        if start < done:
            continue
        take(run, start, stop, lambda step: runtime.progress(step.number + 1, parts[-1][1]))
        states[stop] = state_of(run, stop)
        if checkpoint.due():
            new = dict(list(states.items())[saved:])
            checkpoint.save(f"states from {saved}", by_name(new))
            saved = len(states)
    return Trajectory(by_name(states))


def plainly(recipe: Train) -> Train:
    """Return a recipe without the settings that a trajectory does not read: which weights are kept."""
    return replace(recipe, checkpoints=1, keep=Keep.last)


def training_run(
    runtime: Runtime, design: Design, data: Dataset, training: Training, treatment: Treatment
) -> TrainingRun:
    """Return a training run before its first step."""
    samples, losses = training_set(data.train, treatment), losses_of(training, data.classes)
    return TrainingRun(design.build(), samples, training.recipe, runtime, losses, seed=design.seed)


def check_room(state: State, count: int, checkpoint: Checkpointer) -> None:
    """Raise InputError if there is no room for `count` states like this one."""
    needed = count * sum(value.nbytes for value in state.values())
    if needed > checkpoint.free():
        sizes = f"{needed / 2**30:.2g} GiB for the states of the training, and {checkpoint.free() / 2**30:.2g} GiB"
        raise InputError("store", "its disk", f"expected {sizes} are free; make room, or use another scorer")


def states_kept(checkpoint: Checkpointer) -> dict[int, State]:
    """Return the states in the checkpoint of a killed training, in order."""
    states: dict[int, State] = {}
    while (found := checkpoint.load(f"states from {len(states)}")) is not None:
        states |= states_of(found)
    return states


def by_name(states: Mapping[int, State]) -> Tensors:
    """Return states as tensors, each named after its step."""
    return {f"{step}/{name}": value for step, state in states.items() for name, value in state.items()}


def states_of(tensors: Tensors) -> dict[int, State]:
    """Return the states that `by_name` has named, in order of steps."""
    states: dict[int, State] = {}
    for name, value in tensors.items():
        step, _, own = name.partition("/")
        states.setdefault(int(step), {})[own] = value
    return dict(sorted(states.items()))
