"""The page of a small run: whole, self-contained, and the same every time."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from defense.data.splits import Dataset
from defense.reporting.charts import png
from defense.reporting.facts import left_out
from defense.reporting.page import Page, Picture, Section, write_page
from defense.tasks.curves import training_curves
from defense.tasks.defend.charts import amplified, budget_line, candidate_curves
from defense.tasks.samples import at_both_ends, extremes, gallery, score_histogram
from tests.conftest import TINY, run_in

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Reader(HTMLParser):
    """Collects sources, text that is shown, and unbalanced tags."""

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
        if self.open[-1:] not in (["script"], ["style"]):
            self.text.append(data)


def test_pictures_that_cannot_be_read_and_are_left_out_are_on_the_page(tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    rng = np.random.default_rng(0)
    for part, label, number in product(("train", "test"), ("cat", "dog"), range(20)):
        path = pictures / part / label / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)).save(path)
    (pictures / "train" / "cat" / "3.png").write_bytes(b"")
    settings = [setting for setting in TINY if not setting.startswith("data.")]
    settings += ["data=image_folder", f"data.path={pictures}", "data.image_size=8", "data.unreadable=skip"]
    settings += ["data.train_size=null", "data.validation_size=10", "objective=utility"]
    found = run_in(tmp_path / "out", *settings, f"store={tmp_path / 'store'}")
    assert found["left_out"] == ["train/cat/3.png (no picture that Pillow knows)"]
    said = "1 picture that cannot be read is left out: train/cat/3.png (no picture that Pillow knows)."
    for page in ("report.html", "report.md"):
        assert said in (tmp_path / "out" / page).read_text("utf-8").replace("\\", "")
    assert left_out(found | {"left_out": [f"{n}.png (empty)" for n in range(7)]}) == (
        "7 pictures that cannot be read are left out: 0.png (empty), 1.png (empty), 2.png (empty), 3.png (empty), "
        "4.png (empty) and 2 more."
    )


@pytest.fixture
def folder(command: Callable[..., tuple[int, str, str]], tmp_path: Path) -> Path:
    assert command(*TINY, "evaluation.checked=20", "hydra.run.dir=out", "objective=utility")[0] == 0
    return tmp_path / "out"


def test_html_is_one_file_that_shows_everything(folder: Path) -> None:
    page = (folder / "report.html").read_text("utf-8")
    reader = Reader()
    reader.feed(page)
    assert not reader.open
    for source in reader.sources:
        assert source.startswith(("data:image/png;base64,", "#"))
        if source.startswith("data:"):
            Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))).load()
    assert sum(source.startswith("data:") for source in reader.sources) == 2 * 16 + 3 * 11
    text = " ".join(" ".join(reader.text).split())
    found = json.loads((folder / "result.json").read_text("utf-8"))
    assert found["verdict"] in text
    for arm in found["arms"].values():
        assert f"{arm['adaptive']['worst']:.1f}" in text
    assert "Can these numbers be believed?" in text
    for check in found["checks"]["baseline"].values():
        assert check["title"] in text
    for stage in found["seconds"].keys() - {"pages"}:  # which is this one
        assert stage.replace("_", " ") in text
    scores = pd.read_parquet(folder / "scores.parquet").sort_values("score", kind="stable")
    for sample in [*scores["id"].head(16), *scores["id"].tail(16)]:
        assert f"id {sample} " in text
    assert "objective=utility" in text
    assert "Most harmful" in text
    assert "Most helpful" in text
    assert "looks at no objective" not in text
    assert not re.search(r"nan|undefined|None", text)


def test_markdown_links_what_is_there(folder: Path) -> None:
    page = (folder / "report.md").read_text("utf-8")
    links = re.findall(r'(?:src="|\]\()(figures/[^")]+)', page)
    assert len(links) == 3 + 2 * 16 + 3 * 11
    for link in links:
        assert (folder / link).stat().st_size > 0
    assert {path.name for path in (folder / "figures").iterdir()} == {Path(link).name for link in links}
    assert "\n\n\n" not in page
    linked = {path.stem for path in (folder / "tables").glob("*.csv")}
    assert linked == {"arms", "health", "selection", "lowest", "highest", "record", "stages"}


def test_accuracies_are_those_of_the_result(folder: Path) -> None:
    """In both forms and the CSV; the last attack has no row beside the one at worst."""
    found = json.loads((folder / "result.json").read_text("utf-8"))
    with (folder / "tables/arms.csv").open(newline="", encoding="utf-8") as file:
        header, *rows = list(csv.reader(file))
    assert header[2:] == ["baseline", "control", "defended", "trusted"]
    names = ["adaptive, worst", "adaptive, after fgsm", "adaptive, after pgd", "clean", "transfer"]
    assert [row[0] for row in rows] == names
    html = (folder / "report.html").read_text("utf-8")
    for row, attack in zip(rows[:3], ("worst", "fgsm", "pgd"), strict=True):
        for arm, cell in zip(header[2:], row[2:], strict=True):
            assert cell == f"{found['arms'][arm]['adaptive'][attack]:.1f}"
            assert f'class="bar {arm}" style="--value:{float(cell)!r}">{cell}<' in html
    gain = found["gain_over_control"]
    assert rows[0][1] == f"{gain['mean']:+.1f} ({gain['low']:+.1f} to {gain['high']:+.1f})"
    for arm in header[2:]:
        assert found["arms"][arm]["adaptive"]["apgd_t"] == found["arms"][arm]["adaptive"]["worst"]


SIGNS = "a|b <b>&</b> *c*"


def test_a_gallery_shows_every_picture_with_its_facts_in_both_forms(tmp_path: Path) -> None:
    """Names are escaped as each form needs; what is wrong is marked, and what is '-' left out."""
    shade = png(torch.zeros(1, 2, 2))
    pictures = [[Picture("one", shade, f"of {SIGNS}", wrong=True)], [Picture("two", shade, "of two")]]
    rows = [("1", SIGNS, "dog"), ("2", "cat", "-")]
    section = Section("lowest", "Lowest", "first\nsecond", ("id", "label", "truth"), rows, pictures=pictures)
    strip = Section(
        "strip", "Strip", pictures=[[Picture(f"s{n}{m}", shade, "s") for m in range(3)] for n in (1, 2)]
    )
    write_page(Page("x", "said", "defense", [section, strip], "made", warning=f"odd: {SIGNS}"), tmp_path)
    assert {file.name for file in (tmp_path / "figures").iterdir()} == {
        *("one.png", "two.png"),
        *(f"s{n}{m}.png" for n in (1, 2) for m in range(3)),
    }
    reader = Reader()
    html = (tmp_path / "report.html").read_text("utf-8")
    reader.feed(html)
    assert len(reader.sources) == 8
    text = " ".join(" ".join(reader.text).split())
    assert f"id 1 label {SIGNS} truth dog id 2 label cat first second" in text
    assert f"odd: {SIGNS}" in text
    assert [count for count in (html.count('class="wrong"'), html.count("<table"), html.count("<figure>"))] == [
        1,
        0,
        4,
    ]
    page = (tmp_path / "report.md").read_text("utf-8")
    assert "<b>" not in page
    assert re.findall(r'<img src="figures/(\w+)', page)[:3] == ["one", "two", "s10"]
    assert r"a\|b &lt;b>&&lt;/b> \*c\* |   dog |" in page
    assert "\n\nfirst\n\nsecond\n\n" in page
    with (tmp_path / "tables/lowest.csv").open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [["id", "label", "truth"], *map(list, rows)]


def test_a_gallery_has_the_columns_that_say_something(digits: Dataset) -> None:
    """Truth if a label is wrong, names if samples have others than their ids."""
    table = pd.DataFrame(
        {"id": [7, 3], "label": [1, 2], "truth": [1, 5], "prediction": [1, 5], "score": [-2.0, 3]}
    )
    run = SimpleNamespace(data=SimpleNamespace(
        train=digits.train, class_names=[f"c{n}" for n in range(10)], noise_known=True,
        names_of=lambda ids: [str(each) for each in ids],
    ))  # fmt: skip
    section = gallery(run, "lowest", "Lowest", table)  # type: ignore[arg-type]
    assert section.header == ("id", "label", "truth", "model says", "score")
    assert section.rows == [("7", "c1", "-", "c1", "-2"), ("3", "c2", "c5", "c5", "3")]
    assert [[picture.wrong for picture in group] for group in section.pictures] == [[False], [True]]
    run.data.noise_known = False
    run.data.names_of = lambda ids: [f"p{each}" for each in ids]
    section = gallery(run, "lowest", "Lowest", table)  # type: ignore[arg-type]
    assert section.header == ("id", "name", "label", "model says", "score")
    assert [row[1] for row in section.rows] == ["p7", "p3"]
    assert section.pictures[1][0].png == png(digits.train.images.take(torch.tensor([1]))[0])


def test_pictures_keep_their_pixels() -> None:
    picture = torch.rand(3, 4, 5)
    again = torch.tensor(np.asarray(Image.open(io.BytesIO(png(picture)))))
    assert float((again / 255 - picture.permute(1, 2, 0)).abs().max()) <= 0.5 / 255 + 1e-6
    change = torch.tensor([[[-0.01, 0.0], [0.02, 0.01]]])
    torch.testing.assert_close(amplified(change), torch.tensor([[[0.25, 0.5], [1.0, 0.75]]]))
    assert torch.equal(amplified(torch.zeros(1, 2, 2)), torch.full((1, 2, 2), 0.5))


def test_extremes_come_first() -> None:
    found = extremes(pd.DataFrame({"score": [0.0, 3.0, -2.0, 1.0]}), 2)
    assert found["lowest"]["score"].tolist() == [-2.0, 0.0]
    assert found["highest"]["score"].tolist() == [3.0, 1.0]


def candidates(budget: float, *, chosen: str) -> pd.DataFrame:
    """A choice among a budgeted treatment and reweight, which was given a `budget` that it does not read."""
    table = pd.DataFrame(
        {
            "treatment": ["none", "remove", "remove", "reweight"],
            "budget": [0.0, 0.1, 0.2, budget],
            "control": [50.0, 51.0, 49.0, 52.0],
            "defended": [50.0, 53.0, 56.0, 54.0],
        }
    )
    return table.assign(chosen=table["treatment"].eq(chosen) & table["budget"].ne(0.1))


def test_what_reads_no_budget_is_drawn_at_none() -> None:
    page = candidate_curves(candidates(0.1, chosen="remove"))
    assert page == candidate_curves(candidates(0.7, chosen="remove"))
    assert "reweight, defended: no budget<" in page
    assert ">chosen<" in page
    page = candidate_curves(candidates(0.2, chosen="reweight"))
    assert "reweight, defended: no budget, chosen<" in page
    assert ">chosen<" not in page


@pytest.mark.parametrize(
    ("taken", "said"),
    [([True, True, False, False], "treated up to here"), ([True, False, True, False], "nothing above is treated")],
)
def test_the_line_of_the_histogram_says_no_more_than_is_so(taken: list[bool], said: str) -> None:
    """Of a budget that is spent in every class alike, samples below the line may stay."""
    run = SimpleNamespace(
        scores=pd.DataFrame({"score": [1.0, 2.0, 3.0, 4.0], "label": 0, "truth": 0}),
        arms={"defended": SimpleNamespace(treatment=pd.DataFrame({"treated": taken}))},
        data=SimpleNamespace(noise_known=False),
        descent=None,
    )
    page = score_histogram(run, budget_line(run))  # type: ignore[arg-type]
    words = ("treated up to here", "nothing above is treated")
    assert [text for text in words if f">{text}<" in page] == [said]


def test_a_page_claims_no_more_than_the_score_says(
    command: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    """The loss says nothing of help; a proxy of the run's own recipe is none; two trainings are averaged."""
    own = ["scorer=loss", "scorer.proxy=standard", "scorer.seeds=2", "treatment.threshold=-1e9"]
    assert command(*TINY, *own, "hydra.run.dir=out")[0] == 0
    for form in ("md", "html"):
        page = " ".join((tmp_path / f"out/report.{form}").read_text("utf-8").split())
        assert "Nothing was treated (no score is below the threshold -1e+09): accuracy" in page
        assert "loss (mean of 2 trainings)" in page
        assert "The score is the mean over trainings. Rank correlation" in page
        assert "Highest scores" in page
        assert "loss looks at no objective" in page
        assert not re.search("[Mm]ost helpful|[Mm]ost harmful|at a proxy|is a sum", page)
    found = json.loads((tmp_path / "out/result.json").read_text("utf-8"))["selection"]
    with (tmp_path / "out/tables/selection.csv").open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [
            ["training samples", "value"],
            ["treated", "0 of 200"],
            ["with a label known to be wrong", f"{100 * found['noise']:.1f} %"],
            ["of those with a wrong label, treated (recall)", "0.0 %"],
            ["ROC AUC of the score", f"{found['auc']:.3f}"],
        ]


@pytest.mark.parametrize(
    ("lowest", "highest", "said"), [(True, True, True), (True, False, False), (False, True, False)]
)
def test_wrong_labels_at_both_ends_are_explained(lowest: bool, highest: bool, said: bool) -> None:
    ends = [
        Section("x", "x", pictures=[[Picture("a", b"", "", wrong=False)], [Picture("b", b"", "", wrong=wrong)]])
        for wrong in (lowest, highest)
    ]
    assert bool(at_both_ends(ends)) is said


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
    pages, charts = [], []
    for second in (history, robust):
        page = training_curves({"baseline": history, "defended": second})
        charts.append(page)
        pages.append((page.count("stroke-dasharray"), page.count("<use ")))
    assert pages[1][0] - pages[0][0] == 1
    assert pages[1][1] - pages[0][1] == 1
    assert ["dashed: attacked" in chart for chart in charts] == [False, True]
