"""treatment.budget=auto: which treatment, and of how many samples?

Chosen by accuracy under adaptive attack on a part of validation that neither the objective nor the training
looked at. Every candidate has a random control of its own there; where none beats it, nothing is treated. What is
chosen is trained again, from other first weights and beside another control and another baseline: the best of
several trainings owes some of its accuracy to luck, which would else be reported as a gain.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from defense.artifacts import Scores, Treatment
from defense.config.choices import TreatmentName
from defense.config.schema import Treat
from defense.errors import InputError
from defense.pipeline.arms import Arms
from defense.pipeline.cell import Cell
from defense.reporting.statistics import Mean, paired_accuracies, percent
from defense.stages import treat
from defense.store.store import Stored


@dataclass(frozen=True)
class Chosen:
    """What to do with the training split, and what that was chosen from."""

    spec: Treat  # of budget 0 where nothing beats its control
    candidates: pd.DataFrame  # treatment, budget, control, defended (in percent), gain, low, high, chosen


@dataclass(frozen=True)
class Candidate:
    """One treatment, measured on the samples that are held out for the choice."""

    spec: Treat
    control: float  # accuracy under adaptive attack, in percent
    defended: float
    gain: Mean  # defended - control over samples; its interval allows for the number of candidates (Bonferroni)

    @property
    def beats_its_control(self) -> bool:
        """Whether the interval of the gain lies above zero."""
        return self.gain.low > 0


def choose(cell: Cell, scores: Stored[Scores]) -> Chosen:
    """Return the candidate with the highest accuracy under adaptive attack among those that beat their control.

    What is not treated, of budget 0, is among the candidates, so that what is chosen is better than it, too.
    """
    make = Arms(cell, replace(cell.config.treatment, name=TreatmentName.remove, budget=0.0), "_none", index=1)
    again = cell.train(f"baseline{make.label}", treat.untreated(cell.data.train), index=make.index)
    right = make.evaluate("baseline", again, part="choice").artifact.table["adaptive.worst"]
    accuracy = percent(right.sum(), len(right))
    untreated = Candidate(make.spec, accuracy, accuracy, Mean(0.0, np.nan, np.nan, len(right)))  # one model
    arms = [
        Arms(cell, spec, f"_{spec.name}_{spec.budget:g}", index=1) for spec in candidates(cell.config.treatment)
    ]
    for each in arms:  # before any training
        possible(each, scores)
    tried = [measured(each, scores, confidence=1 - 0.05 / len(arms)) for each in arms]
    worthy = [candidate for candidate in tried if candidate.beats_its_control]
    best = max([untreated, *worthy], key=lambda candidate: candidate.defended)
    rows = [
        {
            "treatment": "none" if candidate is untreated else str(candidate.spec.name),
            "budget": candidate.spec.budget,
            "control": candidate.control,
            "defended": candidate.defended,
            "gain": candidate.gain.mean,
            "low": candidate.gain.low,
            "high": candidate.gain.high,
            "chosen": candidate is best,
        }
        for candidate in (untreated, *tried)
    ]
    return Chosen(best.spec, pd.DataFrame(rows))


def candidates(spec: Treat) -> list[Treat]:
    """Return the treatments to choose from, of budgets above 0; reweight, which reads no budget, once."""
    return [
        replace(spec, name=name, budget=budget)
        for name in spec.names
        for budget in (spec.budgets if name is not TreatmentName.reweight else spec.budgets[:1])
    ]


def possible(make: Arms, scores: Stored[Scores]) -> None:
    """Raise InputError where a candidate or its control cannot be made."""
    try:
        make.control(scores, make.treat(scores))
    except InputError as error:
        raise InputError("treatment.budgets", make.spec.budget, error.expected) from error


def measured(make: Arms, scores: Stored[Scores], *, confidence: float) -> Candidate:
    """Treat, retrain and attack one candidate and its control."""

    def right(arm: str, treatment: Treatment) -> pd.Series:
        trained = make.cell.train(f"{arm}{make.label}", treatment, index=make.index)
        found = make.evaluate(arm, trained, part="choice")
        return found.artifact.table["adaptive.worst"]

    treated = make.treat(scores)
    defended = right("defended", treated.artifact)
    control = right("control", make.control(scores, treated))
    gain = paired_accuracies(defended.to_numpy(), control.to_numpy(), confidence=confidence)
    before, after = (percent(arm.sum(), len(arm)) for arm in (control, defended))
    return Candidate(make.spec, before, after, gain)
