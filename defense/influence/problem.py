"""What a scorer may look at, and what it gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from torch import Tensor, nn

from defense.config.schema import Objective, Scorer
from defense.data.splits import Split
from defense.data.validation import Validation
from defense.errors import InputError
from defense.influence.alignment import Derivative, Derivatives, forward_derivative
from defense.influence.directions import Record
from defense.influence.per_sample import Gradients
from defense.influence.precision import derivative_for
from defense.models.checkpoints import Checkpoint
from defense.runtime.checkpoint import Checkpointer
from defense.runtime.distributed import SharedCheckpoint
from defense.runtime.runtime import Runtime


@dataclass(frozen=True)
class ScoringContext:
    """What a scorer may look at."""

    model: nn.Module
    train: Split  # as trained on
    attacked: Split | None  # the same, attacked at the model; None if no setting asks for it
    validation: Validation | None
    objective: Objective | None
    scorer: Scorer
    seed: int
    states: Sequence[Checkpoint] = ()  # of the training run, for the settings that need them
    held_out: Tensor | None = None  # probabilities (n, classes) of models that have not seen the sample
    runtime: Runtime = field(default_factory=Runtime)

    @property
    def common(self) -> Checkpointer:
        """A checkpointer that all ranks share."""
        return SharedCheckpoint(self.runtime.checkpoint, self.runtime.ranks)

    @property
    def target(self) -> tuple[Validation, Objective]:
        """The validation samples and the objective on them; raises InputError if there are none."""
        if self.validation is None or self.objective is None:
            raise InputError("scorer", self.scorer.name, "expected an objective on validation samples")
        return self.validation, self.objective

    @property
    def scored(self) -> Split:
        """The training samples as their gradients are taken: as they are, or attacked."""
        return self.needs_attacked() if self.scorer.attacked_train else self.train

    @cached_property
    def gradients(self) -> Gradients:
        """How gradients of single samples are formed; found out once for all members."""
        return Gradients()

    @cached_property
    def derivative(self) -> Derivative:
        """How the derivatives of one batch are computed; compiled, and found out, once for all members."""
        return Derivatives(derivative_for(self.scorer, forward_derivative), self.gradients)

    def needs_attacked(self) -> Split:
        """Return the attacked training samples; raises InputError if there are none."""
        if self.attacked is None:
            raise InputError("scorer", self.scorer.name, "expected attacked training samples")
        return self.attacked


@dataclass(frozen=True)
class ScoreResult:
    """The scores (n,), what they are the sum of, and how the computation went."""

    total: Tensor
    parts: dict[str, Tensor] = field(default_factory=dict)  # by objective, if there are several
    members: dict[str, Tensor] = field(default_factory=dict)  # by member, if there are several
    record: Record = field(default_factory=dict)
