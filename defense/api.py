"""The same functions from a notebook: arrays in, a tensor out."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import isfinite
from typing import Any

import torch
from torch import Tensor, nn

from defense.config.checks import check_attack, check_suite, check_threat
from defense.config.choices import Method, Norm
from defense.config.compose import chosen, scoring, typed_attack
from defense.config.schema import Attack, Objective, Scorer, Threat, positive
from defense.config.schema import Evaluation as Suite
from defense.config.scorer_checks import check_numbers
from defense.data.images import TensorImages
from defense.data.splits import Split
from defense.data.validation import Validation
from defense.errors import InputError
from defense.influence.scorers import check_scorer
from defense.models.checkpoints import Checkpoint
from defense.models.contract import FEW, check_logits, check_made, logits_on, oddity
from defense.models.modes import Scripted, bare
from defense.randomness import global_seed
from defense.robustness.suite import check_shape
from defense.runtime.runtime import Runtime
from defense.stages.attack import attack as attack_stage
from defense.stages.evaluate import evaluate as evaluate_stage
from defense.stages.score import score as score_stage
from defense.stages.trained import GivenNetwork

log = logging.getLogger(__name__)
ROUNDING = 1e-6  # by how much a pixel may miss [0, 1]
Samples = tuple[Tensor, Tensor]  # pictures (n, C, H, W) in [0, 1] and labels (n,) int64, where the model is


@torch.inference_mode(False)
def score(
    model: nn.Module,
    train: Samples,
    validation: Samples,
    *,
    objective: str | Objective | Mapping[str, float] = "utility",
    scorer: str | Scorer | Mapping[str, Any] = "ip",
    attacked: Tensor | None = None,
    checkpoints: Sequence[tuple[float, dict[str, Tensor]]] = (),
    seed: int = 0,
) -> Tensor:
    """Return one score per row of the training samples, as float32 (n,): positive helps, negative harms.

    objective: a file in conf/objective, or weights of terms, as in {"utility": 0.5, "robustness": 0.5}. It is
    taken on `validation` as it is: for "robustness" give attacked pictures there. scorer: a file in conf/scorer,
    or settings over one, as in {"cosine": True}, over ip, or {"name": "ekfac", "damping": 0.1}. attacked: the
    training pictures attacked at the model, for the scorers that look at them. checkpoints: learning rate and
    state_dict at some times of the training, for "tracin". The model comes back untouched. Raises InputError.

    >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2))
    >>> x, y = torch.rand(6, 1, 2, 2), torch.tensor([0, 1, 0, 1, 0, 1])
    >>> score(network, (x, y), (x, y), objective="utility", scorer="ip").shape
    torch.Size([6])
    """
    objective, scorer = scoring(objective, scorer)
    check_numbers("scorer", scorer)
    check_whole("seed", seed, 0)
    if scorer.proxy is not None or scorer.seeds != 1:
        raise InputError("scorer", scorer, "trains models of its own; expected proxy null and seeds 1 here")
    if scorer.method is Method.metagradient:
        found = "goes back through the training of a model, which is not known here"
        raise InputError("scorer", scorer, f"{found}; expected another, or the command defense")
    model = as_model(model)
    samples, held_out = as_samples("train", train), as_samples("validation", validation)
    classes = min(
        classes_of(model, split, field) for field, split in (("train", samples), ("validation", held_out))
    )
    check_scorer(model, held_out, objective, scorer, classes=classes, noise_known=False)
    other = None
    if attacked is not None:
        if attacked.shape != train[0].shape:
            raise InputError(
                "attacked", f"shape {tuple(attacked.shape)}", f"expected that of train, {tuple(train[0].shape)}"
            )
        other = as_split("attacked", attacked, train[1])
    states = as_checkpoints(model, checkpoints)
    both = Validation(held_out, held_out)
    scores = score_stage(
        Runtime(),
        GivenNetwork(model, classes),
        samples,
        both,
        objective,
        scorer,
        attacked=other,
        states=states,
        seed=seed,
    )
    return torch.tensor(scores.table["score"].to_numpy(copy=True)).float()


@torch.inference_mode(False)
def attack(
    model: nn.Module,
    samples: Samples,
    *,
    attack: str | Attack = "pgd",
    norm: str = "Linf",
    eps: float | str = "8/255",
    batch_size: int = 256,
    seed: int = 0,
) -> Tensor:
    """Return the pictures of `samples` attacked, float32 (n, C, H, W) where they are: in the ball and in [0, 1].

    attack: a file in conf/attack, or settings of your own. eps: in units of the pixel range. The same seed gives
    the same pictures; the model comes back untouched. What apgd_t, fab_t and square do not break stays as it is.
    Raises InputError.

    >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2))
    >>> x, y = torch.rand(6, 1, 2, 2), torch.tensor([0, 1, 0, 1, 0, 1])
    >>> float((attack(network, (x, y), eps=0.1) - x).abs().max()) <= 0.1 + 1e-6
    True
    """
    spec = chosen("attack", attack).attack if isinstance(attack, str) else typed_attack("attack", attack)
    check_attack("attack", spec)
    model = as_model(model)
    split, threat, classes = prepared(model, samples, norm, eps, batch_size=batch_size, seed=seed)
    with global_seed(seed, "notebook"):  # of networks that draw from the global generator
        found = attack_stage(
            Runtime(), GivenNetwork(model, classes), split, spec, threat, batch_size=batch_size, seed=seed
        )
    return found.tensors["pictures"].to(samples[0].device)


@torch.inference_mode(False)
def evaluate(
    model: nn.Module,
    samples: Samples,
    *,
    suite: str | Suite = "standard",
    norm: str = "Linf",
    eps: float | str = "8/255",
    batch_size: int | None = None,
    seed: int = 0,
) -> dict[str, float]:
    """Return the accuracy of `model` in percent: {'clean': ..., each attack of the suite: ..., 'worst': ...}.

    suite: a file in conf/evaluation, or settings of your own; batch_size: None takes the suite's. Attacks
    come in turn, each on the samples that those before it left standing, and the number beside an attack is what
    stands after it. Raises InputError.

    >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2))
    >>> x, y = torch.rand(6, 1, 2, 2), torch.tensor([0, 1, 0, 1, 0, 1])
    >>> list(evaluate(network, (x, y), suite="quick"))
    ['clean', 'fgsm', 'pgd', 'apgd_t', 'worst']
    """
    if not isinstance(suite, str | Suite):
        raise InputError("suite", type(suite).__name__, "expected a name, or an Evaluation")
    spec = chosen("evaluation", suite).evaluation if isinstance(suite, str) else suite
    attacks = {name: typed_attack(f"evaluation.attacks.{name}", each) for name, each in spec.attacks.items()}
    check_suite(replace(spec, attacks=attacks))
    batch_size = spec.batch_size if batch_size is None else batch_size
    model = as_model(model)
    split, threat, classes = prepared(model, samples, norm, eps, batch_size=batch_size, seed=seed)
    with global_seed(seed, "notebook"):  # of networks that draw from the global generator
        suite = replace(spec, attacks=attacks, batch_size=batch_size)
        table = evaluate_stage(Runtime(), GivenNetwork(model, classes), split, suite, threat, seed=seed).table
    columns = {"clean": "clean", **{name: f"adaptive.{name}" for name in attacks}, "worst": "adaptive.worst"}
    return {name: 100 * int(table[column].sum()) / len(table) for name, column in columns.items()}


def prepared(
    model: nn.Module, samples: Samples, norm: str, eps: float | str, *, batch_size: int, seed: int
) -> tuple[Split, Threat, int]:
    """Return the samples as a split, the threat model and the number of classes; raises InputError."""
    check_whole("batch_size", batch_size, 1)
    check_whole("seed", seed, 0)
    if norm not in list(Norm.__members__):
        raise InputError("norm", norm, f"expected one of {', '.join(Norm.__members__)}")
    threat = Threat(Norm[norm], positive("eps", eps))
    check_threat("eps", threat)
    split = as_samples("samples", samples)
    check_shape("eps", [], threat, split.images.shape)
    few = min(FEW, batch_size)
    classes = classes_of(model, split, "samples", few)
    if found := oddity(model, split, "model", type(model).__name__, most=few):
        log.warning("robust accuracy may look higher than it is: %s", found)
    return split, threat, classes


def check_whole(field: str, value: object, least: int) -> None:
    """Raise InputError unless a value is a whole number of at least `least`."""
    if type(value) is not int or value < least:
        raise InputError(field, repr(value), f"expected a whole number of at least {least}")


def as_samples(field: str, samples: Samples) -> Split:
    """Return a pair of pictures and labels as a split; raises InputError if it is none."""
    if not isinstance(samples, tuple | list) or len(samples) != 2:
        raise InputError(field, type(samples).__name__, "expected a pair of pictures and labels")
    return as_split(field, *samples)


def as_split(field: str, pictures: Tensor, labels: Tensor) -> Split:
    """Return tensors as a split whose ids are the row numbers; raises InputError if they are not samples.

    In memory they lie contiguous, so that one seed draws the same noise whatever their layout was.
    """
    for name, value in (("pictures", pictures), ("labels", labels)):
        if not isinstance(value, Tensor):
            raise InputError(f"{field} {name}", type(value).__name__, "expected a torch.Tensor")
    if pictures.ndim != 4 or len(pictures) == 0:
        raise InputError(
            f"{field} pictures", f"shape {tuple(pictures.shape)}", "expected (n, C, H, W), n at least 1"
        )
    if labels.dtype != torch.int64 or labels.shape != pictures.shape[:1]:
        found = f"{labels.dtype} of shape {tuple(labels.shape)}"
        raise InputError(f"{field} labels", found, f"expected torch.int64 of shape ({len(pictures)},)")
    if pictures.dtype not in (torch.uint8, torch.float32, torch.float64):
        raise InputError(f"{field} pictures", pictures.dtype, "expected float32 in [0, 1], float64 or uint8")
    low, high = float(pictures.min()), float(pictures.max())
    if pictures.dtype != torch.uint8:
        if not (low >= -ROUNDING and high <= 1 + ROUNDING):  # written so that NaN fails
            raise InputError(f"{field} pictures", f"{low!r} to {high!r}", "expected floats in [0, 1], or uint8")
        pictures = pictures.clamp(0, 1)
    own = [value.detach().clone(memory_format=torch.contiguous_format) for value in (pictures, labels)]
    return Split(torch.arange(len(pictures)), TensorImages(own[0]), own[1], own[1])


def as_model(model: nn.Module) -> nn.Module:
    """Return the network inside its wrappers; raises InputError if it cannot be called or differentiated."""
    if not isinstance(model, nn.Module):
        raise InputError("model", type(model).__name__, "expected a torch.nn.Module")
    check_made(bare(model))
    return bare(model)


def classes_of(model: nn.Module, split: Split, field: str, few: int = FEW) -> int:
    """Return how many logits the model gives; raises InputError if it does not turn `few` samples into logits."""
    name = type(model).__name__
    x = split.images.take(torch.arange(min(few, len(split))))
    with global_seed(0, "contract"):
        logits = logits_on(model, x, "model", name, f"{field} pictures")
    if not logits.isfinite().all():
        raise InputError("model", name, f"its logits of {field} pictures are not finite")
    check_logits(logits, "model", name)
    if int(split.labels.max()) >= logits.shape[1] or int(split.labels.min()) < 0:
        found = f"{int(split.labels.min())} to {int(split.labels.max())}"
        raise InputError(f"{field} labels", found, f"expected 0 to {logits.shape[1] - 1}, as the model has logits")
    return logits.shape[1]


def as_checkpoints(model: nn.Module, pairs: Sequence[tuple[float, dict[str, Tensor]]]) -> list[Checkpoint]:
    """Return the checkpoints; raises InputError unless each is one of `model`, and has weights of its own."""
    states = [as_checkpoint(model, f"checkpoint {i}", *pair) for i, pair in enumerate(pairs, start=1)]
    changing = {name for name, value in model.named_parameters() if value.requires_grad}
    changing |= {name for name, _ in model.named_buffers() if name.endswith(("running_mean", "running_var"))}
    owners: dict[int, str] = {}
    for point in states:
        for name in changing & set(point.state):
            first = owners.setdefault(point.state[name].data_ptr(), point.name)
            if first != point.name:
                found = f"shares the memory of {name} with {first}, so that both are the same weights"
                raise InputError("checkpoints", point.name, f"{found}; keep copies, as by copy.deepcopy")
    return states


def as_checkpoint(model: nn.Module, name: str, rate: float, state: dict[str, Tensor]) -> Checkpoint:
    """Return one checkpoint; raises InputError unless it is one of `model`."""
    own = model.state_dict()
    for prefix in ("module.", "_orig_mod."):  # of the wrappers that `bare` takes off
        if not own.keys() <= state.keys():
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    if isinstance(model, Scripted):
        state = {f"network.{key}": value for key, value in state.items()}
    odd = [key for key, value in own.items() if key not in state or state[key].shape != value.shape]
    if odd:
        raise InputError(
            "checkpoints", name, f"has no {odd[0]} of shape {tuple(own[odd[0]].shape)}, as the model has"
        )
    if not isfinite(rate):
        raise InputError("checkpoints", rate, "expected a learning rate and a state_dict")
    return Checkpoint(name, rate, state)
