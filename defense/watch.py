"""How far a long computation is: what it tells whoever watches."""

from __future__ import annotations

from collections.abc import Callable

Watch = Callable[..., None]  # (done, total, **numbers): so many of so many parts, and what is worth showing beside


def silent(done: int, total: int, **numbers: float) -> None:
    """Watch a computation without showing it."""
