"""Imports go one way, and what is heavy or knows Hydra stays where DESIGN says it is."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "defense"
MATHS = ["data", "models", "training", "influence", "robustness", "metagradients"]
ROOMS = {  # and what each may import beside itself; none of them forms a circle
    "errors": [],
    "randomness": [],
    "artifacts": [],
    "config": ["errors"],
    "runtime": ["config", "errors"],
    "data": ["config", "errors", "randomness", "runtime"],
    "models": ["config", "data", "errors", "randomness", "runtime"],
    "robustness": ["config", "data", "errors", "models", "randomness", "runtime"],
    "influence": ["config", "data", "errors", "models", "randomness", "runtime"],
    "training": ["config", "data", "errors", "models", "randomness", "robustness", "runtime"],
    "metagradients": ["config", "data", "errors", "influence", "models", "randomness", "runtime", "training"],
    "store": ["artifacts", "config", "errors", "runtime"],
    "reporting": ["config", "data", "errors", "runtime"],
    "stages": [*MATHS, "artifacts", "config", "errors", "randomness", "runtime", "store"],
    "pipeline": [*MATHS, "artifacts", "config", "errors", "randomness", "reporting", "runtime", "stages", "store"],
    "tasks": [
        *MATHS, "artifacts", "config", "errors", "pipeline", "randomness", "reporting", "runtime", "stages",
        "store",
    ],
    "cli": ["artifacts", "config", "errors", "pipeline", "reporting", "runtime", "store", "tasks"],
    "api": [
        *MATHS, "artifacts", "config", "errors", "pipeline", "randomness", "reporting", "runtime", "stages",
        "store", "tasks",
    ],
    "__main__": ["cli", "config", "errors", "runtime"],
    "__init__": ["api"],
}  # fmt: skip
SETTINGS = {
    "config.choices",
    "config.dotted",
    "config.reads",
    "config.schema",
    "config.tasks",
}  # of config, what knows no Hydra
SHARED = {
    "runtime.checkpoint",
    "runtime.distributed",
    "runtime.progress",
    "runtime.runtime",
    "runtime.source",
    "runtime.user_function",
}  # of runtime, what mathematics may know
HYDRA = {"__main__", "cli", "config.compose"}  # rooms and modules that may import it
TOP = {"__init__", "__main__", "artifacts", "errors", "randomness"}  # modules directly in the package
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


def module_of(file: Path) -> str:
    """Return the dotted name of a file within the package, as in config.schema."""
    return ".".join(file.relative_to(PACKAGE).with_suffix("").parts)


def modules_imported(file: Path) -> set[str]:
    """Return the modules of the package that a file imports, as dotted names within it."""
    inside = {name.removeprefix("defense.") for name in imported(file) if name.startswith("defense.")}
    modules = {module_of(each).removesuffix(".__init__") for each in FILES}
    parts = [(name, name.rpartition(".")[0]) for name in inside if name]
    return {name if name in modules else parent for name, parent in parts}


@pytest.mark.parametrize("file", FILES, ids=module_of)
def test_imports_go_one_way(file: Path) -> None:
    room, module = module_of(file).partition(".")[0], module_of(file)
    ours = modules_imported(file)
    assert {name.partition(".")[0] for name in ours} <= {room, *ROOMS[room]}
    if room in (*MATHS, "store", "reporting", "artifacts"):
        assert {name for name in ours if name.startswith("config.")} <= SETTINGS
    if room in MATHS:  # it knows neither disk nor devices
        assert {name for name in ours if name.startswith("runtime.")} <= SHARED
    packages = {name.partition(".")[0] for name in imported(file)}
    assert room in HYDRA or module in HYDRA or not packages & {"hydra", "omegaconf"}
    assert "torchattacks" not in packages or module == "robustness.attacks"
    assert "robustbench" not in packages, "the robustbench that torchattacks installs is not the real one"


def test_rooms_form_no_circle() -> None:
    """Every room imports only rooms that stand before it."""
    before: set[str] = set()
    for room, others in ROOMS.items():
        assert set(others) <= before, room
        before.add(room)
    assert before == {module_of(file).partition(".")[0] for file in FILES}


def test_few_modules_lie_loose() -> None:
    assert {module_of(file) for file in FILES if file.parent == PACKAGE} == TOP


@pytest.mark.parametrize("file", FILES, ids=module_of)
def test_files_stay_small(file: Path) -> None:
    assert len(file.read_text("utf-8").splitlines()) <= 400


MOST, MOST_IN_PUBLIC = 7, 10  # parameters of a function
PUBLIC = {  # beside stages: of the library, and networks that settings name
    "api.attacking.attack",
    "api.attacking.evaluate",
    "api.defending.defend",
    "api.scoring.score",
    "api.treating.treat",
    "models.language.lora",
    "models.networks.mlp",
    "models.networks.smooth_cnn",
}
OF_TORCH = {"influence.forward_mode.chosen"}  # in place of a function of torch, whose parameters it has


@pytest.mark.parametrize("file", FILES, ids=module_of)
def test_functions_take_few_parameters(file: Path) -> None:
    """Stages and public functions take a few more, by keyword from the eighth on."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if not isinstance(node, ast.FunctionDef) or f"{module_of(file)}.{node.name}" in OF_TORCH:
            continue
        given = [each.arg for each in (*node.args.posonlyargs, *node.args.args) if each.arg not in ("self", "cls")]
        count = len(given) + len(node.args.kwonlyargs)
        stage = any(
            isinstance(mark, ast.Call) and ast.unparse(mark.func) == "stage" for mark in node.decorator_list
        )
        public = stage or f"{module_of(file)}.{node.name}" in PUBLIC
        assert count <= (MOST_IN_PUBLIC if public else MOST), node.name
        assert len(given) <= MOST or not stage, node.name


TEXT = {"read_text", "write_text", "to_csv"}


@pytest.mark.parametrize("file", FILES, ids=module_of)
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
