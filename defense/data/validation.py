"""The validation samples as an objective looks at them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from defense.config.choices import ObjectiveName
from defense.data.splits import Split
from defense.errors import InputError


@dataclass(frozen=True)
class Validation:
    """The validation set as it is, and attacked at the model that is scored, where an objective looks at that."""

    clean: Split
    adversarial: Split | None

    @property
    def splits(self) -> dict[str, Split]:
        """The samples as they are, `clean`, and `adversarial` if they were attacked."""
        return {"clean": self.clean} | ({} if self.adversarial is None else {"adversarial": self.adversarial})

    def subset(self, rows: Tensor) -> Validation:
        """Return the validation samples at `rows`."""
        return Validation(self.clean.subset(rows), self.adversarial.subset(rows) if self.adversarial else None)

    def seen_by(self, name: ObjectiveName, *, attacked: bool) -> Split:
        """Return the samples that a term looks at; raises InputError if they were not attacked for it."""
        split = self.adversarial if attacked else self.clean
        if split is None:
            raise InputError("objective.weights", name, "expected a validation set that was attacked")
        return split
