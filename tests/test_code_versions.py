"""A change of code that a stage stands on raises its VERSION, or is shown to change no number."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import sys

import pytest

from defense.runtime.runtime import Runtime
from defense.store.fingerprint import key_of
from tests import code_versions
from tests.code_versions import NOTE, ROOMS, modules_behind, parts_of, stages, stages_to_raise, today

KNOWN = json.loads(NOTE.read_text("utf-8"))
STORED = KNOWN["stages"].items()


def test_no_code_has_changed_under_a_version() -> None:
    if KNOWN["python"] != "{}.{}".format(*sys.version_info):
        pytest.skip(f"syntax trees were noted with Python {KNOWN['python']}")
    changed = stages_to_raise(KNOWN)
    assert not changed, "raise a version, or run same_numbers; then: python -m tests.code_versions --update"
    assert today() == KNOWN, "python -m tests.code_versions --update"


TRAININGS = {"train", "retrain", "crossval"}
BEHIND = {
    "training.loop": TRAININGS,
    "influence.alignment": {"score", "reference"},
    "robustness.attacks": {"attack", "evaluate", "check", "plant", *TRAININGS},
    "models.predict": {"measure", "evaluate", "evade", "judge", "plant", "check", "attack", *TRAININGS},
}


@pytest.mark.parametrize("module", BEHIND)
def test_shared_code_is_behind_every_stage_that_runs_it(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    own, room = code_versions.digest, module.partition(".")[0]
    monkeypatch.setattr(code_versions, "digest", lambda name: "x" if name == f"defense.{module}" else own(name))
    assert set(stages_to_raise(KNOWN)) >= BEHIND[module]
    raised = {name: {each: version - (each == room) for each, version in known.items()} for name, known in STORED}
    assert not stages_to_raise(KNOWN | {"stages": raised})  # the VERSION of the room covers all of them


@pytest.mark.parametrize("stage", stages())
def test_a_stage_declares_the_rooms_that_it_stands_on(stage: str) -> None:
    rooms = {module.split(".")[1] for module in modules_behind(stage)} & set(ROOMS)
    assert set(stages()[stage].versions) - {stage} == rooms


@pytest.mark.parametrize("room", ROOMS)
def test_a_raised_version_of_shared_code_gives_every_stage_on_it_another_key(
    room: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def keys() -> dict[str, str]:
        return {name: key_of(stage.identity(Runtime(), {})) for name, stage in stages().items()}

    before = keys()
    module = importlib.import_module(f"defense.{room}")
    monkeypatch.setattr(module, "VERSION", module.VERSION + 1)
    after = keys()
    on_it = {name for name, stage in stages().items() if room in stage.versions}
    assert on_it
    assert {name for name in before if before[name] != after[name]} == on_it


def test_stages_stand_on_no_report() -> None:
    for stage in stages():
        assert not [name for name in modules_behind(stage) if name.startswith("defense.reporting")]


def test_stages_call_no_stages() -> None:
    """A stage that called another would take its result from no store, and its key would not tell."""
    for name, stage in stages().items():
        tree = ast.parse(inspect.getsource(inspect.getmodule(stage.function)))
        called = {
            node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and hasattr(node.func, "id")
        }
        assert not called & set(stages()), name


def test_what_computes_nothing_does_not_count() -> None:
    def form(text: str) -> list[str]:
        return list(parts_of(ast.parse(text)))

    bare = "def f(x, y=1):\n    return x + y\n"
    typed = '"""Doc."""\n\n\ndef f(x: int, y: int = 1) -> int:\n    """Add."""\n    return x + y  # why\n'
    assert form(typed) == form(bare)
    for change in (("y=1", "y=2"), ("x + y", "y + x"), ("def f", "def g"), ("return x", "return -x")):
        assert form(bare.replace(*change)) != form(bare)
