"""Hash the code of a part of yours for its keys, as of a network: one whose code has changed is another part.

It is made of the modules along its dotted path, the modules of the object there (a class with its bases, a
function with what it wraps or closes over, a partial, an instance) and the loaded modules below the folder of the
named one. A module is hashed once, right after its import: an edit during a run gives old code no new hash. A file
that a setting names counts by its content.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import logging
import pkgutil
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any
from weakref import WeakKeyDictionary

from defense.errors import InputError

log = logging.getLogger(__name__)
TARGET = "_target_"  # a setting of a part: the dotted path of its class or function
VERSION = "_version_"  # and a setting to raise if code changes that no file shows; it is not handed on
INSTALLED = ("site-packages", "dist-packages")  # folders of libraries
hashed: WeakKeyDictionary[ModuleType, str] = WeakKeyDictionary()  # by module, when it was first seen
known: dict[str, tuple[Any, dict[str, str]]] = {}  # by settings: the object and its hashes, one for all stages


def source_digest(settings: dict[str, Any], part: str, *, holder: str = "") -> dict[str, str]:
    """Return the hashes of the code and files that a part is made of, by module or setting; the same all through.

    settings: of the part, with its dotted path under `_target_`; part: of the settings of a run, as model; holder:
    the settings that `_version_` is given in, the part itself unless said.
    For code of this package there are none: versions of stages stand for it.
    """
    path = str(settings.get(TARGET))
    if path.startswith("defense."):
        return files_named(settings, part)
    target, name = locate(path, part), json.dumps(settings, sort_keys=True, default=str)
    if name not in known or known[name][0] is not target:
        known[name] = target, {module.__name__: hash_once(module) for module in modules_of(path, target)}
        if not known[name][1] and VERSION not in settings:
            version = f"+{holder or part}.{VERSION}=1"
            advice = f"a change of it is not noticed; give {version}, and raise it with every change"
            log.warning("%s._target_=%s has no source file: %s", part, path, advice)
    return known[name][1] | files_named(settings, part)


def locate(path: str, part: str) -> Callable[..., Any]:
    """Return the class or function at a dotted path, its modules hashed; raises InputError if there is none.

    part: whose `_target_` the path is, for the error.
    """
    field = f"{part}.{TARGET}"
    try:
        target = pkgutil.resolve_name(path)
    except Exception as error:  # importing runs a user's file
        raise InputError(field, path, f"cannot be imported ({type(error).__name__}: {error})") from error
    if not callable(target):
        raise InputError(field, path, "expected a class or a function")
    if not path.startswith("defense."):
        for module in modules_of(path, target):
            hash_once(module)
    return target


def hash_once(module: ModuleType) -> str:
    """Return the hash of a module's file as it was when this process first saw the module."""
    if module not in hashed:
        hashed[module] = hashlib.sha256(Path(str(module.__file__)).read_bytes()).hexdigest()
    return hashed[module]


def modules_of(path: str, target: Any) -> list[ModuleType]:
    """Return the modules with a file that the object at a dotted path is made of, sorted by name."""
    parts = path.replace(":", ".").split(".")
    names = [".".join(parts[: count + 1]) for count in range(len(parts))]
    modules = {sys.modules[name] for name in names if name in sys.modules}
    folders = {Path(file).resolve().parent for module in modules if (file := file_of(module))}
    modules |= {sys.modules[name] for name in names_within(target) if name in sys.modules}
    for module in list(sys.modules.values()):  # thousands: what is cheap to tell comes first
        file = str(getattr(module, "__file__", None) or "")
        if not file or is_ours(module) or any(folder in file for folder in INSTALLED):
            continue
        if any(Path(file).resolve().is_relative_to(folder) for folder in folders):
            modules.add(module)
    ours = [module for module in modules if file_of(module) and not is_ours(module)]
    return sorted(ours, key=lambda module: module.__name__)


def file_of(module: ModuleType) -> str | None:
    """Return the file of a module; None for one that is built in, or a namespace."""
    file = getattr(module, "__file__", None)
    return str(file) if file and Path(file).is_file() else None


def is_ours(module: ModuleType) -> bool:
    """Return whether a module is of this package, or of torch or Python: their versions are in keys."""
    top = module.__name__.partition(".")[0]
    return top in ("defense", "torch") or top in sys.stdlib_module_names or top in ("__main__", "__mp_main__")


def names_within(value: Any, depth: int = 4) -> Iterator[str]:
    """Yield the names of the modules that a callable is defined in, with those of what it holds."""
    if depth == 0 or not callable(value) or isinstance(value, ModuleType):
        return
    if isinstance(value, functools.partial):
        for part in (value.func, *value.args, *value.keywords.values()):
            yield from names_within(part, depth - 1)
        return
    if inspect.ismethod(value):
        yield from names_within(value.__func__, depth - 1)
        owner = value.__self__
        yield from names_within(owner if isinstance(owner, type) else type(owner), depth - 1)
        if not isinstance(owner, type):
            yield from names_held(vars(owner).values() if hasattr(owner, "__dict__") else (), depth)
        return
    if isinstance(value, type):
        yield from (kind.__module__ for kind in value.__mro__)
        return
    if inspect.isfunction(value):
        yield value.__module__
        yield from names_within(getattr(value, "__wrapped__", None), depth - 1)
        yield from names_held((cell.cell_contents for cell in value.__closure__ or () if filled(cell)), depth)
        return
    yield from names_within(type(value), depth - 1)
    yield from names_held(vars(value).values() if hasattr(value, "__dict__") else (), depth)


def names_held(values: Any, depth: int) -> Iterator[str]:
    """Yield `names_within` of each of several values."""
    for value in values:
        yield from names_within(value, depth - 1)


def filled(cell: Any) -> bool:
    """Return whether a cell of a closure holds a value."""
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False


def files_named(settings: Any, name: str) -> dict[str, str]:
    """Return the hash of every file that a setting names, by the dotted name of the setting."""
    if isinstance(settings, dict):
        parts = [files_named(value, f"{name}.{key}") for key, value in settings.items()]
    elif isinstance(settings, list | tuple):
        parts = [files_named(value, f"{name}.{number}") for number, value in enumerate(settings)]
    else:
        named = isinstance(settings, str) and len(settings) < 4096 and Path(settings).is_file()
        return {name: hash_of_file(settings, Path(settings).stat().st_mtime_ns)} if named else {}
    return {key: value for part in parts for key, value in part.items()}


@cache
def hash_of_file(path: str, changed: int) -> str:
    """Return the hash of a file that was last changed at a time."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
