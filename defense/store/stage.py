"""Declare a stage once: every argument but the runtime enters its key, by content.

    @stage(version=7, code=(influence, models), shared=True)
    def score(runtime: Runtime, model: Trained, train: Split, ...) -> Scores: ...

The runner of a runtime takes the artifact from the store or computes it, once for all runs, with progress, log and
seconds. A runtime without a runner computes it in place. Defaults are bound before keys are made. An argument is
narrowed by its annotation: `Annotated[Split, reads("ids", "labels")]` enters by these parts, and
`Annotated[Scorer, unread("name")]` by all others.
"""

from __future__ import annotations

import inspect
import logging
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property, wraps
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Concatenate, ParamSpec, TypeVar, get_args, get_origin, get_type_hints

from defense.errors import InputError
from defense.runtime.progress import Progress, no_progress, show_progress
from defense.runtime.runtime import Runtime
from defense.store.fingerprint import canonical, hash_of
from defense.store.store import FileCheckpointer, Store, Stored, read

log = logging.getLogger(__name__)
SEEN_AFTER = 30.0  # seconds in which a shared folder shows one machine what another has written
P = ParamSpec("P")
R = TypeVar("R")
Arguments = Mapping[str, Any]


@dataclass(frozen=True)
class Unread:
    """The fields of a settings argument that a stage does not read."""

    names: frozenset[str]


def unread(*names: str) -> Unread:
    """Return what annotates a settings argument of which a stage does not read these fields."""
    return Unread(frozenset(names))


@dataclass(frozen=True)
class Stage:
    """One declared stage; see `stage`."""

    function: Callable[..., Any]
    version: int
    code: Sequence[ModuleType]
    shared: Callable[[Arguments], bool]
    as_before: Mapping[str, Any]
    counts_ranks: bool

    @property
    def name(self) -> str:
        """The name of its function, and of its folder in the store."""
        return self.function.__name__

    @property
    def versions(self) -> dict[str, int]:
        """Its own version, and those of the rooms whose code it stands on, by name."""
        return {self.name: self.version} | self.rooms

    @property
    def rooms(self) -> dict[str, int]:
        """The versions of the rooms whose code it stands on, by name."""
        return {module.__name__.removeprefix("defense."): int(module.VERSION) for module in self.code}

    @cached_property
    def hints(self) -> dict[str, Any]:
        """The annotations of its function, evaluated."""
        return get_type_hints(self.function, include_extras=True)

    def bind(self, *given: Any, **named: Any) -> dict[str, Any]:
        """Return the arguments of a call by name, defaults too, without the runtime."""
        bound = inspect.signature(self.function).bind(None, *given, **named)
        bound.apply_defaults()
        return dict(list(bound.arguments.items())[1:])

    def identity(self, runtime: Runtime, arguments: Arguments) -> dict[str, Any]:
        """Return what the key of a call is made of, in canonical form."""
        known = {name: value for name, value in arguments.items() if not self.is_as_before(name, value)}
        seen = {name: canonical(self.seen(name, value), name) for name, value in known.items()}
        ranks = (
            {"processes": runtime.ranks.size} if self.counts_ranks and self.processes(runtime, arguments) else {}
        )
        return {"stage": self.name, "code": self.versions, "arguments": seen, **runtime.key, **ranks}

    def is_as_before(self, name: str, value: Any) -> bool:
        """Return whether an argument has the value that stands for the time before it was added."""
        return name in self.as_before and hash_of(canonical(value)) == hash_of(canonical(self.as_before[name]))

    def seen(self, name: str, value: Any) -> Any:
        """Return the part of an argument that the stage reads, by its annotation."""
        hint = self.hints[name]
        marks = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
        for mark in marks if value is not None else ():
            if isinstance(mark, frozenset):
                return {part: part_of(value, part) for part in sorted(mark)}
            if isinstance(mark, Unread):
                return {part: each for part, each in canonical(value, name).items() if part not in mark.names}
        return value

    def processes(self, runtime: Runtime, arguments: Arguments) -> bool:
        """Return whether several processes compute it together."""
        return runtime.ranks.size > 1 and self.shared(arguments)


STAGES: dict[str, Stage] = {}  # by name, once their modules are imported


