"""A round of metagradient descent: train with weights, attack validation anew, go back through the training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import pandas as pd
from torch import nn

from defense.artifacts import DescentRound, Treatment
from defense.config.choices import reads
from defense.config.schema import Attack, Objective, Threat, Training
from defense.data.images import TensorImages
from defense.data.splits import Dataset, Split
from defense.data.validation import Validation
from defense.influence.objectives import objective_value
from defense.metagradients.replay import record_states
from defense.metagradients.scores import metagradients
from defense.models.build import Design
from defense.models.modes import evaluating
from defense.models.predict import predict
from defense.randomness import derive
from defense.robustness.attacks import Attacker
from defense.robustness.suite import perturb
from defense.runtime.checkpoint import Computed, load_or_compute
from defense.runtime.runtime import Runtime
from defense.stages.train import SEEN
from defense.stages.trajectory import CODE, training_run
from defense.store.stage import stage

PARTS = ("validation", "choice")  # of the data: the part that drives, and the part that decides
OF_PARTS = [f"{part}.{field}" for part in PARTS for field in ("images", "labels", "groups")]
READ = ("train.ids", "train.images", "classes", *OF_PARTS)


@dataclass(frozen=True)
class Adversary:
    """The attack on validation in a round, its threat model, and the seed of its draws."""

    attack: Attack
    threat: Threat
    seed: int


@stage(version=1, code=CODE)
def descent(
    runtime: Runtime,
    design: Design,
    data: Annotated[Dataset, reads(*READ)],
    training: Training,
    treatment: Annotated[Treatment, reads(*SEEN)],
    *,
    objective: Objective,
    adversary: Adversary | None,
    batch_size: int,
    threads: int,
    last: bool,
) -> DescentRound:
    """Return the objective after a training with the weights of `treatment`, and its derivative by each weight.

    Both parts of validation are attacked at the end of this training, if there is an adversary. The derivative is
    that of the first part alone; after the `last` round there is none. The training goes through all its epochs.
    batch_size: of validation samples. threads: of torch, on whose number the last bits depend. A killed round goes
    on where it was.
    """
    run = training_run(runtime, design, data, training, treatment)
    states = record_states(run, run.total, runtime)
    seen = {part: attack_part(runtime, run.result, data, part, adversary, batch_size) for part in PARTS}
    rows = [{"part": part} | measure_part(run.result, seen[part], objective, batch_size) for part in PARTS]
    table = pd.DataFrame({"id": data.train.ids.numpy()[:0], "score": np.empty(0)})
    if not last:
        found, _ = metagradients(run, states, seen[PARTS[0]], objective, runtime, batch_size=batch_size)
        table = pd.DataFrame({"id": data.train.ids.numpy(), "score": found.cpu().numpy()})
    return DescentRound(table, pd.DataFrame(rows))


def attack_part(
    runtime: Runtime, model: nn.Module, data: Dataset, part: str, adversary: Adversary | None, batch_size: int
) -> Validation:
    """Return one part of validation as it is, and attacked at a model; kept in the checkpoint of `runtime`."""
    clean: Split = getattr(data, part)
    if adversary is None:
        return Validation(clean, None)
    attacker = Attacker(model, adversary.threat, data.classes, batch_size, derive(adversary.seed, part))

    def compute() -> Computed:
        with evaluating(model):
            return {"pictures": perturb(attacker, clean, adversary.attack, Runtime())}, {}

    found, _ = load_or_compute(runtime.checkpoint, f"attacked {part}", compute)
    return Validation(clean, clean.with_images(TensorImages(found["pictures"].to(clean.labels.device))))


def measure_part(
    model: nn.Module, validation: Validation, objective: Objective, batch_size: int
) -> dict[str, float]:
    """Return v on validation samples, and the accuracy on them in percent: attacked, if they are."""
    labels = validation.clean.labels
    logits = {
        name: predict(model, split, batch_size=batch_size).to(labels.device)
        for name, split in validation.splits.items()
    }
    *_, hardest = logits.values()
    right = (hardest.argmax(1) == labels).sum()
    accuracy = 100 * float(right) / len(validation.clean)
    return {"objective": objective_value(logits, validation, objective), "accuracy": accuracy}
