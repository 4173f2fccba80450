"""The page of one run of task=defend, a function a section."""

from __future__ import annotations

import json
import shlex
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from defense.config.choices import Harm, Source, TreatmentName
from defense.reporting.arms import (
    accuracies,
    arm_in_words,
    arms_of,
    header,
    kind_of,
    last_attack,
    lookup,
    shown_metrics,
    spoken,
    trusted_of,
    weight_of,
)
from defense.reporting.charts import png
from defense.reporting.exports import Text
from defense.reporting.facts import about_runs, attacked, call_of, made_of
from defense.reporting.frame import WORST, settings_of
from defense.reporting.page import Page, Picture, Section, write_page
from defense.reporting.run import Scoring, named
from defense.reporting.statistics import deviation
from defense.runtime.runtime import Runtime
from defense.tasks.curves import training_curves
from defense.tasks.defend.charts import amplified, budget_line, candidate_curves
from defense.tasks.defend.result import Run, arm_rows, arms_table, draw_accuracies
from defense.tasks.defend.verdict import result, scorer_of
from defense.tasks.descent import descent_section
from defense.tasks.health import eps_section, health_section, warning
from defense.tasks.metagradient import about_derivative
from defense.tasks.samples import galleries, scores_section
from defense.tasks.selection import one_class_said
from defense.tasks.writing import finish, record_section, stages_section, write_scores, write_treatment

STRIP = 11  # samples in the strip of perturbations
ONE_SEED = (
    "This is one seed ({seed}): the interval covers the choice of test samples, not the luck of retraining. "
    "For that: {command}."
)
CHOSEN = (
    "Accuracy under adaptive attack on {count} validation samples that neither the objective nor the training "
    "looked at. Test samples play no part.\n"
    "Chosen is the best of the candidates that beat their random control there (interval above 0, allowing for "
    "their number) and the untreated data. Without one nothing is treated."
)
TRIGGERED = "right on test pictures with the planted trigger; what is of the target class is right there anyway"
TRUSTED = "trained on the validation samples too, nothing treated, up to the epoch that the baseline keeps"
PROXY = "the model that scores are taken at, trained by another recipe on everything"
MATCHED = {  # of result.json's selection: the name of a row, and the form of its number
    "noise": ("with a label known to be wrong", "{:.1%}"),
    "precision": ("of those treated, with a wrong label (precision)", "{:.1%}"),
    "recall": ("of those with a wrong label, treated (recall)", "{:.1%}"),
    "auc": ("ROC AUC of the score", "{:.3f}"),
}
CANDIDATES = ("treatment", "budget", "control", "defended", "defended - control (95 %)", "")


def write_pages(run: Run, numbers: dict[str, Any], output: Path) -> None:
    """Write report.md, report.html, figures/ and tables/ of a run into `output`; numbers: as in result.json."""
    write_page(run_page(run, numbers), output)


def run_page(run: Run, numbers: dict[str, Any]) -> Page:
    """Return the page of a run; numbers: as in result.json."""
    checks = numbers["checks"]
    histories = {name: arm.history for name, arm in run.arms.items()}
    sections = [
        arms_section(run),
        *controls_section(run),
        health_section(numbers),
        *eps_section(checks, run.config.threat.eps),
        *candidates_section(run),
        *descent_section(run, run.descent),
        selection_section(run, numbers),
        scores_section(run, numbers["scoring"]["members"], budget_line(run)),
        *galleries(run),
        *record_section(run),
        strip_section(run),
        Section("curves", "Training", chart=training_curves(histories)),
        stages_section(numbers["seconds"]),
    ]
    return Page(
        f"{numbers['name']}: does {question(run)} help?",
        numbers["verdict"],
        call_of(run.overrides, run.settings),
        sections,
        made_of([numbers]),
        settings=json.dumps(run.settings, indent=2),
        notes=[
            ONE_SEED.format(seed=numbers["seed"], command=in_seeds(run)),
            *about_runs(settings_of([numbers]), attacked),
        ],
        warning=warning(checks, numbers["health"]),
    )


def in_seeds(run: Run) -> str:
    """Return the command that runs the same in five seeds; of a run from Python, how to."""
    if run.config.data.source is Source.given:
        return "the same call with seed=0 to 4, each saved into runs/NAME/SEED, and then defense-report runs/NAME"
    words = [word for word in run.overrides if not word.startswith("seed=")]
    return f"{shlex.join(['defense', '-m', *words, 'seed=range(5)'])}; the sweep has a page of its own"


