"""Draw the pages of a run; the same numbers, drawn by the same code, are the same pages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import pandas as pd

from defense.artifacts import Pages
from defense.config.choices import reads
from defense.runtime.runtime import Runtime
from defense.store.stage import stage


@stage(version=1)
def pages(runtime: Runtime, content: str, code: str, draw: Annotated[Callable[[Path], str], reads()]) -> Pages:
    """Return the files that `draw` writes into a folder, and the answer that it returns.

    content: a hash of the displayed data. code: a hash of the drawing code.
    """
    with TemporaryDirectory(prefix="defense-") as name:
        folder = Path(name)
        answer = draw(folder)
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        paths = [file.relative_to(folder).as_posix() for file in files]
        table = pd.DataFrame({"path": paths, "content": [file.read_bytes() for file in files]})
    return Pages(table, pd.DataFrame({"answer": [answer]}))


def write_files(found: Pages, output: Path) -> None:
    """Write the files of pages into `output`."""
    for row in found.files.itertuples():
        file = output / row.path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(row.content)
