"""Equal values have one form in keys, and different ones have not."""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from defense.config.choices import Norm
from defense.store.fingerprint import canonical, differences, key_of
from tests.conftest import changed, recipe


@dataclass
class Pair:
    one: Any
    other: Any


ALIKE = [
    (1, 1.0, np.int64(1), np.float32(1), torch.tensor([1]).tolist()[0]),
    (0, 0.0, -0.0, np.float64(-0.0)),
    (0.1, np.float64(0.1)),
    ("Linf", Norm.Linf),
    ("a/b", Path("a/b")),
    ({"a": 1, "b": 2}, OrderedDict(b=2, a=1), {"b": 2.0, "a": True + 0}),
    ([1, 2], (1, 2)),
    ([1, 2], {2, 1}, frozenset({1, 2})),
    ({"one": 1, "other": 2}, Pair(1, 2.0)),
    (torch.arange(6.0).view(2, 3), torch.arange(6.0).view(3, 2).t().contiguous().t().reshape(2, 3) * 0
     + torch.arange(6.0).view(2, 3), np.arange(6, dtype=np.float32).reshape(2, 3)),
]  # fmt: skip
APART = [
    (1, True, "1", [1], {"1": 1}, None),
    (0.1, float(np.float32(0.1))),
    (float("nan"), float("inf"), float("-inf"), 0),
    ([1, 2], [2, 1]),
    (torch.zeros(2), torch.zeros(2, dtype=torch.float64), torch.zeros(1, 2), torch.zeros(3), torch.ones(2)),
    (torch.zeros(2), -torch.zeros(2)),  # tensors count by their bits
    (Pair(1, 2), Pair(2, 1)),
    (float("nan"), "nan"),
    ({1: 0}, {"1": 0}, {None: 0}),
    (pd.DataFrame({"a": [1, 2]}), pd.DataFrame({"a": [2, 1]}), pd.DataFrame({"b": [1, 2]})),
    (pd.DataFrame({"a": ["x", None]}), pd.DataFrame({"a": ["x", ""]})),
]


@pytest.mark.parametrize("values", ALIKE, ids=lambda values: repr(values[0])[:30])
def test_equal_values_have_one_form(values: tuple[Any, ...]) -> None:
    assert len({json.dumps(canonical(value), sort_keys=True) for value in values}) == 1
    assert len({key_of({"a": value}) for value in values}) == 1


@pytest.mark.parametrize("values", APART, ids=lambda values: repr(values[0])[:30])
def test_different_values_have_not(values: tuple[Any, ...]) -> None:
    assert len({key_of({"a": value}) for value in values}) == len(values)


OTHERS = [len, lambda: 0, (n for n in range(3)), object(), torch.nn.ReLU(), 1j, b"x", int]


@pytest.mark.parametrize("value", OTHERS, ids=lambda value: type(value).__name__)
def test_other_things_are_refused_by_their_type(value: Any) -> None:
    kind = re.escape(type(value).__name__)
    with pytest.raises(TypeError, match=rf"^key\.settings\.0: a {kind} cannot be part of a key$"):
        canonical({"settings": [value]})


def test_settings_count_by_what_they_read() -> None:
    assert canonical(recipe(beta=3.0)) == canonical(recipe())
    assert "beta" not in canonical(recipe())
    assert canonical(recipe(epochs=7)) != canonical(recipe())
    spec = changed("scorer=loss").scorer
    assert canonical(replace(spec, damping=9.0)) == canonical(spec)


def test_a_form_is_its_own_form() -> None:
    value = {"a": [1.5, float("nan"), None, {"b": torch.zeros(2)}]}
    assert canonical(canonical(value)) == canonical(value)


def test_differences_name_what_differs() -> None:
    first, second = {"a": {"b": 1, "c": [1]}, "d": 2}, {"a": {"b": 1, "c": [2]}, "e": 3}
    assert differences(first, second) == ["a.c: [1], [2]", "d: 2, null", "e: null, 3"]
    assert differences(first, first) == []
