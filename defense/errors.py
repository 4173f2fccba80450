"""The one error that a person's input can cause: a line that names the field, its value and what is valid."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches

WORDS = {None: "null", True: "true", False: "false"}  # of the settings


class InputError(ValueError):
    """Input that cannot be used; shown as one line, without a traceback, with exit code 2."""

    def __init__(self, field: str, value: object, expected: str) -> None:
        super().__init__(printable(" ".join(f"{field}={as_typed(field, value)}: {expected}".split())))
        self.field, self.value, self.expected = field, value, expected

    def __reduce__(self) -> tuple[type[InputError], tuple[str, str, str]]:
        """Say how another process makes the same error; the value by its text, for it may be anything."""
        return InputError, (self.field, as_typed(self.field, self.value), self.expected)


# in one line, without a traceback: there is nothing to debug in this project
USER_ERRORS = (InputError, FloatingPointError, NotADirectoryError, PermissionError, FileExistsError)


def as_typed(field: str, value: object) -> str:
    """Return a value as it is typed: null, true and false in a setting, whose name has a dot; else Python's."""
    return WORDS[value] if "." in field and (value is None or isinstance(value, bool)) else str(value)


def printable(text: str) -> str:
    r"""Return the text with \xe4 in place of a byte of a file's name that is not UTF-8."""
    told = re.sub("[\udc80-\udcff]", lambda byte: f"\\x{ord(byte[0]) - 0xDC00:02x}", text)
    return told.encode("utf-8", "backslashreplace").decode("utf-8")


@contextmanager
def out_of_memory_names(field: str, value: int) -> Iterator[None]:
    """Turn running out of memory on a batch into an InputError that says which `field` to lower."""
    try:
        yield
    except RuntimeError as error:
        if is_out_of_memory(error):
            advice = "lower this number" if value > 1 else "there is no room for a single sample"
            raise InputError(field, value, f"out of memory on a batch; {advice}") from error
        raise


def is_out_of_memory(error: RuntimeError) -> bool:
    """Return whether torch ran out of memory: an error of its own on a GPU, a plain one on the CPU."""
    return type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)


def within(field: str, value: object, valid: bool, expected: str) -> None:
    """Raise InputError unless `valid`."""
    if not valid:
        raise InputError(field, value, f"expected {expected}")


def nearest_first(value: object, names: Iterable[str]) -> list[str]:
    """Return valid names, the one that is written most like `value` before the others if any is."""
    known = {name.casefold(): name for name in names}
    near = [known[name] for name in get_close_matches(str(value).casefold(), known, n=1)]
    return [*near, *(name for name in known.values() if name not in near)]
