"""Tables of accuracies, and the order in which every report shows them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from defense.reporting.escaping import visible

ARMS = ("baseline", "control", "defended", "proxy")  # proxy: the model of another recipe that scores come from


def arms_of(arms: Collection[str]) -> list[str]:
    """Return the names of the arms that there are, in the order of every table."""
    return [name for name in ARMS if name in arms]


def header(arms: Collection[str]) -> tuple[str, ...]:
    """Return the header of a table of accuracies."""
    return ("test accuracy, %", *arms_of(arms), "defended - control (95 %)")


def metrics(arm: dict[str, Any]) -> list[str]:
    """Return the dotted names of an arm's accuracies, adaptive at worst first."""
    adaptive = sorted(arm["adaptive"], key=lambda attack: attack != "worst")
    others = [name for name in ("clean", "triggered", "transfer") if name in arm]
    return [*(f"adaptive.{attack}" for attack in adaptive), *others]


def lookup(arm: dict[str, Any], metric: str) -> float:
    """Return the accuracy at a dotted name."""
    value: Any = arm
    for name in metric.split("."):
        value = value[name]
    return float(value)


def spoken(metric: str) -> str:
    """Return 'adaptive, after pgd' for 'adaptive.pgd': after this attack and all before it."""
    kind, _, attack = metric.partition(".")
    if not attack:
        return kind
    return f"{kind}, {attack}" if attack == "worst" else f"{kind}, after {attack}"


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
