"""Functions of the user, tried on a few samples before any compute, in the order in which a run calls them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import nn

from defense.config.choices import AttackName, Method, ObjectiveName, TreatmentName
from defense.config.reads import reading
from defense.config.schema import Attack, Config
from defense.data.given_scores import read_scores
from defense.data.splits import Dataset, Split
from defense.data.validation import Validation
from defense.influence.objectives import check_objective
from defense.influence.problem import ScoringContext
from defense.influence.user_scorer import check_user_scorer
from defense.models.build import source_of
from defense.robustness.user_attack import check_user_attack
from defense.stages.treat_user import check_user_treatment

TRIED = 32  # samples of a split that functions are tried on


def check_parts(config: Config, model: nn.Module, data: Dataset, attacks: Mapping[str, Attack]) -> None:
    """Raise InputError if a function of the user that a run calls cannot be found, or does not do as it should.

    model: untrained. attacks: of the run, by the name of their settings. The source of the model is hashed before
    any of the functions is imported, so that a change of these trains no new baseline.
    """
    source_of(config.model)
    device = next((weight.device for weight in model.parameters()), torch.device("cpu"))
    train, validation = (few_of(split).to(device) for split in (data.train, data.validation))
    for field, attack in attacks.items():
        if attack.name is AttackName.own:
            check_user_attack(attack, field, model, validation, config.threat)
    objective, scorer = config.objective, config.scorer
    if ObjectiveName.own in objective.weights and "objective" in config.task.reads | reading(scorer):
        check_objective(objective, data.validation, data.classes)
    if scorer.method is Method.own:
        seen = Validation(validation, validation)  # as it is: none is attacked yet
        check_user_scorer(ScoringContext(model, train, None, seen, objective, scorer, config.seed))
    if scorer.method is Method.file:
        read_scores(scorer.path, data)
    spec = config.treatment
    if "treatment" in config.task.reads and spec.name is TreatmentName.own:
        budget = spec.budgets[0] if spec.holds_out else spec.budget
        check_user_treatment(replace(spec, budget=budget), train, data.classes)


def few_of(split: Split) -> Split:
    """Return TRIED samples of a split, evenly spread, or all if there are fewer."""
    count = min(TRIED, len(split))
    return split.subset(torch.arange(count) * len(split) // count)
