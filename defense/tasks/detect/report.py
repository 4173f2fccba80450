"""How well scores find samples that are known to be wrong: one cell, and many."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from defense.reporting.charts import Axis, curves
from defense.reporting.health import doubts, looking
from defense.reporting.page import Page, Section
from defense.reporting.reading import is_rival
from defense.reporting.run import Scoring, common
from defense.reporting.selection import selection
from defense.reporting.statistics import mean_interval
from defense.reporting.sweeps import Grid, columns_of, command_of, highest, made_of, row_of
from defense.runtime.runtime import Runtime
from defense.tasks.writing import written

SHARES = np.linspace(0, 1, 101)  # of the training samples, lowest scores first


def detection_result(run: Scoring) -> dict[str, Any]:
    """Return what result.json holds: ROC AUC, precision and recall at the budget, and recall at every share."""
    scores, budget = run.scores["score"].to_numpy(), run.config.treatment.budget
    taken = np.zeros(len(scores), dtype=bool)
    taken[np.argsort(scores, kind="stable")[: round(budget * len(scores))]] = True
    noisy = (run.scores["label"] != run.scores["truth"]).to_numpy()
    return {"selection": selection(run, taken), "recall_curve": recall_curve(scores, noisy), **common(run)}


def recall_curve(scores: np.ndarray, noisy: np.ndarray) -> list[float]:
    """Return, for each of SHARES, the part of the `noisy` bool (n,) among so many of the lowest `scores` (n,)."""
    found = np.concatenate([[0], np.cumsum(noisy[np.argsort(scores, kind="stable")])])
    return [float(found[round(share * len(scores))] / max(found[-1], 1)) for share in SHARES]


def detection_page(results: Sequence[dict[str, Any]], title: str) -> Page:
    """Return the page of one run or many: AUC by scorer and column, and the curves of recall."""
    auc: Grid[float] = Grid.of(results, lambda result: float(result["selection"]["auc"]))
    recall: Grid[list[float]] = Grid.of(results, lambda result: result["recall_curve"])
    columns = columns_of(results)
    rows = sorted(auc.rows, key=lambda row: -max(np.mean(auc.values(row, c) or [0.0]) for c in columns))
    seeds = {result["seed"] for result in results}
    return Page(
        title=f"{title}: do scores find the labels that are known to be wrong?",
        headline="\n".join(
            filter(None, (doubts(looking(results), "the scores of a trained model"), answer(auc, results)))
        ),
        command=command_of(results),
        sections=[
            Section(
                "auc",
                f"ROC AUC, {len(seeds)} {'seeds' if len(seeds) > 1 else 'seed'}",
                "The chance that a sample whose label is known to be wrong has a lower score than one whose label "
                "is right: 0.5 is a coin. In brackets the 95 % interval over seeds. A scorer that looks at no "
                "objective has the same number for all." + at_budget(results),
                ("scorer", *(column or "ROC AUC" for column in columns)),
                [(row, *(said(auc.values(row, column)) for column in columns)) for row in rows],
            ),
            *(
                Section(
                    f"recall_{number}",
                    f"Recall against the share removed{', ' + column if column else ''}",
                    "Mean over seeds; the dashed line is removal at random.",
                    chart=curves(
                        {row: by_share(found) for row in rows if (found := recall.values(row, column))},
                        Axis("share of the training samples removed, lowest scores first"),
                        Axis("share of the wrong labels found"),
                        diagonal=True,
                    ),
                )
                for number, column in enumerate(columns, start=1)
            ),
        ],
        provenance=made_of(results),
    )


def by_share(recalls: Sequence[list[float]]) -> dict[float, float]:
    """Return the mean over seeds of curves of recall, by share."""
    return dict(zip(SHARES.tolist(), np.mean(recalls, axis=0).tolist(), strict=True))


def at_budget(results: Sequence[dict[str, Any]]) -> str:
    """Return precision and recall at the budget, of a single result."""
    if len(results) > 1:
        return ""
    found, budget = results[0]["selection"], results[0]["config"]["treatment"]["budget"]
    if found["precision"] is None:
        return ""
    return (
        f" {100 * found['noise']:.1f} % of {results[0]['sizes']['train']} labels are wrong; of the lowest "
        f"{100 * budget:g} % of the scores {100 * found['precision']:.1f} % are (precision), which is "
        f"{100 * found['recall']:.1f} % of them (recall)."
    )


def answer(auc: Grid[float], results: Sequence[dict[str, Any]]) -> str:
    """Return which scorer finds the wrong labels best, chance and perfect knowledge aside unless they are all."""
    rivals = {row_of(result, results) for result in results if is_rival(result["config"])}
    found = highest(auc, "{:.3f}", but=sorted(rivals) if set(auc.rows) > rivals else ())
    return f"ROC AUC for finding the labels that are wrong: {found}."


def said(values: Sequence[float]) -> str:
    """Return '0.912 (0.901 to 0.923)'; '-' for no value."""
    if not values:
        return "-"
    found = mean_interval(values)
    return f"{found.mean:.3f}" + (
        f" ({max(found.low, 0):.3f} to {min(found.high, 1):.3f})" if found.judgeable else ""
    )


def write_detection(runtime: Runtime, run: Scoring, output: Path) -> dict[str, Any]:
    """Write how well the scores find the known noise; return the content of result.json."""
    numbers = detection_result(run)
    return written(runtime, run, numbers, lambda: detection_page([numbers], run.config.name), output)
