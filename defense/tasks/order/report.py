"""Whether scores order samples as influence by an inverse does: one run, and many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from defense.reporting.archive import Row, leaves
from defense.reporting.facts import command_of, made_of
from defense.reporting.health import doubts, looking
from defense.reporting.page import Page
from defense.reporting.reading import Result
from defense.reporting.run import OF_A_SCORE, Scoring, common
from defense.reporting.statistics import agreement, auc_of
from defense.runtime.runtime import Runtime
from defense.tasks.order.planes import planes_sections
from defense.tasks.order.sections import gains_section, overall_section, sections_by_factor, settings_section
from defense.tasks.order.table import Orders
from defense.tasks.order.words import answer
from defense.tasks.writing import written

DEGREES = np.linspace(0, 180, 37)  # the edges of the bins that angles are counted in
POINTS = (2, 1, 1)  # the shape of samples that are drawn


@dataclass(frozen=True)
class Reference:
    """What the scores of a run are compared with."""

    scores: Mapping[float, np.ndarray]  # (n,) by damping
    record: Mapping[str, float]  # how they were found, '<damping> angle to grad v'
    cosines: np.ndarray  # (n,) of the angle between the gradient of the objective and of each training sample


def order_result(run: Scoring, reference: Reference) -> dict[str, Any]:
    """Return what result.json holds: how alike the orders are at each damping, and the angles of the gradients.

    angle: in degrees, between u and grad v. Of samples in the plane, the points and their scores too.
    """
    own = run.scores["score"].to_numpy()
    wrong = (run.scores["label"] != run.scores["truth"]).to_numpy()
    record = reference.record
    found = [
        {
            "damping": damping,
            **agreement(own, scores, run.config.order.share),
            "angle": record[f"{damping:g} angle to grad v"],
            "auc": auc_of(scores, wrong) if run.data.noise_known else None,
        }
        for damping, scores in reference.scores.items()
    ]
    own_seconds = sum(run.seconds.get(stage, 0.0) for stage in OF_A_SCORE)
    lowest = [value for name, value in record.items() if name.endswith("lowest eigenvalue")]
    return {
        "order": {
            "dampings": found,
            "auc": auc_of(own, wrong) if run.data.noise_known else None,
            "lowest_eigenvalue": lowest[0] if lowest else None,
            "angles": angles_of(reference.cosines, wrong),
            "seconds": {"score": own_seconds or None, "reference": run.seconds.get("reference")},
        },
        **({"points": points_of(run, reference)} if run.config.order.draw and run.data.shape == POINTS else {}),
        **common(run),
    }


def angles_of(cosines: np.ndarray, wrong: np.ndarray) -> dict[str, dict[str, Any]]:
    """Return the mean of angles in degrees, and how many are in each of the bins, of harmful and other samples."""
    angles = np.degrees(np.arccos(np.clip(cosines, -1, 1)))
    groups = {"harmful": angles[wrong], "others": angles[~wrong]}
    return {
        name: {"mean": float(of.mean()), "counts": np.histogram(of, DEGREES)[0].tolist()}
        for name, of in groups.items()
        if len(of)
    }


def points_of(run: Scoring, reference: Reference) -> dict[str, Any]:
    """Return the points of the training and the test split, with labels, and the scores of the first."""
    splits = {"train": run.data.train, "test": run.data.test}
    return {
        **{
            name: {
                "x": rounded(split.images.take(torch.arange(len(split))).flatten(1).cpu().numpy()),
                "label": split.labels.tolist(),
                "truth": split.truth.tolist(),
            }
            for name, split in splits.items()
        },
        "score": rounded(run.scores["score"].to_numpy()),
        "reference": {f"{damping:g}": rounded(scores) for damping, scores in reference.scores.items()},
    }


def rounded(values: np.ndarray) -> Any:
    """Return numbers as lists, with the digits that a chart can show."""
    return np.vectorize(lambda value: float(f"{value:.4g}"))(values).tolist()


def order_page(results: Sequence[dict[str, Any]], title: str) -> Page:
    """Return the page of one run or many: does ip keep the order, where does it break, and what mends it."""
    orders = Orders.of(results)
    gains = orders.gains()
    return Page(
        title=f"{title}: do scores order the samples as influence by an inverse does?",
        headline="\n".join(
            filter(None, (doubts(looking(results), "the scores of a trained model"), answer(orders, gains)))
        ),
        command=command_of(results),
        sections=[
            overall_section(orders),
            *planes_sections(orders),
            *sections_by_factor(orders),
            *gains_section(orders, gains),
            *settings_section(orders),
        ],
        provenance=made_of(results),
        notes=[explained(orders)],
    )


def explained(orders: Orders) -> str:
    """Return what was compared with what."""
    first, order = orders.results[0], orders.results[0]["config"]["order"]
    names = ", ".join(f"{damping:g}" for damping in order["dampings"])
    return (
        f"Compared with u . grad loss_i, u = (C + lambda I)^-1 grad v at the baseline, C by {order['reference']} "
        f"(hessian: the exact, dense one of the mean training loss), lambda {names}. Spearman's rho and Kendall's "
        "tau are 1 for the same order, 0 for none in common, -1 for the reverse; overlap is the part of the "
        f"lowest {100 * order['share']:g} % that is the lowest of both. {first['sizes']['train']} training and "
        f"{first['sizes']['validation']} validation samples; {len(orders.seeds)} seed(s), each a draw of data, "
        "flips, first weights and order of training. Intervals are 95 %, over seeds, of means over all else that "
        "is swept. Matrix: definite where all eigenvalues of H + lambda I are above zero."
    )


def write_order(runtime: Runtime, run: Scoring, reference: Reference, output: Path) -> dict[str, Any]:
    """Write how alike the order of the scores and that of a reference are; return the content of result.json."""
    numbers = order_result(run, reference)
    return written(runtime, run, numbers, lambda: order_page([numbers], run.config.name), output)


def by_damping(result: Result) -> list[Row]:
    """Return a row a damping: how alike the two orders are."""
    return [dict(leaves(found)) for found in result["order"]["dampings"]]
