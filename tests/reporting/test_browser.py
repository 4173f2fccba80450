"""Pages in a real browser: headless Chromium sorts, filters, follows links, and measures what fits."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import torch

from defense.cli.report import main
from defense.reporting.charts import (
    Axis,
    Gain,
    Spot,
    budget_curves,
    curves,
    forest,
    png,
    points,
    tradeoff,
)
from defense.reporting.page import Page, Picture, Section, write_page
from defense.reporting.statistics import mean_interval
from defense.tasks.curves import eps_curves
from tests.reporting.cells import fail, grid

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.extra("playwright"),
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium or google-chrome here to open pages in"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep in a folder whose name has to be quoted in a link, its page elsewhere."""
    root = tmp_path_factory.mktemp("pages")
    grid(root / "runs/a sweep #1")
    fail(root / "runs/a sweep #1/31", "seed=8", "scorer=<b>ip</b>", error="scorer=<b>: no such scorer")
    main([str(root / "runs/a sweep #1"), "--output", str(root / "page")])
    return root


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright import sync_api

    with sync_api.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Any, folder: Path) -> Iterator[Any]:
    """The page, opened; a test fails where the browser's console has an error."""
    opened = browser.new_page(viewport={"width": 1280, "height": 900})
    said: list[str] = []
    opened.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.goto((folder / "page/report.html").as_uri())
    yield opened
    assert said == []
    opened.close()


def column(page: Any, table: str, name: str) -> list[str]:
    """Return the texts of one column in the rows that can be seen."""
    heads = [text.strip() for text in page.locator(f"#{table} thead th").all_text_contents()]
    rows = page.locator(f"#{table} tbody tr:visible").all()
    return [row.locator("td").nth(heads.index(name)).inner_text() for row in rows]


def test_a_click_on_a_heading_sorts_by_numbers_and_another_turns_it_round(page: Any) -> None:
    head = page.locator("#settings th", has_text="defended - control")
    name = head.inner_text().strip()
    unsorted = [float(text.split()[0]) for text in column(page, "settings", name)]
    assert unsorted != sorted(unsorted)
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert [float(text.split()[0]) for text in column(page, "settings", name)] == sorted(unsorted)
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    assert [float(text.split()[0]) for text in column(page, "settings", name)] == sorted(unsorted, reverse=True)
    assert page.locator("#settings th[aria-sort]").count() == 1


def test_numbers_are_not_sorted_as_words(page: Any) -> None:
    """Run 10 after run 9, and not after run 1."""
    page.locator("#cells th", has_text="run").first.locator("button").click()
    assert [int(text.rpartition("/")[2]) for text in column(page, "cells", "run")] == list(range(30))


def test_p_values_that_are_missing_come_last_either_way(page: Any) -> None:
    heads = [text.strip() for text in page.locator("#settings thead th").all_text_contents()]
    cell = page.locator("#settings tbody tr:first-child td").nth(heads.index("p, Holm"))
    assert cell.inner_text() != "-"
    cell.evaluate("cell => { cell.textContent = '-'; delete cell.dataset.value }")
    button = page.locator("#settings th", has_text="p, Holm").first.locator("button")
    for _ in range(2):
        button.click()
        assert column(page, "settings", "p, Holm")[-1] == "-"


def test_a_heading_is_sorted_by_from_the_keyboard(page: Any) -> None:
    button = page.locator("#settings th", has_text="scorer").first.locator("button")
    button.focus()
    page.keyboard.press("Enter")
    names = column(page, "settings", "scorer")
    assert names == sorted(names)
    page.keyboard.press("Space")
    assert column(page, "settings", "scorer") == sorted(names, reverse=True)


def test_words_and_choices_leave_the_rows_that_match(page: Any) -> None:
    bar = page.locator("section", has=page.locator("#cells")).locator(".filter")
    assert bar.locator("output").inner_text() == "30 of 30 rows"
    bar.locator("input").fill("LOSS")
    assert set(column(page, "cells", "scorer")) == {"loss"}
    assert bar.locator("output").inner_text() == "10 of 30 rows"
    bar.get_by_label("rows of one treatment.budget").select_option("0.1")
    bar.get_by_label("rows of one seed").select_option("3")
    assert bar.locator("output").inner_text() == "1 of 30 rows"
    assert column(page, "cells", "seed") == ["3"]
    page.locator("#cells th", has_text="clean").locator("button").click()  # rows stay hidden when they are sorted
    assert len(column(page, "cells", "seed")) == 1
    bar.locator("input").fill("nothing like this")
    assert column(page, "cells", "seed") == []
    assert len(column(page, "settings", "scorer")) == 6  # another table is left alone


def test_every_link_leads_to_a_file_or_a_place_on_the_page(page: Any, folder: Path) -> None:
    links = [link.get_attribute("href") for link in page.locator("a").all()]
    leading = [link for link in links if not link.startswith("#")]
    assert len([link for link in leading if link.endswith("report.html")]) == 30
    assert len([link for link in leading if link.endswith("defense.log")]) == 2
    for link in leading:
        assert not urlsplit(link).scheme
        assert (folder / "page" / unquote(link)).exists()
    for link in set(links) - set(leading):
        assert page.locator(link).count() == 1
    page.locator("#cells tbody a").nth(7).click()
    assert page.url.endswith("/runs/a%20sweep%20%231/7/report.html")
    assert page.inner_text("body") == "a page"


def test_what_failed_is_near_the_top_and_nothing_of_it_is_markup(page: Any) -> None:
    failed = page.locator("#failed")
    assert failed.bounding_box()["y"] < page.locator("#settings").bounding_box()["y"]
    assert "scorer=<b>: no such scorer" in failed.inner_text()
    assert failed.locator("b").count() == 0
    assert column(page, "failed", "cell") == ["30", "31"]


