"""The page of task=score: how accurate the model is, and which training samples its scorer suspects.

Nothing is judged: whether treating samples helps is what task=defend measures.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from defense.config.choices import Method
from defense.config.schema import plain
from defense.reporting.arms import accuracies, has, last_attack, lookup, shown_metrics, spoken
from defense.reporting.compare import BASELINE, Metric
from defense.reporting.comparisons import Columns, interval_columns, knob, knobs_shown, table_section
from defense.reporting.exports import Text
from defense.reporting.facts import about_runs, attacked, command_of, counted, made_of
from defense.reporting.frame import WORST, Setting, described, settings_of, tidy
from defense.reporting.page import Page, Section
from defense.reporting.reading import Result
from defense.reporting.run import Scoring, named
from defense.reporting.statistics import mean_interval, percent
from defense.robustness.checks import learned
from defense.runtime.runtime import Runtime
from defense.tasks.curves import training_curves
from defense.tasks.health import chance_of, doubts, eps_section, health_of, health_section, untold, warning
from defense.tasks.samples import Line, galleries, looks, scores_section
from defense.tasks.selection import selection
from defense.tasks.writing import common, stages_section, written

METRICS = (
    Metric("clean", "clean accuracy", limits=(0.0, 100.0)),
    Metric(WORST, "accuracy under attack", limits=(0.0, 100.0)),
    Metric("harmful.share", "training samples with a score below 0", arms=False, limits=(0.0, 100.0)),
)
NOT_JUDGED = "Whether taking such samples out helps is not measured here; task=defend does that"
ABOUT = (
    "Means over seeds, in brackets the 95 % interval over seeds. Accuracy is that of the model trained on all "
    "samples, whatever the scorer."
)
ABOUT_WHAT = "the scores of a trained model"
NOT_SHARED = ("task=", "train=none", "train.recipe=none")  # with task=defend, which trains
LIST = "To list the training samples of the lowest scores: defense-report samples {folder} --lowest 50"
RUN = "RUN is the folder of this page."


@dataclass(frozen=True)
class Scored(Scoring):
    """One finished run of task=score."""

    tested: pd.DataFrame  # as artifacts.Evaluation.table, of the baseline; of texts id, prediction and clean alone
    checks: dict[str, dict[str, Any]]  # of robustness.checks.Finding, by check; none if they were left out
    history: pd.DataFrame  # as artifacts.TrainedModel, of the baseline


def write_scored(runtime: Runtime, run: Scored, output: Path) -> dict[str, Any]:
    """Write what the model gets right, and the page; return the content of result.json."""
    named(run.tested.assign(arm=BASELINE), run.data).to_parquet(output / "per_sample.parquet", index=False)
    numbers = scored_result(run)
    return written(runtime, run, numbers, lambda: run_page(run, numbers), output, {BASELINE: run.history})


def scored_result(run: Scored) -> dict[str, Any]:
    """Return the content of result.json: accuracy of the baseline in percent, and the scores below 0.

    harmful: how many training samples score below 0, and their share in percent; None if the sign of the scores
    says nothing.
    """
    below = (run.scores["score"] < 0).to_numpy()
    signed = word_below(run) != ""
    labels = run.data.test.labels.cpu().numpy()
    tested = plain(learned(labels, run.tested["prediction"].to_numpy()))
    count = {"count": int(below.sum()), "share": percent(below.sum(), len(below))}
    return {
        "arms": {BASELINE: accuracies(run.tested)},
        "checks": {BASELINE: run.checks} if run.checks else {},
        "harmful": count if signed else None,
        "selection": selection(run, below if signed else None),
        **common(run),
        "health": health_of({BASELINE: tested}, run.data.class_names),
    }


def word_below(run: Scoring) -> str:
    """Return the word for a sample that scores below 0; nothing if the sign of the scores says nothing."""
    if looks(run):
        return "harmful"
    return "wrongly labelled" if run.config.scorer.method is Method.confident_learning else ""


def run_page(run: Scored, numbers: Result) -> Page:
    """Return the page of one run; numbers: as in result.json."""
    arm, again = numbers["arms"][BASELINE], [word for word in run.overrides if not word.startswith(NOT_SHARED)]
    word, believed = word_below(run), []
    if has(arm, WORST):
        believed = [health_section(numbers), *eps_section(numbers["checks"], run.config.threat.eps)]
    return Page(
        f"{run.config.name}: which training samples does {run.config.scorer.name} suspect?",
        "\n".join(
            filter(None, (untold([numbers], ABOUT_WHAT), *answer(run, numbers), LIST.format(folder="RUN"), RUN))
        ),
        command_of([numbers]),
        [
            *galleries(run),
            scores_section(run, numbers["scoring"]["members"], Line(0.0, f"below 0: {word}") if word else None),
            class_section(run),
            accuracy_section(arm, numbers),
            *believed,
            *curves_section(run.history),
            stages_section(numbers["seconds"]),
        ],
        made_of([numbers]),
        notes=[
            f"{NOT_JUDGED}: {shlex.join(['defense', *again, 'task=defend'])}",
            *about_runs(settings_of([numbers]), attacked),
        ],
        warning=warning(numbers["checks"], numbers["health"]),
    )


def answer(run: Scored, numbers: Result) -> list[str]:
    """Return how accurate the model is, and how many training samples its scorer suspects, a sentence each."""
    arm, sizes, found = numbers["arms"][BASELINE], numbers["sizes"], numbers["harmful"]
    under = f", and on {lookup(arm, WORST):.1f} % under attack ({run.config.threat})" if has(arm, WORST) else ""
    accuracy = f"The model is right on {arm['clean']:.1f} % of {sizes['test']} test samples{under}."
    if found is None:
        said = (
            f"{run.config.scorer.name} puts {sizes['train']} training samples in order: the lowest are suspected."
        )
        return [f"{accuracy} {said}"]
    aim = f" for {run.config.objective}" if looks(run) else ""
    calls = f"calls {found['count']} of {sizes['train']} training samples {word_below(run)}{aim}"
    said = f"{accuracy} {run.config.scorer.name} {calls} (a score below 0)."
    known, precision = numbers["selection"]["noise"], numbers["selection"]["precision"]
    if precision is not None:
        said += f" {100 * precision:.1f} % of them have a label known to be wrong, of all {100 * known:.1f} %."
    return [said]


def accuracy_section(arm: dict[str, Any], numbers: Result) -> Section:
    """Return the accuracies of the model on test, a row each, the attack at worst first."""
    metrics, said = ["clean"], chance_of(numbers["health"])
    if has(arm, WORST):
        metrics = [metric for metric in shown_metrics(arm) if metric != "transfer"]  # made on this very model
        said = (
            "adaptive: the model is attacked directly, and each attack runs only on samples that survived those "
            f"before it. worst: after the last of them, {last_attack(arm)}."
        )
    rows = [
        (spoken(metric), Text(f"{lookup(arm, metric):.1f}", value=lookup(arm, metric), tone="bar baseline"))
        for metric in metrics
    ]
    heading = f"Accuracy on {numbers['sizes']['test']} test samples, %"
    return Section("accuracy", heading, said, ("test accuracy, %", BASELINE), rows)


def curves_section(history: pd.DataFrame) -> list[Section]:
    """Return the curves of the training; no section of a network that is taken as it stands."""
    if "train_loss" not in history:
        return []
    return [Section("curves", "Training", chart=training_curves({BASELINE: history}))]


def class_section(run: Scored) -> Section:
    """Return the scores of the training samples by their label, a row a class."""
    signed = word_below(run)
    columns = ("class", "training samples", *(["score below 0"] if signed else []), "lowest", "median", "highest")
    rows = []
    for label, scores in run.scores.groupby("label")["score"]:
        below = int((scores < 0).sum())
        share = Text(f"{below} ({percent(below, len(scores)):.1f} %)", value=below / len(scores))
        ends = [Text(f"{value:.3g}", value=value) for value in scores.quantile([0, 0.5, 1])]
        count = Text(str(len(scores)), value=len(scores))
        rows.append((run.data.class_names[int(label)], count, *([share] if signed else []), *ends))
    return Section("classes", "Scores by class", "By the label that the model was trained on.", columns, rows)


def score_page(results: Sequence[Result], title: str) -> Page:
    """Return the page of many runs: accuracies of the model, and the share of scores below 0, by scorer."""
    settings = settings_of(results)
    knobs = knobs_shown(settings)
    columns: Columns = {
        "scorer": [setting.row for setting in settings],
        **{name: [knob(setting, name) for setting in settings] for name in knobs},
        **{f"{metric.heading} (95 %)": [cell(metric, setting) for setting in settings] for metric in METRICS},
        "seeds": [str(len(setting.runs)) for setting in settings],
    }
    data = tidy(pd.DataFrame([numbers_of(setting) for setting in settings]))
    facets = ("scorer", *knobs)
    table = table_section("scores", "Every setting", ABOUT, columns, facets=facets, data=data)
    runs = sum(len(setting.runs) for setting in settings)
    folder = "SWEEP" if len(settings) == 1 else "RUN RUN ... (those of one setting)"
    said = f"{counted(len(settings), 'setting')}, {counted(runs, 'run')}: {', '.join(ranges(settings))}."
    return Page(
        f"{title}: accuracy and scores of the model as it is",
        "\n".join(filter(None, (doubts(results, ABOUT_WHAT), said, LIST.format(folder=folder)))),
        command_of(results),
        [table],
        made_of(results),
        notes=[f"{NOT_JUDGED}.", *about_runs(settings, attacked)],
    )


def values(metric: Metric, setting: Setting) -> list[float]:
    """Return the values of a metric by run; nothing if a run has none."""
    if metric.arms:
        return metric.values(setting, BASELINE) if setting.has(metric.path) else []
    return metric.values(setting) if all(has(run, metric.path) for run in setting.runs) else []


def cell(metric: Metric, setting: Setting) -> str:
    """Return the mean of a metric over seeds with its interval as a cell; '-' if a run has none."""
    found = values(metric, setting)
    return metric.text(mean_interval(found).within(*metric.limits)) if found else "-"


def ranges(settings: Sequence[Setting]) -> list[str]:
    """Return each metric in words, from its lowest mean over seeds to the highest."""
    said = []
    for metric in METRICS:
        means = [float(np.mean(found)) for setting in settings if (found := values(metric, setting))]
        if means:
            low, high = (f"{value:.{metric.decimals}f}" for value in (min(means), max(means)))
            said.append(f"{metric.name} {low if low == high else f'{low} to {high}'} %")
    return said


def numbers_of(setting: Setting) -> dict[str, Any]:
    """Return a setting and its metrics as plain numbers, by column."""
    found = {metric.path.rpartition(".")[2]: (values(metric, setting), metric.limits) for metric in METRICS}
    columns = {
        name: value
        for path, (own, limits) in found.items()
        if own
        for name, value in interval_columns(path, own, limits).items()
    }
    own = {name: value for name, value in described(setting).items() if name != "treatment"}  # nothing is treated
    return {"name": setting.runs[0]["name"], **own, "seeds": len(setting.runs)} | columns
