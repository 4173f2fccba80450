"""How well scores find samples that are known to be wrong: one run, and many."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from defense.reporting.charts import Axis, curves
from defense.reporting.compare import Metric, compare
from defense.reporting.comparisons import comparison_section
from defense.reporting.facts import command_of, made_of
from defense.reporting.frame import Setting, by, settings_of
from defense.reporting.page import Page, Section
from defense.reporting.reading import Result
from defense.reporting.run import Scoring
from defense.reporting.verdicts import answer, caveat
from defense.runtime.runtime import Runtime
from defense.tasks.health import doubts, looking
from defense.tasks.selection import selection
from defense.tasks.writing import common, written

AUC = Metric(
    "selection.auc", "ROC AUC", unit="", over="ip", arms=False, decimals=3, limits=(0.0, 1.0), within="column"
)
SHARES = np.linspace(0, 1, 101)  # of the training samples, lowest scores first
ABOUT = (
    "The chance that a sample whose label is known to be wrong has a lower score than one whose label is right: "
    "0.5 is a coin. In brackets the 95 % interval over seeds. A scorer that looks at no objective has one row."
)


def write_detection(runtime: Runtime, run: Scoring, output: Path) -> dict[str, Any]:
    """Write how well the scores find the known noise; return the content of result.json."""
    numbers = detection_result(run)
    return written(runtime, run, numbers, lambda: detection_page([numbers], run.config.name), output)


def detection_result(run: Scoring) -> dict[str, Any]:
    """Return the content of result.json: AUC, precision and recall at the budget, and recall at every share."""
    scores, budget = run.scores["score"].to_numpy(), run.config.treatment.budget
    taken = np.zeros(len(scores), dtype=bool)
    taken[np.argsort(scores, kind="stable")[: round(budget * len(scores))]] = True
    noisy = (run.scores["label"] != run.scores["truth"]).to_numpy()
    return {"selection": selection(run, taken), "recall_curve": recall_curve(scores, noisy), **common(run)}


def recall_curve(scores: np.ndarray, noisy: np.ndarray) -> list[float]:
    """Return, for each of SHARES, the part of the `noisy` bool (n,) among so many of the lowest `scores` (n,)."""
    hits = np.concatenate([[0], np.cumsum(noisy[np.argsort(scores, kind="stable")])])
    return [float(hits[round(share * len(scores))] / max(hits[-1], 1)) for share in SHARES]


def detection_page(results: Sequence[Result], title: str) -> Page:
    """Return the page of one run or many: the AUC of every setting beside ip, and the curves of recall."""
    settings = settings_of(results)
    rows = sorted(compare(settings, AUC), key=lambda row: -AUC.mean(row.setting).mean)
    headline = (doubts(looking(results), "the scores of a trained model"), f"Finding wrong labels: {answer(rows)}")
    return Page(
        f"{title}: do scores find the labels that are known to be wrong?",
        "\n".join(filter(None, headline)),
        command_of(results),
        [comparison_section("auc", "ROC AUC", rows, ABOUT + at_budget(results)), *recall_sections(settings)],
        made_of(results),
        notes=list(filter(None, [caveat(rows)])),
    )


def recall_sections(settings: Sequence[Setting]) -> list[Section]:
    """Return the curves of recall, a section for each of what else was swept."""
    return [
        Section(
            f"recall_{number}",
            f"Recall against the share removed{', ' + column if column else ''}",
            "Mean over seeds; the dashed line is removal at random.",
            chart=curves(
                {one.row: mean_recall(one) for one in own},
                Axis("share of the training samples removed, lowest scores first"),
                Axis("share of the wrong labels found"),
                diagonal=True,
            ),
        )
        for number, (column, own) in enumerate(by(settings, lambda setting: setting.column).items(), start=1)
    ]


def mean_recall(setting: Setting) -> dict[float, float]:
    """Return the mean over seeds of the curve of recall, by share."""
    recall = np.mean([run["recall_curve"] for run in setting.runs], axis=0)
    return dict(zip(SHARES.tolist(), recall.tolist(), strict=True))


def at_budget(results: Sequence[Result]) -> str:
    """Return precision and recall at the budget, of a single result."""
    selected, budget = results[0]["selection"], results[0]["config"]["treatment"]["budget"]
    if len(results) > 1 or selected["precision"] is None:
        return ""
    return (
        f" {100 * selected['noise']:.1f} % of {results[0]['sizes']['train']} labels are wrong; of the lowest "
        f"{100 * budget:g} % of the scores {100 * selected['precision']:.1f} % are (precision), which is "
        f"{100 * selected['recall']:.1f} % of them (recall)."
    )
