"""List the code behind each stage, so that no store keeps the numbers of code that has changed.

    python -m tests.code_versions            list the modules that have changed, and the stages on them
    python -m tests.code_versions --update   note the code of today, if those stages have a new version
    python -m tests.code_versions --update --same-numbers   also if not: `python -m tests.same_numbers` has passed

The note is code_versions.json: a hash of the syntax tree of every module that a stage imports, however far,
without docstrings and annotations, and the versions of every stage: its own, and those of rooms of shared code.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import importlib
import json
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from defense.store.stage import STAGES, Stage

ROOT = Path(__file__).resolve().parents[1]
NOTE = Path(__file__).with_name("code_versions.json")
ROOMS = ("models", "training", "robustness", "influence", "metagradients")  # that have a VERSION for shared code
FUNCTION = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module


def main() -> None:
    """List what has changed, or note it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--update", action="store_true")
    parser.add_argument("--same-numbers", action="store_true")
    options = parser.parse_args()
    known = json.loads(NOTE.read_text("utf-8")) if NOTE.exists() else {"modules": {}, "stages": {}}
    changed = stages_to_raise(known)
    for stage, modules in changed.items():
        print(f"{stage} {known['stages'].get(stage)}: {', '.join(modules)}")
    if options.update and (options.same_numbers or not changed):
        NOTE.write_text(json.dumps(today(), indent=1, sort_keys=True) + "\n", encoding="utf-8")
    elif changed:
        sys.exit("raise the version of these stages or of a room; give --same-numbers if no number has changed")


def today() -> dict[str, Any]:
    """Return the note on the code as it is."""
    modules = sorted({module for stage in stages() for module in modules_behind(stage)})
    python = ".".join(map(str, sys.version_info[:2]))
    return {"python": python, "modules": {name: digest(name) for name in modules}, "stages": versions()}


@cache
def stages() -> dict[str, Stage]:
    """Return every declared stage by name."""
    for file in sorted((ROOT / "defense/stages").glob("*.py")):
        importlib.import_module(f"defense.stages.{file.stem}")
    return dict(sorted(STAGES.items()))


def versions() -> dict[str, dict[str, int]]:
    """Return the versions of every stage: its own, and those of the rooms that it stands on."""
    return {name: stage.versions for name, stage in stages().items()}


def modules_behind(stage: str) -> frozenset[str]:
    """Return the modules that the file of a stage imports, however far, with itself."""
    return closure(stages()[stage].function.__module__)


def stages_to_raise(known: dict[str, Any]) -> dict[str, list[str]]:
    """Return the stages whose code has changed under the VERSION in a note, with the modules that have."""
    found = {}
    for stage, version in versions().items():
        changed = [name for name in sorted(modules_behind(stage)) if known["modules"].get(name) != digest(name)]
        if changed and known["stages"].get(stage) == version:
            found[stage] = changed
    return found


@cache
def closure(module: str) -> frozenset[str]:
    """Return a module of the package with all that it imports from there, however far."""
    found, pending = set(), [module]
    while pending:
        name = pending.pop()
        if name not in found:
            found.add(name)
            pending += imports_of(name)
    return frozenset(found)


@cache
def imports_of(module: str) -> tuple[str, ...]:
    """Return the modules of the package that a module imports, wherever in it."""
    names = []
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [f"{node.module}.{alias.name}" for alias in node.names]
            names.append(node.module)
    return tuple(name for name in names if name.startswith("defense.") and file_of(name).exists())


def file_of(module: str) -> Path:
    """Return the file that a module would have."""
    return ROOT / f"{module.replace('.', '/')}.py"


@cache
def tree_of(module: str) -> ast.Module:
    """Return the syntax tree of a module."""
    return ast.parse(file_of(module).read_text("utf-8"))


@cache
def digest(module: str) -> str:
    """Return a hash of a module that does not change with its docstrings, annotations, comments and layout."""
    return hashlib.sha256("\n".join(parts_of(tree_of(module))).encode()).hexdigest()[:16]


def parts_of(node: Any) -> Iterator[str]:
    """Yield the parts of a syntax tree that can change what it computes."""
    if isinstance(node, list):
        for each in node:
            yield from parts_of(each)
    elif not isinstance(node, ast.AST):
        yield repr(node)
    else:
        yield type(node).__name__
        for name, value in ast.iter_fields(node):
            if name in ("annotation", "returns", "type_comment", "ctx") or value in (None, []):
                continue
            documented = name == "body" and isinstance(node, FUNCTION) and ast.get_docstring(node) is not None
            yield name
            yield from parts_of(value[1:] if documented else value)


if __name__ == "__main__":
    main()
