"""The one error that a person's input can cause: a line that names the field, its value and what is valid."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class InputError(ValueError):
    """Input that cannot be used; shown as one line, without a traceback, with exit code 2."""

    def __init__(self, field: str, value: object, expected: str) -> None:
        super().__init__(" ".join(f"{field}={value}: {expected}".split()))


@contextmanager
def out_of_memory_names(field: str, value: int) -> Iterator[None]:
    """Turn running out of memory on a batch into an InputError that says which `field` to lower."""
    try:
        yield
    except RuntimeError as error:  # torch.OutOfMemoryError is one; the CPU allocator raises a plain one
        if type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error):
            raise InputError(field, value, "out of memory on a batch; lower this number") from error
        raise
