"""`defense-report samples`: the list, its CSV, and the samples themselves, each the very one that was scored."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from defense.cli.report import main
from defense.cli.results import find_results
from defense.cli.samples import ScoredRun, pooled, ranked
from defense.errors import InputError
from defense.pipeline.originals import safe
from tests.conftest import run_here
from tests.same_numbers import write_texts

COUNT = 60
CLASSES = ["<b>cat</b>", "=dog", "hen"]
ORDER = np.random.default_rng(0).permutation(COUNT)  # of the numbers in a file: a row is no number
SMALL = [
    "data.validation_size=12", "data.test_size=12", "model.hidden=[4]", "train.epochs=1", "evaluation.checked=0",
    "evaluation.attacks.pgd.steps=1", "evaluation.attacks.apgd_t.steps=1", "task=score",
]  # fmt: skip
TEXT = [
    "data=text", "data.path=inputs/train.tsv", "data.test_path=inputs/test.tsv", "data.length=10",
    "data.tokenizer=inputs/encoder", "data.validation_size=20", "model=lora", "model.layers=1",
    "model.adapted=1", "train.epochs=1", "objective=utility", "task=score",
]  # fmt: skip
Call = Callable[..., tuple[int, str, str]]


def write_sources(folder: Path) -> None:
    """Write pictures in folders and in arrays, and a table; each sample shows its number."""
    pixels = np.full((COUNT, 4, 4), 255, dtype=np.uint8)
    pixels[:, 0, 0] = ORDER
    names = [f"=a/{number}\n<i>" for number in ORDER]
    own = {"train_x": pixels, "train_y": ORDER % 3, "train_names": names, "class_names": CLASSES}
    np.savez(folder / "my.npz", **own)
    for number in ORDER:
        file = folder / "pictures/train" / ["cat", "dog", "hen"][number % 3] / f"same {number // 6}.png"
        file = file.with_stem(f"{'x' * 240}{number // 6}") if number % 6 == 5 else file
        file = file.parent / f"{number % 2}" / file.name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (5, 4), (int(number),) * 3).save(file)
    rows = pd.DataFrame({"id": ORDER, "=score": ORDER % 7, "note": "=1+1", "income": ORDER % 3})
    rows.to_csv(folder / "my.csv", index=False)
    rows.to_parquet(folder / "my.parquet", index=False)
    files = [file.relative_to(folder).as_posix() for file in (folder / "pictures").rglob("*.png")]
    listed = pd.DataFrame({"file": files, "kind": [file.split("/")[2] for file in files]})
    listed.to_csv(folder / "list.csv", index=False)
    (folder / "samples_of_mine.py").write_text(MINE, encoding="utf-8")


MINE = """
import numpy as np, torch
from torch.utils.data import TensorDataset

def make():
    arrays = np.load("my.npz")
    return TensorDataset(torch.tensor(arrays["train_x"][:, None]), torch.tensor(arrays["train_y"]))
