"""Pages are drawn once for the same numbers and the same code, and again if either has changed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from defense.config.schema import Data
from defense.data.splits import Dataset
from defense.pipeline import load as loading
from defense.tasks import writing
from defense.tasks.defend import run_page
from tests.conftest import TINY, data, result_of, run_in

TASKS = {
    "defend": [],
    "detect": ["task=detect"],
    "order": ["task=order", "order.reference=cg"],
}


def pages_of(folder: Path) -> dict[str, bytes]:
    """Return the files of the pages of a run by name."""
    files = [*folder.glob("report.*"), *folder.glob("figures/*"), *folder.glob("tables/*")]
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


@pytest.mark.parametrize("task", TASKS)
def test_pages_are_drawn_once(tmp_path: Path, task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [*TINY, f"store={tmp_path / 'store'}", *TASKS[task]]
    run_in(tmp_path / "first", *words)

    def drawn(*given: object) -> None:
        raise AssertionError("drawn again")

    with monkeypatch.context() as patched:
        patched.setattr(run_page, "write_pages", drawn)
        patched.setattr(writing, "write_page", drawn)
        run_in(tmp_path / "second", *words)
    assert "pages" in result_of(tmp_path / "second")["reused"]
    assert len(pages_of(tmp_path / "first")) > 3
    assert pages_of(tmp_path / "first") == pages_of(tmp_path / "second")


def test_damaged_pages_are_drawn_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    words = [*TINY, f"store={tmp_path / 'store'}", "task=detect"]
    run_in(tmp_path / "first", *words)
    (entry,) = (tmp_path / "store/pages").iterdir()
    content = bytearray((entry / "files.parquet").read_bytes())
    content[len(content) // 2] ^= 1
    (entry / "files.parquet").write_bytes(content)
    run_in(tmp_path / "second", *words)
    assert "is damaged (files.parquet has another checksum)" in caplog.text
    assert pages_of(tmp_path / "first") == pages_of(tmp_path / "second")


def test_other_numbers_settings_or_code_are_drawn_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [*TINY, f"store={tmp_path / 'store'}", "task=detect"]
    run_in(tmp_path / "first", *words)
    for name, change in (("name", ["name=other"]), ("seed", ["seed=1"])):
        run_in(tmp_path / name, *words, *change)
        assert "pages" not in result_of(tmp_path / name)["reused"]
    assert "other" in (tmp_path / "name/report.md").read_text("utf-8")
    monkeypatch.setattr(writing, "drawing_code", lambda: "another")
    run_in(tmp_path / "code", *words)
    assert "pages" not in result_of(tmp_path / "code")["reused"]


def test_the_code_of_pages_is_that_of_the_package() -> None:
    found = {file.as_posix() for file in writing.drawing_files()}
    words = "config/choices.py"
    assert {words, "tasks/writing.py", "reporting/page.py", "reporting/templates/style.css"} <= found
    assert not [file for file in found if file.endswith(".pyc")]


def write_pictures(file: Path, shade: int) -> Data:
    """Write pictures of one shade and return the settings that load them."""
    labels = np.arange(60) % 3
    pictures = np.full((60, 4, 4), shade, np.uint8)
    np.savez(file, train_x=pictures, train_y=labels, test_x=pictures, test_y=labels)
    sizes = {"train_size": 30, "validation_size": 12, "test_size": 12}
    return data(source=type(data().source)("npz"), path=str(file), **sizes)


def load_once(spec: Data, seed: int, tmp_path: Path) -> Dataset:
    """Load as a run does."""
    return loading.load_once(spec, seed=seed, cache=tmp_path)


def test_data_are_loaded_once_for_cells_that_share_them(tmp_path: Path) -> None:
    spec = write_pictures(tmp_path / "a.npz", 10)
    first = load_once(spec, 0, tmp_path)
    assert load_once(spec, 0, tmp_path) is first
    assert load_once(spec, 1, tmp_path) is not first
    assert len(loading._last) == 1


def test_a_changed_file_is_loaded_again(tmp_path: Path) -> None:
    spec = write_pictures(tmp_path / "a.npz", 10)
    before = load_once(spec, 0, tmp_path)
    write_pictures(tmp_path / "a.npz", 20)
    after = load_once(spec, 0, tmp_path)
    shades = [float(each.train.images.take(each.train.labels[:1] * 0).max()) for each in (before, after)]
    assert shades == pytest.approx([10 / 255, 20 / 255])
