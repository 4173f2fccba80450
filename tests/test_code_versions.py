"""A change of code that a stage stands on raises its VERSION, or is shown to change no number."""

from __future__ import annotations

import ast
import json
import sys

import pytest

from tests import code_versions
from tests.code_versions import NOTE, closure, parts_of, stages, stages_to_raise, today

KNOWN = json.loads(NOTE.read_text("utf-8"))


def test_no_code_has_changed_under_a_version() -> None:
    if KNOWN["python"] != "{}.{}".format(*sys.version_info):
        pytest.skip(f"syntax trees were noted with Python {KNOWN['python']}")
    changed = stages_to_raise(KNOWN)
    assert not changed, "raise VERSION, or run same_numbers; then: python -m tests.code_versions --update"
    assert today() == KNOWN, "python -m tests.code_versions --update"


TRAININGS = {"train", "retrain", "crossval"}
BEHIND = {
    "training.loop": TRAININGS,
    "influence.alignment": {"score", "reference"},
    "robustness.attacks": {"attack", "evaluate", "check", "plant", *TRAININGS},
    "models.predict": {"measure", "evaluate", "evade", "plant", "check", "attack", *TRAININGS},
}


@pytest.mark.parametrize("module", BEHIND)
def test_shared_code_is_behind_every_stage_that_runs_it(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    own = code_versions.digest
    monkeypatch.setattr(code_versions, "digest", lambda name: "x" if name == f"defense.{module}" else own(name))
    assert set(stages_to_raise(KNOWN)) >= BEHIND[module]
    raised = KNOWN | {"stages": {stage: version - 1 for stage, version in KNOWN["stages"].items()}}
    assert not stages_to_raise(raised)


def test_stages_stand_on_no_report() -> None:
    for stage in stages():
        assert not [name for name in closure(f"defense.stages.{stage}") if name.startswith("defense.reporting")]


def test_what_computes_nothing_does_not_count() -> None:
    def form(text: str) -> list[str]:
        return list(parts_of(ast.parse(text)))

    bare = "def f(x, y=1):\n    return x + y\n"
    typed = '"""Doc."""\n\n\ndef f(x: int, y: int = 1) -> int:\n    """Add."""\n    return x + y  # why\n'
    assert form(typed) == form(bare)
    for change in (("y=1", "y=2"), ("x + y", "y + x"), ("def f", "def g"), ("return x", "return -x")):
        assert form(bare.replace(*change)) != form(bare)
