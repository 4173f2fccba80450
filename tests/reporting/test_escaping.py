"""Names that mean something to a renderer: pages, charts, tables and terminals show them as they are."""

from __future__ import annotations

import csv
import os
import re
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

import pandas as pd
import pytest

from defense.cli.report import main
from defense.reporting.charts import (
    Axis,
    Gain,
    Spot,
    budget_curves,
    curves,
    forest,
    points,
    tradeoff,
)
from defense.reporting.escaping import (
    for_chart,
    for_csv,
    for_latex,
    for_markdown,
    for_terminal,
    markdown,
    storable,
    visible,
)
from defense.reporting.exports import Text, latex, relative, write_csv
from defense.reporting.page import Failure, Page, Section, write_page
from defense.reporting.statistics import mean_interval
from tests.cli.test_report import result
from tests.reporting.cells import leave
from tests.reporting.test_page import Reader

SIGNS = "a|b $x_{$ 100% & <b>bold</b>"
NAMES = [
    SIGNS,
    "plain_{ \\frac $",
    "$",
    "$1 and $2",
    "_hidden_",
    "*star* `code` [link](http://x) ~~gone~~",
    "# head #",
    "- item",
    "1. one",
    "> quote",
    "&lt; &amp; \"quoted\" 'too'",
    "[first",
    "two--dashes -5 ?` !`",
    "back\\slash \\| \\$",
    "d\u00e9faut ray\u00e9",
    "de\u0301compose\u0301",
    "\u6c5a\u308c \u0434\u0430",
    "line\nbreak\ttab\x1b[31m",
    "latin\udce91",
]
SHOWN = [visible(name) for name in NAMES]
MEAN = mean_interval([1.0, 2.0, 4.0])


def page_with(names: list[str]) -> Page:
    """A page with every name wherever a name can be."""
    header = ("scorer", *names)
    rows = [(name, *(Text(str(number), value=number) for number in range(len(names)))) for name in names]
    data = pd.DataFrame({"scorer": storable(names), "number": range(len(names))})
    chart = forest([Gain(name, MEAN, True) for name in names], xlabel="points")
    sections = [
        Section("settings", names[0], names[0], header, rows, chart, data=data, facets=("scorer",)),
        *(Section(f"part_{number}", name, name, ("a", "b"), [(name, name)]) for number, name in enumerate(names)),
    ]
    failure = Failure(Path("0"), names, names[0], "defense.log")
    facts = [f"{name}: a fact" for name in names]
    return Page(names[0], names[0], "defense x", sections, "made.", notes=facts, failures=[failure])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("names")
    write_page(page_with(NAMES), out)
    return out


def test_the_page_shows_every_name_and_takes_none_for_html(folder: Path) -> None:
    reader = Reader()
    reader.feed((folder / "report.html").read_text(encoding="utf-8"))
    assert reader.open == []
    assert not [source for source in reader.sources if "http" in source]
    text = "".join(reader.text)
    for name in NAMES[:-2]:
        assert f"{name}: a fact" in text
    assert "latin\\udce91: a fact" in text


def cells(line: str) -> list[str]:
    """The cells of a row, as GitHub cuts it: at every | that no backslash stands before."""
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def test_markdown_has_a_cell_for_each_name_and_no_html(folder: Path) -> None:
    text = (folder / "report.md").read_text(encoding="utf-8")
    assert "<b>" not in text
    tables = [cells(line) for line in text.splitlines() if line.startswith("|")]
    assert sum(len(row) == len(NAMES) + 1 for row in tables) == len(NAMES) + 2
    assert {len(row) for row in tables} == {len(NAMES) + 1, 2, 4}
    headings = [line.removeprefix("## ") for line in text.splitlines() if line.startswith("## ")]
    assert headings == ["Cells that failed", *map(for_markdown, [NAMES[0], *NAMES]), "How it was made"]


@pytest.mark.parametrize("name", NAMES)
def test_markdown_is_read_back_as_it_was_written(name: str) -> None:
    """By a reader that knows what a backslash and an entity are; leading blanks aside."""
    read = re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", for_markdown(name))
    assert read.replace("&lt;", "<").replace("&amp;", "&") == visible(name).lstrip()


def test_markdown_leaves_alone_what_means_nothing() -> None:
    for plain in (
        "p <0.001",
        "train_y_worse",
        "data.columns=[a,b]",
        "-5.8 (-8.4 to -3.1)",
        "a & b",
        "-",
        "#1",
        "1.5",
    ):
        assert for_markdown(plain) == plain


