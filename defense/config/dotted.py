"""Settings whose part may be a function in a file of the user, by its dotted path."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

OWN = "own"  # the choice of a function of the user, in every Enum that has one
OF_A_PATH = ("_target_", "arguments")  # the settings that this choice reads


@dataclass(kw_only=True)
class ByPath:
    """The path of a function, as my_parts.my_attack, and its keyword arguments; None: a part of this package."""

    _target_: str | None = None
    arguments: dict[str, Any] = field(default_factory=dict)


def last_name(path: str) -> str:
    """Return the last name of a dotted path: 'margin' of my_parts.margin."""
    return path.replace(":", ".").rpartition(".")[2]


def named(choice: str, path: str | None) -> str:
    """Return what pages call a choice: a function of the user by the last name of its path, others as they are."""
    return last_name(path) if choice == OWN and path else choice
