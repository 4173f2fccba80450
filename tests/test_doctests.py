"""The examples in docstrings of the library run, and show what they say."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import defense.api

MODULES = [f"defense.api.{each.name}" for each in pkgutil.iter_modules(defense.api.__path__)]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


@pytest.mark.parametrize("name", defense.api.__all__)
def test_every_function_has_an_example(name: str) -> None:
    documented = getattr(defense.api, name).__doc__
    assert documented
    assert ">>> " in documented or name == "Defended"
