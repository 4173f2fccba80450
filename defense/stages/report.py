"""Write what a run found: for machines, for spreadsheets and for people."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from defense.artifacts import write_json
from defense.reporting.descents import descent_part
from defense.reporting.detection import detection_result, detection_sheet
from defense.reporting.escaping import for_terminal
from defense.reporting.evading import evaded_result, evaded_sheet
from defense.reporting.faithfulness import faithfulness_result, faithfulness_sheet
from defense.reporting.health import warning
from defense.reporting.metagradient import about_derivative
from defense.reporting.names import named
from defense.reporting.ordering import Reference, order_result, order_sheet
from defense.reporting.outcomes import arms_table
from defense.reporting.page import write_pages
from defense.reporting.record import Evaded, Foreseen, Repair, Run, Scoring
from defense.reporting.repairing import per_sample, repair_result, repair_sheet
from defense.reporting.result import result
from defense.reporting.selection import one_class_said
from defense.reporting.sheet import Part, Sheet, write_sheet
from defense.reporting.timing import timing_result, timing_sheet
from defense.reporting.tracking import tracked

log = logging.getLogger(__name__)


def write_report(run: Run, output: Path) -> dict[str, Any]:
    """Write result.json, scores, per_sample and the pages into `output`; return the content of result.json."""
    begin = time.perf_counter()
    numbers = result(run)
    columns = {name: run.arms["defended"].treatment[name].to_numpy() for name in ("treated", "weight")}
    scores = named(run.scores.assign(**columns), run.data)
    scores.to_parquet(output / "scores.parquet", index=False)
    scores.to_csv(output / "scores.csv", index=False, encoding="utf-8")
    samples = [arm.evaluation.assign(arm=name) for name, arm in run.arms.items()]
    named(pd.concat(samples), run.data).to_parquet(output / "per_sample.parquet", index=False)
    write_pages(run, numbers, output)
    numbers |= {"report_seconds": round(time.perf_counter() - begin, 3)}
    write_json(numbers, output / "result.json")
    one_class = one_class_said(numbers["one_class"], len(run.data.train), run.settings["treatment"])
    flagged = warning(numbers["checks"], numbers["health"])
    derived = about_derivative(run.settings, run.record)
    said = [arms_table(run), numbers["verdict"], flagged, one_class, derived, f"report: {output / 'report.html'}"]
    log.info("\n%s", for_terminal("\n\n".join(filter(None, said))))
    tracked(run.config.track, numbers, {name: arm.history for name, arm in run.arms.items()}, output)
    return numbers


def write_detection(run: Scoring, output: Path) -> dict[str, Any]:
    """Write how well the scores find the known noise; return the content of result.json."""
    numbers = detection_result(run)
    return written(run, numbers, detection_sheet([numbers], run.config.name), output)


def write_faithfulness(run: Scoring, found: Foreseen, output: Path) -> dict[str, Any]:
    """Write how well the scores foresee retraining; return the content of result.json."""
    numbers = faithfulness_result(run, found)
    return written(run, numbers, faithfulness_sheet([numbers], run.config.name), output)


def write_order(run: Scoring, reference: Reference, output: Path) -> dict[str, Any]:
    """Write how alike the order of the scores and that of a reference are; return the content of result.json."""
    numbers = order_result(run, reference)
    return written(run, numbers, order_sheet([numbers], run.config.name), output)


def write_speed(run: Scoring, found: dict[str, Any], output: Path) -> dict[str, Any]:
    """Write how long the scorers took, as `found` by `defense.tasks.speed`; return the content of result.json."""
    numbers = timing_result(run, found)
    return written(run, numbers, timing_sheet([numbers], run.config.name), output)


def write_repair(run: Repair, output: Path) -> dict[str, Any]:
    """Write what every arm makes of every test sample; return the content of result.json."""
    scores = run.scores.assign(**{name: run.treatment[name].to_numpy() for name in ("treated", "weight")})
    named(per_sample(run), run.data).to_parquet(output / "per_sample.parquet", index=False)
    numbers = repair_result(run)
    sheet = repair_sheet([numbers], run.config.name)
    sheet = replace(sheet, parts=[*sheet.parts, *descent_part(run, run.descent)])
    return written(replace(run, scores=scores), numbers, sheet, output, run.histories)


def write_evaded(run: Evaded, output: Path) -> dict[str, Any]:
    """Write what every arm makes of every test point, moved or not; return the content of result.json."""
    every = [
        table.assign(share=share, protocol=str(protocol), arm=arm, moved=run.chosen[share])
        for (share, protocol), tables in run.tables.items()
        for arm, table in tables.items()
    ]
    named(pd.concat(every), run.data).to_parquet(output / "per_sample.parquet", index=False)
    numbers = evaded_result(run)
    return written(run, numbers, evaded_sheet([numbers], run.config.name), output)


def written(
    run: Scoring,
    numbers: dict[str, Any],
    sheet: Sheet,
    output: Path,
    histories: dict[str, pd.DataFrame] | None = None,
) -> dict[str, Any]:
    """Write result.json, the scores and a sheet; histories: the curves of trainings, by arm, to be tracked."""
    named(run.scores, run.data).to_parquet(output / "scores.parquet", index=False)
    record = [(name, f"{value:.4g}") for name, value in run.record.items()]
    about = about_derivative(run.settings, run.record)
    how = Part("record", "How the scores were found", about, header=("", "value"), rows=record)
    found = [how] if record else []
    settings = json.dumps(run.settings, indent=2)
    write_sheet(replace(sheet, parts=[*sheet.parts, *found], settings=settings), output)
    write_json(numbers, output / "result.json")
    log.info("\n%s", for_terminal(f"{sheet.answer}\n\nreport: {output / 'report.html'}"))
    tracked(run.config.track, numbers, histories or {}, output)
    return numbers
