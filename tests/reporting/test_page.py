"""The pages of a small run: whole, self-contained, and the same every time."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from defense.reporting.figures import amplified, extremes, png, training_curves
from tests.conftest import TINY

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Reader(HTMLParser):
    """Collects sources, text and unbalanced tags."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture
def folder(command: Callable[..., tuple[int, str, str]], tmp_path: Path) -> Path:
    assert command(*TINY, "evaluation.checked=20", "hydra.run.dir=out", "objective=utility")[0] == 0
    return tmp_path / "out"


def test_html_is_one_file_that_shows_everything(folder: Path) -> None:
    page = (folder / "report.html").read_text()
    reader = Reader()
    reader.feed(page)
    assert not reader.open
    for source in reader.sources:
        assert source.startswith(("data:image/png;base64,", "#"))
        if source.startswith("data:"):
            Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))).load()
    assert sum(source.startswith("data:") for source in reader.sources) == 2 * 16 + 3 * 11
    text = " ".join(" ".join(reader.text).split())
    found = json.loads((folder / "result.json").read_text())
    assert found["verdict"] in text
    for arm in found["arms"].values():
        assert f"{arm['adaptive']['worst']:.1f}" in text
    assert "Can these numbers be believed?" in text
    for check in found["checks"]["baseline"].values():
        assert check["title"] in text
    for stage in found["seconds"]:
        assert stage.replace("_", " ") in text
    scores = pd.read_parquet(folder / "scores.parquet").sort_values("score", kind="stable")
    for sample in [*scores["id"].head(16), *scores["id"].tail(16)]:
        assert f"id {sample} " in text
    assert "objective=utility" in text
    assert not re.search(r"nan|undefined|None", text)


def test_markdown_links_what_is_there(folder: Path) -> None:
    page = (folder / "report.md").read_text()
    links = re.findall(r'(?:src="|\]\()(figures/[^")]+)', page)
    assert len(links) == 3 + 2 * 16 + 3 * 11
    for link in links:
        assert (folder / link).stat().st_size > 0
    assert {path.name for path in (folder / "figures").iterdir()} == {Path(link).name for link in links}
    assert "\n\n\n\n" not in page


def test_pictures_keep_their_pixels() -> None:
    picture = torch.rand(3, 4, 5)
    again = torch.tensor(np.asarray(Image.open(io.BytesIO(png(picture)))))
    assert float((again / 255 - picture.permute(1, 2, 0)).abs().max()) <= 0.5 / 255 + 1e-6
    change = torch.tensor([[[-0.01, 0.0], [0.02, 0.01]]])
    torch.testing.assert_close(amplified(change), torch.tensor([[[0.25, 0.5], [1.0, 0.75]]]))
    assert torch.equal(amplified(torch.zeros(1, 2, 2)), torch.full((1, 2, 2), 0.5))


def test_extremes_come_first() -> None:
    found = extremes(pd.DataFrame({"score": [0.0, 3.0, -2.0, 1.0]}), 2)
    assert found["harmful"]["score"].tolist() == [-2.0, 0.0]
    assert found["helpful"]["score"].tolist() == [3.0, 1.0]


def test_curves_show_robust_accuracy_and_the_kept_epoch() -> None:
    """Dashed lines where it was measured, and a dot on every curve of validation at the epoch that was kept."""
    history = pd.DataFrame(
        {
            "epoch": [1, 2, 3],
            "train_loss": [3.0, 2.0, 1.0],
            "validation_accuracy": [10.0, 20.0, 30.0],
            "kept": [False, True, False],
        }
    )
    robust = history.assign(validation_robust_accuracy=[12.0, 19.0, 11.0])
    pages = []
    for second in (history, robust):
        arms = {"baseline": SimpleNamespace(history=history), "defended": SimpleNamespace(history=second)}
        page = training_curves(SimpleNamespace(arms=arms))  # type: ignore[arg-type]
        pages.append((page.count("stroke-dasharray"), page.count("<use ")))
    assert pages[1][0] - pages[0][0] == 1
    assert pages[1][1] - pages[0][1] == 1
