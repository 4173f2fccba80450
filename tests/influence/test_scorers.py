"""Every scorer against a slow loop, and the exact influence function against its closed form."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from defense.config.choices import Direction, Members, Method, ObjectiveName
from defense.config.schema import Objective
from defense.data.validation import Validation
from defense.errors import InputError
from defense.influence.directions import DIRECTIONS
from defense.influence.members import dropout, gaussian, masked, single
from defense.influence.scorers import METHODS, ScoringContext, check_scorer
from defense.models.checkpoints import Checkpoint
from defense.runtime.runtime import Runtime
from defense.store.store import FileCheckpointer
from tests.conftest import doubles, make_split, scorer
from tests.reference import flat, gauss_newton, inner_products, per_sample_gradients

SHAPE = (1, 3, 3)
TRAIN = doubles(make_split(23, 3, SHAPE))
ATTACKED = doubles(make_split(23, 3, SHAPE, seed=5))
CLEAN = doubles(make_split(11, 3, SHAPE, seed=1))
ADVERSARIAL = doubles(make_split(11, 3, SHAPE, seed=2))
UTILITY = Objective({ObjectiveName.utility: 1.0}, positive=1)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Flatten(), nn.Linear(9, 6), nn.Tanh(), nn.Dropout(0.0), nn.Linear(6, 3)]
    return nn.Sequential(*layers).double().eval()


def problem(model: nn.Module | None = None, objective: Objective = UTILITY, **changes: Any) -> ScoringContext:
    spec = scorer(**{"batch_size": 7} | changes)
    validation = Validation(CLEAN, ADVERSARIAL)
    return ScoringContext(model or network(), TRAIN, ATTACKED, validation, objective, spec, 0)


def run(given: ScoringContext) -> Tensor:
    return METHODS[given.scorer.method](given).total


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected.detach(), rtol=1e-8, atol=1e-12)


def gradients(split=TRAIN, model: nn.Module | None = None) -> Tensor:  # type: ignore[no-untyped-def]
    return per_sample_gradients(model or network(), split.images.take(torch.arange(len(split))), split.labels)


def test_ip() -> None:
    close(run(problem()), inner_products(network(), TRAIN, CLEAN))


def test_ip_on_attacked_training_samples() -> None:
    close(run(problem(attacked_train=True)), inner_products(network(), ATTACKED, CLEAN))
    with pytest.raises(InputError, match="expected attacked training samples"):
        run(replace(problem(attacked_train=True), attacked=None))


def test_a_weighted_objective_is_the_weighted_sum_and_keeps_its_parts() -> None:
    objective = Objective({ObjectiveName.utility: 0.3, ObjectiveName.robustness: 2.0}, positive=1)
    scored = METHODS[Method.alignment](problem(objective=objective))
    utility, robustness = inner_products(network(), TRAIN, CLEAN), inner_products(network(), TRAIN, ADVERSARIAL)
    close(scored.total, 0.3 * utility + 2 * robustness)
    close(scored.parts["utility"], utility)
    close(scored.parts["robustness"], robustness)


def test_ensemble_is_the_mean_over_its_sub_networks() -> None:
    scored = METHODS[Method.alignment](problem(members=Members.dropout, count=4, max_rate=0.8))
    model = network()
    example = TRAIN.images.take(torch.arange(2))
    from defense.randomness import derive

    members = dropout(single(model), model, example, count=4, max_rate=0.8, seed=derive(0, "members"))
    expected = []
    for member in members:
        with masked(model, member):
            expected.append(inner_products(model, TRAIN, CLEAN))
    close(scored.total, torch.stack(expected).mean(0))
    assert list(scored.members) == ["model", "dropout 1", "dropout 2", "dropout 3"]
    close(torch.stack(list(scored.members.values())), torch.stack(expected))


def test_noisy_ensemble_is_the_mean_over_its_copies() -> None:
    scored = METHODS[Method.alignment](problem(members=Members.gaussian, count=3, std=0.1))
    from defense.randomness import derive

    expected = []
    for member in gaussian(single(network()), count=3, std=0.1, seed=derive(0, "members")):
        model = network()
        model.load_state_dict(member.parameters)
        expected.append(inner_products(model, TRAIN, CLEAN))
    close(scored.total, torch.stack(expected).mean(0))


@pytest.mark.parametrize("changes", [{"count": 1, "max_rate": 0.5}, {"count": 3, "max_rate": 0.0}])
def test_an_ensemble_of_one_or_without_dropout_is_ip(changes: dict[str, Any]) -> None:
    close(run(problem(members=Members.dropout, **changes)), run(problem()))
    if changes["count"] == 1:
        assert torch.equal(run(problem(members=Members.dropout, **changes)), run(problem()))


def test_tracin_is_the_sum_over_checkpoints() -> None:
    """sum_c rate_c grad v(theta_c) . grad loss_i(theta_c), each checkpoint loaded into a network of its own."""
    models, states = [], []
    for index, rate in enumerate((0.5, 0.2, 0.0)):
        model = network()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.1 * index
        models.append(model)
        states.append(Checkpoint(f"epoch {index}", rate, model.state_dict()))
    given = replace(problem(members=Members.checkpoints), states=states)
    scored = METHODS[Method.alignment](given)
    each = [inner_products(model, TRAIN, CLEAN) for model in models]
    close(scored.total, 0.5 * each[0] + 0.2 * each[1])
    close(torch.stack(list(scored.members.values())), torch.stack(each))


def test_a_killed_scoring_goes_on_where_it_was(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    """Members that are done, and directions that are solved, are not done again."""
    from defense.influence import scorers

    changes = {"members": Members.gaussian, "count": 3, "direction": Direction.cg, "std": 0.01}
    whole = METHODS[Method.alignment](problem(**changes))
    calls = []
    original = scorers.directional_derivatives

    def killed(model, member, *args, **kwargs):  # type: ignore[no-untyped-def]
        calls.append(member.name)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(model, member, *args, **kwargs)

    monkeypatch.setattr(scorers, "directional_derivatives", killed)
    solved = []
    solve = DIRECTIONS[Direction.cg]

    def counted(*args):  # type: ignore[no-untyped-def]
        solved.append(1)
        return solve(*args)

    monkeypatch.setitem(DIRECTIONS, Direction.cg, counted)
    given = replace(problem(**changes), runtime=Runtime(checkpoint=FileCheckpointer(tmp_path)))
    with pytest.raises(KeyboardInterrupt):
        METHODS[Method.alignment](given)
    again = METHODS[Method.alignment](given)
    assert calls == ["noise 0", "noise 1", "noise 1", "noise 2"]
    assert len(solved) == 3
    assert torch.equal(again.total, whole.total)
    assert again.record == whole.record


def test_cosine() -> None:
    direction = gradients(CLEAN).mean(0)
    expected = F.cosine_similarity(gradients(), direction[None])
    close(run(problem(cosine=True)), expected)


def test_chosen_parameters() -> None:
    head = slice(60, 81)  # of 9*6 + 6 + 6*3 + 3 parameters
    expected = gradients()[:, head] @ gradients(CLEAN).mean(0)[head]
    close(run(problem(parameters="4.*")), expected)


def test_self_influence() -> None:
    close(run(problem(method=Method.self_influence)), -gradients().square().sum(1))


def test_losses() -> None:
    model = network()
    for method, split in ((Method.loss, TRAIN), (Method.adversarial_loss, ATTACKED)):
        logits = model(split.images.take(torch.arange(23)))
        close(run(problem(method=method)), -F.cross_entropy(logits, split.labels, reduction="none"))


def test_oracle_puts_known_noise_first() -> None:
    labels = TRAIN.truth.clone()
    labels[[2, 9]] = (labels[[2, 9]] + 1) % 3
    found = run(replace(problem(method=Method.oracle), train=replace(TRAIN, labels=labels)))
    assert set(found.argsort()[:2].tolist()) == {2, 9}


def test_what_cannot_work_is_said_before_any_compute() -> None:
    fair = Objective({ObjectiveName.demographic_parity: 1.0}, positive=1)
    for objective, spec, said in (
        (UTILITY, scorer(method=Method.oracle), "expected data with known noise"),
        (UTILITY, scorer(parameters="tail.*"), "matches none of"),
        (fair, scorer(), "two groups or more"),
    ):
        with pytest.raises(InputError, match=said):
            check_scorer(network(), CLEAN, objective, spec, classes=3, noise_known=False)
    grouped = replace(CLEAN, groups=torch.arange(11) % 2)
    check_scorer(network(), grouped, fair, scorer(), classes=3, noise_known=False)


def test_influence_function_equals_the_closed_form_on_logistic_regression() -> None:
    """G is the Hessian of logistic regression: -(H + lambda I)^-1 by Cholesky, as Koh and Liang 2017 write it."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(9, 3)).double().eval()
    hessian = gauss_newton(model, TRAIN)
    factor = torch.linalg.cholesky(hessian + 0.01 * torch.eye(30, dtype=torch.float64))
    direction = torch.cholesky_solve(gradients(CLEAN, model).mean(0)[:, None], factor)[:, 0]
    expected = gradients(TRAIN, model) @ direction
    spec = {"direction": Direction.cg, "damping": 0.01, "iterations": 1000, "tolerance": 1e-12}
    found = run(problem(model, **spec))
    torch.testing.assert_close(found, expected.detach(), rtol=1e-8, atol=1e-11)
    parameters = dict(model.named_parameters())
    loss = F.cross_entropy(model(TRAIN.images.take(torch.arange(23))), TRAIN.labels)
    (g, b) = torch.autograd.grad(loss, list(parameters.values()), create_graph=True)
    rows = [
        torch.autograd.grad(e, list(parameters.values()), retain_graph=True) for e in torch.cat([g.flatten(), b])
    ]
    torch.testing.assert_close(torch.stack([flat(dict(enumerate(row))) for row in rows]), hessian.detach())
