"""What columns are, and which are refused: each refusal names the setting that settles it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser

from defense.data.kinds import feature, names_rows
from defense.data.refusals import quoted
from defense.errors import InputError
from tests.conftest import data
from tests.data.test_table import loaded, people

ROWS = 60


def column(texts: list[str]) -> pd.Series:
    return pd.Series(texts, name="wage", dtype=object)


def each(make: Callable[[int], object]) -> list[str]:
    return [str(make(row)) for row in range(ROWS)]


def said(texts: list[str], **changes: Any) -> str:
    """Return what is said against a column, nothing if it is taken."""
    complaint = feature(column(texts), data(**changes)).complaint
    return complaint.said if complaint else ""


REFUSED = {
    "decimal commas": (
        each(lambda i: f"{i * 7},5"),
        "60 values that are no plain numbers, as 0,5: decimal commas",
    ),
    "some of them": (["1,5", *each(lambda i: i / 8)], "has 1 values that are no plain numbers, as 1,5: decimal"),
    "few of them": (each(lambda i: f"{i % 4},5"), "as 0,5: decimal commas"),
    "thousands": (each(lambda i: f"{i * 173 + 900:,}"), "separators of thousands"),
    "narrow blanks": (each(lambda i: f"{i * 173 + 9000:,}".replace(",", "\u202f")), "separators of thousands"),
    "points of thousands": (each(lambda i: f"{i * 100:,}".replace(",", ".")), "points seem to be separators"),
    "currency": (each(lambda i: f"$ {i}.50"), "as $ 0.50: a currency or a unit"),
    "unit": (each(lambda i: f"{i} kg"), "as 0 kg: a currency or a unit"),
    "per cent of few": (each(lambda i: f"{i % 3} %"), "a currency or a unit"),
    "brackets": (each(lambda i: f"({i}.5)" if i % 2 else f"{i}.5"), "brackets for a minus"),
    "words among numbers": (["offen"] * 90 + each(lambda i: i * 3), "value offen in 90 rows among numbers"),
    "names": (each(lambda i: f"Miller {i}"), "has 60 values in 60 rows, as Miller 0: too many to be categories"),
    "names, twice each": (each(lambda i: f"Miller {i // 2}"), "has 30 values in 60 rows"),
    "addresses": (each(lambda i: f"p{i % 25}@mail.org") * 3, "has addresses or keys, as p0@mail.org"),
    "dates": (each(lambda i: f"2024-{i % 12 + 1:02}-{i % 28 + 1:02}"), "dates or times in 60 rows, as 2024-01-01"),
    "few dates": (each(lambda i: f"{i % 3 + 1}.1.2024"), "dates or times in 60 rows"),
    "American": (each(lambda i: f"12/{i % 28 + 1}/2024 10:30 PM"), "dates or times in 60 rows"),
    "in words": (each(lambda i: f"{i % 28 + 1} Jan 2024"), "dates or times in 60 rows"),
    "stamps": (each(lambda i: f"2024-05-01T10:{i:02}:00.5+02:00"), "dates or times in 60 rows"),
    "times": (each(lambda i: f"10:{i:02}"), "dates or times in 60 rows"),
    "rows from 0": (each(lambda i: i), "has 60 whole numbers in 60 rows, 0 to 59: it seems to number them"),
    "shuffled from 1": (each(lambda i: i * 7 % ROWS + 1), "it seems to number them"),
    "in steps": (each(lambda i: 1000 * i), "it seems to number them"),
    "with gaps": (each(lambda i: i + i // 3), "it seems to number them"),
    "one twice": (["5", *each(lambda i: i)], "has 60 whole numbers in 61 rows"),
}
TAKEN = {
    "numbers": each(lambda i: i * 37 % 50 + 0.5),
    "ages": each(lambda i: 20 + i * 37 % 50),
    "large amounts": [str(n) for n in np.random.default_rng(0).integers(0, 10**6, ROWS)],
    "few units": each(lambda i: f"{i % 3} doors"),
    "ordinals": each(lambda i: ["1st", "2nd", "3rd"][i % 3]),
    "ranges": each(lambda i: ["18-25", "26-35", "36+"][i % 3]),
    "and more": each(lambda i: ["1", "2", "3+"][i % 3]),
    "none": each(lambda i: ["none", "some"][i % 2]),
    "codes": each(lambda i: f"A{i % 19}"),
    "fixed decimals": each(lambda i: f"{i * 37 % 50}.250"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_column_that_could_be_misread_is_refused(kind: str) -> None:
    texts, expected = REFUSED[kind]
    assert expected in said(texts)
    assert said(texts, categories=["wage"]) == ""


@pytest.mark.parametrize("kind", TAKEN)
def test_a_column_that_is_plain_is_taken(kind: str) -> None:
    assert said(TAKEN[kind]) == ""


@pytest.mark.parametrize("word", ["NA", "N/A", "null", "None", "-", "?", "NaN", "unknown", "#N/A"])
def test_words_for_no_value_among_numbers_are_no_categories(tmp_path: Path, word: str) -> None:
    table = people().assign(age=[str(age) if row % 3 == 0 else word for row, age in enumerate(people()["age"])])
    expected = f"40 of 60 rows have no value in column age but {word}, the first is row 2 below the header"
    with pytest.raises(InputError) as caught:
        loaded(tmp_path, table)
    assert expected in str(caught.value)
    assert "'data.drop=[age]'" in str(caught.value)


def test_names_of_rows_by_chance_are_rare() -> None:
    """Whole numbers drawn from a hundred times as many as rows are none; without repetition from few, they are."""
    chance = np.random.default_rng(0)
    samples = [chance.integers(0, 6000, ROWS).astype(float) for _ in range(300)]
    assert sum(map(names_rows, samples)) == 0
    samples = [chance.choice(ROWS * 2, ROWS, replace=False).astype(float) for _ in range(300)]
    assert all(map(names_rows, samples))


@pytest.mark.parametrize(
    ("name", "refused"), [("customer_id", True), ("userId", True), ("id", True), ("paid", False)]
)
def test_a_name_tells_what_numbers_name_rows(name: str, refused: bool) -> None:
    numbers = np.random.default_rng(0).choice(10**8, ROWS, replace=False)
    complaint = feature(pd.Series(numbers.astype(str), name=name, dtype=object), data()).complaint
    assert (complaint is not None) is refused


def test_a_column_without_a_name_is_refused(tmp_path: Path) -> None:
    people().sample(frac=1, random_state=0).to_csv(tmp_path / "index.csv")
    with pytest.raises(InputError, match=r"column Unnamed: 0 has no name in the header") as caught:
        loaded(tmp_path, people(), path=str(tmp_path / "index.csv"))
    assert """'data.drop=["Unnamed: 0"]' leaves it out""" in str(caught.value)
    without = loaded(tmp_path, people().sample(frac=1, random_state=0))
    found = loaded(tmp_path, people(), path=str(tmp_path / "index.csv"), drop=["Unnamed: 0"])
    assert found.train.digests == without.train.digests


def test_all_columns_are_refused_at_once(tmp_path: Path) -> None:
    table = people().assign(name=each(lambda i: f"Miller {i}"), wage=each(lambda i: f"{i},5"), row=range(ROWS))
    with pytest.raises(InputError) as caught:
        loaded(tmp_path, table)
    for expected in (
        "column name has 60 values",
        "column wage has 60 values that are no plain numbers",
        "column row has 60 whole numbers",
        "'data.drop=[name,wage,row]' leaves them out",
        "'data.numbers=[wage,row]' reads them as numbers",
        "'data.categories=[name,wage,row]' takes every value",
    ):
        assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
    found = loaded(tmp_path, table, drop=["name"], numbers=["wage", "row"])
    plain = table.drop(columns="name").assign(wage=[row + 0.5 for row in range(ROWS)])
    assert found.train.digests == loaded(tmp_path, plain, numbers=["wage", "row"]).train.digests


@pytest.mark.parametrize(
    "name", ["age", "Unnamed: 0", "2nd", "größe", 'a "b"', "x,y", "null", "a\\", "[z]", "it's"]
)
def test_a_setting_can_be_typed_as_it_is_told(name: str) -> None:
    override = OverridesParser.create().parse_override(f"data.drop=[{quoted(name)}]")
    assert [str(value) for value in override.value()] == [name]


def test_what_is_set_already_stays_in_the_setting_that_is_told(tmp_path: Path) -> None:
    table = people().assign(name=each(lambda i: f"Miller {i}"), code=each(lambda i: f"{i}-A"))
    with pytest.raises(InputError, match=r"'data\.drop=\[name,code\]' leaves it out"):
        loaded(tmp_path, table, drop=["name"])
    with pytest.raises(InputError, match=r"'data\.categories=\[code,name\]' takes every value"):
        loaded(tmp_path, table, categories=["code"])


def test_points_of_thousands_are_read_if_the_column_is_named(tmp_path: Path) -> None:
    amounts = [100 * row for row in range(ROWS)]
    table = people().assign(age=[f"{amount:,}".replace(",", ".") for amount in amounts])
    usual = loaded(tmp_path, people().assign(age=amounts), numbers=["age"])
    assert loaded(tmp_path, table, numbers=["age"]).train.digests == usual.train.digests


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"drop": ["shoe"]}, "data.drop=shoe: no such column"),
        ({"categories": ["shoe"]}, "data.categories=shoe: no such column"),
        ({"numbers": ["job"]}, "column job has the value .*, which is no number in any notation"),
        ({"drop": ["income"]}, "data.drop=income: is data.target"),
        ({"drop": ["age", "job", "member"]}, "leaves no column that the model sees"),
    ],
)
def test_settings_that_do_not_fit_are_one_line(tmp_path: Path, changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        loaded(tmp_path, people(), **changes)


def test_chosen_categories_are_taken_as_they_are(tmp_path: Path) -> None:
    found = loaded(tmp_path, people(), columns=["age"], categories=["age"])
    ages = people()["age"].iloc[found.train.ids.numpy()]
    pixels = found.train.images.take(torch.arange(len(ages)))[:, :, 0, 0].numpy()
    assert (pixels == pd.get_dummies(ages.astype(str)).to_numpy()).all()


def test_what_is_taken_all_the_same_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    table = people().assign(zip=each(lambda i: f"0{i * 37 % 50}1"))
    loaded(tmp_path, table)
    assert "column job: ?, in " in caplog.text
    assert "column zip: 001 is read as the number 1; 'data.categories=[zip]' takes it as a code" in caplog.text
