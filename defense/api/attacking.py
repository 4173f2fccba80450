"""Attack and evaluate a model from Python."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from defense.api.networks import as_model, classes_of, device_of
from defense.api.progress import bars
from defense.api.samples import Samples, as_ids, as_split
from defense.api.scoring import check_whole
from defense.config.checks import check_attack, check_suite, check_threat
from defense.config.choices import Norm
from defense.config.compose import chosen, typed_attack
from defense.config.schema import Attack, Threat, positive
from defense.config.schema import Evaluation as Suite
from defense.data.splits import Split
from defense.errors import InputError, nearest_first
from defense.models.contract import FEW, oddity
from defense.randomness import global_seed
from defense.robustness.suite import check_shape
from defense.runtime.runtime import Runtime
from defense.stages.attack import attack as attack_stage
from defense.stages.evaluate import evaluate as evaluate_stage
from defense.stages.trained import GivenNetwork

log = logging.getLogger(__name__)


@torch.inference_mode(False)
def attack(
    model: nn.Module,
    samples: Samples,
    *,
    attack: str | Attack | Mapping[str, Any] = "pgd",
    norm: str = "Linf",
    eps: float | str = "8/255",
    batch_size: int = 256,
    seed: int = 0,
    progress: bool | None = None,
) -> Tensor:
    """Return the pictures of `samples` attacked, float32 (n, C, H, W) where they are: in the ball and in [0, 1].

    Args:
        model: gives logits (b, classes) of pixels in [0, 1], and normalises inside:
            `torch.nn.Sequential(torchvision.transforms.Normalize(mean, std), model)`. It comes back untouched.
        samples: a pair of pictures (n, C, H, W) in [0, 1], or uint8, and labels (n,); a Dataset of such pairs, or
            a DataLoader of one.
        attack: a file in conf/attack, or settings of your own, as in {"name": "pgd", "steps": 50}. What apgd_t,
            fab_t and square do not break stays as it is.
        norm: of the ball, Linf or L2.
        eps: its radius, in units of the pixel range.
        batch_size: pictures at a time.
        seed: the same one gives the same pictures.
        progress: whether a bar is drawn on stderr; None: on a terminal or in a notebook.

    Raises:
        InputError: for the first argument that does not fit.

    >>> import torch, defense
    >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2))
    >>> x, y = torch.rand(6, 1, 2, 2), torch.tensor([0, 1, 0, 1, 0, 1])
    >>> float((defense.attack(network, (x, y), eps=0.1) - x).abs().max()) <= 0.1 + 1e-6
    True
    """
    given = dict(attack) if isinstance(attack, Mapping) else attack
    spec = chosen("attack", given).attack if isinstance(given, str) else typed_attack("attack", given)
    check_attack("attack", spec)
    model = as_model(model)
    split = as_split("samples", samples, pictures=True)
    network, here, threat = prepared(model, split, norm, eps, batch_size=batch_size, seed=seed)
    with global_seed(seed, "notebook"), bars(progress)(f"attack {spec.name}") as bar:  # of networks that draw
        found = attack_stage(Runtime(progress=bar), network, here, spec, threat, batch_size=batch_size, seed=seed)
    return found.tensors["pictures"].to(split.labels.device)


@torch.inference_mode(False)
def evaluate(
    model: nn.Module,
    samples: Samples,
    *,
    suite: str | Suite = "standard",
    norm: str = "Linf",
    eps: float | str = "8/255",
    batch_size: int | None = None,
    per_sample: bool = False,
    ids: Sequence[Any] | None = None,
    seed: int = 0,
    progress: bool | None = None,
) -> dict[str, float] | pd.DataFrame:
    """Return the accuracy of `model` in percent: {'clean': ..., each attack of the suite: ..., 'worst': ...}.

    Attacks come in turn, each on the samples that those before it left standing. The number beside an attack is
    the accuracy after it.

    Args:
        model, samples, norm, eps, seed, progress: as of `defense.attack`.
        suite: a file in conf/evaluation, or settings of your own.
        batch_size: pictures at a time; None takes the suite's.
        per_sample: return a table instead, a row for each sample: its label, the prediction, and whether the model
            is right as it is, after each attack, and after all.
        ids: of the samples, each once, for that table; None numbers them from 0.

    Raises:
        InputError: for the first argument that does not fit.

    >>> import torch, defense
    >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2))
    >>> x, y = torch.rand(6, 1, 2, 2), torch.tensor([0, 1, 0, 1, 0, 1])
    >>> list(defense.evaluate(network, (x, y), suite="quick"))
    ['clean', 'fgsm', 'pgd', 'apgd_t', 'worst']
    >>> list(defense.evaluate(network, (x, y), suite="quick", per_sample=True))
    ['label', 'prediction', 'clean', 'fgsm', 'pgd', 'apgd_t', 'worst']
    """
    spec = as_suite(suite, batch_size)
    model = as_model(model)
    split = as_split("samples", samples, pictures=True)
    index = as_ids(ids, len(split))
    network, here, threat = prepared(model, split, norm, eps, batch_size=spec.batch_size, seed=seed)
    with global_seed(seed, "notebook"), bars(progress)("evaluate") as bar:  # of networks that draw
        table = evaluate_stage(Runtime(progress=bar), network, here, spec, threat, seed=seed).table
    columns = {"clean": "clean", **{f"adaptive.{name}": name for name in spec.attacks}, "adaptive.worst": "worst"}
    right = table[list(columns)].rename(columns=columns)
    if not per_sample:
        return {name: 100 * int(values.sum()) / len(table) for name, values in right.items()}
    beside = {"label": split.labels.cpu().numpy(), "prediction": table["prediction"].to_numpy()}
    return pd.concat([pd.DataFrame(beside), right], axis=1).set_index(index)


def as_suite(suite: str | Suite, batch_size: int | None) -> Suite:
    """Return a suite of attacks as settings; raises InputError if it is none."""
    if not isinstance(suite, str | Suite):
        raise InputError("suite", type(suite).__name__, "expected a name, or an Evaluation")
    spec = chosen("evaluation", suite).evaluation if isinstance(suite, str) else suite
    attacks = {name: typed_attack(f"evaluation.attacks.{name}", each) for name, each in spec.attacks.items()}
    spec = replace(spec, attacks=attacks)
    check_suite(spec)
    return replace(spec, batch_size=spec.batch_size if batch_size is None else batch_size)


def prepared(
    model: nn.Module, split: Split, norm: str, eps: float | str, *, batch_size: int, seed: int
) -> tuple[GivenNetwork, Split, Threat]:
    """Return the network, the samples where it is, and the threat model; raises InputError if they do not fit."""
    check_whole("batch_size", batch_size, 1)
    check_whole("seed", seed, 0)
    if norm not in list(Norm.__members__):
        raise InputError("norm", norm, f"expected one of {', '.join(nearest_first(norm, Norm.__members__))}")
    threat = Threat(Norm[norm], positive("eps", eps))
    check_threat("eps", threat)
    check_shape("eps", [], threat, split.images.shape)
    few = min(FEW, batch_size)
    here = split.to(device_of(model, split))
    classes = classes_of(model, here, "samples pictures", few)
    if found := oddity(model, here, "model", type(model).__name__, most=few):
        log.warning("robust accuracy may look higher than it is: %s", found)
    return GivenNetwork(model, classes), here, threat
