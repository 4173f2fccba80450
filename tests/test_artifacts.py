"""Long tables are cut into files, and read back in order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from defense import artifacts
from defense.artifacts import Scores, load, save

RECORD = pd.DataFrame({"name": ["objective"], "value": [0.5]})


def scores(count: int) -> Scores:
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"id": rng.permutation(count), "score": rng.random(count).astype(np.float32)})
    return Scores(table.assign(treated=table["score"] < 0.5), RECORD)


@pytest.mark.parametrize(("count", "files"), [(0, 1), (1, 1), (10, 1), (11, 2), (30, 3), (31, 4), (1050, 105)])
def test_long_tables_come_back_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, files: int
) -> None:
    monkeypatch.setattr(artifacts, "ROWS", 10)
    before = scores(count)
    save(before, tmp_path)
    names = sorted(path.name for path in tmp_path.glob("table*"))
    several = [f"table-{number:05}-of-{files:05}.parquet" for number in range(files)]
    assert names == (several if files > 1 else ["table.parquet"])
    after = load(Scores, tmp_path)
    pd.testing.assert_frame_equal(after.table, before.table)
    pd.testing.assert_frame_equal(after.record, RECORD)


def test_a_missing_part_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifacts, "ROWS", 10)
    save(scores(35), tmp_path)
    (tmp_path / "table-00001-of-00004.parquet").unlink()
    with pytest.raises(FileNotFoundError, match="table-00001-of-00004"):
        load(Scores, tmp_path)
