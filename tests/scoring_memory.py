"""Score pictures in a folder, in a process of its own:  python -m tests.scoring_memory FOLDER COUNT

FOLDER has some pictures; COUNT samples are names of them, each a file of its own to what reads them. Prints the
largest resident size in bytes, and the seconds that scoring took. 1000 classes, as ImageNet has: all logits
of 1.28 million samples would be 5 GB.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from pathlib import Path

import torch

from defense.artifacts import ROWS, save
from defense.config.choices import ObjectiveName
from defense.config.schema import Objective
from defense.data.images import FolderImages
from defense.data.splits import Split
from defense.data.validation import Validation
from defense.models.networks import cnn
from defense.runtime.progress import no_progress
from tests.calls import score
from tests.conftest import scorer

CLASSES, SIDE = 1000, 16


def measured(folder: Path, count: int) -> tuple[int, float]:
    """Return the largest resident size of this process in bytes, and the seconds of scoring."""
    names = sorted(folder.iterdir())
    paths = [Path(f"{names[row % len(names)]}") for row in range(count)]
    labels = torch.arange(count) % CLASSES
    split = Split(torch.arange(count), FolderImages(paths, SIDE), labels, labels)
    held_out = split.subset(torch.arange(64))
    torch.manual_seed(0)
    model = cnn(input_shape=(3, SIDE, SIDE), classes=CLASSES, mean=[0.5] * 3, std=[0.2] * 3, width=4)
    objective = Objective({ObjectiveName.utility: 1.0}, positive=1)
    begin = time.perf_counter()
    found = score(model, split, Validation(held_out, held_out), objective, scorer(), seed=0, progress=no_progress)
    seconds = time.perf_counter() - begin
    with tempfile.TemporaryDirectory() as stored:
        save(found, Path(stored))
        assert len(list(Path(stored).glob("table*"))) == -(-count // ROWS)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, seconds


if __name__ == "__main__":
    print(*measured(Path(sys.argv[1]), int(sys.argv[2])))
