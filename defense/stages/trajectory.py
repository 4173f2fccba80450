"""Train again, and keep the states that a reverse pass starts from."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from defense import influence, metagradients, models, robustness, training
from defense.artifacts import Trajectory, Treatment
from defense.config.choices import Keep, reads
from defense.config.schema import Train, Training
from defense.data.splits import Dataset
from defense.metagradients.replay import by_name, record_states
from defense.models.build import Design
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
    return Trajectory(by_name(record_states(run, epochs * run.steps, runtime)))


def plainly(recipe: Train) -> Train:
    """Return a recipe without the settings that a trajectory does not read: which weights are kept."""
    return replace(recipe, checkpoints=1, keep=Keep.last)


def training_run(
    runtime: Runtime, design: Design, data: Dataset, training: Training, treatment: Treatment
) -> TrainingRun:
    """Return a training run before its first step."""
    samples, losses = training_set(data.train, treatment), losses_of(training, data.classes)
    return TrainingRun(design.build(), samples, training.recipe, runtime, losses, seed=design.seed)
