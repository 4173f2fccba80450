"""Reduced precision: what it changes, what it puts back, and how it is judged."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from defense.config.choices import Method, ObjectiveName
from defense.config.schema import Objective, Scorer
from defense.data.validation import Validation
from defense.errors import InputError
from defense.influence.alignment import forward_derivative
from defense.influence.members import Member, dropout, single
from defense.influence.precision import check_precision, derivative_for, in_bf16, in_tf32, rank_correlation
from defense.influence.scorers import METHODS, ScoringContext, check_scorer
from defense.models.networks import cnn
from defense.runtime.progress import no_progress
from tests.calls import directional_derivatives
from tests.conftest import make_split, scorer
from tests.reference import inner_products

SHAPE = (3, 8, 8)
TRAIN, HELD_OUT = make_split(60, 4, SHAPE), make_split(20, 4, SHAPE, seed=1)
UTILITY = Objective({ObjectiveName.utility: 1.0}, positive=1)
CUDA = torch.device("cuda")


def network() -> nn.Module:
    torch.manual_seed(0)
    model = cnn(input_shape=SHAPE, classes=4, mean=[0.5] * 3, std=[0.3] * 3, width=8)
    with torch.no_grad():
        model(torch.rand(32, *SHAPE))
    return model.eval()


def problem(spec: Scorer) -> ScoringContext:
    return ScoringContext(network(), TRAIN, None, Validation(HELD_OUT, HELD_OUT), UTILITY, spec, 0)


def rank_correlation_by_hand(a: Tensor, b: Tensor) -> float:
    """Pearson's correlation of ranks; the values have no ties."""
    ranks = torch.stack([values.argsort().argsort().double() for values in (a, b)])
    return float(torch.corrcoef(ranks)[0, 1])


def test_bf16_is_close_and_records_how_close() -> None:
    expected = inner_products(network(), TRAIN, HELD_OUT)
    scored = METHODS[Method.alignment](problem(scorer(precision="bf16")))
    error = float((scored.total - expected).norm() / expected.norm())
    assert 1e-4 < error < 0.1  # 8 bits of mantissa, and not 24
    assert scored.total.dtype == torch.float32
    said = scored.record["model utility rank correlation to float32"]
    assert said == pytest.approx(rank_correlation_by_hand(scored.total, expected), abs=2e-3)
    assert 0.97 < said < 1
    exact = METHODS[Method.alignment](problem(scorer()))
    assert not any("rank correlation" in name for name in exact.record)


def test_bf16_reaches_the_masks_of_a_sub_network() -> None:
    model = network()
    member = dropout(single(model), model, TRAIN.images.take(torch.arange(2)), count=2, max_rate=0.5, seed=0)[1]
    direction = {name: torch.ones_like(value) for name, value in member.parameters.items()}
    found, expected = (
        directional_derivatives(
            model, member, TRAIN, direction, batch_size=16, progress=no_progress, derivative=derivative
        )
        for derivative in (in_bf16(forward_derivative), forward_derivative)
    )
    assert float((found - expected).norm() / expected.norm()) < 0.1


def test_scores_of_another_order_correlate_less() -> None:
    model, rows = network(), torch.arange(60)
    member = single(model)
    direction = {name: torch.ones_like(value) for name, value in member.parameters.items()}
    exact = directional_derivatives(model, member, TRAIN, direction, batch_size=16, progress=no_progress)
    for scores in (exact, -exact, exact.roll(1), exact + 0.3 * exact.std() * (rows % 3)):
        found = rank_correlation(scores, model, member, TRAIN, direction, batch_size=16)
        assert found == pytest.approx(rank_correlation_by_hand(scores, exact), abs=1e-6)


class Float32Inside(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(192, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.float().flatten(1))


def test_a_model_that_does_not_run_in_bf16_is_an_error() -> None:
    with pytest.raises(InputError, match=r"scorer.precision=bf16: this model does not run in it"):
        METHODS[Method.alignment](replace(problem(scorer(precision="bf16")), model=Float32Inside()))


@pytest.mark.parametrize("fails", [False, True])
def test_tf32_is_allowed_inside_and_put_back(fails: bool) -> None:
    def state() -> tuple[str, bool]:
        return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32

    seen: list[tuple[str, bool]] = []

    def derivative(model: nn.Module, member: Member, direction: object, x: Tensor, labels: Tensor) -> Tensor:
        seen.append(state())
        if fails:
            raise KeyError("stop")
        return labels.float()

    before, model = state(), network()
    try:
        in_tf32(derivative)(model, single(model), {}, torch.zeros(2), torch.zeros(2))
    except KeyError:
        assert fails
    assert seen == [("high", True)]
    assert state() == before


def test_tf32_has_no_effect_on_the_cpu_and_is_refused() -> None:
    spec = scorer(precision="tf32")
    with pytest.raises(InputError, match=r"scorer.precision=tf32: no effect on cpu; expected 32-true or bf16"):
        check_scorer(network(), HELD_OUT, UTILITY, spec, classes=3, noise_known=False)
    check_precision(spec, CUDA)
    assert derivative_for(scorer(), forward_derivative) is forward_derivative
