"""The dense Hessian against torch's own, closed forms, and the Gauss-Newton matrix where both are the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from defense.config.choices import Direction
from defense.errors import InputError
from defense.influence.curvature import Curvature
from defense.influence.directions import DIRECTIONS, angle_between, direction_of
from defense.influence.hessian import Tridiagonal, mean_hessian
from defense.influence.members import dropout, single
from tests.conftest import doubles, make_split, scorer
from tests.reference import flat, gauss_newton

TRAIN = doubles(make_split(20, 3, (1, 3, 3)))


def network(*, hidden: bool = True) -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Linear(9, 5), nn.Tanh(), nn.Linear(5, 3)] if hidden else [nn.Linear(9, 3)]
    return nn.Sequential(nn.Flatten(), *layers).double().eval()


def gradient_like(model: nn.Module) -> dict[str, Tensor]:
    chance = torch.Generator().manual_seed(1)
    return {n: torch.randn(p.shape, generator=chance, dtype=p.dtype) for n, p in model.named_parameters()}


def autograd_hessian(model: nn.Module) -> Tensor:
    """Return the Hessian by torch.autograd.functional, of the mean loss over all samples at once."""
    named = {name: value.detach() for name, value in model.named_parameters()}
    x = TRAIN.images.take(torch.arange(20))

    def loss(values: Tensor) -> Tensor:
        parts = values.split([value.numel() for value in named.values()])
        own = {name: part.view(value.shape) for (name, value), part in zip(named.items(), parts, strict=True)}
        return F.cross_entropy(functional_call(model, own, (x,)), TRAIN.labels)

    return torch.autograd.functional.hessian(loss, flat(named))


@pytest.mark.parametrize("batch_size", [7, 20])
def test_it_is_the_hessian_that_torch_finds(batch_size: int) -> None:
    model = network()
    found = mean_hessian(model, single(model), TRAIN, batch_size=batch_size)
    torch.testing.assert_close(found, autograd_hessian(model), rtol=1e-10, atol=1e-12)
    assert torch.equal(found, found.T)


def test_its_direction_is_the_solution_of_the_dense_system() -> None:
    model, dense = network(), autograd_hessian(network())
    gradient = gradient_like(model)
    curvature = Curvature(model, single(model), TRAIN, batch_size=7)
    lowest = float(torch.linalg.eigvalsh(dense)[0])
    assert lowest < -1e-3  # so this is no Gauss-Newton matrix
    for damping in (0.001, 0.05, 2.0):
        found, record = direction_of(gradient, curvature, scorer(direction=Direction.hessian, damping=damping))
        damped = dense + damping * torch.eye(len(dense), dtype=torch.float64)
        expected = torch.linalg.solve(damped, flat(gradient))
        torch.testing.assert_close(flat(found), expected, rtol=1e-7, atol=1e-9)
        cosine = torch.cosine_similarity(expected, flat(gradient), dim=0)
        assert record["angle to grad v"] == pytest.approx(float(torch.rad2deg(cosine.arccos())))
        assert record["lowest eigenvalue"] == pytest.approx(lowest)


def test_of_a_logistic_regression_it_is_what_conjugate_gradient_finds() -> None:
    """There the Hessian is the Gauss-Newton matrix, which has a closed form: x x^T (diag p - p p^T)."""
    model = network(hidden=False)
    member = single(model)
    torch.testing.assert_close(mean_hessian(model, member, TRAIN, batch_size=7), gauss_newton(model, TRAIN))
    gradient, curvature = gradient_like(model), Curvature(model, member, TRAIN, batch_size=7)
    spec = scorer(damping=0.05, iterations=500, tolerance=1e-12)
    directions = [DIRECTIONS[name](gradient, curvature, spec)[0] for name in (Direction.hessian, Direction.cg)]
    torch.testing.assert_close(flat(directions[0]), flat(directions[1]), rtol=1e-8, atol=1e-10)


def test_single_precision_is_exact_enough() -> None:
    model = network()
    exact = mean_hessian(model, single(model), TRAIN, batch_size=20)
    short = network().float()
    found = mean_hessian(short, single(short), make_split(20, 3, (1, 3, 3)), batch_size=20)
    assert found.dtype == torch.float64
    assert float((found - exact).abs().max() / exact.abs().max()) < 1e-6


def test_a_sub_network_has_a_hessian_of_its_own() -> None:
    """What no mask lets through has no effect on the loss, so its rows are zero."""
    model = network()
    x = TRAIN.images.take(torch.arange(2))
    member = dropout(single(model), model, x, count=2, max_rate=0.9, seed=1)[1]
    closed = (member.masks["1"] == 0).nonzero().flatten()
    assert len(closed)
    found = mean_hessian(model, member, TRAIN, batch_size=20)[: 5 * 9].view(5, 9, -1)  # of the first weights
    assert float(found[:, closed].abs().max()) == 0
    assert float(found.abs().max()) > 0


def test_a_tridiagonal_form_is_inverted_for_any_damping() -> None:
    rng = np.random.default_rng(0)
    matrix, right = rng.standard_normal((40, 40)), rng.standard_normal(40)
    matrix += matrix.T
    form = Tridiagonal.of(torch.from_numpy(matrix))
    assert form.lowest == pytest.approx(np.linalg.eigvalsh(matrix)[0])
    for damping in (0.0, 0.3, 100.0):
        expected = np.linalg.solve(matrix + damping * np.eye(40), right)
        np.testing.assert_allclose(form.solve(right, damping), expected, rtol=1e-9)
    with pytest.raises(InputError, match=r"scorer\.damping=1\.0: expected another: H \+ damping I is singular"):
        Tridiagonal.of(-torch.eye(3, dtype=torch.float64)).solve(np.ones(3), 1.0)


def test_a_network_that_is_too_large_is_an_error() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(9, 600))
    with pytest.raises(InputError, match=r"hessian: the dense Hessian of 6000 parameters .* at most 5000, or cg"):
        mean_hessian(model, single(model), TRAIN, batch_size=7)


def test_angles() -> None:
    one = {"a": torch.tensor([1.0, 0.0]), "b": torch.tensor([0.0])}
    for other, degrees in (([1.0, 0.0], 0), ([1.0, 1.0], 45), ([0.0, 3.0], 90), ([-2.0, 0.0], 180)):
        assert angle_between(one, {"b": torch.zeros(1), "a": torch.tensor(other)}) == pytest.approx(
            degrees, abs=1e-4
        )


def test_a_second_derivative_that_torch_has_wrong_is_an_error_or_right() -> None:
    """That of weight_norm, which torch 2.14 has wrong: beside the same function by hand."""
    torch.manual_seed(0)
    layer = nn.utils.parametrizations.weight_norm(nn.Linear(9, 4))
    model = nn.Sequential(nn.Flatten(), layer, nn.Tanh(), nn.Linear(4, 3)).double()
    expected = by_differences(model)
    found, said = expected, "torch's second derivative of Sequential is not symmetric"
    try:
        found = mean_hessian(model, single(model), TRAIN, batch_size=7)
    except InputError as error:
        said = str(error)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    assert "torch's second derivative of Sequential is not symmetric" in said


def by_differences(model: nn.Module) -> Tensor:
    """Return the Hessian by central differences of the gradient of the mean loss."""
    values = flat(single(model).parameters)

    def gradient(at: Tensor) -> Tensor:
        nn.utils.vector_to_parameters(at, model.parameters())
        loss = F.cross_entropy(model(TRAIN.images.take(torch.arange(len(TRAIN)))), TRAIN.labels)
        return torch.cat([each.flatten() for each in torch.autograd.grad(loss, list(model.parameters()))])

    steps = torch.eye(len(values), dtype=values.dtype) * 1e-5
    return torch.stack([(gradient(values + step) - gradient(values - step)) / 2e-5 for step in steps])
