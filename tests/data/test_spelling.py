"""One value is one value, however it is spelled, within a file and between files."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from defense.data.spelling import two_spellings
from defense.errors import InputError
from tests.data.test_table import ROWS, loaded, people


def alternating(*values: object) -> list[str]:
    return [str(values[row % len(values)]) for row in range(ROWS)]


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (["Yes", "yes", "no"], ("Yes", "yes")),
        (["straße", "STRASSE"], ("straße", "STRASSE")),
        (["m\u00b2", "m2"], ("m\u00b2", "m2")),
        (["0", "0.0", "x"], ("0", "0.0")),
        (["01", "1", "x"], ("01", "1")),
        (["True", "False", "1"], ("True", "1")),
        (["yes", "no", "y", "n"], ("yes", "y")),
        (["Yes", "No"], None),
        (["f", "m"], None),
        (["n", "f"], None),
        (["1", "2", "x"], None),
        (["New York", "Newark"], None),
    ],
)
def test_two_spellings(values: list[str], found: tuple[str, str] | None) -> None:
    assert two_spellings(dict.fromkeys(values, 1)) == found


@pytest.mark.parametrize("where", ["job", "income", "sex"])
def test_two_spellings_in_a_file_are_refused(tmp_path: Path, where: str) -> None:
    """In what the model sees, in the classes and in the groups; counts are those of the file."""
    table = people().assign(**{where: alternating("Ja", "ja", "nein", "nein")})
    expected = rf"column {where} has Ja \(15 train rows\) and ja \(15 train rows\): .*data\.categories=\[{where}\]"
    with pytest.raises(InputError, match=expected):
        loaded(tmp_path, table)
    changes: dict[str, Any] = {"categories": [where]} | (
        {"groups": ["Ja", "ja", "nein"]} if where == "sex" else {}
    )
    assert loaded(tmp_path, table, **changes).classes == (3 if where == "income" else 2)


def test_rows_of_a_group_in_another_spelling_are_not_left_out_silently(tmp_path: Path) -> None:
    table = people().assign(sex=alternating("f", "m", "F"))
    with pytest.raises(InputError, match=r"column sex has f \(20 train rows\) and F \(20 train rows\)"):
        loaded(tmp_path, table, groups=["f", "m"])


def test_blanks_around_a_value_are_none_of_it(tmp_path: Path) -> None:
    table = people()
    spaced = table.assign(
        income=[value + " " * (row % 3) for row, value in enumerate(table["income"])],
        job=["\u00a0" * (row % 2) + value + "\t" * (row % 3) for row, value in enumerate(table["job"])],
        sex=[value + "\u200b" * (row % 2) for row, value in enumerate(table["sex"])],
    ).rename(columns={"age": " age "})
    assert loaded(tmp_path, spaced).train.digests == loaded(tmp_path, table).train.digests


def test_forms_of_unicode_are_one(tmp_path: Path) -> None:
    table = people().assign(job=alternating("caf\u00e9", "cafe\u0301", "bar"))
    plain = people().assign(job=alternating("caf\u00e9", "caf\u00e9", "bar"))
    assert loaded(tmp_path, table).train.digests == loaded(tmp_path, plain).train.digests


@pytest.mark.parametrize(
    ("train", "test", "said"),
    [
        (("True", "False"), ("1", "0"), r"test_path=.*column member: 8 of 8 rows .*training has"),
        (("yes", "no"), ("Yes", "No"), r"column member has yes \(30 train rows\) and Yes \(4 test rows\)"),
        (("yes", "no"), ("y", "n"), r"column member has yes \(30 train rows\) and y \(4 test rows\)"),
        (("1", "2", "x"), ("1.0", "2.0"), r"column member has 1 \(20 train rows\) and 1\.0 \(4 test rows\)"),
        (
            ("red", "blue"),
            ("rouge", "blue", "bleu"),
            r"column member: 5 of 8 rows .* as rouge; training has red, blue",
        ),
        (("1", "0"), ("True", "False"), r"data\.columns=member: the test rows have the value True"),
    ],
)
def test_files_that_spell_values_differently_are_refused(
    tmp_path: Path, train: tuple[str, ...], test: tuple[str, ...], said: str
) -> None:
    other = people(8).assign(member=[test[row % len(test)] for row in range(8)])
    with pytest.raises(InputError, match=said):
        loaded(tmp_path, people().assign(member=alternating(*train)), other)


def test_a_few_unknown_categories_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    other = people(8).assign(job=["clerk", "smith"] * 3 + ["pilot"] * 2)
    found = loaded(tmp_path, people(), other, columns=["job"])
    assert found.test.images.take(torch.arange(8)).sum((1, 2, 3)).tolist() == [1] * 6 + [0] * 2
    assert "column job: 2 of 8 test rows have a value that training lacks, 0 in all of its columns, as pilot" in (
        caplog.text
    )


@pytest.mark.parametrize("word", ["?", "NA", "n/a", "NULL", "-"])
@pytest.mark.parametrize("where", ["income", "sex"])
def test_no_value_is_no_class_and_no_group(tmp_path: Path, where: str, word: str) -> None:
    table = people().assign(**{where: alternating("a", "b", "b", word)})
    with pytest.raises(InputError, match=rf"column {where} has the value .* in 15 rows, a word for no value"):
        loaded(tmp_path, table)
    found = loaded(tmp_path, table, categories=[where])
    assert word in (found.class_names if where == "income" else found.group_names)


def test_numbers_of_classes_are_one_however_they_are_written(tmp_path: Path) -> None:
    table = people().assign(income=np.where(np.arange(ROWS) % 2, "1", np.where(np.arange(ROWS) % 4, "0", "0.0")))
    found = loaded(tmp_path, table)
    assert found.classes == 2
    assert found.train.labels.tolist() == [row % 2 for row in found.train.ids.tolist()]


def test_a_class_with_a_single_row_is_named(tmp_path: Path) -> None:
    table = people().assign(income=["maybe", *people()["income"][1:]])
    with pytest.raises(
        InputError, match=r"data\.path=.*train\.csv, column income: one sample has the label maybe;"
    ):
        loaded(tmp_path, table)


def test_numbers_beyond_training_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    found = loaded(tmp_path, people(), people(8).assign(age=7000), columns=["age"])
    assert found.test.images.take(torch.arange(8)).flatten().tolist() == [1] * 8
    assert "column age: 8 of 8 test rows have a value beyond the training rows, cut off, as 7000" in caplog.text
    assert pd.Series(caplog.messages).str.contains("validation rows").sum() == 0
