"""Imports go one way, and what is heavy or knows Hydra stays where DESIGN says it is."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "defense"
LEAVES = {"choices", "schema", "questions", "threat", "errors", "crew", "memory", "place", "randomness", "watch"}
HYDRA = {"__main__", "arguments", "config", "failure", "foreseen", "multirun", "planned", "quoting", "repeat"}
ROOMS = {"data", "models", "training", "influence", "robustness", "reporting"}
ALLOWED = {
    "__init__": {"notebook"},
    "notebook": LEAVES | {"config", "data", "influence", "models", "robustness", "valid"},
    "choices": set(),
    "schema": {"choices", "questions", "threat"},
    "threat": {"choices"},
    "questions": {"choices"},
    "errors": set(),
    "memory": set(),
    "crew": {"memory"},
    "place": {"errors"},
    "watch": set(),
    "randomness": set(),
    "artifacts": set(),
    "config": LEAVES | {"valid"},
    "valid": LEAVES | {"valid"},
    "devices": LEAVES,
    "locking": set(),
    "disk": {"errors", "locking"},
    "store": LEAVES | {"artifacts", "disk", "locking"},
    "housekeeping": {"disk", "errors", "locking", "reporting"},
    "cellfolders": LEAVES,
    "planned": LEAVES | {"cellfolders"},
    "foreseen": LEAVES | {"cellfolders", "planned"},
    "sweep": LEAVES | {"cellfolders", "housekeeping", "planned", "reporting"},
    "failure": LEAVES,
    "leftovers": set(),
    "quoting": set(),
    "repeat": LEAVES | {"config", "failure", "quoting"},
    "arguments": LEAVES | {"config", "quoting", "repeat"},
    "gpus": {"locking"},
    "orphans": set(),
    "multirun": LEAVES
    | {"artifacts", "cellfolders", "failure", "foreseen", "leftovers", "locking", "planned", "reporting", "sweep"},
    "__main__": LEAVES
    | {"arguments", "cellfolders", "config", "failure", "gpus", "launch"}
    | {"leftovers", "multirun", "orphans", "planned"},
    "launch": LEAVES | {"devices", "pipeline", "processes"},
    "processes": LEAVES | {"devices"},
    "ledger": LEAVES | {"artifacts", "reporting", "store"},
    "pipeline": LEAVES | ROOMS | {"artifacts", "cell", "devices", "ledger", "stages", "tasks"},
    "tasks": LEAVES | ROOMS | {"arms", "artifacts", "cell", "choosing", "stages", "store", "tasks", "trainings"},
    "choosing": LEAVES | ROOMS | {"arms", "artifacts", "cell", "stages", "store"},
    "arms": LEAVES | ROOMS | {"artifacts", "cell", "stages", "store"},
    "cell": LEAVES | ROOMS | {"artifacts", "stages", "store", "trainings"},
    "trainings": LEAVES | ROOMS | {"artifacts", "ledger", "stages", "store"},
    "stages": LEAVES | ROOMS | {"artifacts", "stages"},
    "data": LEAVES | {"data"},
    "models": LEAVES | {"data", "models"},
    "training": LEAVES | {"data", "models", "robustness", "training"},
    "influence": LEAVES | {"data", "models", "influence"},
    "robustness": LEAVES | {"data", "models", "robustness"},
    "reporting": LEAVES | {"data", "reporting"},
}
FILES = sorted(PACKAGE.rglob("*.py"))


def imported(file: Path) -> set[str]:
    """Return the dotted names that a file imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_go_one_way(file: Path) -> None:
    room = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
    names = imported(file)
    ours = {name.split(".")[1] for name in names if name.startswith("defense.")}
    assert ours <= ALLOWED[room]
    if any(name.split(".")[0] in ("hydra", "omegaconf") for name in names):
        assert room in HYDRA
    if any(name.split(".")[0] == "torchattacks" for name in names):
        assert file == PACKAGE / "robustness" / "attacks.py"
    if "robustbench" in {name.split(".")[0] for name in names}:
        pytest.fail("the robustbench that torchattacks installs is not the real one")


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_files_stay_small(file: Path) -> None:
    assert len(file.read_text("utf-8").splitlines()) <= 270


TEXT = {"read_text", "write_text", "to_csv"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_texts_are_in_utf_8_whatever_the_locale(file: Path) -> None:
    """Every call that reads or writes a text names its encoding; `open` does unless it is of bytes."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute | ast.Name):
            continue
        method = isinstance(node.func, ast.Attribute)
        name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
        words = [each.value for each in node.args if isinstance(each, ast.Constant)]
        opened = name == "open" and any(isinstance(word, str) and set(word) <= set("rwax+t") for word in words)
        if (name in TEXT and method) or opened:
            assert "encoding" in {each.arg for each in node.keywords}, ast.unparse(node)
