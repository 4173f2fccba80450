"""The sentences that the report of a run opens with: the question answered, as far as one seed can."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pandas as pd

from defense.config.choices import TreatmentName
from defense.config.reads import reading
from defense.config.schema import Config
from defense.reporting.arms import accuracies, training_on, trusted_of
from defense.reporting.frame import WORST
from defense.reporting.reading import proxy_of
from defense.reporting.run import Scoring
from defense.reporting.statistics import Mean
from defense.tasks.defend.result import Run, arm_accuracies, difference, draw_accuracies, treated
from defense.tasks.descent import rounds_as_json
from defense.tasks.health import Health, health_of, verdict_of
from defense.tasks.selection import of_one_class, one_class, selection
from defense.tasks.writing import common


def verdict(run: Run, health: Health) -> str:
    """Return the sentences that the report opens with: the question answered, as far as one seed can.

    Two models retrained on data that differ by chance differ too, by more than the choice of test samples
    explains. So one seed is never called better or worse than random; `defense-report` judges over seeds. health:
    as in result.json; if nothing can be said, that alone is.
    """
    config, gain = run.config, difference(run, "adaptive.worst")
    arms = {name: own["adaptive"]["worst"] for name, own in arm_accuracies(run).items()}
    count = treated(run)
    nothing = verdict_of(health)
    if count == 0:
        left = f"accuracy under adaptive attack is {arms['baseline']:.1f} %"
        said = f"Nothing was treated ({untouched(run)}): {left}."
        return " ".join(filter(None, (nothing, said, "" if nothing else trusted_said(run))))
    if nothing:
        return nothing
    effect = config.treatment.effect
    outcome = f"not distinguishable from {effect.control}"
    if gain.differs_from_zero:
        outcome = "more than the choice of test samples explains; one seed does not cover the luck of retraining"
    rival, over = "as many at random", "random"
    if effect is TreatmentName.optimize:
        rival, over = effect.control, "shuffled weights"
    if draws := len(run.further_controls):
        rival += f" (mean of {draws + 1} draws)"
    said = (
        f"{deed(run)} took accuracy under adaptive attack from {arms['baseline']:.1f} % to "
        f"{arms['defended']:.1f} %, {rival} to {arms['control']:.1f} %: {gain.mean:+.1f} points over {over} (95 % "
        f"interval over test samples {gain.low:+.1f} to {gain.high:+.1f}), {outcome}."
    )
    beside = difference(run, "adaptive.worst", second="baseline")
    if beside.mean < 0:
        said += (
            f" That is {-beside.mean:.1f} points less than no treatment ({beside.low:+.1f} to {beside.high:+.1f})."
        )
    changes = {over: difference(run, "clean", second=over) for over in ("control", "baseline")}
    return " ".join(filter(None, (said, clean_said(changes), trusted_said(run))))


def deed(run: Run) -> str:
    """Return what was done to how many training samples, as the subject of a sentence."""
    spec, count, total = run.config.treatment, treated(run), len(run.data.train)
    verb = spec.effect.verb
    if spec.name is TreatmentName.own:
        return f"{verb} {count} of {total} training samples by {spec.title} and the scores of {scorer_of(run)}"
    if run.descent is not None:
        (taken,) = run.descent["round"][run.descent["chosen"]]
        by = f"{aim(run.config)} (round {taken} of {len(run.descent) - 1})"
        if spec.effect is TreatmentName.optimize:
            return f"{verb}{by}, which lets {count} of {total} training samples count for less,"
        return f"{verb} the {count} of {total} training samples of the lowest weights by metagradient descent{by}"
    choice = ""
    if run.candidates is not None:
        choice = f" (chosen from {len(run.candidates) - 1} candidates on held-out validation)"
    lowest = f"the {count} of {total} training samples that {scorer_of(run)} ranks lowest"
    return f"{verb} {lowest}{aim(run.config)}{among(run)}{choice}"


def clean_said(changes: Mapping[str, Mean]) -> str:
    """Return by how much clean accuracy fell or rose against other arms, if the interval leaves zero out."""
    said = []
    for word, sign in (("fell", -1), ("rose", 1)):
        found = {over: mean for over, mean in changes.items() if mean.differs_from_zero and sign * mean.mean > 0}
        if found:
            told = ", ".join(
                f"{mean.mean:+.1f} points against the {over} ({mean.low:+.1f} to {mean.high:+.1f})"
                for over, mean in found.items()
            )
            said.append(f"Clean accuracy {word}: {told}.")
    return " ".join(said)


def untouched(run: Run) -> str:
    """Return why nothing was treated."""
    spec = run.config.treatment
    if run.candidates is not None:
        return f"none of {len(run.candidates) - 1} candidates beat its random control on held-out validation"
    if run.descent is not None and len(run.descent) == 1:
        return "the first step of the descent would leave a class with nearly no weight"
    if run.descent is not None and run.descent["chosen"].iloc[0]:
        if run.descent["fall"].notna().any():
            sure = "surely enough " if spec.confidence > 0 else ""
            return f"beside no treatment the descent does not {sure}lower the objective on the part that decides"
        return "no round of the descent lowers the objective on the part of validation that decides"
    if spec.name is TreatmentName.reweight:
        return "all scores are alike"
    if spec.name is TreatmentName.own:
        return f"{spec.title} changes no sample"
    if gives_labels(run) and (run.scores["prediction"] == run.scores["label"]).all():
        return "the model gives no sample another label"
    if spec.threshold is not None:
        return f"no score is below the threshold {spec.threshold:g}{among(run)}"
    return f"budget {spec.budget:g}"


def among(run: Run) -> str:
    """Return the samples that the lowest scores are the lowest of, if those are not all."""
    spec = run.config.treatment
    classes = " in every class" if spec.balance == "class" and not spec.effect.weighs else ""
    return classes + (" among the samples that the model gives another label" if gives_labels(run) else "")


def gives_labels(run: Run) -> bool:
    """Return whether the labels that the model gives decide what can be treated; of two classes both are known."""
    return run.config.treatment.name is TreatmentName.relabel and run.data.classes > 2


def scorer_of(run: Scoring) -> str:
    """Return the scorer in words, without a proxy that it does not look at: 'ip (mean of 2 trainings)'."""
    scorer = run.config.scorer
    return str(scorer if proxy_of(run.settings) else replace(scorer, proxy=None))


def aim(config: Config) -> str:
    """Return ' for robustness' of a score that looks at an objective, and nothing of one that does not."""
    return f" for {config.objective}" if "objective" in reading(config.scorer) else ""


def result(run: Run) -> dict[str, Any]:
    """Return what result.json holds: accuracies in percent, fractions in [0, 1], times in seconds."""
    taken = run.arms["defended"].treatment["treated"].to_numpy()
    learned = {name: arm.learned for name, arm in run.arms.items()}
    health = health_of(learned, run.data.class_names, run.standing)
    return {
        "verdict": verdict(run, health),
        "gain_over_control": difference(run, "adaptive.worst").as_json("samples"),
        **{
            f"gain_over_{arm}": difference(run, "adaptive.worst", second=arm).as_json("samples")
            for arm in trusted_of(run.arms)
        },
        "clean_change": {
            over: difference(run, "clean", second=over).as_json("samples") for over in ("control", "baseline")
        },
        "arms": arm_accuracies(run),
        **({"controls": draw_accuracies(run)} if run.further_controls else {}),
        "checks": {name: arm.checks for name, arm in run.arms.items() if arm.checks},
        "selection": selection(run, taken),
        "one_class": one_class(run, taken),
        **({} if run.candidates is None else {"candidates": candidates(run.candidates)}),
        **({} if run.descent is None else {"descent": rounds_as_json(run.descent)}),
        **common(run),
        "health": health,
        "sizes": {
            **{part: len(getattr(run.data, part)) for part in ("train", "validation", "test")},
            "treated": treated(run),
            "of_one_class": of_one_class(run, taken),
        },
    }


def candidates(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return what a treatment was chosen from, a candidate each; ends of no interval are None."""
    return [
        {str(name): None if pd.isna(value) else value for name, value in row.items()}
        for row in table.to_dict("records")
    ]


def trusted_said(run: Run) -> str:
    """Return by how much the highest trusted arm is above the defended arm under adaptive attack; else nothing."""
    worst = {arm: accuracies(run.arms[arm].evaluation)["adaptive"]["worst"] for arm in run.arms}
    arms = trusted_of(run.arms)
    arm = max(arms, key=lambda name: worst[name], default="defended")
    if worst[arm] <= worst["defended"]:
        return ""
    gap = difference(run, WORST, first=arm, second="defended")
    among = f" (the highest of {len(arms)} trusted arms)" if len(arms) > 1 else ""
    return (
        f"{training_on(arm)} reaches {worst[arm]:.1f} %{among}, {gap.mean:.1f} points more than the defended arm "
        f"(95 % interval over test samples {gap.low:+.1f} to {gap.high:+.1f})."
    )
