"""The scorers: each gives every training sample a number; positive helps the objective, negative harms it.

Alignment is the family: members x direction, one forward-mode derivative per batch. The others are the rivals that
every report should show beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from defense.config.choices import Direction, Method
from defense.config.reads import reading
from defense.config.schema import Objective, Scorer
from defense.data.splits import Split
from defense.errors import InputError
from defense.influence.alignment import directional_derivatives
from defense.influence.batching import map_batches, with_auto_batch_size
from defense.influence.confident import check_cleanlab, label_quality
from defense.influence.curvature import Curvature
from defense.influence.directions import Record, check_real, direction_of
from defense.influence.finite import finite
from defense.influence.hessian import check_size
from defense.influence.members import Member, Parameters, members_of, single
from defense.influence.objectives import Part, check_objective, parts_of
from defense.influence.per_sample import length_of, squared_norms
from defense.influence.precision import check_precision, rank_correlation
from defense.influence.problem import ScoreResult, ScoringContext
from defense.influence.user_scorer import own
from defense.models.contract import check_function
from defense.models.loss import cross_entropy
from defense.models.modes import evaluating
from defense.randomness import generator, random_scores
from defense.runtime.checkpoint import Computed, load_or_compute
from defense.runtime.distributed import SINGLE_PROCESS, Ranks, compute_on_rank_zero
from defense.runtime.runtime import Runtime

ASKED_ALONE = (  # methods that take what a model says of one sample for a function of that sample
    Method.loss,
    Method.adversarial_loss,
    Method.self_influence,
    Method.alignment,
    Method.metagradient,
)


def check_scorer(
    model: nn.Module,
    validation: Split,
    objective: Objective,
    scorer: Scorer,
    *,
    classes: int,
    noise_known: bool,
) -> None:
    """Raise InputError if a scorer cannot work on this model and data; costs nothing."""
    if scorer.method is Method.oracle and not noise_known:
        raise InputError("scorer", scorer.name, "expected data with known noise, as data.harm plants it")
    if scorer.method is Method.confident_learning:
        check_cleanlab()
    if scorer.method in ASKED_ALONE:
        check_function(model, validation, "model", type(model).__name__)
    if scorer.method in (Method.self_influence, Method.alignment):
        member = single(model, pattern=scorer.parameters)
    if scorer.method is Method.alignment:
        check_precision(scorer, validation.labels.device)
        check_real(member.parameters, scorer.direction)
        if scorer.direction is Direction.hessian:
            check_size(member.parameters, "scorer.direction")
    if "objective" in reading(scorer):
        check_objective(objective, validation, classes)


def alignment(problem: ScoringContext) -> ScoreResult:
    """score_i = sum_m weight_m sum_p weight_p  u_mp . grad loss_i(theta_m),  u_mp = P grad v_p(theta_m).

    With `scorer.cosine` each product is divided by |u_mp| |grad loss_i|.
    """
    example = problem.train.images.take(torch.arange(min(2, len(problem.train))))
    _, objective = problem.target
    weights = {str(name): weight for name, weight in objective.weights.items()}
    by_part: dict[str, Tensor] = {}
    by_member: dict[str, Tensor] = {}
    record: Record = {}
    for member in members_of(problem.model, example, problem.scorer, problem.states, seed=problem.seed):
        scores, said = load_or_compute(problem.common, member.name, partial(member_scores, problem, member))
        for name, values in scores.items():
            by_part[name] = by_part.get(name, 0) + member.weight * values
        by_member[member.name] = sum_of([weights[name] * values for name, values in scores.items()])
        record |= {f"{member.name} {key}": value for key, value in said.items()}
    total = sum_of([weights[name] * values for name, values in by_part.items()])
    return ScoreResult(total, by_part if len(by_part) > 1 else {}, by_member if len(by_member) > 1 else {}, record)


def member_scores(problem: ScoringContext, member: Member) -> Computed:
    """Return the scores (n,) at one member for every term of the objective, and how they were found."""
    scores: dict[str, Tensor] = {}
    record: Record = {}
    size = problem.scorer.batch_size
    validation, objective = problem.target
    parts = parts_of(problem.model, member, validation, objective, batch_size=size, ranks=problem.runtime.ranks)
    check_gradient(parts)
    for part in parts:
        scores[str(part.name)], said = term_scores(problem, member, part)
        record |= {f"{part.name} {key}": value for key, value in said.items()} | {
            f"{part.name} objective": part.value
        }
    return scores, record


def check_gradient(parts: Sequence[Part]) -> None:
    """Raise InputError if the gradient of every term of the objective is zero: all scores would be."""
    if not any(bool(value.any()) for part in parts for value in part.gradient.values()):
        names = " + ".join(str(part.name) for part in parts)
        found = "its gradient is zero: every validation sample is fitted, or no parameter changes a prediction"
        raise InputError("objective", names, found)


def term_scores(problem: ScoringContext, member: Member, part: Part) -> tuple[Tensor, Record]:
    """Return u . grad loss_i (n,) at one member for one term, and how u was found.

    Rank 0 finds an inverse and sends it to the others.
    """
    scorer, size, label = problem.scorer, problem.scorer.batch_size, f"{member.name} {part.name}"
    runtime = problem.runtime

    def solve(size: int) -> tuple[Parameters, Record]:
        curvature = Curvature(problem.model, member, problem.train, size, problem.gradients)
        return direction_of(part.gradient, curvature, scorer)

    def solved() -> tuple[Parameters, Record]:
        return compute_on_rank_zero(runtime.ranks, partial(with_auto_batch_size, size, problem.train, solve))

    found, record = load_or_compute(problem.common, f"{label} direction", solved)
    direction = {name: found[name] for name in member.parameters}  # in the order that jvp wants
    scores = directional_derivatives(
        problem.model,
        member,
        problem.scored,
        direction,
        batch_size=size,
        derivative=problem.derivative,
        runtime=runtime.named(f"{label} so far"),
    )
    if scorer.precision != "32-true":
        record |= {
            "rank correlation to float32": rank_correlation(
                scores, problem.model, member, problem.scored, direction, batch_size=size, runtime=runtime
            )
        }
    if scorer.cosine:
        norms = norms_of(problem, member).sqrt()
        length = length_of(direction).cpu()
        scores = scores / (norms * length).clamp_min(torch.finfo(scores.dtype).tiny)
    return scores, record


def self_influence(problem: ScoringContext) -> ScoreResult:
    """score_i = -|grad loss_i|^2: samples that move the model most are suspected (Pruthi et al. 2020)."""
    member = single(problem.model, pattern=problem.scorer.parameters)
    return ScoreResult(-norms_of(problem, member))


def norms_of(problem: ScoringContext, member: Member) -> Tensor:
    """Return |grad loss_i|^2 (n,) at one member."""
    return squared_norms(
        problem.model,
        member,
        problem.scored,
        batch_size=problem.scorer.batch_size,
        gradients=problem.gradients,
        runtime=problem.runtime,
    )


def loss(problem: ScoringContext) -> ScoreResult:
    """score_i = -loss_i of the training sample as it is."""
    return ScoreResult(-losses_of(problem, problem.train))


def adversarial_loss(problem: ScoringContext) -> ScoreResult:
    """score_i = -loss_i of the attacked training sample."""
    return ScoreResult(-losses_of(problem, problem.needs_attacked()))


def losses_of(problem: ScoringContext, split: Split) -> Tensor:
    """Return the cross-entropy of each sample: (n,), on the CPU.

    Raises FloatingPointError that names the id of the first sample for which it is not finite.
    """
    _, losses = predict_with_losses(problem.model, split, problem.scorer.batch_size, ranks=problem.runtime.ranks)
    return finite(losses, split, slice(None), "the score of training sample")


@torch.no_grad()
def predict_with_losses(
    model: nn.Module, split: Split, batch_size: int | None, *, ranks: Ranks = SINGLE_PROCESS
) -> tuple[Tensor, Tensor]:
    """Return prediction int64 (n,) and cross-entropy (n,) of each sample, on the CPU; no logits are kept."""

    def one_batch(rows: slice, x: Tensor, labels: Tensor) -> Tensor:
        logits = model(x).cpu()
        losses = cross_entropy(logits, labels.cpu())
        return torch.stack([logits.argmax(1).to(losses.dtype), losses], dim=1)  # exact below 2^24 classes

    def one_pass(size: int) -> tuple[Tensor, Tensor]:
        found = map_batches(split, size, one_batch, Runtime(ranks=ranks))
        return found[:, 0].long(), found[:, 1]

    with evaluating(model):
        return with_auto_batch_size(batch_size, split, one_pass)


def confident_learning(problem: ScoringContext) -> ScoreResult:
    """score_i = p_i(label_i) of models that have not seen i, less 1 where confident learning calls it wrong."""
    if problem.held_out is None:
        raise InputError(
            "scorer", problem.scorer.name, "expected predictions of models that have not seen the samples"
        )
    return ScoreResult(label_quality(problem.train.labels, problem.held_out))


def random(problem: ScoringContext) -> ScoreResult:
    """score_i uniform in [-1, 1): the rival that every scorer must beat."""
    return ScoreResult(random_scores(len(problem.train), seed=problem.seed))


def oracle(problem: ScoringContext) -> ScoreResult:
    """score_i below zero where the label is known to be wrong: what perfect detection would reach.

    A random number in [0, 1) breaks ties, so that a budget larger than the noise goes on at random.
    """
    ties = torch.rand(len(problem.train), generator=generator(problem.seed, "oracle ties"))
    return ScoreResult(ties - (problem.train.labels != problem.train.truth).cpu().float())


def sum_of(tensors: list[Tensor]) -> Tensor:
    """Return the sum of tensors of one shape."""
    return torch.stack(tensors).sum(0)


METHODS: dict[Method, Callable[[ScoringContext], ScoreResult]] = {
    Method.alignment: alignment,
    Method.self_influence: self_influence,
    Method.loss: loss,
    Method.adversarial_loss: adversarial_loss,
    Method.confident_learning: confident_learning,
    Method.random: random,
    Method.oracle: oracle,
    Method.own: own,
}
