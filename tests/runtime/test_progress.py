from __future__ import annotations

import io
import logging

import pytest
from rich.console import Console

from defense.runtime import progress as module
from defense.runtime.progress import show_progress


def test_a_bar_on_a_terminal() -> None:
    screen = io.StringIO()
    with show_progress("train baseline", Console(file=screen, force_terminal=True, width=110)) as progress:
        for step in range(1, 6):
            progress(step, 10, loss=0.25, accuracy=90.5)
    assert "train baseline" in screen.getvalue()
    assert "loss 0.25, accuracy 90.5" in screen.getvalue()


def test_lines_elsewhere(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    clock = iter([0.0, 4.0, 12.0, 13.0, 25.0])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    with caplog.at_level(logging.INFO), show_progress("score", Console(file=io.StringIO())) as progress:
        for done in (10, 40, 60, 100):
            progress(done, 100, loss=0.5)
    assert caplog.messages == ["score: 40 %, loss 0.5, 18 s left"]  # 12 s for 40: 18 s for the other 60
