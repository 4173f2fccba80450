"""How well scores foresee retraining: one cell, and many."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from defense.errors import InputError
from defense.reporting.figures import points
from defense.reporting.health import doubts, looking
from defense.reporting.record import Scoring
from defense.reporting.result import common
from defense.reporting.sheet import Part, Sheet
from defense.reporting.statistics import mean_interval
from defense.reporting.sweeps import Grid, column_of, columns_of, command_of, highest, made_of, shard_batches

WHAT = {
    "leave_one_out": "leave-one-out retraining",
    "halves": "retraining on random halves (linear datamodelling score)",
}


def faithfulness_result(run: Scoring, predicted: np.ndarray, measured: np.ndarray) -> dict[str, Any]:
    """Return what result.json holds, for predictions and measurements (targets, m) over m retrainings.

    spearman: the mean over targets of the rank correlation; 0 for a prediction that is the same for all, which
    foresees nothing. seconds: of scoring one target, at all models that are scored at; the median over targets.
    Raises InputError where the retrained models are all alike.
    """
    if not np.ptp(measured, axis=1).all():
        found = "the retrained models do not differ; expected a training that what is left out has an effect on"
        raise InputError("faithfulness.subsets", run.config.faithfulness.subsets, found)
    correlations = [
        float(spearmanr(p, m).statistic) if np.ptp(p) > 0 else 0.0
        for p, m in zip(predicted, measured, strict=True)
    ]
    by_target: dict[str, float] = defaultdict(float)
    for stage, seconds in run.seconds.items():
        if stage.startswith("score"):
            by_target[stage.partition("target")[2]] += seconds
    return {
        "faithfulness": {
            "spearman": float(np.mean(correlations)),
            "targets": correlations,
            "retrainings": predicted.shape[1],
            "seconds": float(np.median(list(by_target.values()))),
        },
        **common(run),
    }


def faithfulness_sheet(results: Sequence[dict[str, Any]], title: str) -> Sheet:
    """Return the page of one run or many: correlation and cost of every scorer."""
    columns = columns_of(results)
    spearman: Grid[float] = Grid.of(results, lambda result: result["faithfulness"]["spearman"])
    seconds: Grid[float] = Grid.of(results, lambda result: result["faithfulness"]["seconds"])
    residuals: Grid[float | None] = Grid.of(results, worst_residual)
    parts = []
    for number, column in enumerate(columns, start=1):
        rows = [row for row in shard_batches(results) if spearman.values(row, column)]
        means = {row: mean_interval(spearman.values(row, column)) for row in rows}
        costs = {row: float(np.median(seconds.values(row, column))) for row in rows}
        table = []
        for row in sorted(rows, key=lambda row: -means[row].mean):
            found = means[row]
            interval = f"{found.low:+.3f} to {found.high:+.3f}" if found.judgeable else "-"
            ratio = f"{costs[row] / costs['ip']:.1f}" if "ip" in costs else "-"
            left = [value for value in residuals.values(row, column) if value is not None]
            residual = f"{max(left):.2g}" if left else "-"
            table.append((row, f"{found.mean:+.3f}", interval, residual, f"{costs[row]:.2f}", ratio))
        chart = points(
            {row: (costs[row], means[row].mean, spread(means[row])) for row in rows},
            xlabel="seconds of scoring (per target)",
            ylabel="rank correlation",
        )
        header = ("scorer", "Spearman", "95 % over seeds", "worst residual", "seconds", "times ip")
        parts.append(
            Part(
                f"faithfulness_{number}",
                column or "Correlation and cost",
                explained([result for result in results if column_of(result, results) == column]),
                header,
                table,
                chart,
            )
        )
    title = f"{title}: do scores foresee retraining?"
    said = "\n".join(
        filter(None, (doubts(looking(results), "the scores of a trained model"), answer(spearman, results)))
    )
    return Sheet(title, said, command_of(results), parts, made_of(results))


def worst_residual(result: dict[str, Any]) -> float | None:
    """Return the largest relative residual of the inverses of one result; None where nothing is inverted."""
    found = [value for name, value in result["scoring"]["record"].items() if name.endswith("residual")]
    return max(found, default=None)


def spread(found: Any) -> float:
    """Return half the width of an interval; 0 where there is none."""
    return found.high - found.mean if found.judgeable else 0.0


def explained(results: Sequence[dict[str, Any]]) -> str:
    """Return what was correlated with what."""
    first = results[0]
    spec, kind = first["config"]["faithfulness"], WHAT[first["config"]["faithfulness"]["subsets"]]
    seeds = len({result["seed"] for result in results})
    frozen = "Under robustness v is the loss on the validation set attacked at the baseline, for all of them. "
    return (
        f"Rank correlation of the summed scores of the samples that are kept with -v after {kind}: "
        f"{first['faithfulness']['retrainings']} retrainings of {first['sizes']['train']} samples, "
        f"{spec['targets']} target(s) of {first['sizes']['validation']} validation samples, {seeds} seed(s). "
        f"{frozen if 'robustness' in first['config']['objective']['weights'] else ''}"
        "Seconds of the whole score stage, grad v and the model's predictions included, medians; the first run "
        "of a process pays for its imports. Residual: of the inverse, relative; wanted is scorer.tolerance."
    )


def answer(spearman: Grid[float], results: Sequence[dict[str, Any]]) -> str:
    """Return which scorer foresees retraining best, and how well ip does."""
    kinds = dict.fromkeys(WHAT[result["config"]["faithfulness"]["subsets"]] for result in results)
    return f"Rank correlation with {', '.join(kinds)}: {highest(spearman, '{:+.3f}')}."
