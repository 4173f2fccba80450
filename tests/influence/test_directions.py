"""Inverses against dense ones, in float64."""

from __future__ import annotations

import logging
import subprocess
import sys
import warnings
import weakref

import pytest
import torch
from torch import nn

from defense.config.choices import Direction
from defense.errors import InputError
from defense.influence.curvature import Curvature
from defense.influence.directions import DIRECTIONS
from defense.influence.members import single
from tests.conftest import doubles, make_split, scorer
from tests.reference import flat, gauss_newton, per_sample_gradients

TRAIN = doubles(make_split(20, 3, (1, 3, 3)))
DAMPING = 0.05


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(9, 5), nn.Tanh(), nn.Linear(5, 3)).double().eval()


def setting(direction: Direction, damping: float = DAMPING, **changes: object):  # type: ignore[no-untyped-def]
    model = network()
    chance = torch.Generator().manual_seed(1)
    gradient = {n: torch.randn(p.shape, generator=chance, dtype=p.dtype) for n, p in model.named_parameters()}
    spec = scorer(direction=direction, damping=damping, **changes)
    curvature = Curvature(model, single(model), TRAIN, batch_size=12)  # in two batches
    return model, gradient, DIRECTIONS[direction], curvature, spec


@pytest.mark.parametrize(
    ("direction", "damping", "changes"),
    [
        (Direction.cg, DAMPING, {"iterations": 500, "tolerance": 1e-10}),
        (Direction.lissa, 0.5, {"iterations": 60, "tolerance": 1e-8, "scale": 0.7}),  # terms fall by 0.65 each
    ],
)
def test_solvers_equal_the_dense_inverse(direction: Direction, damping: float, changes: dict[str, object]) -> None:
    model, gradient, solve, curvature, spec = setting(direction, damping, **changes)
    dense = gauss_newton(model, TRAIN) + damping * torch.eye(len(flat(gradient)), dtype=torch.float64)
    before = [parameter.clone() for parameter in model.parameters()]
    found, record = solve(gradient, curvature, spec)
    torch.testing.assert_close(flat(found), torch.linalg.solve(dense, flat(gradient)), rtol=1e-6, atol=1e-8)
    assert record["residual"] < changes["tolerance"]
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_too_few_iterations_are_said(caplog: pytest.LogCaptureFixture) -> None:
    _, gradient, solve, curvature, spec = setting(Direction.lissa, iterations=2, tolerance=1e-6)
    with caplog.at_level(logging.WARNING):
        _, record = solve(gradient, curvature, spec)
    assert record["residual"] > 1e-2
    assert "has not converged" in caplog.text


def test_a_few_steps_of_conjugate_gradient() -> None:
    """As many as are asked for: in exact arithmetic 4 steps leave more than 12 do."""
    residuals = []
    for iterations in (4, 12):
        _, gradient, solve, curvature, spec = setting(Direction.cg, iterations=iterations, tolerance=1e-12)
        residuals.append(solve(gradient, curvature, spec)[1]["residual"])
    assert residuals[0] > 2 * residuals[1] > 0


def test_the_scale_of_lissa_is_found() -> None:
    """One over the largest eigenvalue of the dense matrix; the series then converges, whatever the network."""
    model, gradient, solve, curvature, spec = setting(
        Direction.lissa, damping=0.5, iterations=60, tolerance=1e-6, scale=None
    )
    dense = gauss_newton(model, TRAIN) + 0.5 * torch.eye(len(flat(gradient)), dtype=torch.float64)
    found, record = solve(gradient, curvature, spec)
    assert record["scale"] == pytest.approx(1 / float(torch.linalg.eigvalsh(dense)[-1]), rel=0.01)
    assert record["residual"] < 1e-6
    torch.testing.assert_close(flat(found), torch.linalg.solve(dense, flat(gradient)), rtol=1e-4, atol=1e-5)


def test_a_series_that_diverges_is_an_error() -> None:
    _, gradient, solve, curvature, spec = setting(Direction.lissa, iterations=150, scale=1e3)
    with pytest.raises(InputError, match=r"scorer.scale=1000.0: the series diverges"):
        solve(gradient, curvature, spec)


