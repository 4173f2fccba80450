"""How well scores foresee retraining: one cell, and many."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from defense.config.choices import Dropping, Subsets
from defense.errors import InputError
from defense.reporting.agreement import rank_correlation
from defense.reporting.archive import Row
from defense.reporting.charts import points
from defense.reporting.health import doubts, looking
from defense.reporting.page import Page, Section
from defense.reporting.run import OF_A_SCORE, Scoring, common
from defense.reporting.settings import counted
from defense.reporting.statistics import Mean, mean_interval
from defense.reporting.sweeps import Grid, Result, column_of, columns_of, command_of, highest, made_of
from defense.runtime.runtime import Runtime
from defense.tasks.writing import written

LDS = "linear datamodelling score"
HALVES = f"retraining on random halves ({LDS})"  # of results before `dropped` was a setting
CLEAN, ANEW, FROZEN = "clean", "anew", "frozen"  # where validation samples are attacked; the first of each is v


def faithfulness_result(run: Scoring, found: Foreseen) -> dict[str, Any]:
    """Return what result.json holds of predictions and measurements over m retrainings.

    spearman: the mean over targets of the rank correlation, with validation samples attacked anew at each model;
    frozen: with those attacked at the baseline; singles: of single validation samples, as spearman. A prediction
    that is the same for all foresees nothing: 0. seconds: of scoring one target, at all models that are scored
    at; the median over targets. Raises InputError if the retrained models are all alike.
    """
    first = next(iter(found.measured.values()))
    if not np.ptp(first, axis=1).all():
        spec = run.config.faithfulness
        said = "the retrained models do not differ; expected a training that what is left out has an effect on"
        raise InputError("faithfulness.subsets", spec.subsets, said)
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
    columns = columns_of(results)
    spearman: Grid[float] = Grid.of(results, lambda result: result["faithfulness"]["spearman"])
    sections = [
        correlations_section(
            number, column, [result for result in results if column_of(result, results) == column]
        )
        for number, column in enumerate(columns, start=1)
    ]
    title = f"{title}: do scores foresee retraining?"
    said = "\n".join(
        filter(None, (doubts(looking(results), "the scores of a trained model"), answer(spearman, results)))
    )
    return Page(title, said, command_of(results), sections, made_of(results))


def correlations_section(number: int, column: str, results: Sequence[Result]) -> Section:
    """Return the table of scorers of one column: correlations, the highest first, and what they cost."""

    def grid(value: Callable[[Result], float | None]) -> Grid[float | None]:
        return Grid.of(results, value)

    measures = {
        "Spearman": grid(lambda result: result["faithfulness"]["spearman"]),
        "attacked at the baseline": grid(lambda result: result["faithfulness"].get(FROZEN)),
        "single samples": grid(lambda result: result["faithfulness"].get("singles")),
    }
    seconds, residuals = grid(lambda result: result["faithfulness"]["seconds"]), grid(worst_residual)
    rows = measures["Spearman"].rows
    means = {name: {row: mean_of(own, row) for row in rows} for name, own in measures.items()}
    shown = [name for name, own in means.items() if any(own.values())]
    costs = {row: float(np.median(known(seconds, row))) for row in rows}
    first = {row: found for row, found in means["Spearman"].items() if found is not None}
    table = []
    for row in sorted(first, key=lambda row: -first[row].mean):
        ratio = f"{costs[row] / costs['ip']:.1f}" if "ip" in costs else "-"
        residual = max(known(residuals, row), default=None)
        told = [interval(means[name][row]) for name in shown]
        table.append((row, *told, "-" if residual is None else f"{residual:.2g}", f"{costs[row]:.2f}", ratio))
    chart = points(
        {row: (costs[row], found.mean, spread(found)) for row, found in first.items()},
        xlabel="seconds of scoring (per target)",
        ylabel="rank correlation",
    )
    header = ("scorer", *shown, "worst residual", "seconds", "times ip")
    heading = column or "Correlation and cost"
    return Section(f"faithfulness_{number}", heading, explained(results), header, table, chart)


def known(grid: Grid[float | None], row: str) -> list[float]:
    """Return the values of a row over seeds, without those that are not known."""
    columns = dict.fromkeys(column for _, column in grid.cells)
    return [value for column in columns for value in grid.values(row, column) if value is not None]


def mean_of(grid: Grid[float | None], row: str) -> Mean | None:
    """Return the mean of a row over seeds; None if nothing is known."""
    values = known(grid, row)
    return mean_interval(values) if values else None


def interval(found: Mean | None) -> str:
    """Return '+0.912 (+0.901 to +0.923)', within [-1, 1] as correlations are; '-' of nothing."""
    if found is None:
        return "-"
    low, high = max(found.low, -1), min(found.high, 1)
    return f"{found.mean:+.3f}" + (f" ({low:+.3f} to {high:+.3f})" if found.judgeable else "")


def worst_residual(result: Result) -> float | None:
    """Return the largest relative residual of the inverses of one result; None if nothing is inverted."""
    found = [value for name, value in result["scoring"]["record"].items() if name.endswith("residual")]
    return max(found, default=None)


def spread(found: Mean) -> float:
    """Return half the width of an interval, cut at 1; 0 if there is none."""
    return min(found.high, 1) - found.mean if found.judgeable else 0.0


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
    own = "each from first weights of its own" if spec["fresh"] else "from the baseline's first weights"
    return f"retraining {way}, {own}"


def explained(results: Sequence[Result]) -> str:
    """Return what was correlated with what."""
    first = results[0]
    spec = first["config"]["faithfulness"]
    seeds = len({result["seed"] for result in results})
    said = [
        "Rank correlation of the summed scores of the samples that are kept with -v, v the objective, after "
        f"{kind_of(first)}: "
        f"{first['faithfulness']['retrainings']} retrainings of {first['sizes']['train']} samples, "
        f"{counted(spec['targets'], 'target')} of {first['sizes']['validation']} validation samples, "
        f"{counted(seeds, 'seed')}. In brackets the 95 % interval over seeds, cut at 1."
    ]
    if FROZEN in first["faithfulness"]:
        said.append(
            "v is the loss on the validation samples attacked anew at each retrained model, and, beside it, on "
            "those attacked at the baseline."
        )
    elif "robustness" in first["config"]["objective"]["weights"]:
        said.append("v is the loss on the validation set attacked at the baseline, for all of them.")
    if "singles" in first["faithfulness"]:
        said.append(f"Single samples: v is the loss of one, mean correlation over {spec['singles']} of them.")
    said.append(
        "Seconds of the whole score stage, grad v and the model's predictions included, medians; of a "
        "metagradient its trajectory, too, not the trainings that measure smoothness; the first run of a process "
        "pays for its imports. Residual: of the inverse, relative; wanted is scorer.tolerance."
    )
    return " ".join(said)


def answer(spearman: Grid[float], results: Sequence[Result]) -> str:
    """Return which scorer foresees retraining best, and how well ip does."""
    kinds = dict.fromkeys(kind_of(result) for result in results)
    over = next(iter(kinds)) if len(kinds) == 1 else "retraining"
    return f"Rank correlation with {over}: {highest(spearman, '{:+.3f}')}."


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


def by_target(result: Result) -> list[Row]:
    """Return a row a target: the rank correlation of what was foreseen with what retraining gives."""
    return [
        {"target": number, "spearman": value} for number, value in enumerate(result["faithfulness"]["targets"])
    ]
