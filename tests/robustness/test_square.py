from __future__ import annotations

from functools import cache

import pytest
import torch
import torchattacks
from torch import Tensor, nn

from defense.config.choices import Norm
from defense.config.schema import Threat
from defense.models.networks import cnn, mlp
from defense.robustness.square import hill, pyramid, side_at, square_attack

QUERIES = 210  # as far as the fourth size of squares
EPS = {Norm.Linf: 0.08, Norm.L2: 0.35}
FARTHER = {"cnn": 3, "mlp": 1}  # a cnn that averages over pixels is moved less


class Doubled(nn.Module):
    """A network in float64.

    Whether a margin is lower than the last must not hang on last digits, which differ between processors and with
    the size of a batch.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.double()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(x.double())
        return logits


def by_torchattacks(
    model: nn.Module, x: Tensor, labels: Tensor, threat: Threat, *, queries: int, seed: int
) -> Tensor:
    """torchattacks' Square with the schedule of the reference, squares that fit, and margins by logits alone."""
    search = torchattacks.Square(
        model, norm=threat.norm.value, eps=threat.eps, n_queries=queries, resc_schedule=False, seed=seed
    )
    shrinking, search.eta_rectangles = search.p_selection, cache(search.eta_rectangles)
    height, width = x.shape[-2:]
    largest = (min(height, width) - 1) ** 2 / (height * width)
    search.p_selection = lambda query: min(shrinking(query), largest)

    def margins(x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        logits = model(x)
        own, others = logits.gather(1, labels[:, None]), logits.scatter(1, labels[:, None], -torch.inf)
        found = own.squeeze(1) - others.amax(1)
        return found, found

    search.margin_and_loss = margins
    with torch.random.fork_rng(), torch.no_grad():
        found: Tensor = search(x, labels)
    return found


def task(
    kind: str, shape: tuple[int, int, int], seed: int, *, count: int = 30
) -> tuple[nn.Module, Tensor, Tensor]:
    """Return a net as it is initialised, pictures, and labels of which the first three are wrong."""
    torch.manual_seed(seed)
    common = {"input_shape": shape, "classes": 4, "mean": [0.5] * shape[0], "std": [0.3] * shape[0]}
    network = cnn(**common, width=4) if kind == "cnn" else mlp(**common, hidden=(32,))
    model, x = Doubled(network).eval(), torch.rand(count, *shape)
    with torch.no_grad():
        labels = model(x).argmax(1)
    labels[:3] = (labels[:3] + 1) % 4
    return model, x, labels


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("norm", list(Norm))
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 10, 6), (1, 6, 10), (1, 28, 28)])
@pytest.mark.parametrize("kind", ["cnn", "mlp"])
def test_gives_the_pictures_of_torchattacks(kind: str, shape: tuple[int, int, int], norm: Norm, seed: int) -> None:
    """The pictures are in float32 on both sides, by the same operations in the same order."""
    model, x, labels = task(kind, shape, seed)
    threat = Threat(norm, FARTHER[kind] * EPS[norm])
    ours = square_attack(model, x, labels, threat, queries=QUERIES, seed=seed)
    theirs = by_torchattacks(model, x, labels, threat, queries=QUERIES, seed=seed)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
    assert torch.equal((ours != x).flatten(1).any(1), (theirs != x).flatten(1).any(1))
    assert torch.equal(ours[:3], x[:3])


@pytest.mark.parametrize("norm", list(Norm))
def test_breaks_some_samples_at_once_some_later_and_some_never(norm: Norm) -> None:
    """Else the comparison above says little."""
    model, x, labels = task("mlp", (1, 8, 8), 0)
    threat = Threat(norm, EPS[norm])
    broken = [
        int((square_attack(model, x, labels, threat, queries=queries, seed=0) != x).flatten(1).any(1).sum())
        for queries in (0, QUERIES)
    ]
    assert 0 < broken[0] < broken[1] < 27


@pytest.mark.parametrize("kind", ["cnn", "mlp"])
def test_goes_through_all_stages_of_the_schedule(kind: str) -> None:
    """Squares become one pixel wide; most of these were tried before."""
    model, x, labels = task(kind, (1, 5, 5), 1, count=12)
    threat = Threat(Norm.Linf, 0.02)
    ours = square_attack(model, x, labels, threat, queries=2100, seed=3)
    theirs = by_torchattacks(model, x, labels, threat, queries=2100, seed=3)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


