"""Write what a run found: for machines, for spreadsheets and for people."""

from __future__ import annotations

import json
import logging
import platform
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from defense.artifacts import write_json
from defense.config.choices import TreatmentName
from defense.pipeline.originals import digest_of
from defense.reporting.escaping import for_terminal
from defense.reporting.exports import write_csv
from defense.reporting.page import Page, Section, write_page
from defense.reporting.run import Scoring, named
from defense.runtime.runtime import Runtime
from defense.runtime.tracking import tracked
from defense.runtime.versions import version
from defense.stages.pages import pages, write_files
from defense.store.files import checksum
from defense.store.fingerprint import canonical, hash_of
from defense.tasks.health import SCORED, health_of
from defense.tasks.metagradient import about_derivative

log = logging.getLogger(__name__)
PACKAGES = (
    "defense", "torch", "torchvision", "torchattacks", "curvlinops-for-pytorch", "lightning-fabric",
    "hydra-core", "numpy", "scikit-learn",
)  # fmt: skip
PACKAGE = Path(__file__).resolve().parents[1]


def draw_pages(
    runtime: Runtime, run: Scoring, numbers: dict[str, Any], draw: Callable[[Path], str], output: Path
) -> str:
    """Write pages into `output`, drawn by `draw` or as the store has them; return the answer that they give.

    What they show enters the key: numbers, with the keys of stages, the data, and the names of samples.
    """
    shown = {name: value for name, value in numbers.items() if name not in ("reused", "report_seconds")}
    names = run.data.names_of(run.data.train.ids.numpy())
    made_of = {"numbers": shown, "classes": run.data.class_names, "groups": run.data.group_names, "names": names}
    splits = {name: split.digests for name, split in run.data.splits.items()}
    alone = Runtime(runtime.fabric, runner=runtime.runner)  # other processes draw nothing
    found = pages(alone, hash_of(canonical(made_of | {"splits": splits})), drawing_code(), draw)
    write_files(found, output)
    return str(found.terminal["answer"].iloc[0])


def drawing_files() -> list[Path]:
    """Return the files that pages are drawn by: all of the package, since choices bring words of pages."""
    files = sorted(PACKAGE.rglob("*"))
    return [file.relative_to(PACKAGE) for file in files if file.is_file() and file.suffix != ".pyc"]


@cache
def drawing_code() -> str:
    """Return a hash of all that pages are drawn by: the files of the package, and the version of matplotlib."""
    files = {file.as_posix(): checksum(PACKAGE / file) for file in drawing_files()}
    return hash_of(files | {"matplotlib": version("matplotlib")})


def written(
    runtime: Runtime,
    run: Scoring,
    numbers: dict[str, Any],
    page: Callable[[], Page],
    output: Path,
    histories: dict[str, pd.DataFrame] | None = None,
) -> dict[str, Any]:
    """Write result.json, the scores and a page; histories: the curves of trainings, by arm, to be tracked."""
    write_scores(run, run.scores, output)
    finish(runtime, run, numbers, lambda folder: draw_page(run, page(), folder), output, histories or {})
    return numbers


def write_scores(run: Scoring, scores: pd.DataFrame, output: Path) -> None:
    """Write scores.parquet and scores.csv: a row for each training sample, in order of id."""
    table = named(scores, run.data)
    table.to_parquet(output / "scores.parquet", index=False)
    write_csv(table, output / "scores.csv")


def write_treatment(run: Scoring, treatment: pd.DataFrame, output: Path) -> None:
    """Write kept.csv, the samples to train on, and weights.csv, which has every sample; both in order of id.

    treatment: as artifacts.Treatment. What is removed has weight 0. If a treatment changes labels, kept.csv has
    those of its samples, too.
    """
    table = named(treatment, run.data)
    table["weight"] = table["weight"].where(table["keep"], 0.0)
    given = run.data.train.labels.cpu().numpy()
    relabelled = run.config.treatment.effect is TreatmentName.relabel or (table["label"] != given).any()
    kept = table.loc[table["keep"], ["id", "name", *(["label"] if relabelled else [])]]
    write_csv(kept, output / "kept.csv")
    write_csv(table[["id", "name", "weight", "label"]], output / "weights.csv")


def finish(
    runtime: Runtime,
    run: Scoring,
    numbers: dict[str, Any],
    draw: Callable[[Path], str],
    output: Path,
    histories: dict[str, pd.DataFrame],
) -> None:
    """Write the pages and result.json of a run, log its answer, and hand it to its tracker."""
    said = draw_pages(runtime, run, numbers, draw, output)
    write_json(numbers, output / "result.json")
    log.info("\n%s", for_terminal(f"{said}\n\nreport: {output / 'report.html'}"))
    tracked(run.config.track, numbers, histories, output)


def draw_page(run: Scoring, page: Page, folder: Path) -> str:
    """Write a page into a folder, with how the scores were found; return the answer that it gives."""
    sections = [*page.sections, *record_section(run)]
    write_page(replace(page, sections=sections, settings=json.dumps(run.settings, indent=2)), folder)
    return page.headline


def record_section(run: Scoring) -> list[Section]:
    """Return how the scores were found: residuals, iterations; no section if there is nothing to say."""
    rows = [(name, f"{value:.4g}") for name, value in run.record.items()]
    said = about_derivative(run.settings, run.record)
    heading = "How the scores were found"
    return [Section("record", heading, said, ("", "value"), rows, collapsed=True)] if rows else []


def stages_section(seconds: dict[str, float]) -> Section:
    """Return how long every stage took when it was computed."""
    rows = [(stage.replace("_", " "), f"{value:.1f}") for stage, value in seconds.items()]
    head = ("stage", "seconds when computed")
    return Section("stages", "How long it took", "", head, rows, collapsed=True)


def common(run: Scoring) -> dict[str, Any]:
    """Return what the result.json of every task holds."""
    return {
        "name": run.config.name,
        "task": str(run.config.task),
        "seed": run.config.seed,
        "sizes": {part: len(getattr(run.data, part)) for part in ("train", "validation", "test")},
        "data": {"classes": run.data.class_names, "digest": digest_of(run.data.train)},
        "left_out": run.data.left_out,
        "health": health_of({SCORED: run.learned}, run.data.class_names),
        "scoring": {"record": run.record, "members": spread(run.scores)},
        "keys": run.keys,
        "seconds": run.seconds,
        "reused": run.reused,
        "overrides": run.overrides,
        "device": run.device,
        "versions": versions(),
        "config": run.settings,
    }


def spread(scores: pd.DataFrame) -> dict[str, float]:
    """Return the rank correlation with the score of each of its parts: members, and terms of the objective."""
    parts = [name for name in scores.columns if name.startswith("score.")]
    return {
        name.removeprefix("score."): float(scores["score"].corr(scores[name], method="spearman"))
        for name in parts
        if scores[name].nunique() > 1 and scores["score"].nunique() > 1
    }


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that the numbers depend on."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}
