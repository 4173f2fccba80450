"""Write a value so that Hydra reads it as the text that it is, and say how a person types that in a shell."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException


def parsed(word: str) -> Override | None:
    """Return an override as Hydra reads it; None if it cannot."""
    try:
        (override,) = OverridesParser.create().parse_overrides([word])
    except HydraException:
        return None
    return override


def written(value: Any) -> str:
    """Return what Hydra's grammar reads as `value`: text in double quotes, null, numbers, lists, mappings."""
    if isinstance(value, str):
        return QuotedString(value, Quote.double).with_quotes()
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return f"[{','.join(map(written, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{key}:{written(each)}' for key, each in value.items())}}}"
    return repr(value)


def as_text(value: str) -> str:
    """Return the quoted form of a value as typed; a leading ~ becomes the home folder, and ${ stays as it is."""
    return written(os.path.expanduser(value).replace("${", "\\${"))


def typed_for(word: str, *, sweep: bool = False) -> str | None:
    """Return what to type in a shell for an override that Hydra does not read, its value taken as text.

    In a list, and in a sweep, each value is quoted by itself. None if no quoting helps.
    """
    key, equals, value = word.partition("=")
    forms = quoted_forms(value, sweep=sweep) if equals else iter(())
    words = (f"{key}={form}" for form in forms)
    return next((shlex.quote(each) for each in words if parsed(each) is not None), None)


def quoted_forms(value: str, *, sweep: bool) -> Iterator[str]:
    """Yield quoted forms of a value that may be meant, the most likely first."""
    if value.startswith("[") and value.endswith("]"):
        yield f"[{pieces(value[1:-1])}]"
    if sweep and "," in value:
        yield pieces(value)
    if same_text(value):
        yield as_text(value)


def pieces(values: str) -> str:
    """Return values between commas, those quoted that Hydra does not read as they are."""
    each = (value.strip() for value in values.split(","))
    return ",".join(value if parsed(f"x={value}") else as_text(value) for value in each)


def same_text(value: str) -> bool:
    """Return whether the quoted form of a value is read as that very text."""
    override = parsed(f"x={as_text(value)}")
    if override is None:
        return False
    try:
        return bool(OmegaConf.create({"x": override.value()}).x == os.path.expanduser(value))
    except OmegaConfBaseException:
        return False
