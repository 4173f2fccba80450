from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from defense.config.choices import ObjectiveName
from defense.config.schema import Objective
from defense.data.validation import Validation
from defense.errors import InputError
from defense.influence.members import single
from defense.influence.objectives import (
    contributions,
    demographic_parity,
    equal_opportunity,
    mean_loss,
    objective_value,
    parts_of,
    value_and_gradient,
)
from tests.conftest import doubles, make_split
from tests.reference import flat

GROUPED = replace(doubles(make_split(24, 3, (1, 4, 4))), groups=torch.arange(24) // 5 % 3)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.Tanh(), nn.Linear(6, 3)).double().eval()


def everything(model: nn.Module) -> Tensor:
    return model(GROUPED.images.take(torch.arange(24)))


def gap(p: Tensor, chosen: Tensor) -> Tensor:
    means = [p[chosen & (GROUPED.groups == group)].mean() for group in (0, 1, 2)]
    return max(a - b for a in means for b in means)


TRUTH = {
    mean_loss: lambda model: F.cross_entropy(everything(model), GROUPED.labels),
    demographic_parity: lambda model: gap(everything(model).softmax(1)[:, 1], torch.ones(24, dtype=torch.bool)),
    equal_opportunity: lambda model: gap(everything(model).softmax(1)[:, 1], GROUPED.labels == 1),
}


@pytest.mark.parametrize("function", TRUTH)
@pytest.mark.parametrize("batch_size", [5, 100])
def test_value_and_gradient_are_exact_in_any_batches(function, batch_size: int) -> None:  # type: ignore[no-untyped-def]
    model = network()
    expected = TRUTH[function](model)
    gradients = torch.autograd.grad(expected, list(model.parameters()))
    value, found = value_and_gradient(
        model, single(model), GROUPED, partial(function, positive=1), batch_size=batch_size
    )
    assert value == pytest.approx(float(expected), rel=1e-12)
    torch.testing.assert_close(flat(found), torch.cat([g.flatten() for g in gradients]), rtol=1e-10, atol=1e-14)


def test_terms_look_at_their_own_pictures_and_keep_their_weights() -> None:
    model = network()
    other = doubles(make_split(24, 3, (1, 4, 4), seed=1))
    objective = Objective({ObjectiveName.utility: 0.3, ObjectiveName.robustness: 0.7}, positive=1)
    utility, robustness = parts_of(model, single(model), Validation(GROUPED, other), objective, batch_size=7)
    assert (utility.weight, robustness.weight) == (0.3, 0.7)
    assert utility.value == pytest.approx(float(TRUTH[mean_loss](model)))
    attacked = F.cross_entropy(model(other.images.take(torch.arange(24))), other.labels)
    assert robustness.value == pytest.approx(float(attacked))
    assert str(objective) == "0.3 utility + 0.7 robustness"


@pytest.mark.parametrize("groups", [None, torch.zeros(24, dtype=torch.long)])
def test_fairness_needs_groups(groups: Tensor | None) -> None:
    model, split = network(), replace(GROUPED, groups=groups)
    with pytest.raises(InputError, match="expected validation samples of two groups or more"):
        value_and_gradient(model, single(model), split, partial(demographic_parity, positive=1), batch_size=9)


@pytest.mark.parametrize(
    ("function", "asked"),
    [
        (demographic_parity, "two groups or more: data.sensitive"),
        (equal_opportunity, "two groups or more, each with some of the class objective.positive: data.sensitive"),
    ],
)
def test_the_class_is_asked_for_where_it_decides_what_counts(function: Callable[..., Tensor], asked: str) -> None:
    alone = replace(GROUPED, groups=torch.zeros(24, dtype=torch.long))
    with pytest.raises(InputError, match=f"expected validation samples of {asked}"):
        function(torch.zeros(24, 3), alone, 1)


def test_a_group_without_the_class_has_no_equal_opportunity() -> None:
    """All samples of the first group are of class 0; their parity is still what a loop over groups finds."""
    groups = torch.where(GROUPED.labels == 0, 0, 1)
    split, logits = replace(GROUPED, groups=groups), torch.eye(3)[GROUPED.labels]
    with pytest.raises(InputError, match="each with some of the class"):
        equal_opportunity(logits, split, 1)
    p = logits.softmax(1)[:, 1]
    expected = abs(p[groups == 0].mean() - p[groups == 1].mean())
    assert demographic_parity(logits, split, 1) == pytest.approx(float(expected))


def test_contributions_tell_what_one_more_such_sample_changes() -> None:
    """Beside 500 copies of the set, a further copy of a sample moves v by (its contribution - v) / 12,001."""
    weights = {name: 0.1 * (1 + index) for index, name in enumerate(ObjectiveName)}
    objective = Objective(weights, positive=1, _target_="my_parts.margin")
    draw = torch.Generator().manual_seed(3)
    logits = {name: torch.randn(24, 3, generator=draw, dtype=torch.float64) for name in ("clean", "adversarial")}

    def value(rows: Tensor) -> float:
        validation = Validation(GROUPED, GROUPED).subset(rows)
        return objective_value({name: each[rows] for name, each in logits.items()}, validation, objective)

    copies = torch.arange(24).repeat(500)
    before = value(copies)
    changes = [value(torch.cat((copies, torch.tensor([row])))) - before for row in range(24)]
    found = contributions(logits, Validation(GROUPED, GROUPED), objective)
    assert found.mean().item() == pytest.approx(before)
    torch.testing.assert_close(found - before, 12001 * torch.tensor(changes).double(), rtol=2e-3, atol=2e-4)