def test_markdown_escapes_what_does() -> None:
    found = {
        SIGNS: r"a\|b \$x\_{\$ 100% & &lt;b>bold&lt;/b>",
        "_a_ b": r"\_a\_ b",
        "[a](b)": r"[a\](b)",
        "# a #": r"\# a \#",
        "- a": r"\- a",
        "12) a": r"12\) a",
        "    code": "code",
        "&lt;": "&amp;lt;",
    }
    assert {name: for_markdown(name) for name in found} == found


def test_terminals_get_tables_of_one_line_a_row() -> None:
    text = markdown(("name", "b"), [(name, "1") for name in NAMES])
    assert len(text.splitlines()) == len(NAMES) + 2
    assert "\x1b" not in for_terminal("\x1b[31mred\nnext")
    assert for_terminal("\x1b[31mred\nnext").splitlines() == ["\\x1b[31mred", "next"]


CHARTS: dict[str, Callable[[list[str]], str]] = {
    "forest": lambda names: forest([Gain(name, MEAN, False) for name in names], xlabel="x"),
    "curves": lambda names: curves(
        {name: {0.0: 0.0, 1.0: 1.0} for name in names}, Axis("x"), Axis("y"), diagonal=True
    ),
    "points": lambda names: points(dict.fromkeys(names, (1.0, 2.0, 0.5)), xlabel="x", ylabel="y"),
    "budget_curves": lambda names: budget_curves(
        {name: {0.1: MEAN, 0.2: MEAN} for name in names}, {"baseline": {0.1: MEAN}}, {}
    ),
    "curves with bands": lambda names: curves(
        {name: {1.0: MEAN, 8.0: MEAN} for name in names}, Axis("x", log=True), Axis("y", log=True), level=1
    ),
    "axes": lambda names: "".join(curves({"a": {1.0: MEAN}}, Axis(name), Axis(name)) for name in names),
    "positions": lambda names: "".join(
        curves({"a": {0: MEAN}}, Axis("", names=[name]), Axis("y")) for name in names
    ),
    "tradeoff": lambda names: tradeoff([Spot(name, name, MEAN, MEAN) for name in names], {}, Axis("x"), Axis("y")),
}


@pytest.mark.parametrize("kind", CHARTS)
def test_charts_draw_names_as_they_are(kind: str, recwarn: pytest.WarningsRecorder) -> None:
    """No formula, none left out of a legend, and a file that is XML in UTF-8."""
    root = ElementTree.fromstring(f"<page>{CHARTS[kind](NAMES)}</page>".encode())
    groups = [node for node in root.iter() if node.get("id", "").startswith("text_")]
    texts = {" ".join("".join(line.itertext()).strip() for line in group) for group in groups}
    assert set(SHOWN) <= {text.strip() for text in texts}
    assert not [warning for warning in recwarn if "Glyph" in str(warning.message)]


def test_tables_hold_every_name(folder: Path) -> None:
    with (folder / "tables/part_0.csv").open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [["a", "b"], [SIGNS, SIGNS]]
    stored = [*NAMES[:-1], "latin\\udce91"]
    csv_has = ["'- item" if name == "- item" else name for name in stored]  # it would be a formula
    assert pd.read_csv(folder / "tables/settings.csv")["scorer"].tolist() == csv_has
    found = pd.read_parquet(folder / "tables/settings.parquet")
    assert found["scorer"].tolist() == stored
    assert found["number"].tolist() == list(range(len(NAMES)))


@pytest.mark.parametrize(
    "text",
    [
        "=cmd|' /C calc'!A0",
        "+1+cmd|'x'!A0",
        "-2+3",
        "@SUM(A1)",
        "\t=1",
        "\r=1",
        "\n=1",
        "- item",
        "+",
        "--",
        "=",
        "-a",
    ],
)
def test_a_text_that_a_spreadsheet_would_compute_begins_with_an_apostrophe(text: str) -> None:
    assert for_csv(text) == f"'{text}"


@pytest.mark.parametrize(
    "text",
    [
        *("", "a", "1=1", "-", "-0.4", "+5", "-1e-05", "+5.0 (+2.5 to +7.5)", "-0.359 to +0.929", "a\n=1"),
        *("<b>", "'=1", " =1", "(-1)", "0.5"),
    ],
)
def test_numbers_and_other_texts_stay_as_they_are_in_csv(text: str) -> None:
    assert for_csv(text) == text


