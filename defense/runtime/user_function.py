"""A function of the user in place of a part: found by its path, checked and called, with errors of one line."""

from __future__ import annotations

import inspect
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from inspect import Parameter
from pathlib import Path
from typing import Any

from defense.config.dotted import ByPath, last_name
from defense.errors import InputError, is_out_of_memory
from defense.runtime.source import TARGET, VERSION, locate, source_digest

BY_PLACE = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
BY_NAME = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)


@dataclass(frozen=True)
class UserFunction:
    """A function of the user, and the keyword arguments that the settings give it."""

    field: str  # of the settings that name it, as scorer
    path: str
    function: Callable[..., Any]
    arguments: Mapping[str, Any]

    @classmethod
    def of(cls, settings: ByPath, field: str) -> UserFunction:
        """Return the function that settings name; raises InputError if there is none at its path."""
        path, given = str(settings._target_), settings.arguments
        arguments = {name: value for name, value in given.items() if name != VERSION}
        return cls(field, path, locate(path, field), arguments)

    def __call__(self, *given: Any, **named: Any) -> Any:
        """Return the result of the function; raises InputError, with file and line, for an error inside it."""
        try:
            return self.function(*given, **named, **self.arguments)
        except InputError:
            raise
        except Exception as error:  # a user's code can raise anything
            if isinstance(error, RuntimeError) and is_out_of_memory(error):
                raise
            frame = self.last_frame(error)
            where = f"{Path(frame.filename).name}, line {frame.lineno}"
            first = next(iter(str(error).strip().splitlines()), "no message")
            raise self.refusal(f"fails in {where} ({type(error).__name__}: {first})") from error

    def last_frame(self, error: Exception) -> traceback.FrameSummary:
        """Return the last line of the user's folder that led to an error; of no such, the last of all."""
        frames = traceback.extract_tb(error.__traceback__)
        folder = Path(str(getattr(sys.modules.get(self.function.__module__), "__file__", ""))).resolve().parent
        of_user = [frame for frame in frames if Path(frame.filename).resolve().is_relative_to(folder)]
        return (of_user or frames)[-1]

    def refusal(self, why: str) -> InputError:
        """Return the error that says why the function cannot be used."""
        return InputError(f"{self.field}.{TARGET}", self.path, why)

    def check_signature(self, given: Sequence[str], named: Sequence[str]) -> None:
        """Raise InputError unless it takes parameters by place, others by name, and those that the settings give.

        given, named: what the parameters stand for, and their names.
        """
        try:
            parameters = list(inspect.signature(self.function).parameters.values())
        except (TypeError, ValueError):  # of a function in C
            return
        kinds = {each.kind for each in parameters}
        places = [each for each in parameters if each.kind in BY_PLACE][: len(given)]
        names = [each.name for each in parameters if each.kind in BY_NAME and each not in places]
        missing = [] if Parameter.VAR_POSITIONAL in kinds else list(given[len(places) :])
        if Parameter.VAR_KEYWORD not in kinds:
            missing += [name for name in named if name not in names]
            for name, value in self.arguments.items():
                known = ", ".join(each for each in names if each not in named) or "none"
                if name not in names:
                    said = f"is no parameter of {self.path}; expected {known}"
                    raise InputError(f"{self.field}.arguments.{name}", value, said)
        if missing:
            form = f"{last_name(self.path)}({', '.join([*given, *(['*', *named] if named else [])])})"
            raise self.refusal(f"does not take {', '.join(missing)}; expected {form}")
        required = [each.name for each in parameters if each.kind in BY_NAME and each.default is Parameter.empty]
        for name in required:
            if name in names and name not in (*named, *self.arguments):
                said = f"asks for {name}; expected {self.field}.arguments.{name}=VALUE, or a default for it"
                raise self.refusal(said)


def in_words(output: object) -> str:
    """Return 'torch.float32 of shape (3, 10)' of a tensor, and the name of its type of anything else."""
    shape, dtype = getattr(output, "shape", None), getattr(output, "dtype", None)
    return type(output).__name__ if dtype is None or shape is None else f"{dtype} of shape {tuple(shape)}"


def source_of(settings: ByPath, part: str) -> dict[str, str]:
    """Return the hashes of the code and files that a function of the user is made of, for keys.

    part: of the settings of a run, as scorer. See `source_digest`.
    """
    given = {TARGET: settings._target_, "arguments": settings.arguments}
    version = {name: value for name, value in settings.arguments.items() if name == VERSION}
    return source_digest(given | version, part, holder=f"{part}.arguments")
