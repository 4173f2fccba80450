"""Score the training samples of a model from Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from defense.api.networks import as_checkpoints, as_model, classes_of, device_of
from defense.api.progress import bars
from defense.api.samples import Samples, as_ids, as_split
from defense.config.choices import Method
from defense.config.compose import scoring
from defense.config.schema import Objective, Scorer
from defense.config.scorer_checks import check_numbers
from defense.data.splits import Split
from defense.data.validation import Validation
from defense.errors import InputError
from defense.influence.scorers import check_scorer
from defense.runtime.runtime import Runtime
from defense.stages.score import score as score_stage
from defense.stages.trained import GivenNetwork


@torch.inference_mode(False)
def score(
    model: nn.Module,
    train: Samples,
    validation: Samples,
    *,
    objective: str | Objective | Mapping[str, float] = "utility",
    scorer: str | Scorer | Mapping[str, Any] = "ip",
    attacked: Any | None = None,
    checkpoints: Sequence[tuple[float, dict[str, Tensor]]] = (),
    ids: Sequence[Any] | None = None,
    seed: int = 0,
    progress: bool | None = None,
) -> pd.Series:
    """Return the score of every training sample, float32 by id: positive helps, negative harms.

    Args:
        model: gives logits (b, classes). It is asked in eval mode where its weights are, and comes back untouched.
        train: a pair of inputs (n, ...) and labels (n,), a Dataset of such pairs, or a DataLoader of one. Inputs
            are what the model takes, of any shape and range: pictures, features, tokens. Pictures in uint8 are
            divided by 255. All are held in memory.
        validation: the samples that the objective is taken on, as they are. For the objective "robustness" give
            attacked pictures here, as `defense.attack` returns them.
        objective: a file in conf/objective, or weights of terms, as in {"utility": 0.5, "robustness": 0.5}.
        scorer: a file in conf/scorer, or settings over one, as in {"cosine": True}, over ip, or
            {"name": "ekfac", "damping": 0.1}.
        attacked: the training pictures attacked at the model, for scorers that look at them.
        checkpoints: learning rate and state_dict at some times of the training, for "tracin".
        ids: of the training samples, each once; None numbers them from 0.
        seed: of scorers that draw.
        progress: whether a bar is drawn on stderr; None: on a terminal or in a notebook.

    Raises:
        InputError: for the first argument that does not fit.

    >>> import torch, defense
    >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2))
    >>> x, y = torch.rand(6, 1, 2, 2), torch.tensor([0, 1, 0, 1, 0, 1])
    >>> scores = defense.score(network, (x, y), (x, y), ids=list("abcdef"))
    >>> scores.name, len(scores.nsmallest(2))
    ('score', 2)
    >>> data = torch.utils.data.TensorDataset(x, y)
    >>> bool((defense.score(network, data, data).to_numpy() == scores.to_numpy()).all())
    True
    """
    objective, scorer = scoring(objective, scorer)
    check_scorer_alone(scorer)
    check_whole("seed", seed, 0)
    model = as_model(model)
    samples = as_split("train", train, pictures=False)
    index, device = as_ids(ids, len(samples)), device_of(model, samples)
    samples, held_out = samples.to(device), as_split("validation", validation, pictures=False).to(device)
    classes = min(classes_of(model, samples, "train inputs"), classes_of(model, held_out, "validation inputs"))
    check_scorer(model, held_out, objective, scorer, classes=classes, noise_known=False)
    with bars(progress)(f"score {scorer.name}") as bar:
        found = score_stage(
            Runtime(progress=bar),
            GivenNetwork(model, classes),
            samples,
            Validation(held_out, held_out),
            objective,
            scorer,
            attacked=None if attacked is None else as_attacked(attacked, samples),
            states=as_checkpoints(model, checkpoints),
            seed=seed,
        )
    return pd.Series(found.table["score"].to_numpy(dtype="float32", copy=True), index=index, name="score")


def check_scorer_alone(scorer: Scorer) -> None:
    """Raise InputError unless a scorer makes do with a model as it is, and its numbers are valid."""
    check_numbers("scorer", scorer)
    if scorer.proxy is not None or scorer.seeds != 1:
        raise InputError("scorer", scorer, "trains models of its own; expected proxy null and seeds 1 here")
    if scorer.method is Method.metagradient:
        found = "goes back through the training of a model, which is not known here"
        raise InputError("scorer", scorer, f"{found}; expected another, or defense.defend")


def as_attacked(attacked: Any, samples: Split) -> Split:
    """Return the training samples as attacked; raises InputError unless they have the same shape."""
    shape = (len(samples), *samples.images.take(torch.arange(1)).shape[1:])
    if (given := tuple(getattr(attacked, "shape", ()))) != shape:
        raise InputError("attacked", f"shape {given}", f"expected that of train, {tuple(shape)}")
    return as_split("attacked", (attacked, samples.labels.cpu()), pictures=False).to(samples.labels.device)


def check_whole(field: str, value: object, least: int) -> None:
    """Raise InputError unless a value is a whole number of at least `least`."""
    if type(value) is not int or value < least:
        raise InputError(field, repr(value), f"expected a whole number of at least {least}")
