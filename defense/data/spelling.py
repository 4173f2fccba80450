"""One value in two spellings, and the words that stand in a table if there is no value."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping

NO_VALUE = frozenset(
    {  # never the name of a class
        *(
            "na",
            "n/a",
            "n.a.",
            "n.a",
            "#n/a",
            "#na",
            "<na>",
            "nan",
            "-nan",
            "null",
            "(null)",
            "nil",
            "n/v",
            "k.a.",
        ),
        *("?", "??", "???", "-", "--", "---", "–", "—", ".", "..", "...", "\\n"),
        *("#value!", "#ref!", "#div/0!", "#null!", "#name?", "#num!"),
    }
)
NO_NUMBER = NO_VALUE.union(  # among numbers; elsewhere a category like others
    ("none", "missing", "unknown", "undefined", "unspecified", "nd", "n.d.", "tbd", "empty", "blank"),
    ("not available", "not applicable", "not known", "no data", "no value"),
)
TRUTHS = (("true", "false"), ("1", "0"), ("yes", "no"), ("y", "n"), ("t", "f"), ("on", "off"))
PLAIN = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)")


def is_word(text: str, words: frozenset[str]) -> bool:
    """Return whether a cell is one of the `words`, in whatever case."""
    return text.casefold() in words


def plainest(text: str) -> str | float:
    """Return the common form of all spellings of a value: a number, or the text without case."""
    if PLAIN.fullmatch(text):
        return float(text)
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def two_spellings(counts: Mapping[str, int]) -> tuple[str, str] | None:
    """Return two of the values that are spellings of one, the more frequent first; None if there are none.

    counts: how many rows have each value. True beside 1, or yes beside y, are two spellings if all values are
    such words.
    """
    spelled: dict[object, str] = {}
    words = truth_of(counts)
    for value in sorted(counts, key=lambda each: -counts[each]):
        meant = words.get(value, plainest(value))
        if meant in spelled:
            return spelled[meant], value
        spelled[meant] = value
    return None


def truth_of(values: Iterable[str]) -> dict[str, bool]:
    """Return true or false for each of the values if all are words for it, of two or more pairs; else nothing."""
    plain = {value: str(int(float(value))) if value in ("1.0", "0.0") else value.casefold() for value in values}
    meant = {word: word == pair[0] for pair in TRUTHS for word in pair}
    pairs = {pair for pair in TRUTHS if set(pair) & set(plain.values())}
    if len(set(plain.values())) < 3 or len(pairs) < 2 or not set(plain.values()) <= set(meant):
        return {}
    return {value: meant[word] for value, word in plain.items()}
