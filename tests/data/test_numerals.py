"""Numbers as people write them, read back against the numbers that were written."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from defense.data.numerals import notation_of, numerals, points_are_of_thousands

NUMBERS = [-1234567.5, -0.25, 0.0, 3.5, 12.0, 950.0, 1200.0, 98765.25]


def swapped(text: str) -> str:
    return text.translate(str.maketrans(",.", ".,"))


@pytest.mark.parametrize(
    "write",
    [
        lambda x: f"{x:.2f}".replace(".", ","),
        lambda x: f"{x:,.2f}",
        lambda x: swapped(f"{x:,.2f}"),
        lambda x: f"{x:,.2f}".replace(",", "'"),
        lambda x: swapped(f"{x:,.2f}".replace(",", "\u202f")),
        lambda x: f"€ {x:.2f}",
        lambda x: f"-${-x:,.2f}" if x < 0 else f"${x:,.2f}",
        lambda x: f"({-x:.2f})" if x < 0 else f"{x:.2f}",
        lambda x: f"{-x:.2f}-" if x < 0 else f"{x:.2f}",
        lambda x: f"{x:.2f}".replace("-", "\u2212"),
        lambda x: f"{x:.2f} %",
        lambda x: f"{x:.2f}mg/dl",
        lambda x: f"CHF {x:,.2f}".replace(",", "'"),
        lambda x: f"{x:.4e}".replace(".", ","),
    ],
)
def test_what_is_written_is_read(write: Callable[[float], str]) -> None:
    texts = [write(number) for number in NUMBERS]
    notation = notation_of(texts)
    assert notation is not None
    np.testing.assert_allclose([notation.read(text) for text in texts], NUMBERS, rtol=1e-3)


@pytest.mark.parametrize(
    "texts",
    [
        ["1,234", "2,345"],  # thousands, or three decimals
        ["1,5", "2.5"],
        ["3 kg", "500 g"],
        ["3", "3 kg"],
        ["1,2,3"],
        ["12", "clerk"],
    ],
)
def test_what_can_be_read_in_two_ways_is_not_read(texts: list[str]) -> None:
    assert notation_of(texts) is None


def test_a_text_in_another_notation_is_no_number() -> None:
    notation = notation_of(["1,5", "2,25"])
    assert notation is not None
    assert [text for text in ("2.5", "2,5 kg", "two") if not np.isnan(notation.read(text))] == []


@pytest.mark.parametrize(
    "text", ["clerk", "0042-AB", "A12", "18-25", "4x4", "2024-05-01", "12A3", "1.2.3.4", "36+", ""]
)
def test_codes_are_no_numbers(text: str) -> None:
    assert numerals([text]) == []


def test_three_decimals_settle_themselves() -> None:
    assert points_are_of_thousands(["950", "1.200", "12.500"])
    assert not points_are_of_thousands(["950", "1.2", "12.500"])
    assert not points_are_of_thousands(["0.250", "3"])
    assert not points_are_of_thousands(["1.250", "3.125"])
    written = notation_of(["0,250", "1,125"])
    assert written is not None
    assert written.read("1,125") == 1.125