def question(run: Run) -> str:
    """Return what was done, as the subject of a question: 'removing what ip ranks lowest'."""
    effect = run.config.treatment.effect
    if run.descent is not None:
        return f"{'weighing' if effect.weighs else 'removing'} samples by metagradient descent"
    if effect is TreatmentName.own:
        return f"treating samples by {run.config.treatment.title}"
    return f"{effect.verb.lower()} what {scorer_of(run)} ranks lowest"


def arms_section(run: Run) -> Section:
    """Return defended - control and the accuracy of every arm, the attack at worst first."""
    name, *arms, gain = header(run.arms)
    rows = [
        (
            Text(row["metric"], tone="" if number else "main"),
            Text(row["difference"], value=float(row["difference"].split()[0])),
            *(Text(row[arm], value=float(row[arm]), tone=f"bar {kind_of(arm)}") for arm in arms_of(run.arms)),
        )
        for number, row in enumerate(arm_rows(run))
    ]
    heading = f"Accuracy on {len(run.data.test)} test samples, %"
    return Section("arms", heading, about_arms(run), (name, gain, *arms), rows)


def controls_section(run: Run) -> list[Section]:
    """Return the accuracies of every random draw, and how far they are apart; no section if there is one."""
    if not run.further_controls:
        return []
    draws = draw_accuracies(run)
    measures = shown_metrics(draws["control"])
    rows = [
        (str(number), *(f"{lookup(found, metric):.1f}" for metric in measures))
        for number, found in enumerate(draws.values(), start=1)
    ]
    apart = deviation([lookup(found, WORST) for found in draws.values()])
    said = (
        f"Under adaptive attack {len(draws)} random draws have a standard deviation of {apart:.1f} points. That "
        "is the luck of one draw. Gains are over the mean of all."
    )
    return [Section("controls", "Luck of the draw", said, ("draw", *map(spoken, measures)), rows)]


def about_arms(run: Run) -> str:
    """Return what the rows and columns of the table of arms are, a line each."""
    control, defended = legend(run)
    last = last_attack(accuracies(run.arms["baseline"].evaluation))
    interval = "Student's t" if run.further_controls else "Tango's score"
    control += f", the mean of {len(run.controls)} random draws" if run.further_controls else ""
    said = {
        "adaptive": "every model is attacked directly, and each attack runs only on samples that survived those "
        f"before it. worst: after the last of them, {last}",
        "transfer": "the same attacks frozen, made on the baseline, which overstates robustness",
        **({"triggered": TRIGGERED} if run.config.data.harm is Harm.trigger else {}),
        "baseline": "nothing treated",
        "control": control,
        "defended": defended,
        **({"trusted": about_trusted(run)} if trusted_of(run.arms) else {}),
        **({"proxy": PROXY} if "proxy" in run.arms else {}),
        "In brackets": f"the 95 % interval over test samples ({interval})",
    }
    return "\n".join(f"{name}: {words}." for name, words in said.items())


def about_trusted(run: Run) -> str:
    """Return what trusted arms are trained on, and how much trusted samples weigh there if that is not 1."""
    weights = {arm: weight_of(arm) for arm in trusted_of(run.arms)}
    heavy = [
        f"in {arm_in_words(arm)} they weigh {weight:g} times as much"
        for arm, weight in weights.items()
        if weight != 1
    ]
    return "; ".join([TRUSTED, *heavy])


def legend(run: Run) -> tuple[str, str]:
    """Return what the control and the defended arm are trained on."""
    if run.config.treatment.effect is TreatmentName.own:
        return TreatmentName.own.control, f"samples treated by {run.config.treatment.title}"
    if run.descent is None:
        return "as many samples treated at random", "the lowest scores treated"
    if run.config.treatment.effect.weighs:
        return "the same weights shuffled", "samples weighed by the descent"
    return "as many samples removed at random", "those of the lowest weights removed"


