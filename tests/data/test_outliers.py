"""One huge number makes a point of all others: it is refused, cut off or kept; skewed columns pass."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from defense.config.choices import Outliers
from defense.data.outliers import beyond
from defense.errors import InputError
from tests.data.test_table import loaded, people

RNG = np.random.default_rng(0)
SPREAD = {
    "uniform": RNG.uniform(3000, 9000, 600),
    "normal": RNG.normal(0, 1, 600),
    "heavy": RNG.standard_t(2, 600),
    "incomes": RNG.lognormal(8, 1.5, 600),
    "counts": RNG.poisson(0.5, 600).astype(float),
    "gains": np.where(RNG.random(600) < 0.08, RNG.lognormal(8, 1, 600), 0),  # as capital-gain of Adult
    "flags": (RNG.random(600) < 0.01).astype(float),
    "constant": np.ones(600),
}


@pytest.mark.parametrize("name", SPREAD)
@pytest.mark.parametrize("planted", [(), (1e12,), (-1e12,), (1e12, 3e12, -2e13)])
def test_outliers_are_those_that_were_planted(name: str, planted: tuple[float, ...]) -> None:
    numbers = np.array([*SPREAD[name], *planted])
    mostly_one = name in ("flags", "constant")  # says nothing of how far others reach
    expected = [False] * 600 + [not mostly_one] * len(planted)
    assert beyond(numbers).tolist() == expected


def test_a_code_for_no_value_is_an_outlier_as_long_as_it_is_rare() -> None:
    ages = np.arange(20, 80, dtype=float).repeat(10)
    assert beyond(np.array([*ages, *[-99999.0] * 20])).sum() == 20
    assert beyond(np.array([*ages, *[-99999.0] * 200])).sum() == 0


@pytest.mark.parametrize("outlier", [1e9, -5e7])
def test_an_outlier_is_refused_cut_off_or_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, outlier: float
) -> None:
    caplog.set_level(logging.INFO)
    table = people().assign(age=people()["age"].astype(float))
    low, high = table["age"].drop(17).min(), table["age"].drop(17).max()
    table.loc[17, "age"] = outlier
    said = rf"column age has the value {outlier:.12g} in row 18 below the header: 1 of 60 .*data\.outliers=clip"
    with pytest.raises(InputError, match=said):
        loaded(tmp_path, table, columns=["age"])
    cut = loaded(tmp_path, table, columns=["age"], outliers=Outliers.clip)
    same = loaded(tmp_path, table.assign(age=table["age"].clip(low, high)), columns=["age"])
    assert cut.train.digests == same.train.digests
    assert f"column age: values beyond {low:g} to {high:g} are cut off there, in 1 rows" in caplog.text
    kept = loaded(tmp_path, table, columns=["age"], outliers=Outliers.keep)
    rows = kept.train.images.take(torch.arange(len(kept.train))).flatten()
    whole = table["age"].iloc[kept.train.ids.numpy()].to_numpy()
    np.testing.assert_allclose(rows, (whole - whole.min()) / np.ptp(whole), atol=1e-6)


def test_a_column_that_is_skewed_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    above = np.arange(0.5, 600) / 600  # the share of rows that are larger, of a Pareto distribution
    loaded(tmp_path, people(600).assign(age=above**-0.5))
    assert "column age" not in caplog.text
    loaded(tmp_path, people(600).assign(age=above**-2))
    assert "column age: 98 % of the rows share 0.59 % of its range; a logarithm spreads them" in caplog.text
