"""FAB beside torchattacks' own, pair by pair, and its projections beside solvers in float64."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
import torch
import torchattacks
from scipy.optimize import brentq, linprog
from sklearn.datasets import load_digits
from torch import Tensor, nn

from defense.config.choices import Norm
from defense.config.schema import Threat
from defense.models.modes import frozen
from defense.models.networks import cnn, mlp
from defense.robustness.ball import distance
from defense.robustness.fab import fab, to_hyperplane

STEPS, SAMPLES = 20, 40
# Rounding may decide whether a point is mistaken, and both then go on from other points. Pictures moved by 1e-7
# change torchattacks' own distance by some percent for one pair in thousands. So pairs within NEAR of eps are not
# compared, and of all others of a test STRAYS may differ. The first steps are compared point by point.
NEAR, STRAYS = 1e-3, 2
SHARES = (0.3, 0.7)  # of pairs that are to be broken
NETWORKS = {"cnn": (cnn, {"width": 4}), "mlp": (mlp, {"hidden": [32]})}


def by_torchattacks(
    model: nn.Module, x: Tensor, labels: Tensor, targets: Tensor, threat: Threat, *, steps: int
) -> Tensor:
    """Return pictures moved to the nearest mistake that torchattacks' FAB finds, if that is within eps."""
    attack = torchattacks.FAB(model, norm=threat.norm.value, eps=threat.eps, steps=steps, n_restarts=1, seed=0)
    attack.set_mode_targeted_by_function(lambda *_: targets, quiet=True)
    moved: Tensor = attack(x, labels)
    return moved


@cache
def digits(classes: int) -> tuple[Tensor, Tensor]:
    """Return pictures (n, 1, 8, 8) in [0, 1] and their labels, modulo `classes`."""
    pictures, labels = load_digits(return_X_y=True)
    return torch.from_numpy(pictures).float().view(-1, 1, 8, 8) / 16, torch.from_numpy(labels) % classes


@cache
def network(name: str, classes: int, seed: int) -> nn.Module:
    """Return a network in eval mode after some steps on digits."""
    torch.manual_seed(seed)
    make, settings = NETWORKS[name]
    model = make(input_shape=(1, 8, 8), classes=classes, mean=[0.3], std=[0.35], **settings)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    x, labels = digits(classes)
    for _ in range(30):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[:300]), labels[:300]).backward()
        optimizer.step()
    return model.eval()


