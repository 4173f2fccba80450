"""Numbers as people write them: with decimal commas, separators of thousands, currencies, units, brackets."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

SIGNS = str.maketrans("\u2212\u2010\u2013\u2019\u00b4\u00a0\u2007\u2009\u202f", "---''    ")
SYMBOLS = "$€£¥¢₹₽₩₺₴₪฿₫₱"
CODES = "EUR|USD|GBP|CHF|JPY|CNY|INR|SEK|NOK|DKK|PLN|CZK|BRL|AUD|CAD|Rs[.]?|Fr[.]?"
NUMERAL = re.compile(
    rf"(?P<bracket>\()?(?P<sign>[+-]?)\s?(?P<before>[A-Z]{{0,3}}[{SYMBOLS}]|{CODES})?\s?(?P<minus>-?)"
    r"(?P<body>\d[\d.,' _]*(?<! )|[.,]\d+)(?P<power>[eE][+-]?\d+)?"
    rf"\s?(?P<after>[^\W\d_][^\d(),]{{0,11}}(?:(?<=m)[23])?|[%‰°{SYMBOLS}][^\d(),]{{0,7}})?"
    r"(?P<behind>-?)(?(bracket)\))"
)
POINT = re.compile(  # 1,234,567.8 and 12,34,567.8 and 1234567.8
    r"\d{1,3}(?P<s>[,' _])\d{3}(?:(?P=s)\d{3})*(?:\.\d*)?|\d{1,2}(?:,\d{2})+,\d{3}(?:\.\d*)?|\d*\.?\d*"
)
COMMA = re.compile(r"\d{1,3}(?P<s>[.' _])\d{3}(?:(?P=s)\d{3})*(?:,\d*)?|\d*,?\d*")
GROUP = re.compile(r"\d{1,3}[.,]\d{3}")  # one separator, of thousands or of three decimals
FORMS = {  # names of notations, the first that fits
    "brackets for a minus": re.compile(r"\(.*\)"),
    "a currency or a unit": re.compile(r".*[^\d.,'\s_+eE-].*"),
    "separators of thousands": re.compile(r".*\d[,.' _]\d{3}(?:[,.' _].*|$)"),
    "decimal commas": re.compile(r".*,.*"),
    "another notation": re.compile(r".*"),
}


@dataclass(frozen=True)
class Notation:
    """How all numbers of a column are written."""

    decimal: str  # the sign before decimals
    unit: tuple[str, str]  # what stands before and behind

    def read(self, text: str) -> float:
        """Return the number that a text stands for, NaN if it is written another way."""
        found = NUMERAL.fullmatch(text.translate(SIGNS))
        if found is None or unit_of(found) != self.unit or not layout(self.decimal).fullmatch(found["body"]):
            return float("nan")
        other = "." if self.decimal == "," else ","
        body = re.sub(r"[' _]", "", found["body"]).replace(other, "").replace(self.decimal, ".")
        negative = bool(found["bracket"]) ^ ("-" in found["sign"] + found["minus"] + found["behind"])
        return float(body + (found["power"] or "")) * (-1 if negative else 1)


def numerals(texts: Iterable[str]) -> list[re.Match[str]]:
    """Return those of the texts that are numbers in some notation, as matches of NUMERAL."""
    matches = [NUMERAL.fullmatch(text.translate(SIGNS)) for text in texts]
    return [each for each in matches if each and (POINT.fullmatch(each["body"]) or COMMA.fullmatch(each["body"]))]


def unit_of(found: re.Match[str]) -> tuple[str, str]:
    """Return the units before a number and behind it, empty if there is none."""
    return found["before"] or "", found["after"] or ""


def layout(decimal: str) -> re.Pattern[str]:
    """Return the pattern of digits and separators with this sign before decimals."""
    return POINT if decimal == "." else COMMA


def notation_of(texts: Collection[str]) -> Notation | None:
    """Return the notation of all of the texts; None if they are not numbers, or can be read in two ways."""
    found = numerals(texts)
    if len(found) < len(texts) or len({unit_of(each) for each in found}) != 1:
        return None
    bodies = {each["body"] for each in found}
    fitting = [sign for sign in ".," if all(layout(sign).fullmatch(body) for body in bodies)]
    if len(fitting) == 2:
        fitting = decided(bodies)
    return Notation(fitting[0], unit_of(found[0])) if fitting else None


def decided(bodies: Collection[str]) -> list[str]:
    """Return the sign before decimals in bodies that could have either, as 1,234; nothing if that stays open.

    It is one of decimals before which a 0 stands. It is one of thousands beside numbers without it, if a 0 ends
    the three digits behind: decimals would have been written without that 0.
    """
    grouped = {body for body in bodies if GROUP.fullmatch(body)}
    if not grouped:
        return ["."]
    sign, other = (",", ".") if any("," in body for body in grouped) else (".", ",")
    if any(body.startswith(f"0{sign}") for body in grouped):
        return [sign]
    whole = any(body.isdecimal() for body in bodies)
    return [other] if whole and any(body.endswith("0") for body in grouped) else []


def form_of(text: str) -> str:
    """Return the name of the notation of a number that is not plain."""
    plain = text.translate(SIGNS)
    return next(words for words, pattern in FORMS.items() if pattern.fullmatch(plain))


def points_are_of_thousands(texts: Iterable[str]) -> bool:
    """Return whether points in plain numbers are of thousands: all as in 12.500, beside numbers below 1000."""
    bodies = {text.lstrip("+-") for text in texts}
    pointed = {body for body in bodies if "." in body}
    if not all(GROUP.fullmatch(body) for body in pointed) or max(map(len, bodies - pointed), default=0) > 3:
        return False
    return decided(bodies) == [","]
