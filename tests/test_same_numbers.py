"""That two versions of the project compute the same numbers is told by a tool that sees a last bit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from tests import same_numbers
from tests.same_numbers import Renaming, differences, numbers_of, translated


def written(folder: Path, *, weight: float = 1.0, score: float = 0.5, gain: float = 2.0) -> dict[str, str]:
    """Write the result of one cell and what its stages stored, and return its numbers."""
    entry = folder / "store/train/abc"
    entry.mkdir(parents=True)
    save_file({"w": torch.tensor([weight, 2.0])}, entry / "weights.safetensors")
    pd.DataFrame({"id": [1, 2], "score": [score, 0.1]}).to_parquet(entry / "table.parquet")
    (folder / "cell").mkdir()
    result = {"keys": {"train": "train/abc"}, "gain": {"mean": gain, "text": "by luck"}, "seconds": {"train": 1}}
    (folder / "cell/result.json").write_text(json.dumps(result), encoding="utf-8")
    return dict(numbers_of(folder, "cell"))


def test_every_kind_of_number_is_compared_to_its_last_bit(tmp_path: Path) -> None:
    usual = written(tmp_path / "usual")
    assert set(usual) == {"./train/weights/w", "./train/table/id", "./train/table/score", "./result/gain/mean"}
    weight = float(np.nextafter(np.float32(1), np.float32(2)))
    others = {
        "./train/weights/w": written(tmp_path / "weight", weight=weight),
        "./train/table/score": written(tmp_path / "score", score=float(np.nextafter(0.5, 1))),
        "./result/gain/mean": written(tmp_path / "gain", gain=float(np.nextafter(2.0, 3))),
    }
    for name, other in others.items():
        assert [key for key in usual if usual[key] != other[key]] == [name]


def test_what_differs_is_an_error_unless_a_renaming_gives_the_reason(capsys: pytest.CaptureFixture[str]) -> None:
    before, now = {"cell": {"a": "1", "b": "2"}}, {"cell": {"a": "1", "c": "3"}}
    assert differences(now, before, [])
    out = capsys.readouterr().out
    assert "cell/b: 2 before, None now\ncell/c: None before, 3 now" in out
    assert "3 numbers: 2 differ" in out
    assert differences(now, before, [Renaming("x", names={"^c$": "b"})])
    assert not differences(now, before, [Renaming("x", names={"^c$": "b"}, differ={"cell/b": "it counted twice"})])
    assert "1 numbers differ: it counted twice" in capsys.readouterr().out


def test_a_cell_that_fails_in_both_compares_nothing_and_is_an_error() -> None:
    assert differences({"cell": {"exit": "2"}}, {"cell": {"exit": "2"}}, [])
    assert not differences({"cell": {"exit": "0"}}, {"cell": {"exit": "0"}}, [])


def test_renamings_are_undone_from_the_newest_on() -> None:
    known = [Renaming("old", overrides={"^b=": "a="}), Renaming("new", overrides={"^c=": "b="})]
    assert translated("c=1", known, "overrides") == "a=1"


def test_every_part_has_a_cell() -> None:
    words = {word for cell in same_numbers.cells().values() for word in cell}
    for group in ("scorer", "treatment", "train", "attack"):
        names = [file.stem for file in (same_numbers.ROOT / "conf" / group).glob("*.yaml")]
        assert not [name for name in names if f"{group}={name}" not in words]
