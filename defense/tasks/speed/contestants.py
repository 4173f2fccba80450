"""What a scorer computes, in words: for pages on which several stand side by side."""

from __future__ import annotations

from typing import Any

from defense.config.choices import Direction, Members, Method, Peer


def computed(scorer: dict[str, Any] | str, config: dict[str, Any]) -> str:
    """Return what a scorer, by its settings, or a library, by its name, gives sample i; config: of its run."""
    if isinstance(scorer, str):
        return Peer(scorer).words
    method = Method(scorer["method"])
    if method is not Method.alignment:
        return method.words.format(**scorer)
    numbers = scorer | {"checkpoints": config["train"]["checkpoints"]}
    words = Direction(scorer["direction"]).words + Members(scorer["members"]).words
    return words.format(**numbers) + (", as cosines" if scorer["cosine"] else "")
