"""Plan a run: which stages its task would call, and which of them the store holds. Nothing is computed.

The task runs as it is. A stage that the store holds returns its artifact. For any other a placeholder stands in.
It enters the keys of later stages in place of the content, so that stages of the same origin have one key.
The plan ends if the task asks a placeholder for a number.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn, cast

from defense.artifacts import AdversarialSet, Checks, DescentRound, Evaluation, Scores, Smoothness, Treatment
from defense.config.choices import Task
from defense.config.schema import Config, Train
from defense.data.splits import Split
from defense.errors import InputError
from defense.pipeline.load import load_run
from defense.pipeline.run import Run
from defense.reporting.run import Scoring
from defense.runtime.distributed import SingleProcess
from defense.runtime.lock import free, holder
from defense.runtime.runtime import Runtime
from defense.stages.trained import Trained
from defense.store.files import LOCK, PART, beside
from defense.store.fingerprint import key_of
from defense.store.stage import Arguments, Stage, StageRunner
from defense.store.store import checked_manifest, identity_of, read
from defense.tasks.registry import TASKS


class AllStagesCalledError(Exception):
    """A task has called its last stage, and would write its report."""


class NotComputedError(Exception):
    """A task asks for a number of a stage that is not computed."""


class Missing:
    """What a stage would return that the store does not hold, or a part of it.

    It counts as true, and every comparison with it as well: the plan then has the stages of both cases.
    """

    __array_ufunc__ = None  # numpy leaves comparisons to it

    def __init__(self, name: str) -> None:
        self._name = name

    def digest(self) -> dict[str, str]:
        """Return what stands for it in keys."""
        return {"not computed": self._name}

    def __getattr__(self, name: str) -> Missing:
        if name.startswith("__") or name in ("digests", "identity"):
            raise AttributeError(name)
        return Missing(f"{self._name}.{name}")

    def __getitem__(self, name: Any) -> Missing:
        return Missing(f"{self._name}[{name.digest() if isinstance(name, Missing) else name!r}]")

    def __call__(self, *given: Any, **named: Any) -> Missing:
        """Return what a call of it would return."""
        return Missing(f"{self._name}()")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Missing) and other._name == self._name

    def __hash__(self) -> int:
        return hash(self._name)

    def __bool__(self) -> bool:
        return True

    def __gt__(self, other: object) -> bool:
        return True

    def __lt__(self, other: object) -> bool:
        return True

    def refuse(self, *given: Any) -> NoReturn:
        """Raise NotComputedError."""
        raise NotComputedError(self._name)

    __len__ = __iter__ = __int__ = __float__ = __index__ = __array__ = refuse
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = refuse


@dataclass(frozen=True)
class PlannedStage:
    """One stage that a run would call."""

    label: str
    name: str  # of the stage, the folder in the store
    key: str  # in the store; of a stage after a missing one, what it shares with the same stage of other runs
    identity: dict[str, Any]  # what the key is made of
    stored: bool
    running: str = ""  # who computes it now, and since when
    kept: bool = False  # whether a killed attempt left progress

    @property
    def entry(self) -> str:
        """Its entry in the store, as in train/<key>."""
        return f"{self.name}/{self.key}"


@dataclass(frozen=True)
class Plan:
    """The stages of one run in order; unless it is `complete`, further ones depend on numbers that are not there.

    Two stages of equal content, as trainings on the same samples, share an entry once they are computed. So a run
    may compute fewer.
    """

    stages: list[PlannedStage]
    complete: bool

    @property
    def left(self) -> list[PlannedStage]:
        """The stages that the store does not hold."""
        return [stage for stage in self.stages if not stage.stored]


class StagePlanner(StageRunner):
    """Takes stages from the store, and notes those that it does not hold."""

    def __init__(self, root: Path) -> None:
        if root.exists() and not root.is_dir():
            raise InputError("store", root, "a file; expected a folder")
        self.root = root
        self.keys, self.seconds, self.reused = {}, {}, []
        self.planned: list[PlannedStage] = []

    def run_stage(self, stage: Stage, runtime: Runtime, arguments: Arguments) -> Any:
        """Return the artifact of a stage, or what stands for it."""
        label = " ".join(filter(None, (stage.name, runtime.label.replace("_", " "))))
        identity = identity_of(stage.identity(runtime, arguments))
        key = key_of(identity)
        entry = self.root / stage.name / key
        stored = checked_manifest(entry)[0] is not None  # a damaged one is computed again
        lock, kept = beside(entry, LOCK), (beside(entry, PART) / "progress").exists()
        running = "" if stored or free(lock) else f"{holder(lock)}{since(lock)}"
        self.planned.append(PlannedStage(label, stage.name, key, identity, stored, running, kept))
        return read(stage.hints["return"], entry) if stored else Missing(key)


def since(lock: Path) -> str:
    """Return when a lock was taken, in local time; nothing if it was released meanwhile."""
    try:
        return f", since {datetime.fromtimestamp(lock.stat().st_mtime):%Y-%m-%d %H:%M:%S}"
    except OSError:
        return ""


@dataclass(frozen=True)
class PlannedModel(Trained):
    """A model that is not trained yet."""

    @property
    def kept(self) -> Any:
        """What stands for the epoch of its weights."""
        return self.artifact.history

    @property
    def checkpoints(self) -> Any:
        """What stands for its checkpoints."""
        return self.artifact.checkpoints


@dataclass(frozen=True)
class PlannedRun(Run):
    """A run whose stages are planned; what it would compute beside them is left out."""

    def train(self, arm: str, treatment: Treatment, recipe: Train | None = None, *, index: int = 0) -> Trained:
        """Return a model, or what stands for it."""
        found = super().train(arm, treatment, recipe, index=index)
        return PlannedModel(found.design, found.artifact) if isinstance(found.artifact, Missing) else found

    def attacked(self, split: Split, adversarial: AdversarialSet) -> Split:
        """Return the split with its attacked pictures, or with what stands for them."""
        if isinstance(adversarial, Missing):
            return split.with_images(cast(Any, adversarial))
        return super().attacked(split, adversarial)

    def with_smoothness(self, scores: Scores, smooth: Smoothness) -> Scores:
        """Return the scores."""
        return scores

    def descent(self, number: int, which: int, treatment: Treatment) -> DescentRound:
        """Return a round; the next one depends on its numbers."""
        found = super().descent(number, which, treatment)
        if isinstance(found, Missing):
            found.refuse()
        return found

    def learned(self, evaluation: Evaluation) -> dict[str, Any]:
        """Return nothing."""
        return {}

    def findings(self, found: Checks, evaluation: Evaluation) -> dict[str, dict[str, Any]]:
        """Return nothing."""
        return {}

    def summary(self, scores: Scores, overrides: list[str]) -> Scoring:
        """End the plan: a report follows."""
        raise AllStagesCalledError


class PlannedRanks(SingleProcess):
    """As many processes as a run would have, whose number enters keys; none of them is there."""

    def __init__(self, size: int) -> None:
        self.size = size


def plan(config: Config) -> Plan:
    """Return the stages of a run; raises InputError if its settings, data or model do not fit."""
    planner = StagePlanner(Path(config.store))
    try:
        loaded = load_run(config, runner=planner)
        values = {field.name: getattr(loaded, field.name) for field in fields(Run)}
        values["runtime"] = replace(loaded.runtime, ranks=PlannedRanks(config.fabric.processes))
        TASKS[config.task](PlannedRun(**values), Path(), [])
    except AllStagesCalledError:
        return Plan(planner.planned, complete=config.task is not Task.speed)  # which takes times anew
    except NotComputedError:
        pass
    return Plan(planner.planned, complete=False)
