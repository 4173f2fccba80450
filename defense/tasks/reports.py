"""The report of every task by its name: the page of many results, and the rows of each in cells.parquet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from defense.config.choices import Task
from defense.reporting.archive import Units
from defense.reporting.page import Page
from defense.reporting.reading import Result
from defense.tasks.defend.report import defending_page
from defense.tasks.detect.report import detection_page
from defense.tasks.evade.report import by_share, evaded_page
from defense.tasks.faithfulness.report import by_target, faithfulness_page
from defense.tasks.order.report import by_damping, order_page
from defense.tasks.repair.report import repair_page
from defense.tasks.rows import by_arm, scored
from defense.tasks.score.report import score_page
from defense.tasks.speed.report import by_work, timing_page


@dataclass(frozen=True)
class Report:
    """What a task reports of many results."""

    page: Callable[[Sequence[Result], str], Page]  # of results and a title
    units: Units  # the rows of a result in cells.parquet


REPORTS: dict[Task, Report] = {
    Task.defend: Report(defending_page, by_arm),
    Task.detect: Report(detection_page, scored(lambda result: [{}])),
    Task.faithfulness: Report(faithfulness_page, scored(by_target)),
    Task.repair: Report(repair_page, by_arm),
    Task.evade: Report(evaded_page, by_share),
    Task.order: Report(order_page, scored(by_damping)),
    Task.speed: Report(timing_page, scored(by_work)),
    Task.score: Report(score_page, by_arm),
}