def pairs(model: nn.Module, classes: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return pictures with labels that the model gives them, and for each another class."""
    chance = torch.Generator().manual_seed(seed)
    x = digits(classes)[0][300:][torch.randperm(1000, generator=chance)[:SAMPLES]]
    with torch.no_grad():
        labels = model(x).argmax(1)
    return x, labels, (labels + torch.randint(1, classes, (SAMPLES,), generator=chance)) % classes


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("norm", list(Norm))
@pytest.mark.parametrize("classes", [2, 3, 10])
@pytest.mark.parametrize("name", list(NETWORKS))
def test_the_same_pairs_are_broken_as_by_torchattacks(name: str, classes: int, norm: Norm, seed: int) -> None:
    model, strays = network(name, classes, seed), 0
    x, labels, targets = pairs(model, classes, seed)
    with frozen(model):
        found = by_torchattacks(model, x, labels, targets, Threat(norm, 100), steps=STEPS)
        shortest = distance(x, found, norm)
        shortest[shortest == 0] = torch.inf  # no mistake at any distance
        for share in SHARES:
            eps = float(shortest.quantile(share))
            assert math.isfinite(eps)
            moved = fab(model, x, labels, targets, Threat(norm, eps), steps=STEPS)
            broken = model(moved).argmax(1) != labels
            assert (distance(x, moved, norm)[broken] <= eps).all()
            assert torch.equal(moved[~broken], x[~broken])
            strays += int(((broken != (shortest <= eps)) & ((shortest / eps - 1).abs() > NEAR)).sum())
    assert strays <= STRAYS


class Recorder(nn.Module):
    """A model that keeps the pictures at which it is asked for a gradient."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.seen = model, list[Tensor]()

    def forward(self, x: Tensor) -> Tensor:
        if x.requires_grad:
            self.seen.append(x.detach().clone())
        logits: Tensor = self.model(x)
        return logits


@pytest.mark.parametrize("norm", list(Norm))
@pytest.mark.parametrize("name", list(NETWORKS))
def test_the_first_steps_are_those_of_torchattacks(name: str, norm: Norm) -> None:
    model, seen = network(name, 10, 0), []
    x, labels, targets = pairs(model, 10, 0)
    for attack in (fab, by_torchattacks):
        recorder = Recorder(model).eval()
        with frozen(recorder):
            attack(recorder, x, labels, targets, Threat(norm, 1e-6), steps=6)
        seen.append(torch.stack(recorder.seen))
    ours, theirs = seen
    assert ours.shape == theirs.shape == (6, *x.shape)
    assert (theirs[1:] - theirs[:-1]).flatten(2).abs().amax(2).median() > 1e-3  # there is a way to differ in
    same = (ours - theirs).flatten(2).abs().amax(2) < 1e-4
    assert same.all(0).float().mean() >= 0.9  # see STRAYS


def test_a_linear_model_is_mistaken_just_beyond_its_boundary() -> None:
    """Two classes, logits +-<w, x - 1/2> and no pixel at an end of [0, 1]: the distance is known."""
    torch.manual_seed(0)
    w = torch.randn(16)
    layer = nn.Linear(16, 2)
    layer.weight.data, layer.bias.data = torch.stack([-w, w]), torch.stack([w.sum(), -w.sum()]) / 2
    model = nn.Sequential(nn.Flatten(), layer).requires_grad_(False)
    x = 0.5 + 0.2 * (torch.rand(30, 1, 4, 4) - 0.5)
    labels = model(x).argmax(1)
    for norm, size in ((Norm.Linf, w.abs().sum()), (Norm.L2, w.norm())):
        nearest = ((x.flatten(1) - 0.5) @ w).abs() / size
        eps = float(nearest.median())
        moved = fab(model, x, labels, 1 - labels, Threat(norm, eps), steps=30)
        broken = model(moved).argmax(1) != labels
        assert broken[nearest < 0.99 * eps].all()
        assert not broken[nearest > eps].any()


def hyperplanes(seed: int, dtype: torch.dtype, *, most: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return points (2, 8, 24), normals (8, 24) and gaps (2, 8) of up to `most` of what the box has room for.

    Of the points many lie at an end of [0, 1]; of the normals some are zero.
    """
    chance = torch.Generator().manual_seed(seed)
    points = (1.6 * torch.rand((2, 8, 24), generator=chance, dtype=dtype) - 0.3).clamp(0, 1)
    normals = torch.randn((8, 24), generator=chance, dtype=dtype)
    normals[:, :3] = 0
    signs = torch.tensor([[1.0], [-1]], dtype=dtype)
    room = ((signs.unsqueeze(2) * normals > 0).to(dtype) - points) * normals
    share = most * torch.rand((2, 8), generator=chance, dtype=dtype)
    return points, normals, share * room.sum(2)


def shortest_linf(point: np.ndarray, normal: np.ndarray, gap: float) -> float:
    """Return the least t with |d_i| <= t, as a linear program in (d, t)."""
    count = len(point)
    bound = np.hstack([np.vstack([np.eye(count), -np.eye(count)]), -np.ones((2 * count, 1))])
    found = linprog(
        np.eye(count + 1)[-1],
        A_ub=bound,
        b_ub=np.zeros(2 * count),
        A_eq=np.append(normal, 0)[None],
        b_eq=[gap],
        bounds=[*zip(-point, 1 - point, strict=True), (0, None)],
    )
    return float(found.fun)


def shortest_l2(point: np.ndarray, normal: np.ndarray, gap: float) -> np.ndarray:
    """Return d = clip(m w, -p, 1 - p) at the multiplier m where <w, d> = gap, by bisection."""

    def way(multiplier: float) -> np.ndarray:
        return np.clip(multiplier * normal, -point, 1 - point)

    return way(brentq(lambda multiplier: way(multiplier) @ normal - gap, -1e4, 1e4, xtol=1e-13))


@pytest.mark.parametrize(("dtype", "error"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_ways_to_hyperplanes_are_the_shortest(seed: int, dtype: torch.dtype, error: float) -> None:
    points, normals, gaps = hyperplanes(seed, dtype, most=0.9)
    for norm in Norm:
        ways = to_hyperplane(points, normals, gaps, norm)
        torch.testing.assert_close((ways * normals).sum(2), gaps, atol=error, rtol=error)
        assert (points + ways).min() >= -1e-6
        assert (points + ways).max() <= 1 + 1e-6
        for k, row in np.ndindex(*gaps.shape):
            way = ways[k, row].double().numpy()
            given = (points[k, row].double().numpy(), normals[row].double().numpy(), float(gaps[k, row]))
            if norm is Norm.Linf:
                assert np.abs(way).max() == pytest.approx(shortest_linf(*given), abs=error)
            else:
                np.testing.assert_allclose(way, shortest_l2(*given), atol=error)


@pytest.mark.parametrize("norm", list(Norm))
def test_a_hyperplane_beyond_the_box_leads_to_a_corner(norm: Norm) -> None:
    points, normals, gaps = hyperplanes(0, torch.float32, most=0.5)
    ways = to_hyperplane(points, normals, 1e3 * gaps.sign(), norm)
    corner = (normals * gaps.sign().unsqueeze(2) > 0).float()
    reached = torch.where(normals == 0, points, corner)
    torch.testing.assert_close(points + ways, reached)


@pytest.mark.parametrize("norm", list(Norm))
def test_no_normal_and_no_gap_move_nothing_and_nan_ends(norm: Norm) -> None:
    points, normals, gaps = hyperplanes(0, torch.float32, most=0.5)
    assert not to_hyperplane(points, 0 * normals, gaps, norm).any()
    assert not to_hyperplane(points, normals, 0 * gaps, norm).any()
    normals[1] = torch.nan
    ways = to_hyperplane(points, normals, gaps, norm)
    expected = to_hyperplane(points, normals.nan_to_num(0), gaps, norm)
    rows = [0, *range(2, 8)]
    torch.testing.assert_close(ways[:, rows], expected[:, rows])


def test_a_model_without_finite_logits_leaves_pictures_as_they_were() -> None:
    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)[:, :3] * torch.nan

    x = torch.rand(4, 1, 3, 3)
    labels = torch.tensor([0, 1, 2, 0])
    moved = fab(Broken(), x, labels, (labels + 1) % 3, Threat(Norm.L2, 0.5), steps=3)
    assert torch.equal(moved, x)