"""
RUNS = {
    "pictures": ["data=image_folder", "data.path=pictures", "data.image_size=4"],
    "arrays": ["data=npz", "data.path=my.npz"],
    "treated": ["data=npz", "data.path=my.npz", "task=defend", "data.harm=symmetric"],
    "table": ["data=table", "data.path=my.csv", "data.target=income", "data.drop=[id,note]"],
    "listed": [
        "data=image_table",
        "data.path=list.csv",
        "data.file=file",
        "data.target=kind",
        "data.image_size=4",
    ],
    "dataset": ["data=dataset", "data._target_=samples_of_mine.make"],
    "parquet": ["data=table", "data.path=my.parquet", "data.target=income", "data.drop=[id,note]"],
    "points": ["data=moons", "data.train_size=30"],
    "trigger": ["data=npz", "data.path=my.npz", "data.harm=trigger"],
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sources and a run on each of them, started there as from a terminal."""
    folder = tmp_path_factory.mktemp("made")
    write_sources(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("matplotlib.backends.backend_svg.FigureCanvasSVG.print_svg", lambda self, file, **_: None)
        for name, words in RUNS.items():
            assert run_here(*SMALL, *words, "store=store", f"hydra.run.dir=runs/{name}") == 0
    return folder


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    """Return a function that runs `defense-report samples`: (exit code, stdout, stderr)."""

    def run(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            main(["samples", *map(str, words)])
        except SystemExit as stop:
            return (int(stop.code or 0), *capsys.readouterr())
        return (0, *capsys.readouterr())

    return run


def scores_of(run: Path) -> pd.DataFrame:
    """Return the scores of a run, the lowest first, by a sort of its own."""
    table = pd.read_parquet(run / "scores.parquet")
    return table.iloc[sorted(range(len(table)), key=lambda row: (table["score"][row], row))]


def cells(text: str) -> list[list[str]]:
    """Return the cells of a table in a terminal, without its ruler."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in (lines[0], *lines[2:])]


def test_the_table_has_the_lowest_and_then_the_highest(made: Path, call: Call) -> None:
    code, out, _ = call(made / "runs/arrays", "--lowest", 3, "--highest", 2)
    scores = scores_of(made / "runs/arrays")
    header, *rows = cells(out)
    assert header == ["rank", "id", "name", "label", "prediction", "score"]
    total = len(scores)
    expected = [*scores.head(3).itertuples(), *scores.tail(2)[::-1].itertuples()]
    assert [int(row[0]) for row in rows] == [1, 2, 3, total, total - 1]
    assert [int(row[1]) for row in rows] == [row.id for row in expected]
    assert [row[2] for row in rows] == [f"=a/{ORDER[row.id]}\\n<i>" for row in expected]
    assert [row[3] for row in rows] == [CLASSES[ORDER[row.id] % 3] for row in expected]
    assert f"5 of {total} training samples; rank 1 is the lowest score" in out
    assert code == 0
    assert len(cells(call(made / "runs/arrays")[1])) == 21
    assert len(cells(call(made / "runs/arrays", "--lowest", 40, "--highest", 999)[1])) == total + 1


def test_truth_and_treatment_are_shown_if_there_are_any(made: Path, call: Call) -> None:
    header, *rows = cells(call(made / "runs/treated", "--lowest", 999)[1])
    assert header == ["rank", "id", "name", "label", "truth", "prediction", "score", "treated"]
    scores = scores_of(made / "runs/treated")
    assert [row[-1] == "yes" for row in rows] == scores["treated"].tolist()
    assert [row[4] for row in rows] == [CLASSES[truth] for truth in scores["truth"]]


def test_the_csv_has_plain_values_and_disarmed_names(made: Path, tmp_path: Path, call: Call) -> None:
    code, out, _ = call(made / "runs/treated", "--lowest", 5, "--csv", tmp_path / "a.csv")
    assert (code, out) == (
        0,
        f"5 of {len(scores_of(made / 'runs/treated'))} training samples: {tmp_path / 'a.csv'}\n",
    )
    found, scores = pd.read_csv(tmp_path / "a.csv"), scores_of(made / "runs/treated").head(5)
    assert found.columns.tolist() == [
        *("rank", "id", "name", "label", "label_name", "truth", "truth_name", "prediction", "prediction_name"),
        *("loss", "score", "treated"),
    ]
    assert found["rank"].tolist() == [1, 2, 3, 4, 5]
    for column in ("id", "label", "truth", "prediction", "treated"):
        assert found[column].tolist() == scores[column].tolist()
    np.testing.assert_allclose(found[["loss", "score"]], scores[["loss", "score"]], rtol=1e-6)
    assert found["name"].tolist() == [f"'{name}" for name in scores["name"]]
    disarmed = ["<b>cat</b>", "'=dog", "hen"]
    assert found["label_name"].tolist() == [disarmed[label] for label in scores["label"]]
    code, _, _ = call(made / "runs/treated", "--lowest", 2, "--csv", tmp_path / "a.csv")  # its own may be replaced
    assert (code, len(pd.read_csv(tmp_path / "a.csv"))) == (0, 2)


@pytest.mark.parametrize("run", ["pictures", "listed"])
def test_pictures_in_files_are_copied_byte_for_byte(
    made: Path, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch, run: str
) -> None:
    """From any folder: paths of the run are of the folder that it was started in. Equal names stay apart."""
    monkeypatch.chdir(tmp_path)
    code, out, error = call(made / "runs" / run, "--lowest", 48, "--copy", "worst")
    assert (code, error) == (0, "")
    assert out == "36 pictures, and samples.csv: worst\n"
    listed, scores = pd.read_csv("worst/samples.csv"), scores_of(made / "runs" / run)
    root = made / "pictures" if run == "pictures" else made
    assert listed["id"].tolist() == scores["id"].tolist()
    assert listed["name"].tolist() == scores["name"].tolist()
    for rank, (file, name) in enumerate(zip(listed["file"], scores["name"], strict=True), start=1):
        assert (Path("worst") / file).read_bytes() == (root / name).read_bytes()
        assert file.startswith(f"{rank:02d}_{Path(name).name[:8]}")
        assert file.endswith(".png")
    assert sorted(os.listdir("worst")) == sorted([*listed["file"], "samples.csv"])


def test_arrays_become_pictures(made: Path, tmp_path: Path, call: Call) -> None:
    assert call(made / "runs/arrays", "--highest", 4, "--copy", tmp_path / "best")[0] == 0
    listed = pd.read_csv(tmp_path / "best/samples.csv")
    assert listed["id"].tolist() == scores_of(made / "runs/arrays").tail(4)[::-1]["id"].tolist()
    for row in listed.itertuples():
        number = ORDER[row.id]
        assert row.file == f"{row.rank:02d}_=a_{number}__i_.png"
        pixels = np.asarray(Image.open(tmp_path / "best" / row.file))
        assert pixels.tolist() == [[number, 255, 255, 255], *[[255] * 4] * 3]


def test_pictures_are_without_the_patch_that_the_run_planted(made: Path, tmp_path: Path, call: Call) -> None:
    code, out, _ = call(made / "runs/trigger", "--lowest", 999, "--copy", tmp_path / "all")
    assert (code, "data.harm=trigger has changed some for the run" in out) == (0, True)
    for file in (tmp_path / "all").glob("*.png"):
        assert np.asarray(Image.open(file))[1:].min() == 255


def test_items_of_a_dataset_become_pictures(made: Path, tmp_path: Path, call: Call) -> None:
    """Its file is found where the run was started."""
    assert call(made / "runs/dataset", "--lowest", 3, "--copy", tmp_path / "out")[0] == 0
    for row in pd.read_csv(tmp_path / "out/samples.csv").itertuples():
        assert np.asarray(Image.open(tmp_path / "out" / row.file))[0, 0] == ORDER[row.id]


@pytest.mark.parametrize("run", ["table", "parquet"])
def test_rows_of_a_table_have_all_their_columns(made: Path, tmp_path: Path, call: Call, run: str) -> None:
    """Columns that are named as those of the list, or that the model does not see, are there as in the file."""
    code, out, _ = call(made / "runs" / run, "--lowest", 6, "--copy", tmp_path / "rows")
    assert (code, out.startswith("6 rows: ")) == (0, True)
    listed, rows = (pd.read_csv(tmp_path / "rows" / name) for name in ("samples.csv", "rows.csv"))
    assert listed["id"].tolist() == scores_of(made / "runs" / run).head(6)["id"].tolist()
    assert rows.columns.tolist() == ["id", "'=score", "note", "income"]
    assert rows["id"].tolist() == ORDER[listed["id"]].tolist()
    assert rows["income"].tolist() == listed["label"].tolist()
    assert set(rows["note"]) == {"'=1+1"}


@pytest.mark.extra("transformers", "peft")
def test_texts_have_all_their_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Call) -> None:
    (tmp_path / "inputs").mkdir()
    write_texts(tmp_path / "inputs")
    monkeypatch.chdir(tmp_path)
    assert run_here(*TEXT, "hydra.run.dir=run") == 0
    assert call("run", "--lowest", 5, "--copy", "rows")[0] == 0
    source = list(csv.DictReader(io.StringIO(Path("inputs/train.tsv").read_text("utf-8")), delimiter="\t"))
    with Path("rows/rows.csv").open(newline="", encoding="utf-8") as file:
        found = list(csv.DictReader(file))
    assert found == [source[row] for row in pd.read_csv("rows/samples.csv")["id"]]


def test_a_folder_of_its_own_is_replaced_and_no_other(made: Path, tmp_path: Path, call: Call) -> None:
    folder = tmp_path / "out"
    assert call(made / "runs/pictures", "--lowest", 9, "--copy", folder)[0] == 0
    (folder / "mine.txt").write_text("x", encoding="utf-8")
    assert call(made / "runs/pictures", "--lowest", 2, "--copy", folder)[0] == 0
    assert len(list(folder.glob("*.png"))) == len(pd.read_csv(folder / "samples.csv")) == 2
    assert (folder / "mine.txt").exists()
    listed = pd.read_csv(folder / "samples.csv").assign(verdict="keep")
    listed.to_csv(folder / "samples.csv", index=False)  # what a person has added is not thrown away
    code, _, error = call(made / "runs/pictures", "--copy", folder)
    assert (code, "has files that this command has not written" in error) == (2, True)
    assert "verdict" in (folder / "samples.csv").read_text("utf-8")


def test_a_listed_name_outside_of_the_folder_is_not_removed(made: Path, tmp_path: Path, call: Call) -> None:
    """As in a list that someone else has made."""
    assert call(made / "runs/pictures", "--lowest", 1, "--copy", tmp_path / "out")[0] == 0
    (tmp_path / "dear.txt").write_text("x", encoding="utf-8")
    pd.read_csv(tmp_path / "out/samples.csv").assign(file="../dear.txt").to_csv(
        tmp_path / "out/samples.csv", index=False
    )
    assert call(made / "runs/pictures", "--lowest", 1, "--copy", tmp_path / "out")[0] == 0
    assert (tmp_path / "dear.txt").exists()


def test_data_that_have_changed_since_are_refused(made: Path, tmp_path: Path, call: Call) -> None:
    arrays = dict(np.load(made / "my.npz"))
    kept = (made / "my.npz").read_bytes()
    try:
        arrays["train_x"] = arrays["train_x"].copy()
        arrays["train_x"][:, 3, 3] = 7
        np.savez(made / "my.npz", **arrays)
        code, _, error = call(made / "runs/arrays", "--copy", tmp_path / "out")
        assert (code, len(error.splitlines())) == (2, 1)
        assert "runs/arrays: its data have changed since it was made" in error
        assert not (tmp_path / "out").exists()
        (made / "my.npz").unlink()
        code, _, error = call(made / "runs/arrays", "--copy", tmp_path / "out")
        assert (code, error.splitlines()) == (2, [error.strip()])
        assert "data.path=my.npz: no such path" in error
    finally:
        (made / "my.npz").write_bytes(kept)
    assert call(made / "runs/arrays", "--copy", tmp_path / "out")[0] == 0


def refused(call: Call, *words: object) -> str:
    """Return the one line that a command is refused with."""
    code, out, error = call(*words)
    (line,) = error.splitlines()
    assert (code, out) == (2, "")
    return line.removeprefix("defense-report: ")


@pytest.mark.parametrize("value", ["-3", "x", "1.5", "", "٣", "1e3"])
@pytest.mark.parametrize("flag", ["--lowest", "--highest"])
def test_numbers_of_samples_are_whole_and_at_least_nought(made: Path, call: Call, flag: str, value: str) -> None:
    found = refused(call, made / "runs/arrays", f"{flag}={value}")
    assert found == f"{flag}={value}: expected a whole number of at least 0, as in 50"


def test_bad_input_is_one_line(made: Path, tmp_path: Path, call: Call) -> None:
    run = made / "runs/arrays"
    (tmp_path / "file").write_text("x,y\n", encoding="utf-8")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/a").touch()
    assert refused(call, run, "--lowest", 0) == "--lowest=0: expected one sample at least"
    assert "no such file or folder" in refused(call, tmp_path / "nowhere")
    assert "a file; expected the folder" in refused(call, tmp_path / "file")
    assert "no result.json below it" in refused(call, tmp_path / "full")
    assert "not a list of this command" in refused(call, run, "--csv", tmp_path / "file")
    assert "not a list of this command" in refused(call, run, "--csv", tmp_path)
    assert "cannot be written" in refused(call, run, "--csv", tmp_path / "no/a.csv")
    assert "is a file; expected a folder" in refused(call, run, "--copy", tmp_path / "file")
    assert "has files that this command" in refused(call, run, "--copy", tmp_path / "full")
    assert "expected the folder of one run" not in refused(call, run, "--copy", tmp_path / "file/a")
    assert "neither pictures nor rows" in refused(call, made / "runs/points", "--copy", tmp_path / "points")
    assert not (tmp_path / "points").exists()
    found = refused(call, made / "runs")
    assert "runs that differ in more than their seed: runs/arrays (" in found
    assert "expected those of one setting, or one of them" in found


def test_runs_that_were_half_written_or_of_another_version_are_one_line(
    made: Path, tmp_path: Path, call: Call
) -> None:
    run = shutil.copytree(made / "runs/arrays", tmp_path / "run")
    whole = {name: (run / name).read_bytes() for name in ("result.json", "scores.parquet")}
    (run / "scores.parquet").write_bytes(whole["scores.parquet"][:200])
    assert "scores.parquet: not what a run of this version leaves" in refused(call, run)
    (run / "scores.parquet").unlink()
    assert "no scores.parquet in it" in refused(call, run)
    pd.DataFrame({"id": [1], "score": [0.1]}).to_parquet(run / "scores.parquet")
    assert "not what a run of this version leaves" in refused(call, run)
    (run / "scores.parquet").write_bytes(whole["scores.parquet"])
    (run / "result.json").write_bytes(whole["result.json"][:300])
    assert "not a result of this version" in refused(call, run)
    older = json.loads(whole["result.json"])
    older["config"]["data"]["colour"] = "red"
    (run / "result.json").write_text(json.dumps(older), encoding="utf-8")
    assert "not the settings of this version of defense" in refused(call, run, "--copy", tmp_path / "out")
    del older["data"]
    (run / "result.json").write_text(json.dumps(older), encoding="utf-8")
    assert "the same command writes them again" in refused(call, run)
    (run / "result.json").write_bytes(whole["result.json"])
    (run / ".hydra/hydra.yaml").write_text("hydra: [", encoding="utf-8")
    assert "not what Hydra writes of a run" in refused(call, run, "--copy", tmp_path / "out")
    (run / ".hydra/hydra.yaml").write_text("hydra: {runtime: {cwd: /nowhere/at/all}}", encoding="utf-8")
    assert "was started in /nowhere/at/all, which is not there" in refused(call, run, "--copy", tmp_path / "out")


def test_a_run_that_hydra_did_not_start_finds_its_data_from_here(
    made: Path, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = shutil.copytree(made / "runs/arrays", tmp_path / "run")
    shutil.rmtree(run / ".hydra")
    monkeypatch.chdir(made)
    assert call(run, "--lowest", 1, "--copy", tmp_path / "out")[0] == 0


def seeded(run: Path, folder: Path, scores: dict[int, list[float]], ids: dict[int, list[int]]) -> Path:
    """Leave a sweep over seeds: the same run, each time with other scores of other samples."""
    content, table = json.loads((run / "result.json").read_text("utf-8")), pd.read_parquet(run / "scores.parquet")
    for seed, values in scores.items():
        cell = folder / str(seed)
        cell.mkdir(parents=True)
        own: dict[str, Any] = content | {"seed": seed, "overrides": [*content["overrides"], f"seed={seed}"]}
        own["config"] = own["config"] | {"seed": seed}
        (cell / "result.json").write_text(json.dumps(own), encoding="utf-8")
        rows = table.head(len(values)).assign(
            id=ids[seed], score=values, name=[f"n{each}" for each in ids[seed]], truth=0, label=seed % 2
        )
        rows.to_parquet(cell / "scores.parquet", index=False)
    return folder


def test_a_sweep_pools_its_runs_by_mean_rank(made: Path, tmp_path: Path, call: Call) -> None:
    """By hand: 7 has the ranks 1, 1, 2; 3 the ranks 2, 3, 1; 5 the ranks 3, 2; 9 is in one run of three alone."""
    scores = {0: [-3.0, -2.0, -1.0], 1: [-3.0, -2.0, -1.0], 2: [-3.0, -2.0, -1.0]}
    ids = {0: [7, 3, 5], 1: [7, 5, 3], 2: [3, 7, 9]}
    sweep = seeded(made / "runs/arrays", tmp_path / "sweep", scores, ids)
    code, out, _ = call(sweep, "--lowest", 2)
    header, *rows = cells(out)
    assert header == ["rank", "id", "name", "label", "truth", "mean rank", "lowest in"]
    assert [row[1:3] + row[5:] for row in rows] == [
        ["7", "n7", "1.3", "3 of 3 runs"],
        ["3", "n3", "2.0", "2 of 3 runs"],
    ]
    assert rows[0][3] == "differs"
    assert "2 of 3 samples that at least half of 3 runs trained on" in out
    assert call(sweep, "--csv", tmp_path / "a.csv")[0] == code == 0
    found = pd.read_csv(tmp_path / "a.csv")
    assert found["id"].tolist() == [7, 3, 5]
    assert found["runs"].tolist() == [3, 3, 2]
    assert found["mean_rank"].tolist() == pytest.approx([4 / 3, 2, 2.5])
    assert found["label"].isna().all()
    assert refused(call, sweep, "--copy", tmp_path / "x").endswith("3 runs; expected the folder of one run")
    assert cells(call(sweep / "1", "--lowest", 1)[1])[1][:2] == ["1", "7"]
    assert cells(call(sweep / "0", sweep / "1", "--lowest", 1)[1])[1][-1] == "2 of 2 runs"


def test_runs_of_other_samples_are_not_pooled(made: Path, tmp_path: Path) -> None:
    scores = {0: [-2.0, -1.0], 1: [-2.0, -1.0], 2: [-2.0, -1.0]}
    apart = seeded(made / "runs/arrays", tmp_path / "apart", scores, {0: [1, 2], 1: [3, 4], 2: [5, 6]})
    alike = seeded(made / "runs/arrays", tmp_path / "alike", scores, {0: [1, 2], 1: [1, 2], 2: [1, 2]})
    table = pd.read_parquet(alike / "1/scores.parquet")
    table.assign(name=["n1", "other"]).to_parquet(alike / "1/scores.parquet", index=False)

    def runs(folder: Path) -> list[ScoredRun]:
        return [ScoredRun(result, ranked(result)) for result in find_results([folder])]

    with pytest.raises(InputError, match="no training sample is in half of its 3 runs"):
        pooled(runs(apart), 1)
    with pytest.raises(InputError, match="sample 2 of one run is another in the next"):
        pooled(runs(alike), 1)
    drawn = runs(alike)
    drawn[0].result["config"]["data"]["source"] = "moons"
    with pytest.raises(InputError, match="data=moons has other samples for every seed"):
        pooled(drawn, 1)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("1_a.png", "1_a.png"),
        ("1_<b>a</b>\n.png", "1__b_a__b__.png"),
        ("1_a\udce9.png", "1_a_.png"),
        ("1_no ending", "1_no ending"),
        (f"1_{'é' * 200}.png", f"1_{'é' * 124}.png"),
        ("x" * 300, "x" * 255),
    ],
)
def test_names_of_copies_are_those_that_any_system_can_have(name: str, expected: str) -> None:
    assert safe(name) == expected
    assert len(safe(name).encode()) <= 255
