"""Refused columns of a table, all in one line, with the settings that settle each."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from defense.config.schema import Data
from defense.errors import InputError

WAYS = {  # settings of the data that a refusal ends with, in this order
    "drop": "leaves {} out",
    "numbers": "reads {} as numbers",
    "categories": "takes every value as a category",
}
WORDS = ("null", "true", "false", "nan", "inf")  # that Hydra reads as no text
TOLD = 3  # columns that are described, others are named


@dataclass(frozen=True)
class Complaint:
    """The reason that a column is refused as it is."""

    column: str
    said: str  # goes on after "column NAME "
    ways: tuple[str, ...]  # of WAYS that it can be settled by


def refuse(complaints: Sequence[Complaint], spec: Data) -> None:
    """Raise InputError for all complaints about the training file at once, if there are any."""
    if not complaints:
        return
    told = [f"column {each.column} {each.said}" for each in complaints[:TOLD]]
    if len(complaints) > TOLD:
        told.append(f"so with {', '.join(each.column for each in complaints[TOLD:])}")
    settled = {way: [each.column for each in complaints if way in each.ways] for way in WAYS}
    ways = [
        f"{override(spec, way, names)} {WAYS[way].format('them' if len(names) > 1 else 'it')}"
        for way, names in settled.items()
        if names
    ]
    raise InputError("data.path", spec.path, "; ".join([*told, ", ".join(ways)]))


def override(spec: Data, setting: str, names: Sequence[str]) -> str:
    """Return the override that adds columns to a setting, as it is typed: 'data.drop=[customer_id]'."""
    listed = dict.fromkeys([*(getattr(spec, setting) or []), *names])
    return shlex.quote(f"data.{setting}=[{','.join(map(quoted, listed))}]")


def quoted(name: str) -> str:
    """Return a name as it stands in an override of Hydra: as it is, or in quotes if it has special characters."""
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]*", name) and name.lower() not in WORDS:
        return name
    return '"' + re.sub(r'(\\*)("|$)', lambda found: found[1] * 2 + ('\\"' if found[2] else ""), name) + '"'