def candidates_section(run: Run) -> list[Section]:
    """Return what the treatment was chosen from, one row a candidate; no section if it was given."""
    if run.candidates is None or run.data.choice is None:
        return []
    rows = [
        (
            Text(row.treatment, tone="main" if row.chosen else ""),
            "-" if row.treatment == TreatmentName.reweight.value else f"{row.budget:g}",
            f"{row.control:.1f}",
            f"{row.defended:.1f}",
            f"{row.gain:+.1f} ({row.low:+.1f} to {row.high:+.1f})" if row.budget else "",
            "chosen" if row.chosen else "",
        )
        for row in run.candidates.itertuples()
    ]
    text, chart = CHOSEN.format(count=len(run.data.choice)), candidate_curves(run.candidates)
    return [Section("candidates", "How the treatment was chosen", text, CANDIDATES, rows, chart)]


def selection_section(run: Run, numbers: dict[str, Any]) -> Section:
    """Return how many samples are treated, and how well they match the known noise."""
    found, sizes = numbers["selection"], numbers["sizes"]
    rows = [("treated", f"{sizes['treated']} of {sizes['train']}")]
    known = {key: words for key, words in MATCHED.items() if found[key] is not None}
    rows += [(name, form.format(found[key]).replace("%", " %")) for key, (name, form) in known.items()]
    said = (one_class_said(numbers["one_class"], sizes["train"], run.settings["treatment"]), about_harm(run))
    return Section(
        "selection", "What was treated", "\n".join(filter(None, said)), ("training samples", "value"), rows
    )


def strip_section(run: Run) -> Section:
    """Return the first validation samples: clean, adversarial, and the perturbation amplified."""
    first = torch.arange(min(STRIP, len(run.data.validation)))
    clean, attacked = (images.take(first).cpu() for images in (run.data.validation.images, run.adversarial))
    groups = []
    for number, (before, after) in enumerate(zip(clean, attacked, strict=True), start=1):
        label = run.data.class_names[int(run.data.validation.labels[number - 1])]
        kinds = {"clean": before, "adversarial": after, "perturbation": amplified(after - before)}
        groups.append(
            [
                Picture(f"strip_{number:02d}_{kind}", png(pixels), f"{kind} picture of class {label}")
                for kind, pixels in kinds.items()
            ]
        )
    said = "Validation samples: clean, attacked at the scored model, and the difference amplified."
    return Section("strip", "What the attack does", said, pictures=groups)


def draw_run(run: Run, numbers: dict[str, Any], folder: Path) -> str:
    """Write the pages of a run of task=defend into a folder; return what a terminal shows of them."""
    write_pages(run, numbers, folder)
    one_class = one_class_said(numbers["one_class"], len(run.data.train), run.settings["treatment"])
    flagged = warning(numbers["checks"], numbers["health"])
    derived = about_derivative(run.settings, run.record)
    return "\n\n".join(filter(None, (arms_table(run), numbers["verdict"], flagged, one_class, derived)))


def write_report(runtime: Runtime, run: Run, output: Path) -> dict[str, Any]:
    """Write result.json, scores, per_sample and the pages into `output`; return the content of result.json."""
    begin = time.perf_counter()
    numbers = result(run)
    columns = {name: run.arms["defended"].treatment[name].to_numpy() for name in ("treated", "weight")}
    write_scores(run, run.scores.assign(**columns), output)
    write_treatment(run, run.arms["defended"].treatment, output)
    evaluations = {name: arm.evaluation for name, arm in run.arms.items()} | run.further_controls
    samples = [evaluation.assign(arm=name) for name, evaluation in evaluations.items()]
    named(pd.concat(samples), run.data).to_parquet(output / "per_sample.parquet", index=False)
    spent = time.perf_counter() - begin  # the pages are a stage of their own
    numbers |= {"report_seconds": round(spent, 3)}
    histories = {name: arm.history for name, arm in run.arms.items()}
    finish(runtime, run, numbers, lambda folder: draw_run(run, numbers, folder), output, histories)
    return numbers


def about_harm(run: Scoring) -> str:
    """Return how many training samples hypocritical harm has moved, and how far; nothing of other harm.

    Labels show all other harm, and its truth is on every page.
    """
    spec, threat = run.config.data, run.config.threat
    if spec.harm is not Harm.hypocritical:
        return ""
    ball = threat if spec.harm_eps is None else replace(threat, eps=spec.harm_eps)
    count = len(run.data.train)
    moved = f"{round(spec.harm_rate * count)} of {count} training samples are moved toward their own label"
    return f"{moved} (data.harm=hypocritical; {ball}). All labels stay as they are."
