"""The settings of a sweep as a paper prints them: means with their spread over seeds, and paired differences."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from defense.reporting.comparing import COMPARED, knob
from defense.reporting.exports import Printed
from defense.reporting.judging import Compared
from defense.reporting.statistics import deviation, p_value
from defense.reporting.tables import arm_in_words, trusted_of

CLEAN = "clean"
ABOUT = (
    "mean \N{PLUS-MINUS SIGN} standard deviation over seeds; in brackets the 95 % interval over seeds of the "
    "difference, paired by seed; p by Student's paired t test, after Holm's correction"
)


def printed(rows: Sequence[Compared], knobs: Sequence[str]) -> Printed:
    """Return header and rows: the setting, its seeds, the arms, defended - control, p; its clean accuracy, too.

    Trusted arms come last, each with the gain over it.
    """
    trusted = trusted_of({arm for row in rows for arm in row.setting.arms})
    clean = bool(rows) and CLEAN in rows[0].setting.runs[0]["arms"]["defended"]
    header = ["scorer", *knobs, "seeds", *COMPARED, "defended - control (95 %)", "p, Holm"]
    header += ["clean, defended", "clean, defended - control (95 %)"] if clean else []
    for arm in map(arm_in_words, trusted):
        header += [arm, f"defended - {arm} (95 %)"]
    return header, [cells(row, knobs, clean=clean) + beside(row, trusted) for row in rows]


def beside(row: Compared, trusted: Sequence[str]) -> list[str]:
    """Return every trusted arm and the gain over it; '-' where a setting has none."""
    setting, measure = row.setting, row.measure
    found: list[str] = []
    for arm in trusted:
        known = arm in setting.arms
        found += [spread(setting.values(arm, measure)), str(setting.gain(measure, arm))] if known else ["-", "-"]
    return found


def cells(row: Compared, knobs: Sequence[str], *, clean: bool) -> list[str]:
    """Return the row of one setting."""
    setting = row.setting
    found = [setting.row, *(knob(setting, name) for name in knobs), str(len(setting.runs))]
    found += [spread(setting.values(arm, row.measure)) for arm in COMPARED]
    found += [str(row.pair.difference), p_value(row.holm)]
    return found + ([spread(setting.values("defended", CLEAN)), str(setting.gain(CLEAN))] if clean else [])


def spread(values: Sequence[float]) -> str:
    """Return '61.2 \N{PLUS-MINUS SIGN} 1.3', the mean and the standard deviation; of one value itself."""
    if len(values) < 2:
        return f"{np.mean(values):.1f}"
    return f"{np.mean(values):.1f} \N{PLUS-MINUS SIGN} {deviation(values):.1f}"
