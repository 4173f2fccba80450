"""How well scores foresee retraining: one run, and many."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from defense.config.choices import Dropping, Subsets
from defense.errors import InputError
from defense.reporting.archive import Row
from defense.reporting.charts import points
from defense.reporting.compare import Comparison, Metric, compare
from defense.reporting.comparisons import comparison_section
from defense.reporting.facts import command_of, counted, made_of
from defense.reporting.frame import Setting, by, settings_of
from defense.reporting.page import Page, Section
from defense.reporting.reading import Result
from defense.reporting.run import OF_A_SCORE, Scoring
from defense.reporting.statistics import rank_correlation
from defense.reporting.verdicts import answer, caveat
from defense.runtime.runtime import Runtime
from defense.tasks.health import doubts, looking
from defense.tasks.writing import common, written

LDS = "linear datamodelling score"
HALVES = f"retraining on random halves ({LDS})"  # of results before `dropped` was a setting
CLEAN, ANEW, FROZEN = "clean", "anew", "frozen"  # where validation samples are attacked; the first of each is v


def correlation(field: str, name: str) -> Metric:
    """Return the metric of a rank correlation of result.json."""
    path = f"faithfulness.{field}"
    return Metric(path, name, unit="", over="ip", arms=False, decimals=3, limits=(-1.0, 1.0), signed=True)


SPEARMAN = correlation("spearman", "rank correlation")
OTHERS = (correlation(FROZEN, "attacked at the baseline"), correlation("singles", "single samples"))


@dataclass(frozen=True)
class Foreseen:
    """Predictions by scores and measurements, for each target and each of m retrainings: (targets, m)."""

    predicted: np.ndarray  # summed scores, of parts of validation
    measured: dict[str, np.ndarray]  # -v, by where samples were attacked: anew, frozen; or clean
    predicted_singles: np.ndarray  # the same of single validation samples; empty without
    measured_singles: dict[str, np.ndarray]


def write_faithfulness(runtime: Runtime, run: Scoring, found: Foreseen, output: Path) -> dict[str, Any]:
    """Write how well the scores foresee retraining; return the content of result.json."""
    numbers = faithfulness_result(run, found)
    return written(runtime, run, numbers, lambda: faithfulness_page([numbers], run.config.name), output)


def faithfulness_result(run: Scoring, found: Foreseen) -> dict[str, Any]:
    """Return the content of result.json, of predictions and measurements over m retrainings.

    spearman: the mean over targets of the rank correlation, with validation samples attacked anew at each model;
    frozen: with those attacked at the baseline; singles: of single validation samples, as spearman. A prediction
    that is the same for all foresees nothing: 0. seconds: of scoring one target, at all models that are scored
    at; the median over targets. Raises InputError if the retrained models are all alike.
    """
    first = next(iter(found.measured.values()))
    if not np.ptp(first, axis=1).all():
        spec = run.config.faithfulness
        text = "the retrained models do not differ; expected a training that what is left out has an effect on"
        raise InputError("faithfulness.subsets", spec.subsets, text)
    targets = {name: correlations(found.predicted, own) for name, own in found.measured.items()}
    singles = {name: correlations(found.predicted_singles, own) for name, own in found.measured_singles.items()}
    headline = ANEW if ANEW in targets else CLEAN
    return {
        "faithfulness": {
            "spearman": float(np.mean(targets[headline])),
            "targets": targets[headline],
            **({FROZEN: float(np.mean(targets[FROZEN]))} if FROZEN in targets else {}),
            **({"singles": float(np.mean(singles[headline]))} if singles[headline] else {}),
            "retrainings": found.predicted.shape[1],
            "seconds": seconds_of_a_target(run.seconds),
        },
        **common(run),
    }


def seconds_of_a_target(seconds: Mapping[str, float]) -> float:
    """Return the seconds of scoring one target, the median over targets, by the seconds of each stage.

    A trajectory serves all targets, and is counted for each.
    """
    shared, by_target = 0.0, defaultdict[str, float](float)
    for stage, value in seconds.items():
        if stage.startswith("trajectory"):
            shared += value
        elif stage.startswith(OF_A_SCORE) and "single" not in stage:
            by_target[stage.partition("target")[2]] += value
    return shared + float(np.median(list(by_target.values())))


def correlations(predicted: np.ndarray, measured: np.ndarray) -> list[float]:
    """Return the rank correlation of each row of (targets, m); 0 if a prediction or a measurement is constant."""
    return [rank_correlation(p, m) for p, m in zip(predicted, measured, strict=True)]


def faithfulness_page(results: Sequence[Result], title: str) -> Page:
    """Return the page of one run or many: correlation and cost of every scorer."""
    settings = settings_of(results)
    rows = compare(settings, SPEARMAN)
    groups = by(rows, lambda row: row.setting.where)
    sections = [
        section
        for number, (where, own) in enumerate(groups.items(), start=1)
        for section in sections_of(number, where, own)
    ]
    kinds = dict.fromkeys(kind_of(result) for result in results)
    over = next(iter(kinds)) if len(kinds) == 1 else "retraining"
    headline = (doubts(looking(results), "the scores of a trained model"), f"Foreseeing {over}: {answer(rows)}")
    title = f"{title}: do scores foresee retraining?"
    notes = list(filter(None, [caveat(rows)]))
    return Page(
        title, "\n".join(filter(None, headline)), command_of(results), sections, made_of(results), notes=notes
    )


def sections_of(number: int, where: str, rows: Sequence[Comparison]) -> list[Section]:
    """Return the correlations of scorers that differ in nothing else, the highest first; then their cost."""
    rows = sorted(rows, key=lambda row: -SPEARMAN.mean(row.setting).mean)
    settings = [row.setting for row in rows]
    costs = {setting.row: float(np.median(seconds_of(setting))) for setting in settings}
    means = {setting.row: SPEARMAN.mean(setting) for setting in settings}
    chart = points(
        {
            name: (costs[name], mean.mean, min(mean.high, 1) - mean.mean if mean.judgeable else 0.0)
            for name, mean in means.items()
        },
        xlabel="seconds of scoring (per target)",
        ylabel="rank correlation",
    )
    results = [run for setting in settings for run in setting.runs]
    heading = where or "Rank correlation with retraining"
    table = comparison_section(f"faithfulness_{number}", heading, rows, explained(results))
    others = [metric for metric in OTHERS if any(field_of(metric) in run["faithfulness"] for run in results)]
    header = ("scorer", *(metric.name for metric in others), "worst residual", "seconds", "times ip")
    body = [
        (setting.row, *(other_mean(setting, metric) for metric in others), *cost_cells(setting, costs))
        for setting in settings
    ]
    text = (
        "Seconds of the whole score stage, grad v and the model's predictions included, medians; of a "
        "metagradient its trajectory, too, not the trainings that measure smoothness. The first run of a process "
        "pays for its imports. Residual: of the inverse, relative; wanted is scorer.tolerance."
    )
    heading = f"Cost{': ' + where if where else ''}"
    return [table, Section(f"cost_{number}", heading, text, header, body, chart)]


def field_of(metric: Metric) -> str:
    """Return the field of result.json's faithfulness that a metric is."""
    return metric.path.rpartition(".")[2]


