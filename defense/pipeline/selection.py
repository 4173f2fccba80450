"""treatment.budget=auto: which treatment, and of how many samples?

Chosen by accuracy under adaptive attack on a part of validation that neither the objective nor the training
looked at. Every candidate has a random control of its own there; if none beats it, nothing is treated. What is
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
from defense.pipeline.run import Run
from defense.reporting.statistics import Mean, paired_accuracies, percent
from defense.stages.treat import untreated

AGAIN = 1  # index of the trainings: first weights and a control of their own


@dataclass(frozen=True)
class Chosen:
    """The treatment of the training split, with the candidates that it was chosen from."""

    spec: Treat  # of budget 0 if nothing beats its control
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


def choose(run: Run, scores: Scores) -> Chosen:
    """Return the candidate with the highest accuracy under adaptive attack among those that beat their control.

    Budget 0 is among the candidates, so that the choice is better than no treatment, too.
    """
    again = run.train("baseline_none", untreated(run.data.train), index=AGAIN)
    right = run.evaluate("baseline_none", again, part="choice").table["adaptive.worst"]
    accuracy = percent(right.sum(), len(right))
    none = replace(run.config.treatment, name=TreatmentName.remove, budget=0.0)
    without = Candidate(none, accuracy, accuracy, Mean(0.0, np.nan, np.nan, len(right)))  # one model
    pairs = [treatments_of(run, scores, spec) for spec in candidates(run.config.treatment)]  # before any training
    tried = [measured(run, *pair, confidence=1 - 0.05 / len(pairs)) for pair in pairs]
    worthy = [candidate for candidate in tried if candidate.beats_its_control]
    best = max([without, *worthy], key=lambda candidate: candidate.defended)
    rows = [
        {
            "treatment": "none" if candidate is without else candidate.spec.title,
            "budget": candidate.spec.budget,
            "control": candidate.control,
            "defended": candidate.defended,
            "gain": candidate.gain.mean,
            "low": candidate.gain.low,
            "high": candidate.gain.high,
            "chosen": candidate is best,
        }
        for candidate in (without, *tried)
    ]
    return Chosen(best.spec, pd.DataFrame(rows))


def candidates(spec: Treat) -> list[Treat]:
    """Return the treatments to choose from, of budgets above 0; reweight, which reads no budget, once."""
    return [
        replace(spec, name=name, budget=budget)
        for name in spec.names
        for budget in (spec.budgets if "budget" in name.reads else spec.budgets[:1])
    ]


def treatments_of(run: Run, scores: Scores, spec: Treat) -> tuple[Treat, Treatment, Treatment]:
    """Return a candidate with its treatment and its control; raises InputError if one cannot be made."""
    try:
        defended = run.treat(scores, spec, label_of(spec))
        return spec, defended, run.control(scores, defended, spec, label_of(spec), index=AGAIN)
    except InputError as error:
        raise InputError("treatment.budgets", spec.budget, error.expected) from error


def label_of(spec: Treat) -> str:
    """Return what tells the stages of a candidate from those of others."""
    return f"{spec.name}_{spec.budget:g}"


def measured(run: Run, spec: Treat, defended: Treatment, control: Treatment, *, confidence: float) -> Candidate:
    """Retrain and attack one candidate and its control."""

    def right(arm: str, treatment: Treatment) -> pd.Series:
        name = f"{arm}_{label_of(spec)}"
        return run.evaluate(name, run.train(name, treatment, index=AGAIN), part="choice").table["adaptive.worst"]

    after, before = right("defended", defended), right("control", control)
    gain = paired_accuracies(after.to_numpy(), before.to_numpy(), confidence=confidence)
    return Candidate(spec, percent(before.sum(), len(before)), percent(after.sum(), len(after)), gain)
