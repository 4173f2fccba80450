"""Stages and passes as tests call them: everything by keyword, the runtime in its parts.

A stage takes a `Runtime` and a `Trained`; most tests have a network, and vary one part of a runtime.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

import defense
from defense.artifacts import (
    AdversarialSet,
    Checks,
    Evaluation,
    HeldOut,
    Planted,
    Retrainings,
    Scores,
    TrainedModel,
    Treatment,
)
from defense.config.choices import Dropping, Optimizer, Subsets
from defense.config.schema import Attack, Data, Objective, Scorer, Threat, Train, Training, Treat
from defense.config.schema import Evaluation as Suite
from defense.config.tasks import Faithfulness
from defense.data.splits import Dataset, Split
from defense.data.validation import Validation
from defense.influence import alignment, batching, per_sample
from defense.influence.members import Member
from defense.influence.problem import ScoringContext
from defense.models.build import Design
from defense.models.checkpoints import Checkpoint
from defense.randomness import random_scores
from defense.robustness import probe as probing
from defense.robustness import suite as suites
from defense.robustness.attacks import Attacker
from defense.runtime.checkpoint import Checkpointer, NoCheckpoint
from defense.runtime.distributed import SINGLE_PROCESS, Ranks
from defense.runtime.progress import Progress, no_progress
from defense.runtime.runtime import Runtime, cpu_fabric
from defense.stages import attack as attack_stage
from defense.stages import check as check_stage
from defense.stages import crossval as crossval_stage
from defense.stages import evaluate as evaluate_stage
from defense.stages import plant as plant_stage
from defense.stages import retrain as retrain_stage
from defense.stages import score as score_stage
from defense.stages import train as train_stage
from defense.stages import treat as treat_stage
from defense.stages.trained import GivenNetwork, Trained
from defense.training import lbfgs, loop, recipes
from defense.training import validation as validating
from defense.training.inputs import Criteria, Measure, TrainingSet
from defense.training.recipes import Losses


def runtime(
    fabric: Fabric | None = None,
    progress: Progress = no_progress,
    checkpoint: Checkpointer | None = None,
    ranks: Ranks = SINGLE_PROCESS,
    label: str = "",
) -> Runtime:
    """Return a runtime of these parts, the others as on one CPU."""
    kept = NoCheckpoint() if checkpoint is None else checkpoint
    return Runtime(fabric or cpu_fabric(), ranks, progress, kept, label=label)


def train(
    settings: dict[str, Any],
    data: Dataset,
    recipe: Train,
    treatment: Treatment,
    *,
    threat: Threat,
    seed: int,
    kept: int | None = None,
    **parts: Any,
) -> TrainedModel:
    """Call the stage train."""
    design = Design(settings, data, seed)
    return train_stage.train(runtime(**parts), design, data, Training(recipe, threat), treatment, kept=kept)


def trained(
    model: nn.Module,
    data: Dataset,
    recipe: Train,
    *,
    keep: Tensor,
    weights: Tensor | None = None,
    threat: Threat,
    seed: int,
    **parts: Any,
) -> TrainedModel:
    """Call `train_network`."""
    training, samples = Training(recipe, threat), TrainingSet.of(data.train, keep, weights)
    return train_stage.train_network(model, data, training, runtime(**parts), samples=samples, seed=seed)


def restore(
    settings: dict[str, Any], data: Dataset, artifact: TrainedModel, *, seed: int, device: torch.device
) -> nn.Module:
    """Return the network of a trained arm."""
    return Trained(Design(settings, data, seed), artifact).network.to(device)


def checkpoints_of(artifact: TrainedModel) -> list[Checkpoint]:
    """Return the checkpoints of a trained arm."""
    return Trained(Design({}, None, 0), artifact).checkpoints  # type: ignore[arg-type]


def fit(model: nn.Module, train: Split, recipe: Train, **given: Any) -> Any:
    """Call `fit` of the training loop."""
    return _optimize(loop.fit, model, train, recipe, **given)


def fit_lbfgs(model: nn.Module, train: Split, recipe: Train, **given: Any) -> Any:
    """Call `fit_lbfgs`."""
    return _optimize(lbfgs.fit_lbfgs, model, train, recipe, **given)


def _optimize(
    function: Any,
    model: nn.Module,
    train: Split,
    recipe: Train,
    *,
    keep: Tensor,
    weights: Tensor,
    losses: Losses,
    measure: Measure,
    seed: int,
    after: dict[str, Any] | None = None,
    **parts: Any,
) -> Any:
    samples, criteria = TrainingSet(train, keep, weights), Criteria(losses, measure)
    return function(model, samples, recipe, runtime(**parts), criteria=criteria, seed=seed, after=after)


def measuring(
    validation: Split, recipe: Train, threat: Threat, *, classes: int, seed: int, **parts: Any
) -> Measure:
    """Call `measuring`."""
    return validating.measuring(validation, Training(recipe, threat), runtime(**parts), classes=classes, seed=seed)


def robust_accuracy(
    network: nn.Module,
    split: Split,
    attack: Attack,
    threat: Threat,
    batch_size: int,
    *,
    classes: int,
    seed: int,
    **parts: Any,
) -> float:
    """Call `robust_accuracy`."""
    return validating.robust_accuracy(
        Attacker(network, threat, classes, batch_size, seed), split, attack, runtime(**parts)
    )


def perturb(
    model: nn.Module,
    split: Split,
    attack: Attack,
    threat: Threat,
    *,
    classes: int,
    batch_size: int,
    seed: int,
    **parts: Any,
) -> Tensor:
    """Call `perturb`."""
    return suites.perturb(Attacker(model, threat, classes, batch_size, seed), split, attack, runtime(**parts))


def run_suite(
    model: nn.Module,
    split: Split,
    attacks: Mapping[str, Attack],
    threat: Threat,
    *,
    classes: int,
    batch_size: int,
    seed: int,
    masked: Sequence[str] = (),
    **parts: Any,
) -> suites.Attacked:
    """Call `run_suite`."""
    attacker = Attacker(model, threat, classes, batch_size, seed)
    return suites.run_suite(attacker, split, attacks, runtime(**parts), masked=masked)


def probe(
    model: nn.Module, split: Split, threat: Threat, *, classes: int, batch_size: int, seed: int, **parts: Any
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Call `probe`."""
    return probing.probe(Attacker(model, threat, classes, batch_size, seed), split, runtime(**parts))


