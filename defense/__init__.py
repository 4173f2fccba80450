"""Find the training samples that make a classifier easy to attack, and show whether treating them helps."""

from __future__ import annotations

from typing import Any

__all__ = ["attack", "defend", "evaluate", "score", "treat"]


def __getattr__(name: str) -> Any:
    """Import torch when a function is asked for, and not before: the command line must answer at once."""
    if name in __all__:
        from defense import api as notebook

        return getattr(notebook, name)
    raise AttributeError(f"module 'defense' has no attribute {name!r}")


def __dir__() -> list[str]:
    """List the functions, which are imported when they are asked for."""
    return sorted(__all__)
