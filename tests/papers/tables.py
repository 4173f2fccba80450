"""Tables with groups, as the files of data=adult and data=compas are, made of numbers that are drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

SMALL = ["data.train_size=100", "data.validation_size=60", "data.test_size=80", "train.epochs=3"]


def write_adult(folder: Path, rows: int = 260) -> Path:
    """Write adult/train.csv and adult/test.csv of drawn people into `folder`."""
    (folder / "adult").mkdir(parents=True)
    for seed, part in enumerate(("train", "test")):
        rng = np.random.default_rng(seed)
        male, years, hours = rng.random(rows) < 0.6, rng.integers(4, 17, rows), rng.integers(10, 70, rows)
        chance = 1 / (1 + np.exp(-(0.5 * (years - 11) + 0.05 * (hours - 40) + 1.5 * (male - 0.5))))
        table = pd.DataFrame(
            {
                "age": rng.integers(18, 80, rows),
                "workclass": rng.choice(["Private", "State-gov", "?"], rows),
                "education-num": years,
                "marital-status": rng.choice(["Married", "Single"], rows),
                "occupation": rng.choice(["Sales", "Craft", "Farming"], rows),
                "relationship": np.where(male, "Husband", "Wife"),
                "race": rng.choice(["A", "B"], rows),
                "sex": np.where(male, "Male", "Female"),
                "capital-gain": rng.integers(0, 2, rows) * 3000,
                "capital-loss": 0,
                "hours-per-week": hours,
                "native-country": rng.choice(["X", "Y"], rows),
                "income": np.where(rng.random(rows) < chance, ">50K", "<=50K"),
            }
        )
        table.to_csv(folder / "adult" / f"{part}.csv", index=False)
    return folder
