"""CSV files of other programs: what separates columns, what is in the header."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from defense.data.csvfile import read_cells, separator
from defense.errors import InputError
from tests.data.test_table import loaded, people


@pytest.mark.parametrize(("sign", "name"), [(";", "semicolons"), ("\t", "tabs"), ("|", "bars")])
def test_another_separator_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture, sign: str, name: str) -> None:
    caplog.set_level(logging.INFO)
    usual = loaded(tmp_path, people())
    people().to_csv(tmp_path / "other.csv", index=False, sep=sign)
    found = loaded(tmp_path, people(), path=str(tmp_path / "other.csv"))
    assert found.train.digests == usual.train.digests
    assert f"other.csv: columns are separated by {name}" in caplog.text


def test_semicolons_and_decimal_commas_are_read_if_they_are_named(tmp_path: Path) -> None:
    table = people().assign(age=people()["age"] / 8)
    usual = loaded(tmp_path, table)
    table.to_csv(tmp_path / "other.csv", index=False, sep=";", decimal=",")
    with pytest.raises(
        InputError, match=r"column age has \d+ values that are no plain numbers, as .*decimal commas"
    ):
        loaded(tmp_path, table, path=str(tmp_path / "other.csv"))
    found = loaded(tmp_path, table, path=str(tmp_path / "other.csv"), numbers=["age"])
    assert found.train.digests == usual.train.digests


@pytest.mark.parametrize(
    ("header", "sign"),
    [
        ("a,b,y", ","),
        ("size, in m;b;y", ";"),
        ('"size, in m",b,y', ","),
        ("a;b,y", ","),
        ("a;b;z", ";"),
        ("z", ","),
    ],
)
def test_the_header_tells_what_separates(header: str, sign: str) -> None:
    assert separator(f"{header}\n1,5;2;3\n", ["y"]) == sign


@pytest.mark.parametrize("header", ["job,job,y", "job, job ,y", '"job","job",y', "job;job;y"])
def test_two_columns_of_one_name_are_refused(tmp_path: Path, header: str) -> None:
    (tmp_path / "twice.csv").write_text(f"{header}\n1,2,3\n".replace(",", ";" if ";" in header else ","))
    with pytest.raises(InputError, match=r"data\.path=.*has two columns named job"):
        read_cells(str(tmp_path / "twice.csv"), "data.path", ["y"])


def test_cells_are_texts_without_blanks_around(tmp_path: Path) -> None:
    text = '\ufeffa , b,c\n 01 ," x  y ",\n\u00a0TRUE\u200b,?, \n'
    (tmp_path / "cells.csv").write_text(text, encoding="utf-8")
    found = read_cells(str(tmp_path / "cells.csv"), "data.path", [])
    assert list(found) == ["a", "b", "c"]
    assert found.fillna("empty").to_numpy().tolist() == [["01", "x y", "empty"], ["TRUE", "?", "empty"]]