def attack(
    model: nn.Module,
    split: Split,
    spec: Attack,
    threat: Threat,
    *,
    classes: int,
    batch_size: int,
    seed: int,
    **parts: Any,
) -> AdversarialSet:
    """Call the stage attack."""
    given = GivenNetwork(model, classes)
    return attack_stage.attack(runtime(**parts), given, split, spec, threat, batch_size=batch_size, seed=seed)


def check(
    model: nn.Module,
    test: Split,
    threat: Threat,
    *,
    count: int,
    classes: int,
    batch_size: int,
    seed: int,
    **parts: Any,
) -> Checks:
    """Call the stage check."""
    given = GivenNetwork(model, classes)
    return check_stage.check(runtime(**parts), given, test, threat, count=count, batch_size=batch_size, seed=seed)


def evaluate(
    model: nn.Module,
    test: Split,
    suite: Suite,
    threat: Threat,
    frozen: Tensor | None,
    *,
    classes: int,
    stamped: Split | None = None,
    seed: int,
    keep: bool = False,
    **parts: Any,
) -> Evaluation:
    """Call the stage evaluate."""
    return evaluate_stage.evaluate(
        runtime(**parts),
        GivenNetwork(model, classes),
        test,
        suite,
        threat,
        frozen=frozen,
        stamped=stamped,
        keep=keep,
        seed=seed,
    )


def score(
    model: nn.Module,
    train: Split,
    validation: Validation,
    objective: Objective,
    scorer: Scorer,
    *,
    attacked: Split | None = None,
    states: Sequence[Checkpoint] = (),
    held_out: Tensor | None = None,
    seed: int,
    **parts: Any,
) -> Scores:
    """Call the stage score."""
    return score_stage.score(
        runtime(**parts),
        GivenNetwork(model, 0),
        train,
        validation,
        objective,
        scorer,
        attacked=attacked,
        states=states,
        held_out=None if held_out is None else HeldOut({"probabilities": held_out}),
        seed=seed,
    )


def scores_by_row(*given: Any, **named: Any) -> Tensor:
    """Return what `defense.score` does, float32 (n,), without the ids."""
    return torch.tensor(defense.score(*given, **named).to_numpy())