@pytest.mark.parametrize("width", [400, 768, 1280])
def test_the_page_fits_and_wide_tables_scroll_in_their_own_box(page: Any, width: int) -> None:
    """What is judged, and how, is in sight without scrolling."""
    page.set_viewport_size({"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    box = page.locator("#settings").locator("..")
    assert box.evaluate("box => box.scrollWidth > box.clientWidth") is (width < 600)
    edges = box.bounding_box()
    for head in ("scorer", "treatment.budget", "against random removal"):
        cell = page.locator("#settings th", has_text=head).first.bounding_box()
        assert edges["x"] <= cell["x"]
        assert cell["x"] + cell["width"] <= edges["x"] + edges["width"]
    # names stand in one line or break between words: a row is no tower of letters
    assert page.locator("#settings tbody tr").first.bounding_box()["height"] < 60


@pytest.mark.parametrize("width", [400, 1280])
def test_galleries_and_charts_fit_and_charts_are_dark_in_the_dark(
    browser: Any, tmp_path: Path, width: int
) -> None:
    shade = png(torch.zeros(1, 8, 8))
    groups = [[Picture(f"a{number}", shade, "a", wrong=not number)] for number in range(16)]
    strip = [[Picture(f"b{number}{kind}", shade, "b") for kind in range(3)] for number in range(11)]
    rows = [(str(number), "a class of a long name") for number in range(16)]
    chart = eps_curves({"baseline": {"eps": [0.0, 0.1, 0.2], "accuracy": [90.0, 50.0, 0.0]}}, 0.1)
    sections = [
        Section("lowest", "Lowest", "", ("id", "label"), rows, pictures=groups),
        Section("strip", "Strip", pictures=strip),
        Section("checks", "Checks", chart=chart),
    ]
    write_page(Page("x", "said", "defense " + "data.train_size=200 " * 9, sections, "made"), tmp_path)
    for scheme, filtered in (("light", False), ("dark", True)):
        opened = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
        opened.goto((tmp_path / "report.html").as_uri())
        assert opened.evaluate("document.documentElement.scrollWidth") <= width
        style = opened.locator(".chart svg").evaluate("each => getComputedStyle(each).filter")
        assert ("invert" in style) is filtered
        borders = [
            each.evaluate("each => getComputedStyle(each).borderTopColor")
            for each in opened.locator(".gallery img").all()
        ]
        assert borders.count(borders[0]) == 1
        assert len(set(borders)) == 2
        opened.close()


CROWDED = """svg => {
    const edge = svg.getBoundingClientRect(), inch = edge.width / 5.6;
    const texts = [...svg.querySelectorAll("text")].map(text => [text.textContent, text.getBoundingClientRect()]);
    const inside = ([, box]) => box.left >= edge.left && box.right <= edge.right && box.top >= edge.top
        && box.bottom <= edge.bottom;
    const touches = ([, one], [, other]) => one.left < other.right && other.left < one.right
        && one.top + 0.04 * inch < other.bottom && other.top + 0.04 * inch < one.bottom;
    const cut = texts.filter(text => !inside(text)).map(([name]) => name);
    const pairs = texts.flatMap((one, number) => texts.slice(number + 1).filter(other => touches(one, other))
        .map(other => [one[0], other[0]]));
    return [cut, pairs];
}"""


@pytest.mark.parametrize("width", [400, 1280])
def test_names_in_charts_are_whole_and_apart(browser: Any, tmp_path: Path, width: int) -> None:
    short = ["ip", "loss", "captum_tracin", "ip_ensemble"]
    long = [f"ip_ensemble, treatment.budget=0.{number}, train.epochs=20, data.noise=0.2" for number in range(40)]
    mean = mean_interval([1.0, 2.0, 4.0])
    label = Axis("share of the training samples removed, lowest scores first")
    line = {0.01: mean, 0.02: mean, 0.4: mean, 11173962: mean}
    charts = [
        *(forest([Gain(name, mean, True) for name in names], xlabel=f"{label.label}\nhigher is better")
          for names in (short, long)),
        curves(dict.fromkeys([*short, *long[:8]], line), replace(label, log=True), replace(label, log=True)),
        curves({"ip": {0: mean}}, Axis("", names=["published, over untreated", *long[:4]]), label, level=0),
        budget_curves(dict.fromkeys([*long[:6], *short], line), {"baseline": line}, {}),
        points(dict.fromkeys([*short, *long[:4]], (0.1, 0.9, 0.1)), xlabel=label.label, ylabel=label.label),
        tradeoff([Spot(name, name, mean, mean) for name in [*short, *long[:4]]], {}, label, label),
    ]  # fmt: skip
    sections = [Section(f"chart_{number}", "x", chart=chart) for number, chart in enumerate(charts)]
    write_page(Page("x", "all charts", "defense", sections, "made"), tmp_path)
    opened = browser.new_page(viewport={"width": width, "height": 800})
    opened.goto((tmp_path / "report.html").as_uri())
    for chart in opened.locator(".chart svg").all():
        assert chart.evaluate(CROWDED) == [[], []]
    opened.close()


def test_best_is_marked_once(page: Any) -> None:
    assert page.locator("#settings tr.best").count() == 1
    assert "best" in page.locator("#settings tr.best").inner_text()


def test_without_scripts_it_is_a_plain_table(browser: Any, folder: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    opened = context.new_page()
    opened.goto((folder / "page/report.html").as_uri())
    assert opened.locator("#cells tbody tr").count() == 30
    assert opened.locator("button, input, select").count() == 0
    context.close()
