"""The commands and the blocks of Python that README and docs show."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PROGRAMS = ("defense", "defense-report")
STARTERS = ("srun", "torchrun")  # of the processes of a command
FENCE = re.compile(r"```(\w*)$")
LEFT_OUT = re.compile(r"<!-- not run: (.+?) -->")
IN_TABLE = re.compile(r"`((?:defense|defense-report)(?: [^`]*)?)`")
FILE = re.compile(r"# (\w+\.py)$")


@dataclass(frozen=True)
class Block:
    """Some lines of a page: of a fence by its language, or of a table.

    reason: why it is not run, by a comment above it; empty if it is.
    """

    page: str
    line: int
    language: str
    lines: tuple[str, ...]
    reason: str

    @property
    def file(self) -> str | None:
        """The name of the file that a reader writes the block to, by its first line."""
        found = FILE.match(self.lines[0]) if self.lines else None
        return found and found[1]


@dataclass(frozen=True)
class Command:
    """The words of a command on a page, its program first."""

    block: Block
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.block.page}: {shlex.join(self.words)}"


def blocks_of(page: Path) -> Iterator[Block]:
    """Return the fences and tables of a page in order."""
    name, reason = page.relative_to(ROOT).as_posix(), ""
    numbered = iter(enumerate(page.read_text("utf-8").splitlines(), start=1))
    for number, line in numbered:
        if found := LEFT_OUT.search(line):
            reason = found[1]
        elif fence := FENCE.match(line):
            inner = takewhile(lambda text: text != "```", (text for _, text in numbered))
            yield Block(name, number, fence[1], tuple(inner), reason)
            reason = ""
        elif line.startswith("|"):
            inner = takewhile(lambda text: text.startswith("|"), (text for _, text in numbered))
            yield Block(name, number, "table", (line, *inner), reason)
            reason = ""
        elif line:
            reason = ""


def commands_of(block: Block) -> Iterator[Command]:
    """Return the commands of a block of a shell or of a table."""
    if block.language == "table":
        texts = [text for line in block.lines for text in IN_TABLE.findall(line)]
    elif block.language == "sh":
        texts = "\n".join(block.lines).replace("\\\n", " ").splitlines()
    else:
        texts = []
    for text in texts:
        for words in parted(shlex.split(text, comments=True)):
            if words[0] in STARTERS and "defense" in words:
                words = words[words.index("defense") :]
            if words[0] in PROGRAMS:
                yield Command(block, tuple(words))


def parted(words: Sequence[str]) -> Iterator[list[str]]:
    """Return the commands of a line, which && parts."""
    found: list[str] = []
    for word in [*words, "&&"]:
        if word != "&&":
            found.append(word)
        elif found:
            yield found
            found = []


BLOCKS = [block for page in PAGES for block in blocks_of(page)]
COMMANDS = list({str(each): each for block in BLOCKS for each in commands_of(block)}.values())  # each once
