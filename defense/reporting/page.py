"""The pages that people read: report.md with figures beside it, and report.html in one file."""

from __future__ import annotations

import base64
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from jinja2 import Environment, PackageLoader, StrictUndefined
from torch import Tensor

from defense.config.choices import Method, TreatmentName
from defense.config.reads import reading
from defense.reporting import figures
from defense.reporting.descent import ROUNDS, about_descent, descent_rows
from defense.reporting.escaping import for_markdown, visible, write
from defense.reporting.health import check_rows, checks_table, looked_at, reach, warning
from defense.reporting.learning import line_of
from defense.reporting.metagradient import about_derivative
from defense.reporting.outcomes import arm_rows, arms_table
from defense.reporting.record import Run
from defense.reporting.selection import one_class_said
from defense.reporting.settings import about_harm
from defense.reporting.sweeps import left_out
from defense.reporting.tables import arm_in_words, arms_of, kind_of, markdown, trusted_of, weight_of
from defense.reporting.verdict import scorer_of
from defense.runtime.progress import in_words

SHOWN = 16  # samples in each gallery
STRIP = 11  # samples in the strip of perturbations
BOTH_ENDS = "Wrong labels stand at both ends: they make for large gradients, which may point either way."


@dataclass(frozen=True)
class Picture:
    """A picture of the report: the stem of its file, its bytes and what is said of it."""

    name: str
    png: bytes
    alt: str
    facts: dict[str, str] = field(default_factory=dict)
    wrong: bool = False  # its label is known to be wrong

    @property
    def uri(self) -> str:
        """The picture as a data URI."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode()


def write_pages(run: Run, numbers: dict[str, Any], output: Path) -> None:
    """Write report.md, report.html and figures/ into `output`.

    Nothing in them depends on when they were made or on what was reused: the same artifacts give the same bytes.
    """
    charts = {"scores": figures.score_histogram(run), "curves": figures.training_curves(run)}
    checks = numbers["checks"]
    if checks:
        charts["checks"] = figures.eps_curves(
            {arm: found["falls"]["numbers"] for arm, found in checks.items()}, run.config.threat.eps
        )
    if run.candidates is not None:
        charts["candidates"] = figures.candidate_curves(run.candidates)
    if run.descent is not None:
        charts["descent"] = figures.descent_curves(run.descent)
    galleries, strip = gallery(run), perturbations(run)
    folder = output / "figures"
    folder.mkdir(exist_ok=True)
    for name, chart in charts.items():
        write(folder / f"{name}.svg", chart)
    for picture in (*(p for ends in galleries.values() for p in ends), *(p for row in strip for p in row)):
        (folder / f"{picture.name}.png").write_bytes(picture.png)
    facts = {
        "run": run,
        "numbers": numbers,
        "scorer": scorer_of(run),
        "command": shlex.join(["defense", *run.overrides]),
        "spread": in_words(numbers["scoring"]["members"]),
        "rows": arm_rows(run),
        "arms": arms_of(run.arms),
        "checked_arms": arms_of(checks),
        "weights": {arm: weight_of(arm) for arm in trusted_of(run.arms)},
        "warning": warning(checks, numbers["health"]),
        "learned": line_of(numbers["health"]),
        "left_out": left_out(numbers),
        "one_class": one_class_said(numbers["one_class"], len(run.data.train), run.settings["treatment"]),
        "checks": check_rows(checks),
        "checked": looked_at(checks),
        "checks_table": checks_table(checks) if checks else "",
        "reach": reach(checks),
        "candidates": candidate_rows(run),
        "legend": legend(run),
        "arms_table": arms_table(run, form=for_markdown),
        "charts": charts,
        "galleries": galleries,
        "harm": about_harm(run),
        "metagradient": about_derivative(run.settings, run.record),
        "looks": "objective" in reading(run.config.scorer),
        "both_ends": at_both_ends(galleries) if run.config.scorer.method is Method.alignment else "",
        "strip": strip,
        "candidate_table": markdown(CANDIDATES, candidate_rows(run)) if run.candidates is not None else "",
        "candidate_header": CANDIDATES,
        "descent": about_descent(run, run.descent),
        "rounds": [] if run.descent is None else descent_rows(run.descent),
        "rounds_table": "" if run.descent is None else markdown(ROUNDS, descent_rows(run.descent)),
        "rounds_header": ROUNDS,
        "config": json.dumps(run.settings, indent=2),
    }
    for name in ("report.md", "report.html"):
        write_text(output / name, name, facts)


def legend(run: Run) -> dict[str, str]:
    """Return what the control and the defended arm are trained on, as words of a legend."""
    if run.descent is None:
        return {"control": "as many samples treated at random", "defended": "the lowest scores treated"}
    if run.config.treatment.effect.weighs:
        return {"control": "the same weights shuffled", "defended": "samples weighed by the descent"}
    return {"control": "as many samples removed at random", "defended": "those of the lowest weights removed"}


CANDIDATES = ("treatment", "budget", "control", "defended", "defended - control (95 %)", "")


def candidate_rows(run: Run) -> list[tuple[str, ...]]:
    """Return what the treatment was chosen from, one row a candidate; none where it was given."""
    if run.candidates is None:
        return []
    return [
        (
            row.treatment,
            "-" if row.treatment == TreatmentName.reweight.value else f"{row.budget:g}",
            f"{row.control:.1f}",
            f"{row.defended:.1f}",
            f"{row.gain:+.1f} ({row.low:+.1f} to {row.high:+.1f})" if row.budget else "",
            "chosen" if row.chosen else "",
        )
        for row in run.candidates.itertuples()
    ]


def write_text(path: Path, template: str, facts: dict[str, Any]) -> None:
    """Write a template of this package, filled in; what goes into HTML is escaped."""
    write(path, templates().get_template(f"{template}.j2").render(facts).rstrip() + "\n")


@cache
def templates() -> Environment:
    """Return the templates of this package; each is compiled once."""
    environment = Environment(
        loader=PackageLoader("defense.reporting"),
        autoescape=lambda name: bool(name and name.endswith(".html.j2")),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"md": for_markdown, "visible": visible, "arm": arm_in_words, "kind": kind_of}
    return environment


def gallery(run: Run) -> dict[str, list[Picture]]:
    """Return the training samples of the lowest and the highest scores, each under a heading.

    Only a score that looks at an objective says what harms and what helps.
    """
    names = run.data.class_names
    headings = {"lowest": "Lowest scores", "highest": "Highest scores"}
    if "objective" in reading(run.config.scorer):
        headings = {"lowest": "Most harmful", "highest": "Most helpful"}
    out: dict[str, list[Picture]] = {}
    for kind, table in figures.extremes(run.scores, SHOWN).items():
        pixels = run.data.train.images.take(torch.tensor(table.index.tolist()))
        out[headings[kind]] = []
        for rank, (row, pixel) in enumerate(zip(table.itertuples(), pixels, strict=True), start=1):
            wrong = run.data.noise_known and row.label != row.truth
            (name,) = run.data.names_of([row.id])
            facts = {"id": str(row.id)} | ({"name": name} if name != str(row.id) else {})
            facts |= {"label": names[row.label]}
            facts |= {"truth": names[row.truth]} if wrong else {}
            facts |= {"model says": names[row.prediction], "score": f"{row.score:.3g}"}
            stem, alt = f"{kind}_{rank:02d}", f"training sample {row.id}"
            out[headings[kind]].append(Picture(stem, figures.png(pixel), alt, facts, wrong))
    return out


def at_both_ends(galleries: Mapping[str, Sequence[Picture]]) -> str:
    """Return what to say where every gallery has a wrong label; nothing elsewhere."""
    return BOTH_ENDS if all(any(picture.wrong for picture in ends) for ends in galleries.values()) else ""


def perturbations(run: Run) -> list[list[Picture]]:
    """Return rows of clean, adversarial and amplified perturbation, for the first validation samples."""
    rows = []
    shown = torch.arange(min(STRIP, len(run.data.validation)))
    clean, attacked = (images.take(shown).cpu() for images in (run.data.validation.images, run.adversarial))
    for index, (before, after) in enumerate(zip(clean, attacked, strict=True), start=1):
        parts: dict[str, Tensor] = {
            "clean": before,
            "adversarial": after,
            "perturbation": figures.amplified(after - before),
        }
        label = run.data.class_names[int(run.data.validation.labels[index - 1])]
        rows.append(
            [
                Picture(f"strip_{index:02d}_{kind}", figures.png(picture), f"{kind} picture of class {label}")
                for kind, picture in parts.items()
            ]
        )
    return rows
