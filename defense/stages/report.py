"""Write what a run found: for machines, for spreadsheets and for people."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from defense.artifacts import write_json
from defense.reporting.descents import descent_section
from defense.reporting.detection import detection_page, detection_result
from defense.reporting.escaping import for_terminal
from defense.reporting.evading import evaded_page, evaded_result
from defense.reporting.faithfulness import faithfulness_page, faithfulness_result
from defense.reporting.health import warning
from defense.reporting.metagradient import about_derivative
from defense.reporting.names import named
from defense.reporting.ordering import Reference, order_page, order_result
from defense.reporting.outcomes import arms_table
from defense.reporting.page import Page, write_page
from defense.reporting.record import Evaded, Foreseen, Repair, Run, Scoring
from defense.reporting.repairing import per_sample, repair_page, repair_result
from defense.reporting.result import result
from defense.reporting.run_page import record_section, write_pages
from defense.reporting.selection import one_class_said
from defense.reporting.timing import timing_page, timing_result
from defense.reporting.tracking import tracked
from defense.runtime.runtime import Runtime
from defense.runtime.versions import version
from defense.stages.pages import pages, write_files
from defense.store.files import checksum
from defense.store.fingerprint import canonical, hash_of

log = logging.getLogger(__name__)
PACKAGE = Path(__file__).resolve().parents[1]


def write_report(runtime: Runtime, run: Run, output: Path) -> dict[str, Any]:
    """Write result.json, scores, per_sample and the pages into `output`; return the content of result.json."""
    begin = time.perf_counter()
    numbers = result(run)
    columns = {name: run.arms["defended"].treatment[name].to_numpy() for name in ("treated", "weight")}
    scores = named(run.scores.assign(**columns), run.data)
    scores.to_parquet(output / "scores.parquet", index=False)
    scores.to_csv(output / "scores.csv", index=False, encoding="utf-8")
    evaluations = {name: arm.evaluation for name, arm in run.arms.items()} | run.further_controls
    samples = [evaluation.assign(arm=name) for name, evaluation in evaluations.items()]
    named(pd.concat(samples), run.data).to_parquet(output / "per_sample.parquet", index=False)
    spent = time.perf_counter() - begin
    said = draw_pages(runtime, run, numbers, lambda folder: draw_run(run, numbers, folder), output)
    numbers |= {"report_seconds": round(spent, 3)}  # the pages are a stage of their own
    write_json(numbers, output / "result.json")
    log.info("\n%s", for_terminal(f"{said}\n\nreport: {output / 'report.html'}"))
    tracked(run.config.track, numbers, {name: arm.history for name, arm in run.arms.items()}, output)
    return numbers


def draw_run(run: Run, numbers: dict[str, Any], folder: Path) -> str:
    """Write the pages of a run of task=defend into a folder; return what a terminal shows of them."""
    write_pages(run, numbers, folder)
    one_class = one_class_said(numbers["one_class"], len(run.data.train), run.settings["treatment"])
    flagged = warning(numbers["checks"], numbers["health"])
    derived = about_derivative(run.settings, run.record)
    return "\n\n".join(filter(None, (arms_table(run), numbers["verdict"], flagged, one_class, derived)))


def draw_pages(
    runtime: Runtime, run: Scoring, numbers: dict[str, Any], draw: Callable[[Path], str], output: Path
) -> str:
    """Write pages into `output`, drawn by `draw` or as the store has them; return the answer that they give.

    What they show enters the key: numbers, with the keys of stages, the data, and the names of samples.
    """
    shown = {name: value for name, value in numbers.items() if name != "reused"}
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


def write_detection(runtime: Runtime, run: Scoring, output: Path) -> dict[str, Any]:
    """Write how well the scores find the known noise; return the content of result.json."""
    numbers = detection_result(run)
    return written(runtime, run, numbers, lambda: detection_page([numbers], run.config.name), output)


def write_faithfulness(runtime: Runtime, run: Scoring, found: Foreseen, output: Path) -> dict[str, Any]:
    """Write how well the scores foresee retraining; return the content of result.json."""
    numbers = faithfulness_result(run, found)
    return written(runtime, run, numbers, lambda: faithfulness_page([numbers], run.config.name), output)


def write_order(runtime: Runtime, run: Scoring, reference: Reference, output: Path) -> dict[str, Any]:
    """Write how alike the order of the scores and that of a reference are; return the content of result.json."""
    numbers = order_result(run, reference)
    return written(runtime, run, numbers, lambda: order_page([numbers], run.config.name), output)


def write_speed(runtime: Runtime, run: Scoring, found: dict[str, Any], output: Path) -> dict[str, Any]:
    """Write how long the scorers took, as `found` by `defense.tasks.speed`; return the content of result.json."""
    numbers = timing_result(run, found)
    return written(runtime, run, numbers, lambda: timing_page([numbers], run.config.name), output)


def write_repair(runtime: Runtime, run: Repair, output: Path) -> dict[str, Any]:
    """Write what every arm makes of every test sample; return the content of result.json."""
    scores = run.scores.assign(**{name: run.treatment[name].to_numpy() for name in ("treated", "weight")})
    named(per_sample(run), run.data).to_parquet(output / "per_sample.parquet", index=False)
    numbers = repair_result(run)

    def page() -> Page:
        page = repair_page([numbers], run.config.name)
        return replace(page, sections=[*page.sections, *descent_section(run, run.descent)])

    return written(runtime, replace(run, scores=scores), numbers, page, output, run.histories)


def write_evaded(runtime: Runtime, run: Evaded, output: Path) -> dict[str, Any]:
    """Write what every arm makes of every test point, moved or not; return the content of result.json."""
    every = [
        table.assign(share=share, protocol=str(protocol), arm=arm, moved=run.chosen[share])
        for (share, protocol), tables in run.tables.items()
        for arm, table in tables.items()
    ]
    named(pd.concat(every), run.data).to_parquet(output / "per_sample.parquet", index=False)
    numbers = evaded_result(run)
    return written(runtime, run, numbers, lambda: evaded_page([numbers], run.config.name), output)


def written(
    runtime: Runtime,
    run: Scoring,
    numbers: dict[str, Any],
    page: Callable[[], Page],
    output: Path,
    histories: dict[str, pd.DataFrame] | None = None,
) -> dict[str, Any]:
    """Write result.json, the scores and a page; histories: the curves of trainings, by arm, to be tracked."""
    named(run.scores, run.data).to_parquet(output / "scores.parquet", index=False)
    said = draw_pages(runtime, run, numbers, lambda folder: draw_page(run, page(), folder), output)
    write_json(numbers, output / "result.json")
    log.info("\n%s", for_terminal(f"{said}\n\nreport: {output / 'report.html'}"))
    tracked(run.config.track, numbers, histories or {}, output)
    return numbers


def draw_page(run: Scoring, page: Page, folder: Path) -> str:
    """Write a page into a folder, with how the scores were found; return the answer that it gives."""
    sections = [*page.sections, *record_section(run)]
    write_page(replace(page, sections=sections, settings=json.dumps(run.settings, indent=2)), folder)
    return page.headline
