from __future__ import annotations

import pytest

from defense.config.choices import AttackName, Norm
from defense.config.schema import Attack, Threat, as_fraction, positive
from defense.errors import InputError


@pytest.mark.parametrize(
    ("value", "parsed"),
    [("0.1", 0.1), ("8/255", 8 / 255), ("8 / 255", 8 / 255), ("1e-3", 1e-3), (0.5, 0.5), (1, 1.0)],
)
def test_numbers_and_fractions(value: float | str, parsed: float) -> None:
    assert positive("eps", value) == parsed
    assert Threat(Norm.Linf, value) == Threat(Norm.Linf, parsed)  # type: ignore[arg-type]
    assert Attack(AttackName.pgd, step_size=value).step_size == parsed  # type: ignore[arg-type]


@pytest.mark.parametrize("value", ["eight", "1/0", "nan", "inf", "8/255/3", "0", "-1/2", -0.1, None, float("nan")])
def test_anything_else_is_an_error(value: object) -> None:
    with pytest.raises(InputError, match=r"^threat.eps=.*: expected a number above 0, as in 0.1 or 8/255"):
        Threat(Norm.Linf, value)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["8/255", "1/255", "0.1", "0.5", "0.2", "1", "0.0333"])
def test_a_fraction_of_255_is_shown_as_such(text: str) -> None:
    assert as_fraction(positive("eps", text)) == text


def test_a_choice_is_shown_by_its_value() -> None:
    assert f"{Norm.Linf}" == "Linf"
