from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from defense.errors import InputError
from defense.schema import Treat, TreatmentName
from defense.stages.treat import treat, untreated
from tests.conftest import make_split

SPLIT = make_split(40, 2, (1, 2, 2))


@given(st.lists(st.floats(-5, 5), min_size=40, max_size=40), st.floats(0, 0.45))
def test_the_lowest_go_and_as_many_as_the_budget_says(values: list[float], budget: float) -> None:
    scores = np.array(values)
    keep = treat(SPLIT, scores, Treat(TreatmentName.remove, budget=budget)).table["keep"].to_numpy()
    assert (~keep).sum() == round(budget * 40)
    if keep.any() and not keep.all():
        assert scores[~keep].max() <= scores[keep].min()


def test_nothing_else_changes() -> None:
    table = treat(SPLIT, np.arange(40.0), Treat(TreatmentName.remove, budget=0.25)).table
    expected = untreated(SPLIT).table
    assert table["id"].tolist() == list(range(40))
    assert not table["keep"][:10].any()
    for column in ("id", "label", "weight"):
        assert table[column].tolist() == expected[column].tolist()
    assert expected["keep"].all()


def test_a_class_must_not_vanish() -> None:
    scores = np.where(np.arange(40) % 2 == 0, -1.0, 1.0)
    with pytest.raises(InputError, match=r"treatment.budget=0.5: removes every sample of class 0"):
        treat(SPLIT, scores, Treat(TreatmentName.remove, budget=0.5))
