"""A step of weights along their metagradient, beside bounds that are found in another way."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq

from defense.metagradients.descent import HEAVIEST, rescale, step_weights

POSITIVE = st.lists(st.floats(1e-6, 1e3), min_size=2, max_size=40)


@given(POSITIVE)
def test_bounded_weights_are_a_multiple_cut_at_five_with_mean_one(values: list[float]) -> None:
    weights = torch.tensor(values, dtype=torch.float64)

    def excess(scale: float) -> float:
        return float((scale * weights).clamp(max=HEAVIEST).mean()) - 1

    scale = brentq(excess, 0, HEAVIEST / min(values), xtol=1e-14, rtol=1e-14)
    np.testing.assert_allclose(rescale(weights), (scale * weights).clamp(max=HEAVIEST), rtol=1e-8)


def test_a_few_heavy_weights_are_cut_and_the_others_share_the_rest() -> None:
    found = rescale(torch.tensor([100.0, 50.0, *[1.0] * 18], dtype=torch.float64))
    np.testing.assert_allclose(found, [5, 5, *[10 / 18] * 18])


@given(st.lists(st.floats(-1e3, 1e3), min_size=3, max_size=40), st.floats(0.01, 2))
def test_a_step_lowers_the_weights_of_larger_derivatives(values: list[float], rate: float) -> None:
    derivative = torch.tensor(values, dtype=torch.float64)
    weights = step_weights(torch.ones(len(values)), derivative, rate)
    assert float(weights.mean()) == pytest.approx(1)
    assert float(weights.min()) >= 0
    assert float(weights.max()) <= HEAVIEST * (1 + 1e-12)
    order = derivative.argsort()
    assert bool((weights[order].diff() <= 1e-12).all())


def test_a_step_by_hand() -> None:
    """z of (1, -1, 3, -3, 0), whose mean is 0 and whose mean size is 1.6; a constant on top changes nothing."""
    derivative = torch.tensor([1.0, -1.0, 3.0, -3.0, 0.0])
    expected = np.exp(-0.5 * derivative.numpy() / 1.6)
    for constant in (0.0, 7.0):
        found = step_weights(torch.ones(5), derivative + constant, 0.5)
        np.testing.assert_allclose(found, expected / expected.mean(), rtol=1e-6)


def test_a_derivative_far_from_the_others_takes_no_more_than_three_average_steps() -> None:
    derivative = torch.zeros(1000)
    derivative[0] = 1.0
    found = step_weights(torch.ones(1000), derivative, 1.0)
    assert float(found[0] / found[1]) == pytest.approx(np.exp(-3 - 0.5), rel=1e-2)


def test_equal_derivatives_change_nothing() -> None:
    weights = torch.tensor([0.5, 1.5], dtype=torch.float64)
    torch.testing.assert_close(step_weights(weights, torch.tensor([2.0, 2.0]), 1.0), weights)