def test_csv_disarms_texts_and_leaves_numbers(tmp_path: Path) -> None:
    """Numbers are read back bit for bit; names of columns are texts, too."""
    numbers = [-1.5, 1e-17, 1 / 3]
    table = pd.DataFrame(
        {"=id": [3, -2, 1], "name": ["=1+1", 'a,"b"\nc', "-"], "score": numbers, "ok": [True] * 3}
    )
    write_csv(table, tmp_path / "a.csv")
    found = pd.read_csv(tmp_path / "a.csv", keep_default_na=False)
    assert found.columns.tolist() == ["'=id", "name", "score", "ok"]
    assert found["name"].tolist() == ["'=1+1", 'a,"b"\nc', "-"]
    assert found["score"].tolist() == numbers
    assert found["'=id"].tolist() == [3, -2, 1]
    write_csv(table.head(0), tmp_path / "none.csv")
    assert (tmp_path / "none.csv").read_text("utf-8") == "'=id,name,score,ok\n"


def test_a_sweep_over_names_that_are_not_utf_8_has_a_page(tmp_path: Path) -> None:
    """As file names are in Linux; json.dumps writes such a name, and halves of others, as escapes."""
    paths = ["latin\udce91.npz", "\U0001f600.npz"]
    for number, path in enumerate(paths):
        cell = result(0, 1.0 + number, overrides=["seed=0", f"data.path={path}"])
        cell["config"]["data"] = cell["config"]["data"] | {"path": path}
        leave(tmp_path / str(number), cell)
    main([str(tmp_path)])
    found = pd.read_csv(tmp_path / "tables/settings.csv")["data.path"]
    assert sorted(found) == sorted(["latin\\udce91.npz", "\U0001f600.npz"])
    assert sorted(pd.read_parquet(tmp_path / "tables/cells.parquet")["data.path"]) == sorted(found)


def test_links_lead_to_folders_of_any_name(tmp_path: Path) -> None:
    target = tmp_path / "a (1) #2 |\udce9"
    link = relative(target, tmp_path)
    assert "\udce9" not in link
    assert not set("()#| ") & set(link)
    assert os.fsencode(unquote(link, errors="surrogateescape")) == os.fsencode(target.name)


def test_latex_has_real_minus_signs_and_no_letters_for_signs() -> None:
    found = {
        "-5.8 (-8.4 to -3.1)": "$-$5.8 ($-$8.4 to $-$3.1)",
        "defended - control (95 %)": r"defended $-$ control (95 \%)",
        "<0.001": "$<$0.001",
        SIGNS: r"a$|$b \$x\_\{\$ 100\% \& $<$b$>$bold$<$/b$>$",
        "a--b": "a-{}-b",
        "[x": "{[}x",
        "de\u0301faut": "d\u00e9faut",
        "\u6c5a": r"{\ifdefined\Umathcode " + "\u6c5a" + r"\else U+6C5A\fi}",
        "data.path=a-1": "data.path=a-1",
        "12 \N{PLUS-MINUS SIGN} 3": r"12 $\pm$ 3",
    }
    assert {name: for_latex(name) for name in found} == found


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex here: LaTeX is read, not set")
def test_latex_sets_every_name(tmp_path: Path) -> None:
    (tmp_path / "t.tex").write_text(
        "\\documentclass{article}\\usepackage{booktabs}\\begin{document}"
        + latex(
            ("name", *NAMES[:3]),
            [(name, "-1.0 (-2.0 to +3.0)", "<0.001", "1 \N{PLUS-MINUS SIGN} 2") for name in NAMES],
            caption=" ".join(NAMES),
            label="tab:a_b",
        )
        + "\\end{document}\n",
        encoding="utf-8",
    )
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "t.tex"]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    assert found.returncode == 0, found.stdout[-2000:]


@pytest.mark.parametrize("encoding", ["ascii", "iso-8859-1", "utf-8"])
def test_terminals_and_logs_get_what_the_locale_has_signs_for(
    encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("locale.getpreferredencoding", lambda *_: encoding)
    found = for_terminal("\n".join(NAMES))
    assert found.encode(encoding)
    assert len(found.splitlines()) == len(NAMES) + 1  # one name has a line break
    assert ("d\\xe9faut" in found) == (encoding == "ascii")
    assert ("\\u6c5a" in found) == (encoding != "utf-8")
    assert "latin\\udce91" in found


def test_names_in_charts_keep_what_a_renderer_would_take_away() -> None:
    assert for_chart("$x$") == r"\$x\$"
    assert for_chart("_x").lstrip(" ") == "_x"
    assert not for_chart("_x").startswith("_")
