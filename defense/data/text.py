"""Texts as token ids: the columns of text of a table, cut into the tokens of an encoder."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from defense.config.schema import Data
from defense.data.collection import Collection, decoded, existing, number_samples
from defense.data.csvfile import separator
from defense.data.given import Given, origins_of
from defense.data.labels import classes_of, labels_of
from defense.data.names import by_id, check_names, numbered
from defense.data.parquet import is_parquet, read_parquet
from defense.data.pretrained import loading
from defense.data.splits import Split
from defense.errors import InputError

Row = dict[str, str]  # by column
FIELDS = {"train": "data.path", "validation": "data.validation_path", "test": "data.test_path"}


class Texts:
    """n samples of T texts each as token ids int64 (n, T, L), filled up with the id that stands for nothing.

    They stand where pictures do: their shape is (1, T, L), and a batch is int64 (b, 1, T, L).
    """

    def __init__(self, tokens: Tensor) -> None:
        self.tokens = tokens
        _, texts, length = tokens.shape
        self.shape = (1, texts, length)

    def __len__(self) -> int:
        return len(self.tokens)

    def take(self, indices: Tensor) -> Tensor:
        """Return the ids at `indices` as int64 (b, 1, T, L)."""
        return self.tokens[indices.to(self.tokens.device)].unsqueeze(1)

    def subset(self, indices: Tensor) -> Texts:
        """Return the samples at `indices`, in that order."""
        return Texts(self.tokens[indices.to(self.tokens.device)])

    def to(self, device: torch.device) -> Texts:
        """Return the same samples on `device`."""
        return Texts(self.tokens.to(device))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Texts) and torch.equal(self.tokens, other.tokens)

    def __hash__(self) -> int:
        return hash((self.digest(), self.tokens.device))

    def digest(self) -> str:
        """Return a hash of the ids."""
        form = f"tokens {tuple(self.tokens.shape)}"
        return hashlib.sha256(form.encode() + self.tokens.cpu().numpy().tobytes()).hexdigest()


def read_table(path: str, field: str, columns: Sequence[str], ids: str | None = None) -> list[Row]:
    """Return the rows of a file whose first line names its columns; see `lines_of`.

    Raises InputError if the file, one of `columns` or a cell is missing, or two of them have one name; so it does
    for the column `ids`, whose cells may be empty.
    """
    header, rows, line = lines_of(path, field, columns)
    if ids is not None and ids not in header:
        raise InputError("data.ids", ids, f"no such column in {path}; it has {', '.join(header) or 'none'}")
    for column in (*columns, *([ids] if ids is not None else [])):
        if column not in header:
            told = f"no column {column!r} in it; it has {', '.join(header) or 'none'}"
            raise InputError(field, path, told + ("; expected tabs between columns" if len(header) == 1 else ""))
        if header.count(column) > 1:
            raise InputError(field, path, f"has two columns named {column}; expected a name for each")
    table = []
    for number, cells in enumerate(rows, start=2 if line == "line" else 1):
        if not any(map(str.strip, cells)):
            continue
        if len(cells) != len(header):
            said = f"{line} {number} has {len(cells)} cells; expected {len(header)}, one a column"
            raise InputError(field, path, said)
        table.append(dict(zip(header, cells, strict=True)))
        filled(table[-1], columns, field, path, f"{line} {number}")
    if not table:
        raise InputError(field, path, "no row in it; expected samples below a line of column names")
    return table


def lines_of(path: str, field: str, columns: Sequence[str]) -> tuple[list[str], list[list[str]], str]:
    """Return the names of the columns, the cells of each row, "" if empty, and how a row is called in the file.

    In a file named .csv, cells may be quoted, and `columns` tell what separates them. In others than .csv and
    .parquet they are separated by tabs, and quotes are characters like others.
    """
    if is_parquet(path):
        found = read_parquet(path, field).fillna("")
        return list(found), found.to_numpy().tolist(), "row"
    quoted = Path(path).suffix.lower() == ".csv"
    text = decoded(path, field, "a file of text")
    form: dict[str, Any] = {"delimiter": "\t", "quoting": csv.QUOTE_NONE}
    if quoted:
        form = {"delimiter": separator(text, columns)}
    try:
        lines = io.StringIO(text, newline="" if quoted else None)  # else whatever they end in
        header, *rows = [*csv.reader(lines, **form)] or [[]]
    except csv.Error as error:
        raise InputError(field, path, f"not a readable table ({error})") from error
    return [name.strip() for name in header], rows, "row" if quoted else "line"


def read_records(path: str, field: str, key: str | None, columns: Sequence[str]) -> list[Row]:
    """Return the records below `key` of a JSON file, {key: [{column: value}]}, or all of a file that is a list.

    Raises InputError if the file, the key, a column or a value is missing, or there twice.
    """
    try:
        content: Any = json.loads(decoded(path, field, "a JSON file"), object_pairs_hook=named_once)
    except ValueError as error:
        raise InputError(field, path, f"not a readable JSON file ({error})") from error
    if isinstance(content, dict):
        if key not in content:
            raise InputError("data.given_key", key, f"not in {path}; expected one of {', '.join(content)}")
        content = content[key]
    if not (isinstance(content, list) and content and all(isinstance(record, dict) for record in content)):
        raise InputError(field, path, "expected a list of records, or lists of them by key")
    for number, record in enumerate(content, start=1):
        for column in columns:
            if column not in record:
                named = ", ".join(map(str, record))
                raise InputError(field, path, f"no {column!r} in record {number}; it has {named}")
        filled(record, columns, field, path, f"record {number}")
    return [{column: str(record[column]) for column in columns} for record in content]


def named_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the object of a JSON file; raises ValueError if two of its values have one name."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"two values named {next(name for name in names if names.count(name) > 1)}")
    return found


def filled(row: dict[str, Any], columns: Sequence[str], field: str, path: str, where: str) -> None:
    """Raise InputError if a cell is empty, or is a list or an object of JSON."""
    for column in columns:
        if row[column] is None or not str(row[column]).strip():
            raise InputError(field, path, f"{where} has nothing in column {column!r}; expected text")
        if isinstance(row[column], list | dict):
            raise InputError(field, path, f"{where} has a list or an object in {column!r}; expected text")


def text(spec: Data) -> Collection:
    """Return the texts of tables, .tsv, .csv or .parquet: `data.path` and, where given, of validation and test.

    The classes are the labels of the training file: whole numbers in their order, others in that of the alphabet.
    `data.ids` is the column of the names of the samples; those of `data.given_path` are named by their row.
    """
    existing(spec.path, "data.path", "a table (.tsv, .csv, .parquet), its first line the names of the columns")
    files = {"train": spec.path, "validation": spec.validation_path, "test": spec.test_path}
    columns, target, parts = texts_of(spec), str(spec.target), {}
    names: dict[str, pd.Series] = {}
    classes: list[str] = []
    for part, path in files.items():
        if path is None and part != "train":
            continue
        rows = read_table(str(path), FIELDS[part], [target, *columns], spec.ids)
        words = [row[target] for row in rows]
        classes = classes or classes_of(words, target, FIELDS[part], str(path))
        labels = labels_of(words, classes, FIELDS[part], str(path))
        parts[part] = (tokens_of(rows, columns, spec), labels, labels)
        names[part] = names_in(rows, str(path), spec)
    given = given_of(spec, classes, first=sum(len(labels) for _, labels, _ in parts.values()))
    origins = {part: (FIELDS[part], f"{files[part]}, column {target}") for part in parts}
    found = number_samples(parts, classes, FIELDS, names=names)
    called = found.names if given is None else by_id([found.names, numbered(len(given.split))])
    return replace(found, given=given, origins=origins, names=called)


def rows_of_texts(spec: Data) -> pd.DataFrame:
    """Return the rows of the training file in order of id, all of its columns as text."""
    return pd.DataFrame(read_table(str(spec.path), FIELDS["train"], [str(spec.target), *texts_of(spec)]))


def names_in(rows: Sequence[Row], path: str, spec: Data) -> pd.Series:
    """Return the names of samples: the cells of `data.ids`, without blanks around, or their rows in the file.

    Raises InputError if a name is missing or there twice.
    """
    if spec.ids is None:
        return numbered(len(rows))
    names = pd.Series([row[spec.ids].strip() for row in rows], dtype=str)
    check_names(names, "data.ids", spec.ids, path)
    return names


def given_of(spec: Data, classes: Sequence[str], *, first: int) -> Given | None:
    """Return the samples of `data.given_path`, numbered from `first`; None if there are none."""
    path, field, target = spec.given_path, "data.given_path", str(spec.target)
    if path is None:
        return None
    columns = spec.given_text or texts_of(spec)
    if len(columns) != len(texts_of(spec)):
        raise InputError("data.given_text", columns, f"expected {len(texts_of(spec))} columns, as in data.text")
    if path.endswith(".json"):
        rows = read_records(path, field, spec.given_key, [target, *columns])
    else:
        rows = read_table(path, field, [target, *columns])
    labels = labels_of([row[target] for row in rows], classes, field, path)
    split = Split(torch.arange(first, first + len(rows)), tokens_of(rows, columns, spec), labels, labels)
    return Given(split, origins_of([" ".join(row[column] for column in columns) for row in rows]))


def texts_of(spec: Data) -> list[str]:
    """Return the columns of text; raises InputError if there are none."""
    if not spec.text or len(spec.text) > 2:
        raise InputError("data.text", spec.text, "expected one column of text, or two that are compared")
    return list(spec.text)


def tokens_of(rows: Sequence[Row], columns: Sequence[str], spec: Data) -> Texts:
    """Return the `columns` of every row as token ids, cut or filled up to `spec.length`.

    Raises InputError if the tokenizer cannot be loaded, or has nothing to fill up with.
    """
    name = str(spec.tokenizer)
    with loading("data.tokenizer", name) as place:
        from transformers import AutoTokenizer  # slow to import, and needed here alone

        tokenizer = AutoTokenizer.from_pretrained(place)
    if tokenizer.pad_token_id is None:
        raise InputError("data.tokenizer", name, "has no token to fill up with; expected that of an encoder")
    cut = {"padding": "max_length", "truncation": True, "max_length": spec.length}
    ids = [tokenizer([row[column] for row in rows], **cut)["input_ids"] for column in columns]
    return Texts(torch.tensor(ids).transpose(0, 1).contiguous())
