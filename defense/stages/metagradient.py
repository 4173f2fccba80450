"""Score every training sample by the derivative of the end of its training, and measure its smoothness."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Annotated

import pandas as pd

from defense.artifacts import Scores, Smoothness, Trajectory, Treatment
from defense.config.choices import reads
from defense.config.schema import Objective, Training
from defense.data.splits import Dataset
from defense.data.validation import Validation
from defense.influence.members import Parameters
from defense.influence.scorers import predict_with_losses
from defense.metagradients.replay import state_of, states_of, take
from defense.metagradients.reverse import Step
from defense.metagradients.scores import metagradients
from defense.metagradients.smoothness import WEIGHT_STEP, directions, smoothness_of
from defense.models.build import Design
from defense.runtime.checkpoint import ThrottledCheckpoint, unpacked
from defense.runtime.runtime import Runtime
from defense.stages.score import as_table
from defense.stages.train import SEEN
from defense.stages.trained import Trained
from defense.stages.trajectory import CODE, READ, training_run
from defense.store.stage import stage
from defense.training.sgd import TrainingRun

log = logging.getLogger(__name__)
DISTANCE = "distance from the stored model"


@stage(version=1, code=CODE)
def metagradient(
    runtime: Runtime,
    model: Trained,
    trajectory: Trajectory,
    data: Annotated[Dataset, reads("train.ids", "train.labels", "train.truth", *READ)],
    training: Training,
    treatment: Annotated[Treatment, reads(*SEEN)],
    *,
    validation: Validation,
    objective: Objective,
    batch_size: int | None,
) -> Scores:
    """Return -d v / d weight_i of the training that `trajectory` holds the states of, at its end.

    Prediction and loss are those of `model`, which the same training has ended with: if its weights have other
    bits, the log and the record say the largest difference, and the score is that of the trajectory.
    batch_size: of validation samples. See `defense.metagradients.scores.metagradients`.
    """
    run, states = training_run(runtime, model.design, data, training, treatment), states_of(trajectory.tensors)
    run.state.begin(unpacked(states[max(states)]))
    distance = farthest(run.result.state_dict(), model.artifact.weights)
    if distance > 0:
        log.warning("the training, run again, ends up to %.2g from the stored weights: scores are of it", distance)
    found, terms = metagradients(run, states, validation, objective, runtime, batch_size=batch_size)
    train = data.train
    prediction, losses = predict_with_losses(model.network, train, batch_size)
    columns = {"id": train.ids, "score": found, "label": train.labels, "truth": train.truth}
    columns |= {"prediction": prediction, "loss": losses}
    table = pd.DataFrame({name: values.cpu().numpy() for name, values in columns.items()})
    record = {f"{name} objective": value for name, value in terms.items()}
    return Scores(table, as_table(record | {DISTANCE: distance}))


def farthest(one: Parameters, other: Parameters) -> float:
    """Return the largest difference between two states of a network; 0 if they have the same bits."""
    return max(
        (float((value.cpu().double() - other[name].cpu().double()).abs().max()) for name, value in one.items()),
        default=0.0,
    )


@stage(version=2, code=CODE)
def smoothness(
    runtime: Runtime,
    design: Design,
    trajectory: Trajectory,
    data: Annotated[Dataset, reads(*READ)],
    training: Training,
    treatment: Annotated[Treatment, reads(*SEEN)],
) -> Smoothness:
    """Return how smoothly the end of a training answers to the weights of its samples, by two more trainings.

    trajectory: of the training. A killed stage goes on where it was. See `defense.metagradients.smoothness`.
    """
    states, table = states_of(trajectory.tensors), treatment.table
    last = max(states)
    moved = directions(len(data.train), seed=design.seed).numpy()
    checkpoint, ends = ThrottledCheckpoint(runtime.checkpoint), []
    for number in range(3):
        weighed = Treatment(table.assign(weight=table["weight"] * (1 + number * WEIGHT_STEP * moved)))
        run = training_run(runtime.alone(), design, data, training, weighed)
        if number == 0:
            run.state.begin(unpacked(states[last]))
        else:
            before = (number - 1) * last
            report = partial(lambda before, done: runtime.progress(before + done, 2 * last), before)
            train_up_to(run, last, checkpoint, f"training {number}", report)
        ends.append({name: value.detach() for name, value in run.result.named_parameters()})
    return Smoothness(as_table({"smoothness": smoothness_of(*ends), "smoothness step": WEIGHT_STEP}))


def train_up_to(
    run: TrainingRun, end: int, checkpoint: ThrottledCheckpoint, part: str, report: Callable[[int], None]
) -> None:
    """Take the steps of a run up to `end`, from where a killed process left it; `report` how many are done."""
    known = checkpoint.load(part)
    done = run.state.begin(None if known is None else unpacked(known))

    def before(step: Step) -> None:
        if checkpoint.due():
            checkpoint.save(part, state_of(run, step.number))
        report(step.number + 1)

    if done < end:
        take(run, done, end, before)
        checkpoint.save(part, state_of(run, end))
