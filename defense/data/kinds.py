"""Kinds of columns, told by their training rows: numbers, truths, categories; and the columns that are refused."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import pandas as pd

from defense.config.choices import Choice
from defense.config.schema import Data
from defense.data.numerals import Notation, form_of, notation_of, numerals, points_are_of_thousands, unit_of
from defense.data.refusals import Complaint, override
from defense.data.spelling import NO_NUMBER, NO_VALUE, is_word

FEW = 20  # values of a column that may be categories whatever they look like, or groups
MANY = 50  # categories that the log mentions
NEARLY = 0.9  # of the values of a column: nearly all
ALL_BUT = 0.95  # of the rows: the least share of distinct row numbers; a few rows may be there twice
POINTS = Notation(",", ("", ""))  # between thousands
UNITS = 4  # that stand beside numbers in one column; more are codes

DAY, MONTH, YEAR = r"(?:0?[1-9]|[12]\d|3[01])", r"(?:0?[1-9]|1[0-2])", r"[12]\d{3}"
NAMED = r"(?:jan|feb|m[aä]r|apr|ma[iy]|jun|jul|aug|sep|o[ck]t|nov|de[cz])[a-zä]*[.]?"
TIME = r"\d{1,2}:\d{2}(?::\d{2}(?:[.,]\d+)?)?(?:\s?[ap]m)?(?:\s?(?:z|utc|gmt|[+-]\d{2}:?\d{2}))?"
DATE = re.compile(
    rf"(?:[a-z]{{2,9}}[.]?,?\s)?(?:{YEAR}[-/.]{MONTH}(?:[-/.]{DAY})?|{DAY}[-/.]{DAY}[-/.]{YEAR}"
    rf"|\d{{2}}[-/.]\d{{2}}[-/.]\d{{2}}|{DAY}[.\s-]{{1,2}}{NAMED}[\s-]\d{{2,4}}|{NAMED}\s{DAY},?\s{YEAR}"
    rf"|{NAMED}[\s-]{YEAR})(?:[t\s]{TIME})?|{TIME}",
    re.IGNORECASE,
)
NAMELESS = re.compile(r"Unnamed: \d+")  # as pandas calls a column without a name
NAMES_ROWS = re.compile(r"(?i:(?:.*[\s_.-])?(?:id|ids|idx|index|uuid|guid|key|rowid|row))|.*[a-z](?:ID|Id)")
KEY = re.compile(
    r"[^@\s]+@[^@\s]+\.\w+|https?://\S+|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{32,}", re.IGNORECASE
)
CATEGORY = ("drop", "categories")  # settings that settle a complaint about texts


class Kind(Choice):
    """What the values of a column are."""

    number = "number"
    truth = "truth"
    category = "category"


@dataclass(frozen=True)
class Column:
    """A column of a table: how it is read, what speaks against it, and what the log says of it."""

    name: str
    kind: Kind
    complaint: Complaint | None = None
    notation: Notation | None = None  # of numbers; None: plain ones, as 1234.5
    remark: str = ""

    @property
    def no_value(self) -> frozenset[str]:
        """The words that stand for no value in it."""
        return NO_NUMBER if self.kind is Kind.number else frozenset()


def feature(cells: pd.Series, spec: Data) -> Column:
    """Return the kind of a column that the model sees; cells: its training rows as text, NaN if empty."""
    name, cells = str(cells.name), cells.dropna()
    chosen = name in (spec.numbers or ())
    if name in (spec.categories or ()):
        return Column(name, Kind.category)
    if pd.to_numeric(cells, errors="coerce").notna().all():
        complaint = (
            None
            if chosen
            else nameless(name, "numbers") or row_numbers(name, cells) or thousands_points(name, cells)
        )
        notation = POINTS if chosen and points_are_of_thousands(cells.unique()) else None
        return Column(name, Kind.number, complaint, notation, leading_zeros(name, cells, spec))
    counts = cells.value_counts()
    values = counts[[not is_word(text, NO_NUMBER) for text in counts.index]]
    if are_numbers(values):
        return Column(name, Kind.number)  # and words for no value among them, which count as empty
    if chosen and values.empty:
        return Column(name, Kind.number)
    if chosen:
        notation = notation_of(values.index)
        return Column(name, Kind.number, None if notation else not_plain(name, values), notation)
    if are_truths(counts):
        return Column(name, Kind.truth)
    checks = (dates, other_notation, mixed, keys, mostly_distinct)
    complaint = nameless(name, "categories") or next(filter(None, (check(name, values) for check in checks)), None)
    return Column(name, Kind.category, complaint, remark=remark(name, counts))


def label(cells: pd.Series, spec: Data) -> Column:
    """Return the kind of the column of classes or groups; cells: its training rows as text, NaN if empty."""
    name, counts = str(cells.name), cells.value_counts()
    if name in (spec.categories or ()):
        return Column(name, Kind.category)
    if are_numbers(counts):
        return Column(name, Kind.number)
    numbers = are_numbers(counts[[not is_word(text, NO_NUMBER) for text in counts.index]])
    words = [text for text in counts.index if is_word(text, NO_NUMBER if numbers else NO_VALUE)]
    kind, complaint = Kind.truth if are_truths(counts) else Kind.category, None
    if words:
        said = f"has the value {words[0]} in {counts[words[0]]} rows, a word for no value: take these rows out"
        complaint = Complaint(name, said, ("categories",))
    return Column(name, kind, complaint)


def are_numbers(counts: pd.Series) -> bool:
    """Return whether all values, the index, are plain numbers, and there are some."""
    return len(counts) > 0 and pd.to_numeric(counts.index.to_series(), errors="coerce").notna().all()


def are_truths(counts: pd.Series) -> bool:
    """Return whether all values, the index, are true or false."""
    return {text.casefold() for text in counts.index} <= {"true", "false"}


def nameless(name: str, way: str) -> Complaint | None:
    """Return the complaint about a column without a name; way: the setting that keeps it."""
    if not NAMELESS.fullmatch(name):
        return None
    return Complaint(name, "has no name in the header, as the index that pandas writes", ("drop", way))


def row_numbers(name: str, cells: pd.Series) -> Complaint | None:
    """Return the complaint about whole numbers that number rows, by `names_rows` or by the name of the column."""
    numbers = pd.to_numeric(cells).to_numpy(dtype=np.float64)
    if len(numbers) <= FEW or not np.isfinite(numbers).all() or (numbers % 1).any():
        return None
    count = len(np.unique(numbers))
    if not names_rows(numbers) and not (NAMES_ROWS.fullmatch(name) and count > NEARLY * len(numbers)):
        return None
    said = f"has {count} whole numbers in {len(numbers)} rows, {numbers.min():.0f} to {numbers.max():.0f}"
    said += ": it seems to number them"
    return Complaint(name, said, ("drop", "numbers", "categories"))


def names_rows(numbers: np.ndarray) -> bool:
    """Return whether whole numbers differ so much from row to row that they are no measurement.

    They are evenly spaced; or nearly all differ and fill half of their range; or all differ and lie so close that
    numbers drawn from their range hardly ever would: of n draws out of m all differ with probability
    exp(-n^2 / 2m), below 5e-5 up to m = n^2 / 20.
    """
    values, count = np.unique(numbers), len(numbers)
    span = np.ptp(values) + 1
    dense = len(values) > ALL_BUT * count and span <= 2 * len(values)
    return dense or (len(values) == count and (len(np.unique(np.diff(values))) == 1 or span <= count**2 / 20))


def thousands_points(name: str, cells: pd.Series) -> Complaint | None:
    """Return the complaint about numbers with points between thousands."""
    if not points_are_of_thousands(cells.unique()):
        return None
    example = next(text for text in cells if "." in text and text.endswith("0"))
    said = f"has numbers as {example} beside whole ones below 1000: points seem to be separators of thousands"
    return Complaint(name, said, ("drop", "numbers", "categories"))


def dates(name: str, values: pd.Series) -> Complaint | None:
    """Return the complaint about dates and times."""
    texts = [text for text in values.index if DATE.fullmatch(text)]
    if len(values) < 2 or len(texts) < NEARLY * len(values):
        return None
    said = f"has dates or times in {values[texts].sum()} rows, as {texts[0]}: turn them into numbers"
    return Complaint(name, said, CATEGORY)


def other_notation(name: str, values: pd.Series) -> Complaint | None:
    """Return the complaint about numbers not written as 1234.5; few numbers with a unit may be categories."""
    found = numerals(values.index)
    if len(found) < len(values) or len({unit_of(each) for each in found}) > UNITS:
        return None
    few = len(values) <= FEW and all(each["after"] and each["after"][0].isalpha() for each in found)
    return None if few else not_plain(name, values)


def not_plain(name: str, values: pd.Series) -> Complaint:
    """Return the complaint about numbers in another notation; it offers data.numbers if that can be read."""
    odd = values[pd.to_numeric(values.index.to_series(), errors="coerce").isna().to_numpy()]
    example = odd.index[0]
    said = f"has {odd.sum()} values that are no plain numbers, as {example}"
    if len(numerals(values.index)) < len(values):
        example = next(text for text in values.index if not numerals([text]))
        return Complaint(name, f"has the value {example}, which is no number in any notation", CATEGORY)
    if notation_of(values.index):
        return Complaint(name, f"{said}: {form_of(example)}", ("drop", "numbers", "categories"))
    said = f"{said}: {form_of(example)}, which leaves open how to read the column; write them as 1234.5"
    return Complaint(name, said, CATEGORY)


def mixed(name: str, values: pd.Series) -> Complaint | None:
    """Return the complaint about many numbers with texts among them."""
    others = [text for text in values.index if not numerals([text])]
    if len(values) <= FEW or len(others) > len(values) / 2:
        return None
    said = f"has the value {others[0]} in {values[others[0]]} rows among numbers; expected one of both"
    return Complaint(name, said, CATEGORY)


def keys(name: str, values: pd.Series) -> Complaint | None:
    """Return the complaint about mail addresses, links and keys."""
    if len(values) <= FEW or not all(KEY.fullmatch(text) for text in values.index):
        return None
    return Complaint(name, f"has addresses or keys, as {values.index[0]}: they name rows", CATEGORY)


def mostly_distinct(name: str, values: pd.Series) -> Complaint | None:
    """Return the complaint about texts that are nearly all distinct, as names, keys and sentences are."""
    if len(values) <= FEW or len(values) < values.sum() / 2:
        return None
    said = f"has {len(values)} values in {values.sum()} rows, as {values.index[0]}: too many to be categories"
    return Complaint(name, said, CATEGORY)


def leading_zeros(name: str, cells: pd.Series, spec: Data) -> str:
    """Return a line for the log about whole numbers with leading zeros, empty if there are none."""
    found = cells[cells.str.fullmatch(r"0\d+")]
    if found.empty:
        return ""
    told = f"{found.iloc[0]} is read as the number {int(found.iloc[0])}"
    return f"column {name}: {told}; {override(spec, 'categories', [name])} takes it as a code"


def remark(name: str, counts: pd.Series) -> str:
    """Return a line for the log about unusual categories, empty if there are none."""
    words = [text for text in counts.index if is_word(text, NO_VALUE)]
    said = [f"{text}, in {counts[text]} rows, is a category of its own" for text in words]
    if len(counts) > MANY:
        said.append(f"{len(counts)} categories become a column each")
    found = numerals(counts.index)
    if len(found) > len(counts) / 2:
        said.append(f"values as {found[0].string} are categories, no numbers")
    return f"column {name}: {'; '.join(said)}" if said else ""