def other_mean(setting: Setting, metric: Metric) -> str:
    """Return the mean of another correlation over the runs that have it, as a cell."""
    having = [run for run in setting.runs if field_of(metric) in run["faithfulness"]]
    return metric.text(metric.mean(replace(setting, runs=having)) if having else None)


def cost_cells(setting: Setting, costs: Mapping[str, float]) -> tuple[str, str, str]:
    """Return the worst residual, the seconds, and their ratio to those of ip, as cells."""
    residuals = [value for run in setting.runs if (value := worst_residual(run)) is not None]
    seconds = costs[setting.row]
    ip = next((costs[row] for row in costs if row.partition(",")[0] == f"ip{setting.mark}"), None)
    return (
        f"{max(residuals):.2g}" if residuals else "-",
        f"{seconds:.2f}",
        f"{seconds / ip:.1f}" if ip else "-",
    )


def seconds_of(setting: Setting) -> list[float]:
    """Return the seconds of scoring one target, by run."""
    return [run["faithfulness"]["seconds"] for run in setting.runs]


def worst_residual(result: Result) -> float | None:
    """Return the largest relative residual of the inverses of one result; None if nothing is inverted."""
    record = result["scoring"]["record"]
    return max((value for name, value in record.items() if name.endswith("residual")), default=None)


def kind_of(result: Result) -> str:
    """Return how the models of a result were retrained, in words."""
    spec = result["config"]["faithfulness"]
    if spec["subsets"] == "halves":
        return HALVES
    kind = Subsets(spec["subsets"])
    if "by" not in spec:  # of a result before it was a setting
        return kind.words
    alone = kind is Subsets.leave_one_out
    part = "one sample" if alone else f"a random {100 * spec['dropped']:g} %"
    way = Dropping(spec["by"]).words.format(part=part) + (" (leave-one-out)" if alone else f" ({LDS})")
    weights = "each from first weights of its own" if spec["fresh"] else "from the baseline's first weights"
    return f"retraining {way}, {weights}"


def explained(results: Sequence[Result]) -> str:
    """Return what was correlated with what."""
    first = results[0]
    spec = first["config"]["faithfulness"]
    seeds = len({result["seed"] for result in results})
    parts = [
        "Rank correlation of the summed scores of the samples that are kept with -v, v the objective, after "
        f"{kind_of(first)}: "
        f"{first['faithfulness']['retrainings']} retrainings of {first['sizes']['train']} samples, "
        f"{counted(spec['targets'], 'target')} of {first['sizes']['validation']} validation samples, "
        f"{counted(seeds, 'seed')}. In brackets the 95 % interval over seeds, cut at 1."
    ]
    if FROZEN in first["faithfulness"]:
        parts.append(
            "v is the loss on the validation samples attacked anew at each retrained model; the table of costs "
            "has the correlation with those attacked at the baseline."
        )
    elif "robustness" in first["config"]["objective"]["weights"]:
        parts.append("v is the loss on the validation set attacked at the baseline, for all of them.")
    if "singles" in first["faithfulness"]:
        parts.append(f"Single samples: v is the loss of one, mean correlation over {spec['singles']} of them.")
    return " ".join(parts)


def by_target(result: Result) -> list[Row]:
    """Return a row a target: the rank correlation of the prediction with the outcome of retraining."""
    return [
        {"target": number, "spearman": value} for number, value in enumerate(result["faithfulness"]["targets"])
    ]
