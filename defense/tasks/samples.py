"""The training samples on the page of a run: their scores as a histogram, and those at both ends as pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import matplotlib as mpl
import numpy as np
import pandas as pd
import torch

from defense.config.choices import Method
from defense.config.reads import reading
from defense.reporting.charts import CLEAN, INK, NOISY, STYLE, canvas, png, svg
from defense.reporting.exports import Text
from defense.reporting.page import Picture, Section
from defense.reporting.run import Scoring
from defense.runtime.progress import in_words

SHOWN = 16  # samples in each gallery
BOTH_ENDS = "Wrong labels stand at both ends: they make for large gradients, which may point either way."


@dataclass(frozen=True)
class Line:
    """A vertical line in a histogram of scores, and its words in the legend."""

    score: float
    words: str


def looks(run: Scoring) -> bool:
    """Return whether the scorer looks at an objective: no other says what harms and what helps."""
    return "objective" in reading(run.config.scorer)


def scores_section(run: Scoring, members: Mapping[str, float], line: Line | None) -> Section:
    """Return the histogram of the scores, and what a score is.

    members: the rank correlation of each part with the score, as `writing.spread`. line: see `score_histogram`.
    """
    said = f"The lowest scores are suspected; {run.config.scorer.name} looks at no objective."
    if run.config.scorer.method is Method.own:
        said = f"A score is computed by {run.config.scorer._target_}: negative harms, positive helps."
    elif run.config.scorer.method is Method.file:
        said = f"Scores are those of {run.config.scorer.path}: negative harms, positive helps."
    elif looks(run):
        lowers = f"how much training on the sample lowers the objective ({run.config.objective}), which is a loss"
        said = f"A score is {lowers}: negative harms, positive helps."
    if members:
        kind = "the mean over trainings" if run.config.scorer.seeds > 1 else "a sum"
        said += f"\nThe score is {kind}. Rank correlation of its parts with it: {in_words(dict(members))}."
    return Section("scores", "Scores of the training samples", said, chart=score_histogram(run, line))


def score_histogram(run: Scoring, line: Line | None) -> str:
    """Return the histogram of the scores, one row per kind of label if noise is known, with a line across all."""
    scores = run.scores["score"].to_numpy()
    noisy = (run.scores["label"] != run.scores["truth"]).to_numpy()
    groups = {"label is right": (~noisy, CLEAN), "label is wrong": (noisy, NOISY)}
    if not run.data.noise_known:
        groups = {"training samples": (np.ones_like(noisy), CLEAN)}
    edges = np.histogram_bin_edges(scores, bins=60)
    with mpl.rc_context(STYLE):
        figure, rows = canvas(1.4 * len(groups), rows=len(groups))
        for axes, (name, (members, colour)) in zip(rows, groups.items(), strict=True):
            counts = np.append(np.histogram(scores[members], edges)[0], 0)
            label = f"{name} ({members.sum()})"
            axes.fill_between(edges, counts, step="post", color=colour, linewidth=0, label=label)
            if line is not None:
                words = line.words if axes is rows[0] else ""
                axes.axvline(line.score, color=INK, linewidth=1, linestyle="--", label=words)
            axes.set(title="samples", ylim=(0, None))
            axes.xaxis.set_visible(axes is rows[-1])
            axes.locator_params("y", integer=True)
        rows[-1].set_xlabel("score")
        return svg(figure, *rows)


def galleries(run: Scoring) -> list[Section]:
    """Return the training samples of the lowest and the highest scores."""
    headings = ("Most harmful", "Most helpful") if looks(run) else ("Lowest scores", "Highest scores")
    ends = extremes(run.scores, SHOWN).items()
    found = [gallery(run, name, heading, table) for heading, (name, table) in zip(headings, ends, strict=True)]
    said = at_both_ends(found) if run.config.scorer.method is Method.alignment else ""
    return [*found[:-1], replace(found[-1], text=said)]


def gallery(run: Scoring, name: str, heading: str, table: pd.DataFrame) -> Section:
    """Return training samples with what is known of each; as pictures, too, unless they are texts.

    table: rows of the scores.
    """
    classes, ids = run.data.class_names, table["id"].tolist()
    pixels = run.data.train.images.take(torch.tensor(table.index.tolist()))
    wrong = [run.data.noise_known and row.label != row.truth for row in table.itertuples()]
    columns = {
        "id": [str(each) for each in ids],
        "name": ["-" if own == str(each) else own for own, each in zip(run.data.names_of(ids), ids, strict=True)],
        "label": [classes[label] for label in table["label"]],
        "truth": [classes[truth] if odd else "-" for truth, odd in zip(table["truth"], wrong, strict=True)],
        "model says": [classes[prediction] for prediction in table["prediction"]],
        "score": [Text(f"{score:.3g}", value=score) for score in table["score"]],
    }
    columns = {column: cells for column, cells in columns.items() if set(cells) != {"-"}}
    drawn = zip(pixels, ids, wrong, strict=True) if pixels.is_floating_point() else ()  # texts are token ids
    pictures = [
        [Picture(f"{name}_{rank:02d}", png(pixel), f"training sample {each}", odd)]
        for rank, (pixel, each, odd) in enumerate(drawn, start=1)
    ]
    rows = list(zip(*columns.values(), strict=True))
    return Section(name, heading, "", tuple(columns), rows, pictures=pictures)


def at_both_ends(sections: Sequence[Section]) -> str:
    """Return what to say if every gallery has a wrong label; else nothing."""
    wrong = [any(picture.wrong for group in section.pictures for picture in group) for section in sections]
    return BOTH_ENDS if all(wrong) else ""


def extremes(scores: pd.DataFrame, count: int) -> dict[str, pd.DataFrame]:
    """Return the rows of the `count` lowest and highest scores, the most extreme first."""
    ordered = scores.sort_values("score", kind="stable")
    return {"lowest": ordered.head(count), "highest": ordered.tail(count)[::-1]}
