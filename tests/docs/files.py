"""The files that the commands of README and docs read, small and made of scikit-learn's data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from sklearn.datasets import load_breast_cancer, load_digits

TRAIN, COUNT = 300, 400  # samples of each file
CLASSES = ["zero", "one", "two", "three"]


def write_files(folder: Path) -> None:
    """Write my.npz, no_test.npz, pictures/, labels.csv, list.tsv, my.csv, my.tsv, my.parquet and my_test.csv."""
    write_pictures(folder)
    write_tables(folder)


def write_pictures(folder: Path) -> None:
    """Write digits of four classes as arrays, as files in folders, and as tables that list these."""
    digits = load_digits()
    kept = digits.target < len(CLASSES)
    pictures = (digits.images[kept][:COUNT] * 15.9).astype(np.uint8)
    labels = digits.target[kept][:COUNT]
    names = np.array([f"scan-{number:03d}" for number in range(COUNT)])
    noisy = np.where(np.arange(TRAIN) % 10 > 0, labels[:TRAIN], (labels[:TRAIN] + 1) % len(CLASSES))
    own = {"train_x": pictures[:TRAIN], "train_y": labels[:TRAIN], "train_y_noisy": noisy}
    groups = {"train_groups": np.arange(TRAIN) % 2, "test_groups": np.arange(COUNT - TRAIN) % 2}
    called = {"train_names": names[:TRAIN], "test_names": names[TRAIN:], "class_names": CLASSES}
    np.savez(folder / "my.npz", **own, test_x=pictures[TRAIN:], test_y=labels[TRAIN:], **called, **groups)
    np.savez(folder / "no_test.npz", **own)
    files = []
    for picture, label, name in zip(pictures, labels, names, strict=True):
        file = Path("pictures", "train", CLASSES[label], f"{name}.png")
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).resize((20, 24)).save(folder / file)
        files.append(file.as_posix())
    parts = np.where(np.arange(COUNT) < TRAIN, "train", "test")
    listed = pd.DataFrame({"file": files, "label": labels, "scan": names, "split": parts})
    listed.to_csv(folder / "labels.csv", index=False)
    listed.drop(columns="split").to_csv(folder / "list.tsv", index=False, sep="\t")


def write_tables(folder: Path) -> None:
    """Write a table of five numbers, an id and a class in each kind of file."""
    whole = load_breast_cancer(as_frame=True).frame
    rows = whole.iloc[:COUNT, [0, 1, 2, 3, 4, -1]].rename(columns={"target": "label"})
    rows["label"] = rows["label"].map({0: "malignant", 1: "benign"})
    rows["customer_id"] = [f"C-{number:03d}" for number in range(COUNT)]
    rows.to_csv(folder / "my.csv", index=False)
    rows.to_csv(folder / "my.tsv", index=False, sep="\t")
    rows.to_parquet(folder / "my.parquet", index=False)
    rows.tail(60).to_csv(folder / "my_test.csv", index=False)


def names_of_a_reader() -> dict[str, object]:
    """Return what a reader of a page of Python has already: a network, samples in pairs, their Dataset."""
    torch.manual_seed(0)
    x = torch.rand(120, 1, 4, 4)
    y = (x[:, 0, :2].mean((1, 2)) > x[:, 0, 2:].mean((1, 2))).long()
    train, validation, test = ((x[rows], y[rows]) for rows in torch.arange(120).split([60, 20, 40]))
    layers = (torch.nn.Flatten(), torch.nn.Linear(16, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    return {
        "model": torch.nn.Sequential(*layers),
        "train": train,
        "validation": validation,
        "test": test,
        "x": train[0],
        "y": train[1],
        "x_val": validation[0],
        "y_val": validation[1],
        "dataset": torch.utils.data.TensorDataset(*train),
        "rows": torch.arange(60),
        "file_names": [f"photo_{row}.png" for row in range(60)],
    }