def test_ekfac_inverts_its_own_matrix_and_is_close_to_the_dense_one() -> None:
    from curvlinops import EKFACLinearOperator, FisherType

    model, gradient, solve, curvature, spec = setting(Direction.ekfac)
    found, _ = solve(gradient, curvature, spec)
    factors = EKFACLinearOperator(
        model,
        nn.CrossEntropyLoss(),
        list(model.parameters()),
        curvature.batches(),
        check_deterministic=False,
        fisher_type=FisherType.TYPE2,
    )
    dense = factors @ torch.eye(len(flat(gradient)), dtype=torch.float64)
    damped = dense + DAMPING * torch.eye(len(dense), dtype=torch.float64)
    torch.testing.assert_close(flat(found), torch.linalg.solve(damped, flat(gradient)), rtol=1e-8, atol=1e-10)
    exact = torch.linalg.solve(gauss_newton(model, TRAIN) + damped - dense, flat(gradient))
    assert float(torch.cosine_similarity(flat(found), exact, dim=0)) > 0.9


def test_datainf_equals_its_definition() -> None:
    """The mean over samples of (g g^T + lambda I)^-1 v, dense, one tensor at a time."""
    model, gradient, solve, curvature, spec = setting(Direction.datainf)
    found, _ = solve(gradient, curvature, spec)
    x = TRAIN.images.take(torch.arange(20))
    gradients = per_sample_gradients(model, x, TRAIN.labels)
    start = 0
    for name, value in gradient.items():
        g = gradients[:, start : start + value.numel()]
        start += value.numel()
        damping = DAMPING * g.square().sum(1).mean() / value.numel()
        eye = torch.eye(value.numel(), dtype=torch.float64)
        inverses = [torch.linalg.solve(row.outer(row) + damping * eye, value.flatten()) for row in g]
        torch.testing.assert_close(found[name].flatten(), torch.stack(inverses).mean(0), rtol=1e-8, atol=1e-10)


def test_identity_is_the_gradient() -> None:
    _, gradient, solve, curvature, spec = setting(Direction.identity)
    assert solve(gradient, curvature, spec) == (gradient, {})


def test_batches_are_made_when_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """curvlinops goes round many times; the split is never held as a list of batches."""
    _, gradient, solve, curvature, spec = setting(Direction.lissa, iterations=3)
    alive: list[weakref.ref[torch.Tensor]] = []
    most = 0

    def take(images: object, indices: torch.Tensor) -> torch.Tensor:
        nonlocal most
        batch = original(images, indices)
        most = max(most, sum(old() is not None for old in alive))
        alive.append(weakref.ref(batch))
        return batch

    original = type(TRAIN.images).take
    monkeypatch.setattr(type(TRAIN.images), "take", take)
    batches = curvature.batches()
    assert (len(batches), len(alive)) == (2, 0)
    expected = [(x, labels) for _, x, labels in TRAIN.batches(12)]
    for _ in range(2):
        for (x, labels), (a, b) in zip(batches, expected, strict=True):
            assert torch.equal(x, a)
            assert torch.equal(labels, b)
    alive.clear()
    del x, a, expected
    most = 0
    solve(gradient, curvature, spec)
    assert len(alive) > 2 * 2  # several rounds
    assert most <= 2


@pytest.mark.slow
def test_a_first_use_does_not_warn_either() -> None:
    """In a fresh process: libraries warn when they are imported."""
    program = """
import torch, defense
x, y = torch.rand(6, 1, 2, 2), torch.tensor([0, 1, 0, 1, 0, 1])
model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2))
for name in ("influence_function", "datainf", "ekfac"):
    defense.score(model, (x, y), (x, y), scorer=name)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "Warning" not in done.stderr


def test_no_warning_is_left_to_the_user() -> None:
    _, gradient, solve, curvature, spec = setting(Direction.cg, iterations=200, tolerance=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        solve(gradient, curvature, spec)
