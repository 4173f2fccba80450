"""Names that a user chose, as each kind of file has to have them: Markdown, LaTeX, CSV, a chart, a terminal.

Whatever is in a name, a report is written; a sign that a form cannot show is there as its escape, as in `\\n`.
"""

from __future__ import annotations

import locale
import re
import sys
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

UTF8 = "utf-8"
UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")  # control characters, and halves of pairs
SIGNS = (  # of Markdown as GitHub reads it, and what is written for them; elsewhere they stand for themselves
    (re.compile(r"([\\`*$|]|~(?=~)|(?<!\w)_|_(?!\w)|](?=[(\[:]))"), r"\\\1"),
    (re.compile(r"&(?=#?\w+;)"), "&amp;"),
    (re.compile(r"<(?=[A-Za-z/!?])"), "&lt;"),
    (re.compile(r"^\s+"), ""),  # four blanks would be code
    (re.compile(r"^(>|[+-](?=\s)|#(?=#*(?:\s|$)))"), r"\\\1"),
    (re.compile(r"^(\d+)(?=[.)](?:\s|$))"), r"\1\\"),
    (re.compile(r"(?<=\s)#(?=#*$)"), r"\\#"),
)
LATEX = {
    **{sign: f"\\{sign}" for sign in "{}$&%#_"},
    **{sign: f"${sign}$" for sign in "<>|"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "`": r"\textasciigrave{}",
    "\N{PLUS-MINUS SIGN}": r"$\pm$",
    "\N{MINUS SIGN}": "$-$",
}
NOT_LATIN = re.compile("[^\x00-\u017f\u2010-\u2027\u20ac]+")
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")  # a spreadsheet takes a cell that begins so for a formula
FIGURE = r"[+-]?\d+(?:\.\d+)?(?:e[+-]?\d+)?"
FIGURES = re.compile(rf"-|{FIGURE}(?: to {FIGURE}| \({FIGURE} to {FIGURE}\))?")  # as tables of pages have them
MINUS = (  # of a number below zero, and between two names; a sign of a name is none
    (re.compile(r"(?<![\w.$-])-(?=\d)"), "$-$"),
    (re.compile(r"(?<= )-(?= )"), "$-$"),
    (re.compile(r"-(?=-)"), "-{}"),  # two would become one long dash
    (re.compile(r"^([\[*])"), r"{\1}"),  # an option of the line before
)


def visible(text: str) -> str:
    """Return a text in one line, with an escape for each sign that no page can show: a line break as `\\n`."""
    return UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def for_markdown(text: str) -> str:
    """Return a text that Markdown shows as it is, in a paragraph, a heading or a cell of a table."""
    text = visible(text)
    for sign, written in SIGNS:
        text = sign.sub(written, text)
    return text


def for_latex(text: str) -> str:
    """Return a text that LaTeX prints as it is, with real minus signs."""
    text = "".join(LATEX.get(sign, sign) for sign in unicodedata.normalize("NFC", visible(text)))
    for sign, written in MINUS:
        text = sign.sub(written, text)
    return NOT_LATIN.sub(numbered, text)


def numbered(found: re.Match[str]) -> str:
    """Return letters that XeLaTeX and LuaLaTeX print, and for pdfLaTeX, which knows Latin alone, their numbers."""
    numbers = " ".join(f"U+{ord(letter):04X}" for letter in found[0])
    return rf"{{\ifdefined\Umathcode {found[0]}\else {numbers}\fi}}"


def for_csv(text: str) -> str:
    """Return a text that a spreadsheet shows as it is: after an apostrophe if it would be taken for a formula.

    Numbers stay, also those with an interval. The rule is that of OWASP, "CSV injection".
    """
    return f"'{text}" if text.startswith(FORMULA) and not FIGURES.fullmatch(text) else text


def for_chart(text: str) -> str:
    """Return a text that matplotlib draws as it is: no formula, and no name that a legend leaves out."""
    text = visible(text).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def for_terminal(text: str) -> str:
    """Return lines that can be printed here, and logged: with an escape for what the locale has no sign for."""
    text = "\n".join(map(visible, text.split("\n")))
    for encoding in (locale.getpreferredencoding(False), getattr(sys.stdout, "encoding", None) or UTF8):
        text = text.encode(encoding, "backslashreplace").decode(encoding)
    return text


def write(path: Path, text: str) -> None:
    """Write a text in UTF-8, whatever the locale; half of a surrogate pair as its escape."""
    path.write_bytes(text.encode(UTF8, "backslashreplace"))


def storable(value: Any) -> Any:
    """Return a text, or what JSON holds, with an escape for each half of a surrogate pair: no table can hold one.

    Names of files that are not UTF-8 have them.
    """
    if isinstance(value, str):
        return value.encode(UTF8, "backslashreplace").decode(UTF8)
    if isinstance(value, dict):
        return {storable(key): storable(each) for key, each in value.items()}
    return [storable(each) for each in value] if isinstance(value, list) else value


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]], *, form: Callable[[str], str] = visible) -> str:
    """Return a Markdown table, also pleasant as plain text; every column but the first is aligned to the right.

    form: what is done to every cell; as it is, a name with signs of Markdown is right in a terminal alone.
    """
    head, *rows = ([form(cell) for cell in cells] for cells in (head, *rows))
    widths = [max(4, *(len(cell) for cell in column)) for column in zip(head, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        padded = [cell.rjust(width) for cell, width in zip(cells, widths, strict=True)]
        return "| " + " | ".join([cells[0].ljust(widths[0]), *padded[1:]]) + " |"

    ruler = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join(map(line, (head, ruler, *rows)))