def retrain(
    settings: dict[str, Any],
    data: Dataset,
    recipe: Train,
    parts: Tensor,
    baseline: TrainedModel,
    validation: Validation,
    *,
    threat: Threat,
    seed: int,
    dropping: Faithfulness | None = None,
    attack: Attack | None = None,
    **own: Any,
) -> Retrainings:
    """Call the stage retrain."""
    removal = Faithfulness(Subsets.random, 0.5, Dropping.removal, fresh=False, count=None, targets=1, singles=0)
    return retrain_stage.retrain(
        runtime(**own),
        Design(settings, data, seed),
        data,
        Training(recipe, threat),
        parts=parts,
        validation=validation,
        spec=dropping or removal,
        attack=attack,
        threat=threat,
        start=baseline if recipe.optimizer is Optimizer.lbfgs else None,
    )


def cross_validate(
    settings: dict[str, Any],
    data: Dataset,
    recipe: Train,
    folds: int,
    *,
    threat: Threat,
    seed: int,
    **parts: Any,
) -> HeldOut:
    """Call the stage crossval."""
    training = Training(recipe, threat)
    return crossval_stage.crossval(runtime(**parts), Design(settings, data, seed), data, training, folds=folds)


def plant(
    model: nn.Module,
    train: Split,
    spec: Data,
    ball: Threat,
    *,
    classes: int,
    batch_size: int,
    seed: int,
    **parts: Any,
) -> Planted:
    """Call the stage plant."""
    given = GivenNetwork(model, classes)
    return plant_stage.plant(runtime(**parts), given, train, spec, ball=ball, batch_size=batch_size, seed=seed)


def scores_of(suggestion: treat_stage.RankedSamples) -> Scores:
    """Return scores that suggest a treatment."""
    columns = {"score": suggestion.scores, "prediction": suggestion.predictions, "label": suggestion.labels}
    return Scores(pd.DataFrame(columns), pd.DataFrame())


def treat(train: Split, suggestion: treat_stage.RankedSamples, spec: Treat) -> Treatment:
    """Call the stage treat."""
    return treat_stage.treat(runtime(), train, scores_of(suggestion), spec, classes=suggestion.classes)


def control(
    train: Split, defended: Treatment, suggestion: treat_stage.RankedSamples, spec: Treat, seed: int
) -> Treatment:
    """Call the stage control."""
    classes = suggestion.classes
    return treat_stage.control(runtime(), train, scores_of(suggestion), defended, spec, classes=classes, seed=seed)


def map_batches(split: Split, size: int, function: Any, *, part: str, **parts: Any) -> Tensor:
    """Call `map_batches`."""
    return batching.map_batches(split, size, function, runtime(label=part, **parts))


def directional_derivatives(
    model: nn.Module,
    member: Member,
    split: Split,
    direction: dict[str, Tensor],
    *,
    batch_size: int | None,
    part: str = "derivatives",
    derivative: Any = alignment.forward_derivative,
    **parts: Any,
) -> Tensor:
    """Call `directional_derivatives`."""
    own = runtime(label=part, **parts)
    return alignment.directional_derivatives(
        model, member, split, direction, batch_size=batch_size, derivative=derivative, runtime=own
    )


def squared_norms(
    model: nn.Module, member: Member, split: Split, *, batch_size: int | None, gradients: Any = None, **parts: Any
) -> Tensor:
    """Call `squared_norms`."""
    own = runtime(**parts)
    return per_sample.squared_norms(model, member, split, batch_size=batch_size, gradients=gradients, runtime=own)


def order_of(count: int, seed: int) -> np.ndarray:
    """Return the random numbers that a control of this seed goes by."""
    return random_scores(count, seed=seed).numpy()


def losses_of(recipe: Train, threat: Threat, classes: int) -> Losses:
    """Call `losses_of`."""
    return recipes.losses_of(Training(recipe, threat), classes)


def problem(
    model: nn.Module,
    train: Split,
    attacked: Split | None,
    validation: Validation,
    objective: Objective,
    scorer: Scorer,
    seed: int = 0,
    states: Sequence[Checkpoint] = (),
    **parts: Any,
) -> ScoringContext:
    """Return what a scorer may look at."""
    own = runtime(**parts)
    return ScoringContext(model, train, attacked, validation, objective, scorer, seed, states, runtime=own)
