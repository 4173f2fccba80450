"""The whole comparison from Python: does treating the lowest scores help, by more than luck?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cached_property, partial
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import LightningEnvironment
from torch import nn

from defense.api.design import GivenDesign, check_source, path_of
from defense.api.networks import as_model, classes_of, device_of
from defense.api.progress import bars
from defense.api.samples import Samples, as_ids, as_split
from defense.api.settings import composed_by
from defense.config.choices import Source
from defense.config.schema import Config, Devices, Objective, Scorer
from defense.data.names import by_id, numbered
from defense.data.splits import Dataset
from defense.errors import InputError, nearest_first
from defense.models.adapt import returns_all
from defense.models.contract import FEW, as_logits, attempt, first_line, with_logits_alone
from defense.models.modes import Scripted, attributes_of, buffers_of
from defense.pipeline.load import checked_run
from defense.randomness import global_seed
from defense.reporting.arms import arms_of, lookup, shown_metrics, spoken
from defense.runtime.devices import make_fabric
from defense.runtime.runtime import Runtime
from defense.runtime.source import TARGET
from defense.stages.trained import Trained
from defense.store.stage import StageRunner
from defense.tasks.defend.result import Run, arm_accuracies, difference
from defense.tasks.defend.run import compare_arms
from defense.tasks.defend.run_page import write_report
from defense.tasks.defend.verdict import result

PARTS = ("train", "validation", "test")
GAIN = {"gain": "mean", "low": "low", "high": "high"}  # of defended over control, and its 95 % interval


@dataclass(frozen=True, repr=False)
class Defended:
    """The outcome of `defense.defend`: accuracies of the arms, the treatment of each sample, and the models."""

    finished: Run
    trained: Mapping[str, Trained]
    ids: pd.Index

    @cached_property
    def verdict(self) -> str:
        """The answer in sentences, as far as one seed can give it."""
        return str(result(self.finished)["verdict"])

    @property
    def table(self) -> pd.DataFrame:
        """Test accuracy in percent, a column an arm, and defended - control in points with its interval."""
        run, arms = self.finished, arm_accuracies(self.finished)
        metrics = shown_metrics(arms["baseline"])
        gains = [difference(run, metric) for metric in metrics]
        columns = {name: [lookup(arms[name], metric) for metric in metrics] for name in arms_of(run.arms)}
        columns |= {name: [getattr(gain, end) for gain in gains] for name, end in GAIN.items()}
        return pd.DataFrame(columns, index=pd.Index([spoken(metric) for metric in metrics], name="accuracy, %"))

    @property
    def samples(self) -> pd.DataFrame:
        """The training samples by id: the score, prediction and loss of the scored model, and the treatment.

        Columns: score, label, prediction, loss, keep, new_label, weight, treated.
        """
        treatment = self.finished.arms["defended"].treatment.rename(columns={"label": "new_label"})
        scored = self.finished.scores[["score", "label", "prediction", "loss"]]
        return pd.concat([scored, treatment.drop(columns="id")], axis=1).set_index(self.ids)

    def model(self, arm: str = "defended") -> nn.Module:
        """Return a copy of the given model with the weights of an arm, in eval mode.

        Raises InputError for an arm that is not in the table.
        """
        if arm not in self.trained:
            raise InputError("arm", arm, f"expected one of {', '.join(nearest_first(arm, self.trained))}")
        return returns_all(self.trained[arm].network)

    def save(self, folder: str | Path) -> Path:
        """Write the report of the command into a folder: report.html, result.json, scores.csv; return the page."""
        output = Path(folder)
        output.mkdir(parents=True, exist_ok=True)
        write_report(Runtime(), self.finished, output)
        return output / "report.html"

    def __repr__(self) -> str:
        """Return the verdict and the table."""
        return f"{self.verdict}\n\n{self.table.round(1)}"

    def _repr_html_(self) -> str:
        """Return the verdict and the table, as a notebook shows them."""
        return f"<p>{escape(self.verdict)}</p>{self.table.to_html(float_format='{:.1f}'.format)}"


@torch.inference_mode(False)
def defend(
    model: nn.Module,
    train: Samples,
    validation: Samples,
    test: Samples,
    *,
    objective: str | Objective | Mapping[str, float] = "robustness",
    scorer: str | Scorer | Mapping[str, Any] = "ip",
    ids: Sequence[Any] | None = None,
    store: str | Path | None = None,
    progress: bool | None = None,
    **settings: Any,
) -> Defended:
    """Does treating the training samples with the lowest scores help, by more than luck?

    Every arm begins at the weights of `model` and trains by the same recipe: the baseline on all training samples,
    the control without as many at random, the defended arm without the lowest scores, and the trusted arm on the
    validation samples too. It is the run of the command `defense`, with its stages and its page.

    Args:
        model: gives logits (b, classes) of pixels in [0, 1], and normalises inside; see `defense.attack`. All runs
            where its weights are. It comes back untouched.
        train, validation, test: each a pair of pictures (n, C, H, W) in [0, 1], or uint8, and labels (n,); a
            Dataset of such pairs, or a DataLoader of one. Labels of validation and test are trusted.
        objective: a file in conf/objective, or weights of terms; "robustness" looks at validation attacked.
        scorer: a file in conf/scorer, or settings over one; see `defense.score`.
        ids: of the training samples, each once; None numbers them from 0.
        store: a folder of finished stages, which the same call finds again; None keeps nothing.
        progress: whether bars are drawn on stderr; None: on a terminal or in a notebook.
        settings: all others of conf/config.yaml, as they are there: budget=0.1, treatment="remove", eps="1/255",
            norm="Linf", recipe="standard", epochs=20, learning_rate=0.03, suite="quick", seed=0. A name that two
            parts have is that of the training; others are written out, as in **{"evaluation.batch_size": 512}.

    Raises:
        InputError: for the first argument or setting that does not fit, before any compute.

    >>> import torch, defense
    >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2))
    >>> x = torch.rand(120, 1, 2, 2)
    >>> y = (x[:, 0, 0, 0] > x[:, 0, 1, 1]).long()
    >>> parts = [(x[rows], y[rows]) for rows in torch.arange(120).split([60, 20, 40])]
    >>> found = defense.defend(network, *parts, budget=0.2, eps=0.05, epochs=2, checked=0)
    >>> list(found.table)
    ['baseline', 'control', 'defended', 'trusted', 'gain', 'low', 'high']
    >>> int(found.samples["treated"].sum()), found.model("defended").training
    (12, False)
    """
    config, words = composed_by(objective, scorer, settings)
    network = as_model(model)
    data = as_dataset(network, {"train": train, "validation": validation, "test": test}, ids)
    config = given_in(config, network, data)
    network = trainable(network, data)
    if store is not None:
        check_source(network)
    fabric = fabric_on(data.train.labels.device, config.fabric)
    designs = partial(GivenDesign, network=network.cpu())
    with ExitStack() as stack:
        root = store or stack.enter_context(TemporaryDirectory(prefix="defense-"))
        runner = StageRunner(Path(root), bars(progress))
        run = checked_run(config, data, Runtime(fabric, runner=runner), runner, designs)
        finished, trained = compare_arms(run, words)
    return Defended(finished, trained, as_ids(ids, len(data.train)))


def fabric_on(device: torch.device, spec: Devices) -> Fabric:
    """Return the device of a model, in the precision of the settings; raises InputError if it cannot do that."""
    fabric = make_fabric(replace(spec, accelerator=device.type))
    if device.index in (None, fabric.device.index):
        return fabric
    one = [LightningEnvironment()]  # whatever a launcher says of processes
    return Fabric(accelerator=device.type, devices=[device.index], precision=spec.precision, plugins=one)


def as_dataset(model: nn.Module, parts: Mapping[str, Samples], ids: Sequence[Any] | None) -> Dataset:
    """Return the samples of all parts where the model is, numbered through.

    Raises InputError if they do not fit the model, or each other.
    """
    splits: dict[str, Any] = {}
    start = 0
    for part, samples in parts.items():
        split = as_split(part, samples, pictures=True)
        split = replace(split.to(device_of(model, split)), ids=split.ids + start)
        if splits and split.images.shape != splits["train"].images.shape:
            expected = f"expected {splits['train'].images.shape}, as of train"
            raise InputError(f"{part} pictures", f"shape {split.images.shape}", expected)
        splits[part], start = split, start + len(split)
    classes = [classes_of(model, split, f"{part} pictures") for part, split in splits.items()]
    index = as_ids(ids, len(splits["train"]))
    names = by_id(
        [pd.Series(index.astype(str)), *(numbered(len(splits[part])) for part in ("validation", "test"))]
    )
    return Dataset(**splits, class_names=[str(each) for each in range(classes[0])], noise_known=False, names=names)


def given_in(config: Config, model: nn.Module, data: Dataset) -> Config:
    """Return the settings with the names of what is given in place of a source and a network of their own."""
    sizes: dict[str, Any] = {f"{part}_size": len(getattr(data, part)) for part in PARTS}
    spec = replace(config.data, source=Source.given, **sizes)
    return replace(config, name="given", data=spec, model={TARGET: path_of(type(model))})


def trainable(model: nn.Module, data: Dataset) -> nn.Module:
    """Return a copy of the model that returns its logits alone.

    Raises InputError unless it can be trained in float32, and gives logits in training mode.
    """
    name = type(model).__name__
    if isinstance(model, Scripted):
        raise InputError("model", name, "TorchScript is not trained; expected the module that it was made of")
    other = {weight.dtype for weight in model.parameters() if weight.is_floating_point()} - {torch.float32}
    if other:
        found = f"has weights of {', '.join(sorted(map(str, other)))}, and is trained in torch.float32"
        raise InputError("model", name, f"{found}; model.float() casts them")
    if not any(weight.requires_grad for weight in model.parameters()):
        raise InputError(
            "model", name, "no parameter asks for a gradient; model.requires_grad_() lets all of them"
        )
    try:
        copy = deepcopy(model)
    except Exception as error:  # a user's class can raise anything
        raise InputError(
            "model", name, f"cannot be copied ({type(error).__name__}: {first_line(error)})"
        ) from error
    x = data.train.images.take(torch.arange(min(FEW, len(data.train))))
    with global_seed(0, "contract"), torch.no_grad(), buffers_of(copy), attributes_of(copy):
        with_logits_alone(copy, x, "model", name)
        as_logits(attempt(copy.train(), x, "model", name), len(x), "model", name, " in training")
    return copy
