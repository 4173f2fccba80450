"""What an attacker may do, and the attacks that a run makes; a leaf, and a part of `defense.schema`."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from defense.choices import AttackName, Norm


def number(text: str) -> float:
    """Return the value of a decimal or a fraction, as in '0.1' and '8/255'; raises ValueError for others."""
    try:
        return float(Fraction(text.replace(" ", "")))
    except (ZeroDivisionError, OverflowError) as error:
        raise ValueError(f"{text!r} is not a finite number") from error


@dataclass
class Threat:
    """The ball that every perturbation stays in, intersected with the pixel range [0, 1]."""

    norm: Norm
    eps: str

    @property
    def radius(self) -> float:
        """The radius of the ball, in units of the pixel range."""
        return number(self.eps)


READ_BY: dict[AttackName, tuple[str, ...]] = {  # the settings that each attack reads, beside its restarts
    AttackName.fgsm: (),
    AttackName.pgd: ("steps", "step_size", "random_start"),
    AttackName.apgd_ce: ("steps",),
    AttackName.apgd_t: ("steps",),
    AttackName.fab_t: ("steps",),
    AttackName.square: ("queries",),
    AttackName.cw: ("steps",),
    AttackName.deepfool: ("steps",),
    AttackName.autoattack: ("steps", "queries"),
}


@dataclass
class Attack:
    """One attack inside the threat model."""

    name: AttackName
    steps: int = 10
    step_size: str | None = None
    random_start: bool = True
    restarts: int = 1
    queries: int = 5000

    @property
    def read(self) -> dict[str, Any]:
        """What its outcome depends on."""
        return {name: getattr(self, name) for name in ("name", "restarts", *READ_BY[self.name])}
