"""The same functions from a notebook: arrays in, a tensor out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from defense.config import composed
from defense.data.images import TensorImages
from defense.data.splits import Split
from defense.influence.members import Checkpoint
from defense.influence.objectives import Validation
from defense.influence.scorers import METHODS, Problem, check_scorer
from defense.reporting.progress import silent
from defense.schema import Objective, Scorer

Samples = tuple[Tensor, Tensor]  # pictures (n, C, H, W) float in [0, 1] and labels (n,) int64


def score(
    model: nn.Module,
    train: Samples,
    validation: Samples,
    *,
    objective: str | Objective = "utility",
    scorer: str | Scorer = "ip",
    attacked: Tensor | None = None,
    checkpoints: Sequence[tuple[float, dict[str, Tensor]]] = (),
    seed: int = 0,
) -> Tensor:
    """Return one score per row of the training samples, as float32 (n,): positive helps, negative harms.

    objective, scorer: names of files in conf/objective and conf/scorer, or settings of your own. The objective is
    taken on `validation` as it is: for "robustness" give attacked pictures there. attacked: the training pictures
    attacked at the model, for the scorers that look at them. checkpoints: learning rate and state_dict at times of
    the training, for "tracin". The model comes back untouched. Raises InputError.

    >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2))
    >>> x, y = torch.rand(6, 1, 2, 2), torch.tensor([0, 1, 0, 1, 0, 1])
    >>> score(network, (x, y), (x, y), objective="utility", scorer="ip").shape
    torch.Size([6])
    """
    choices = {"objective": objective, "scorer": scorer}
    named = composed(*(f"{group}={name}" for group, name in choices.items() if isinstance(name, str)))
    objective = named.objective if isinstance(objective, str) else objective
    scorer = named.scorer if isinstance(scorer, str) else scorer
    samples, held_out = as_split(*train), as_split(*validation)
    check_scorer(model, held_out, objective, scorer, noise_known=False)
    other = None if attacked is None else samples.with_images(TensorImages(attacked))
    states = [Checkpoint(f"checkpoint {i}", rate, state) for i, (rate, state) in enumerate(checkpoints, start=1)]
    both = Validation(held_out, held_out)
    problem = Problem(model, samples, other, both, objective, scorer, seed, silent, states)
    return METHODS[scorer.method](problem).total.float()


def as_split(pictures: Tensor, labels: Tensor) -> Split:
    """Return tensors as a split whose ids are the row numbers."""
    return Split(torch.arange(len(pictures)), TensorImages(pictures), labels, labels)
