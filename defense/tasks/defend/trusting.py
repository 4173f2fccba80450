"""The arms that are trained on trusted samples too, beside the defended arm: of one run, and of a sweep."""

from __future__ import annotations

from collections.abc import Sequence

from defense.reporting.judging import Compared
from defense.reporting.settings import WORST, Setting
from defense.reporting.tables import trusted_of, weight_of
from defense.tasks.defend.result import Run, accuracies, difference

ByArm = dict[str, list[Compared]]


def trusted_said(run: Run) -> str:
    """Return by how much the highest trusted arm is above the defended arm under adaptive attack; else nothing."""
    worst = {arm: accuracies(run.arms[arm].evaluation)["adaptive"]["worst"] for arm in run.arms}
    arms = trusted_of(run.arms)
    arm = max(arms, key=lambda name: worst[name], default="defended")
    if worst[arm] <= worst["defended"]:
        return ""
    gap = difference(run, WORST, first=arm, second="defended")
    among = f" (the highest of {len(arms)} trusted arms)" if len(arms) > 1 else ""
    return (
        f"{training_on(arm)} reaches {worst[arm]:.1f} %{among}, {gap.mean:.1f} points more than the defended arm "
        f"(95 % interval over test samples {gap.low:+.1f} to {gap.high:+.1f})."
    )


def training_on(arm: str) -> str:
    """Return the training of a trusted arm, as the subject of a sentence."""
    weight = weight_of(arm)
    weighing = "" if weight == 1 else f" which weigh {weight:g} times as much as others,"
    return f"Training on the trusted validation samples too,{weighing} with nothing treated,"


def beside_trusted(settings: Sequence[Setting]) -> ByArm:
    """Return, by trusted arm, the settings that have it, each beside it; judged as beside the random control.

    That is by a paired t over seeds, after Holm's correction over the settings that have the arm.
    """
    arms = trusted_of({arm for setting in settings for arm in setting.arms})
    return {
        arm: Compared.all([setting for setting in settings if arm in setting.arms], WORST, over=arm)
        for arm in arms
    }


def trusted_answer(settings: Sequence[Setting]) -> str:
    """Return where trusted arms are higher than the defended arm, a sentence each; nothing if they are not."""
    return " ".join(filter(None, (higher(arm, rows) for arm, rows in beside_trusted(settings).items())))


def higher(arm: str, rows: Sequence[Compared]) -> str:
    """Return in how many settings one trusted arm is higher, chance and perfect knowledge aside."""
    told = [row for row in rows if not row.setting.inconclusive]
    told = [row for row in told if not row.setting.is_rival] or told
    above = [row for row in told if row.gain < 0]
    if not above:
        return ""
    if len(told) > 1:
        clear = sum(row.differs for row in above)
        return (
            f"{training_on(arm)} reaches more than the defended arm in {len(above)} of {len(told)} settings, "
            f"in {clear or 'none'} of them by more than chance."
        )
    (row,) = above
    gap, values = row.pair.difference, row.setting.values(arm, WORST)
    ends = f"95 % interval over seeds {-gap.high:+.1f} to {-gap.low:+.1f}, " if gap.judgeable else ""
    word = "by more than chance" if row.differs else row.word
    return (
        f"{training_on(arm)} reaches {sum(values) / len(values):.1f} %, {-gap.mean:.1f} points more than the "
        f"defended arm ({ends}{word})."
    )
