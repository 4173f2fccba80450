"""What a metagradient costs in trainings, in one run:  python -m tests.benchmarks.metagradient

A score is its trajectory, a training again that keeps states, and the reverse pass, which replays the training.
Seconds are of the processor, with one thread. Cases are run `ROUNDS` times in turn; the median ratio counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import TypeVar

import torch

from defense.config.schema import Training
from defense.data.load import load
from defense.data.validation import Validation
from defense.models.build import Design
from defense.runtime.runtime import Runtime
from defense.stages.metagradient import metagradient
from defense.stages.train import train
from defense.stages.trained import Trained
from defense.stages.trajectory import plainly, trajectory
from defense.stages.treat import untreated
from tests.conftest import changed

ROUNDS = 3
T = TypeVar("T")
CASES = {  # the most trainings that a score may take, by the words of a run
    "train.epochs=8": 3.8,
    "model=smooth_mlp train.epochs=8": 3.8,
    "model=cnn model.width=8 train.epochs=2": 6.0,
    "model=cnn train.epochs=1": 6.0,
    "model=smooth_cnn model.width=8 train.epochs=2": 6.0,
    "train=adversarial train.epochs=2": 2.7,
    "train=adversarial model=smooth_cnn model.width=8 train.epochs=1": 2.7,
}


def clocked(compute: Callable[[], T]) -> tuple[T, float]:
    """Return compute() and its processor seconds."""
    begin = time.process_time()
    return compute(), time.process_time() - begin


def trainings(words: str) -> float:
    """Return how many trainings a score takes."""
    config = changed(*words.split())
    data = load(config.data, seed=0)
    training, treatment = Training(plainly(config.train), config.threat), untreated(data.train)
    design, seen = Design(config.model, data, 0), Validation(data.validation, data.validation)
    made_of = (data, training, treatment)
    found, once = clocked(lambda: train(Runtime(), design, *made_of))
    epochs = config.train.epochs
    states, first = clocked(lambda: trajectory(Runtime(), design, *made_of, epochs=epochs, threads=1))
    model = Trained(design, found)
    _, second = clocked(
        lambda: metagradient(
            Runtime(), model, states, *made_of, validation=seen, objective=config.objective, batch_size=None
        )
    )
    return (first + second) / once


if __name__ == "__main__":
    torch.set_num_threads(1)
    ratios: dict[str, list[float]] = {words: [] for words in CASES}
    for _ in range(ROUNDS):
        for words, own in ratios.items():
            own.append(trainings(words))
    for words, own in ratios.items():
        print(f"{words:70} {median(own):.1f} trainings, at most {CASES[words]}")
