"""The words for harm that no label shows."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from defense.tasks.defend.run_page import about_harm
from tests.conftest import changed


@pytest.mark.parametrize(("words", "radius"), [("data.harm_eps=0.25", "0.25"), ("threat.eps=8/255", "8/255")])
def test_a_page_says_how_many_samples_hypocritical_harm_has_moved(words: str, radius: str) -> None:
    config = changed("data.harm=hypocritical", "data.harm_rate=0.3", words)
    run: Any = SimpleNamespace(config=config, data=SimpleNamespace(train=range(1005)))
    said = "302 of 1005 training samples are moved toward their own label (data.harm=hypocritical; Linf, eps"
    assert about_harm(run) == f"{said} {radius}). All labels stay as they are."
    run.config = changed("data.harm=poison")
    assert about_harm(run) == ""