def stage(
    *,
    version: int,
    code: Sequence[ModuleType] = (),
    shared: bool | Callable[[Arguments], bool] = False,
    as_before: Mapping[str, Any] | None = None,
    counts_ranks: bool = False,
) -> Callable[[Callable[Concatenate[Runtime, P], R]], Callable[Concatenate[Runtime, P], R]]:
    """Declare a function (runtime, ...) -> artifact as a stage.

    version: raise it if the numbers of the stage change. code: the rooms whose VERSION stands for shared code.
    shared: whether all processes of a run compute it together, or a function of the arguments; else rank 0 does.
    as_before: by argument, the value that leaves old keys valid. counts_ranks: let the number of processes enter
    the key, where draws and rounding depend on it.
    """

    def declare(function: Callable[Concatenate[Runtime, P], R]) -> Callable[Concatenate[Runtime, P], R]:
        together = shared if callable(shared) else lambda arguments: bool(shared)
        declared = Stage(function, version, code, together, as_before or {}, counts_ranks)
        if declared.name in STAGES:
            raise ValueError(f"two stages are called {declared.name}")
        if declared.name in declared.rooms:  # both have a version in the key
            raise ValueError(f"a stage and a room are called {declared.name}")
        STAGES[declared.name] = declared

        @wraps(function)
        def call(runtime: Runtime, /, *given: P.args, **named: P.kwargs) -> R:
            arguments = declared.bind(*given, **named)
            if runtime.runner is None:
                alone = runtime.ranks.size > 1 and not declared.shared(arguments)
                return function(runtime.alone() if alone else runtime, *given, **named)
            artifact: R = runtime.runner.run_stage(declared, runtime, arguments)
            return artifact

        return call

    return declare


def part_of(value: Any, path: str) -> Any:
    """Return the part of an argument at a dotted path: attributes, then columns and entries."""
    for name in path.split("."):
        if name in getattr(value, "digests", ()):  # a split hashes each of its fields once
            return value.digests[name]
        value = getattr(value, name) if hasattr(value, name) else value[name]
    return value


class StageRunner:
    """Takes stages from the store or has them computed, in sight, and keeps their times.

    Rank 0 has the store. The other ranks compute with it if a stage is shared, and read what it has stored.
    showing: draws the progress of a stage by its label; None: as the command does.
    """

    def __init__(
        self, root: Path, showing: Callable[[str], AbstractContextManager[Progress]] | None = None
    ) -> None:
        self.store, self.showing = Store(root), showing or show_progress
        self.keys: dict[str, str] = {}  # of each stage, as in train/<key>
        self.seconds: dict[str, float] = {}
        self.reused: list[str] = []

    def run_stage(self, stage: Stage, runtime: Runtime, arguments: Arguments) -> Any:
        """Return the artifact of a stage; see `defense.runtime.runtime.Runner`."""
        label = "_".join(filter(None, (stage.name, runtime.label)))
        if runtime.ranks.rank > 0:
            stored = self.follow(stage, runtime, arguments)
        else:
            stored = self.lead(stage, runtime, arguments, label.replace("_", " "))
        if stored.reused and label not in self.keys:
            self.reused.append(label)
        self.keys[label] = f"{stage.name}/{stored.key}"
        self.seconds[label] = stored.seconds
        log.info(
            "%-20s %s", label.replace("_", " "), "from the store" if stored.reused else f"{stored.seconds:.1f} s"
        )
        return stored.artifact

    def lead(self, stage: Stage, runtime: Runtime, arguments: Arguments, label: str) -> Stored[Any]:
        """Return what the store holds, or compute it here, together with the others if the stage is shared."""
        with self.showing(label) as progress:

            def compute(checkpoint: FileCheckpointer) -> Any:
                if stage.processes(runtime, arguments):
                    runtime.ranks.broadcast(str(checkpoint.folder))
                    own = replace(runtime, progress=progress, checkpoint=checkpoint, runner=None)
                else:
                    own = replace(runtime.alone(), progress=progress, checkpoint=checkpoint)
                return stage.function(own, **arguments)

            stored: Stored[Any] = self.store.once(
                stage.name, stage.hints["return"], made_of=stage.identity(runtime, arguments), compute=compute
            )
        runtime.ranks.broadcast((stored.key, stored.seconds, stored.reused))
        return stored

    def follow(self, stage: Stage, runtime: Runtime, arguments: Arguments) -> Stored[Any]:
        """Return the artifact that rank 0 finds or computes, with help if it asks for it.

        Raises InputError if this machine does not see the entry of rank 0.
        """
        message: Any = runtime.ranks.broadcast(None)
        if isinstance(message, str):  # the folder of an unfinished stage
            own = replace(runtime, progress=no_progress, checkpoint=FileCheckpointer(Path(message)), runner=None)
            stage.function(own, **arguments)
            message = runtime.ranks.broadcast(None)
        key, seconds, reused = message
        entry = self.store.root / stage.name / key
        until = time.monotonic() + SEEN_AFTER
        while not entry.is_dir():
            if time.monotonic() > until:
                found = (
                    f"process {runtime.ranks.rank}, on {platform.node()}, does not see {stage.name}/{key} there"
                )
                raise InputError("store", self.store.root, f"{found}; expected a folder that all machines share")
            time.sleep(0.1)
        return Stored(read(stage.hints["return"], entry), key, seconds, reused)
