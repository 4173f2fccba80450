"""The typed results that pass between stages, and their form on disk.

A field becomes one file: tensors by name in safetensors, tables in Parquet. A long table is cut into files of
`ROWS` rows: scores-00000-of-00012.parquet and so on. Nothing is ever unpickled.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from math import ceil
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import pandas as pd
from safetensors.torch import load_file, save_file
from torch import Tensor

Tensors = dict[str, Tensor]
ROWS = 250_000  # of a table in one file


@dataclass(frozen=True)
class Planted:
    """The training samples that a harm changes, and they alone, in order of the split."""

    table: pd.DataFrame  # row, id, and the label that is planted
    tensors: Tensors  # pictures: float32 (k, C, H, W), row by row as in `table`; nothing where they stay


@dataclass(frozen=True)
class TrainedModel:
    """The weights of an arm, and its numbers epoch by epoch."""

    weights: Tensors  # of the epoch that was kept; averages over the steps, with train.ema
    checkpoints: Tensors  # '<epoch>/<name>': the same after some of the epochs before that one
    # epoch, train_loss, train_accuracy, validation_loss, validation_accuracy, validation_robust_accuracy where it
    # was measured, learning_rate, and kept: True for one epoch
    history: pd.DataFrame


@dataclass(frozen=True)
class AdversarialSet:
    """A split attacked at one model: `pictures` float32 (n, C, H, W), row by row as in the split."""

    tensors: Tensors  # pictures


@dataclass(frozen=True)
class Trajectory:
    """States of a training run before every k-th step, k about the root of their number, and at its end."""

    tensors: Tensors  # '<step>/<name>': weights, momentum, buffers and averages, as a checkpoint packs them


@dataclass(frozen=True)
class DescentRound:
    """One round of metagradient descent on the weights of training samples: a training, and its reverse."""

    scores: pd.DataFrame  # id, score: -dv/dw by the part of validation that drives; no rows after the last round
    measured: pd.DataFrame  # a row for each part of validation: part, objective, accuracy in percent


@dataclass(frozen=True)
class Contributions:
    """One row per validation sample, in order of the split; what one arm makes of it."""

    table: pd.DataFrame  # id, contribution: to the objective, whose mean is the objective


@dataclass(frozen=True)
class Smoothness:
    """How a training run answers to small changes of the weights of its samples."""

    table: pd.DataFrame  # name, value: smoothness in [-1, 1]; its step, and the epochs of its trainings


@dataclass(frozen=True)
class Scores:
    """One row per training sample, in order of the split, and how the computation went."""

    # id, score, label, truth, prediction, loss, and score.<part or member> where several; of a reference id and
    # score.<damping> alone; of treatment=optimize on pages also descent_weight
    table: pd.DataFrame
    record: pd.DataFrame  # name, value: objectives, residuals, iterations


@dataclass(frozen=True)
class Retrainings:
    """The validation logits float32 (m, v, classes) of m models, each retrained on a part of the samples."""

    # clean, frozen, adversarial: on the validation pictures as they are, attacked at the baseline, and attacked at
    # the retrained model if it was asked for
    tensors: Tensors


@dataclass(frozen=True)
class HeldOut:
    """What models that have not seen a training sample make of it, in order of the split."""

    tensors: Tensors  # probabilities: float32 (n, classes)


@dataclass(frozen=True)
class Treatment:
    """What a retraining sees of each training sample, in order of the split."""

    table: pd.DataFrame  # id, keep, label, weight, and treated: touched, or for weights lowered


@dataclass(frozen=True)
class Evaluation:
    """One row per test sample, in order of the split; True where the model is right."""

    # id, prediction: the class that is given without attack; clean, triggered, transfer, adaptive.<attack>,
    # adaptive.worst
    table: pd.DataFrame
    tensors: Tensors  # pictures: of the baseline alone, as its attacks left them; frozen for the other arms


@dataclass(frozen=True)
class Measurement:
    """One row per sample of each part, in order of the splits; what one arm makes of it as it is."""

    table: pd.DataFrame  # id, part: test or given, label, prediction, and group if it is known


@dataclass(frozen=True)
class Evasion:
    """One row per test sample, in order of the split: whether one arm is right, also where it is moved."""

    table: pd.DataFrame  # id, clean, and a column for each way


@dataclass(frozen=True)
class Checks:
    """Some test samples, attacked in ways whose outcome is known beforehand."""

    samples: pd.DataFrame  # id, and what `defense.robustness.probe.probe` finds of each
    curve: pd.DataFrame  # eps, accuracy in percent


@dataclass(frozen=True)
class Pages:
    """The files of a report, and what a terminal shows of it."""

    files: pd.DataFrame  # path, as in figures/scores.svg; content: bytes
    terminal: pd.DataFrame  # answer, one row


Artifact = TypeVar(
    "Artifact",
    Planted,
    TrainedModel,
    AdversarialSet,
    Trajectory,
    DescentRound,
    Contributions,
    Smoothness,
    Scores,
    Retrainings,
    HeldOut,
    Treatment,
    Evaluation,
    Measurement,
    Evasion,
    Checks,
    Pages,
)


def save(artifact: Any, folder: Path) -> None:
    """Write every field of `artifact` to a file of its own in `folder`."""
    for name, value in ((field.name, getattr(artifact, field.name)) for field in fields(artifact)):
        if isinstance(value, pd.DataFrame):
            save_table(value, folder, name)
        else:
            tensors = {key: tensor.detach().cpu().clone().contiguous() for key, tensor in value.items()}
            save_file(tensors, folder / f"{name}.safetensors")


def load(kind: type[Artifact], folder: Path) -> Artifact:
    """Read an artifact that `save` wrote."""
    values = {
        name: load_table(folder, name) if hint is pd.DataFrame else load_file(folder / f"{name}.safetensors")
        for name, hint in get_type_hints(kind).items()
    }
    return kind(**values)


def save_table(table: pd.DataFrame, folder: Path, name: str) -> None:
    """Write `table` as one Parquet file, or as several if it is long, each with some of the rows in order."""
    count = max(1, ceil(len(table) / ROWS))
    for number in range(count):
        file = f"{name}-{number:05}-of-{count:05}.parquet" if count > 1 else f"{name}.parquet"
        table.iloc[number * ROWS : (number + 1) * ROWS].to_parquet(folder / file, index=False)


def load_table(folder: Path, name: str) -> pd.DataFrame:
    """Read a table that `save_table` wrote; raises FileNotFoundError if a part of it is missing."""
    whole = folder / f"{name}.parquet"
    files = sorted(folder.glob(f"{name}-*-of-*.parquet"))
    if whole.exists() or not files:
        return pd.read_parquet(whole)
    count = int(files[-1].stem.rpartition("-")[2])
    parts = (folder / f"{name}-{number:05}-of-{count:05}.parquet" for number in range(count))
    return pd.concat([pd.read_parquet(part) for part in parts], ignore_index=True)


def write_json(content: Any, path: Path) -> None:
    """Write `content` as JSON that a person can read, whole or not at all; NaN is refused."""
    unfinished = path.with_name(f"{path.name}.new")
    unfinished.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    unfinished.replace(path)
