"""Whatever way a network is written in, a change of its code is a change of its key."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from defense.data.splits import Dataset
from defense.errors import InputError
from defense.models.build import build
from defense.runtime.source import known, locate, source_digest

NET = """
import functools
import torch
from torch import nn
{imports}

class Net({bases}nn.Module):
    def __init__(self, classes, input_shape):
        super().__init__()
        self.map = nn.Linear(torch.Size(input_shape).numel(), classes)

    def forward(self, x):
        return self.map({scale} * x.flatten(1))

{rest}
"""
BASE = """
class Base:
    @classmethod
    def make(cls, classes, input_shape):
        return cls(classes, input_shape)
"""
CALLED = "(self, classes, input_shape): return Net(classes, input_shape)"
STATIC = "(classes, input_shape): return Net(classes, input_shape)"
WAYS = {  # how the dotted path leads to the network: imports, bases, the rest of the file, and the path
    "class": ("", "", "", "net.Net"),
    "function": ("", "", f"def make{STATIC}", "net.make"),
    "lambda": ("", "", "make = lambda classes, input_shape: Net(classes, input_shape)", "net.make"),
    "closure": ("from other import closing", "", "make = closing(Net)", "net.make"),
    "wrapped": ("from other import wrapping", "", f"@wrapping\ndef make{STATIC}", "net.make"),
    "partial": ("", "", "make = functools.partial(Net)", "net.make"),
    "partial of a partial": ("", "", "make = functools.partial(functools.partial(Net))", "net.make"),
    "instance": ("", "", f"class Factory:\n    def __call__{CALLED}\nmake = Factory()", "net.make"),
    "bound method": ("", "", f"class Factory:\n    def build{CALLED}\nmake = Factory()", "net.make.build"),
    "static method": ("", "", f"class Factory:\n    @staticmethod\n    def build{STATIC}", "net.Factory.build"),
    "inherited class method": ("from base import Base", "Base, ", "", "net.Net.make"),
    "imported from elsewhere": ("", "", "", "entry.Net"),
    "held by an instance of another file": ("", "", "", "entry.holder"),
}
OTHER = """
import functools

def closing(kind):
    def make(classes, input_shape): return kind(classes, input_shape)
    return make

def wrapping(function):
    @functools.wraps(function)
    def make(**given): return function(**given)
    return make

class Holder:
    def __init__(self, kind): self.kind = kind
    def __call__(self, classes, input_shape): return self.kind(classes, input_shape)
"""
ENTRY = """
from other import Holder
from net import Net

holder = Holder(Net)
"""
FILES = ("net", "base", "other", "entry")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the path, whose modules are forgotten afterwards."""
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    forget()


def forget() -> None:
    """Forget the modules of the folder, as another process would not know them."""
    known.clear()
    for name in FILES:
        sys.modules.pop(name, None)


def write(folder: Path, way: str, *, scale: float) -> dict[str, Any]:
    """Write the files of a network and return the settings that name it."""
    imports, bases, rest, path = WAYS[way]
    (folder / "net.py").write_text(NET.format(imports=imports, bases=bases, rest=rest, scale=scale))
    (folder / "base.py").write_text(BASE)
    (folder / "other.py").write_text(OTHER)
    (folder / "entry.py").write_text(ENTRY)
    forget()
    return {"_target_": path}


@pytest.mark.parametrize("way", WAYS)
def test_a_change_of_the_code_is_seen_and_no_change_is_none(folder: Path, digits: Dataset, way: str) -> None:
    settings = write(folder, way, scale=1.0)
    build(settings, digits, seed=0)
    first = source_digest(settings, "model")
    assert "net" in first
    write(folder, way, scale=1.0)
    assert source_digest(settings, "model") == first
    write(folder, way, scale=60.0)
    assert source_digest(settings, "model") != first


def test_an_edit_during_a_run_gives_old_code_no_new_hash(folder: Path) -> None:
    settings = write(folder, "class", scale=1.0)
    locate("net.Net", "model")
    first = source_digest(settings, "model")
    (folder / "net.py").write_text("broken")
    assert source_digest(settings, "model") == first
    assert source_digest(settings | {"width": 3}, "model") == first  # another model of the same module
    forget()
    with pytest.raises(InputError, match="cannot be imported"):
        source_digest(settings, "model")


def test_a_change_of_a_module_beside_it_is_seen(folder: Path) -> None:
    settings = write(folder, "inherited class method", scale=1.0)
    first = source_digest(settings, "model")
    (folder / "base.py").write_text(BASE + "\nSIZE = 3\n")
    forget()
    assert source_digest(settings, "model") != first


def test_a_file_that_a_setting_names_counts_by_its_content(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    settings = write(folder, "class", scale=1.0) | {"weights": "start.pt", "more": {"lists": ["start.pt"]}}
    absent = source_digest(settings, "model")
    (folder / "start.pt").write_bytes(b"one")
    first = source_digest(settings, "model")
    assert first["model.weights"] == first["model.more.lists.0"]
    assert absent.keys() & first.keys() == absent.keys()
    (folder / "start.pt").write_bytes(b"two")
    assert source_digest(settings, "model")["model.weights"] != first["model.weights"]


def test_code_without_a_file_is_said_unless_it_has_a_version(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert source_digest({"_target_": "builtins.dict"}, "model") == {}
    assert "model._target_=builtins.dict has no source file" in caplog.text
    caplog.clear()
    known.clear()
    assert source_digest({"_target_": "builtins.dict", "_version_": 2}, "model") == {}
    assert not caplog.messages


def test_a_version_is_not_handed_to_the_network(folder: Path, digits: Dataset) -> None:
    settings = write(folder, "class", scale=1.0)
    build(settings | {"_version_": 3}, digits, seed=0)


def test_ours_is_told_by_the_versions_of_stages() -> None:
    assert source_digest({"_target_": "defense.models.networks.mlp", "hidden": [3]}, "model") == {}
