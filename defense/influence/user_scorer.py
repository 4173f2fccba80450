"""A scorer that the user brings: a function of a trained model, training samples and validation samples."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from defense.config.schema import Objective
from defense.data.validation import Validation
from defense.errors import InputError
from defense.influence.finite import finite
from defense.influence.objectives import term
from defense.influence.problem import ScoreResult, ScoringContext
from defense.models.modes import evaluating, weights_of
from defense.randomness import global_seed
from defense.runtime.distributed import compute_on_rank_zero
from defense.runtime.user_function import UserFunction, in_words

FIELD, SIZE = "scorer", 128  # samples of a batch in `value_of`


def own(problem: ScoringContext) -> ScoreResult:
    """score_i by the function that the settings name (Scorer._target_); rank 0 calls it."""
    return ScoreResult(compute_on_rank_zero(problem.runtime.ranks, partial(scores_of, problem)))


def scores_of(problem: ScoringContext) -> Tensor:
    """Return the scores (n,) that the function gives, on the CPU; the model comes back untouched.

    It does not see which labels are known to be wrong. Raises InputError unless it gives a float for each sample,
    FloatingPointError that names the first sample whose score is not finite.
    """
    function = UserFunction.of(problem.scorer, FIELD)
    validation, objective = problem.target
    train = replace(problem.train, truth=problem.train.labels)
    seen = validation.adversarial if objective.reads_adversarial else validation.clean
    if seen is None:
        raise InputError("objective", objective, "expected a validation set that was attacked")
    value, model = partial(value_of, validation=validation, objective=objective), problem.model
    with evaluating(model), weights_of(model), global_seed(problem.seed, "user scorer"), torch.enable_grad():
        scores = function(model, train, seen, objective=value, seed=problem.seed)
    if not isinstance(scores, Tensor) or scores.shape != (len(train),) or not scores.is_floating_point():
        raise function.refusal(f"gives {in_words(scores)}; expected a float for each of {len(train)} samples")
    return finite(scores.detach().cpu(), train, slice(None), "the score of training sample")


def value_of(model: nn.Module, *, validation: Validation, objective: Objective) -> Tensor:
    """Return the objective at a model, a scalar that can be differentiated; its graph holds every sample."""
    values = []
    for name, weight in objective.weights.items():
        split = validation.seen_by(name, attacked=objective.looks_at_attacked(name))
        logits = torch.cat([model(x) for _, x, _ in split.batches(SIZE)])
        values.append(weight * term(name, objective)(logits, split))
    return torch.stack(values).sum()


def check_user_scorer(problem: ScoringContext) -> None:
    """Raise InputError unless the function scores the samples of `problem`, a few."""
    function = UserFunction.of(problem.scorer, FIELD)
    function.check_signature(("model", "train", "validation"), ("objective", "seed"))
    try:
        scores_of(problem)
    except FloatingPointError as error:
        raise function.refusal(f"gives scores that are not finite ({error})") from error
