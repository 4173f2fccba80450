from __future__ import annotations

import pytest

from defense.config.choices import Norm
from defense.config.schema import number


@pytest.mark.parametrize(
    ("text", "value"), [("0.1", 0.1), ("8/255", 8 / 255), ("8 / 255", 8 / 255), ("1e-3", 1e-3)]
)
def test_numbers_and_fractions(text: str, value: float) -> None:
    assert number(text) == value


@pytest.mark.parametrize("text", ["eight", "1/0", "nan", "8/255/3"])
def test_anything_else_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=text[:3]):
        number(text)


def test_a_choice_is_shown_by_its_value() -> None:
    assert f"{Norm.Linf}" == "Linf"