class Counting(nn.Module):
    """Logits of class 0 alone, which nothing changes; `noise` is what is drawn on top."""

    def __init__(self, noise: float) -> None:
        super().__init__()
        self.noise, self.asked = noise, 0
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.asked += len(x)
        logits = torch.tensor([10.0, 0.0]).repeat(len(x), 1)
        return logits + self.noise * torch.rand_like(logits)


@pytest.mark.parametrize("norm", list(Norm))
def test_asks_once_about_each_picture_unless_the_model_draws_at_random(norm: Norm) -> None:
    x, labels = torch.full((4, 1, 6, 6), 0.5), torch.zeros(4, dtype=torch.int64)
    asked = {}
    for noise in (0.0, 0.1):
        model = Counting(noise)
        square_attack(model, x, labels, Threat(norm, 0.1), queries=1200, seed=0)
        asked[noise] = model.asked
    everything = 4 * (1200 + 1 + 3)  # the queries, the start, twice as it is, and what was found
    assert asked[0.1] == everything
    assert asked[0.0] < 0.3 * everything if norm is Norm.Linf else asked[0.0] == everything


def test_leaves_the_generator_and_the_pictures_alone() -> None:
    model, x, labels = task("mlp", (1, 8, 8), 0)
    before, state = x.clone(), torch.random.get_rng_state()
    found = square_attack(model, x, labels, Threat(Norm.L2, 0.35), queries=20, seed=0)
    assert torch.equal(x, before)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not found.is_inference()


def test_a_margin_of_zero_is_no_mistake() -> None:
    """Two equal logits: the first class is taken, and the picture comes back as it was."""

    class Equal(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.zeros(len(x), 2)

    x, labels = torch.full((3, 1, 6, 6), 0.5), torch.zeros(3, dtype=torch.int64)
    assert torch.equal(square_attack(Equal(), x, labels, Threat(Norm.Linf, 0.1), queries=5, seed=0), x)


def test_hills_by_the_formula_of_the_paper() -> None:
    for height, width in ((3, 3), (2, 5), (3, 7), (1, 1)):
        middle = (height // 2, width // 2)
        rings = max(height, width) // 2
        heights = torch.tensor(
            [
                [
                    sum(
                        1 / (k + 1) ** 2
                        for k in range(max(abs(row - middle[0]), abs(column - middle[1])), rings + 1)
                    )
                    for column in range(width)
                ]
                for row in range(height)
            ]
        )
        torch.testing.assert_close(hill(height, width), heights / heights.norm())
    for halves in pyramid(7, torch.device("cpu")):
        assert float(halves.norm()) == pytest.approx(1)
        assert {float(value) for value in halves.sign().unique()} == {-1, 1}


def test_squares_shrink_and_stay_smaller_than_the_picture() -> None:
    sides = [side_at(query, 28, 28) for query in range(9000)]
    assert sides == sorted(sides, reverse=True)
    assert sides[:12] == [25] * 11 + [18]  # sqrt(0.8) and sqrt(0.4) of 28
    assert sides[-1] == 1
    for height, width in ((3, 3), (5, 9), (28, 28), (6, 10)):
        for query in (0, 11, 501, 8001):
            assert 1 <= side_at(query, height, width) <= max(1, min(height, width) - 1)
            odd = side_at(query, height, width, odd=True)
            assert odd % 2 == 1
            assert 3 <= odd <= min(height, width)


@pytest.mark.parametrize("norm", list(Norm))
def test_logits_that_are_not_finite_are_said_at_the_start(norm: Norm) -> None:
    """A dropped row would shift all others."""
    x, labels = torch.full((3, 1, 8, 8), 0.5), torch.zeros(3, dtype=torch.int64)

    def overflowing(given: Tensor) -> Tensor:
        moved = (given - x[: len(given)]).flatten(1).abs().amax(1) > 0
        grown = torch.where(moved & (torch.arange(len(given)) == 1), torch.inf, 1.0)
        return torch.stack([grown, torch.zeros_like(grown)], dim=1)

    with pytest.raises(FloatingPointError, match="logits that are not finite"):
        square_attack(overflowing, x, labels, Threat(norm, 0.1), queries=5, seed=0)  # type: ignore[arg-type]
