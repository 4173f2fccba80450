"""Draw the pictures of README and docs again: `python -m tests.docs.pictures` runs `defense`, and opens its pages.

Needs chromium and playwright, and about two minutes on two cores.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image
from playwright.sync_api import Page, sync_playwright

PICTURES = Path(__file__).resolve().parents[2] / "docs" / "pictures"
SWEEP = ["-m", "seed=range(5)", "scorer=ip,loss", "treatment.budget=0.1,0.2"]
COLOURS = 256  # of a palette, which keeps a picture below 200 KB
SPACE = 14  # pixels around a picture
NUMBERS = """
  main { counter-reset: part }
  main > header, main > section { position: relative; counter-increment: part }
  main > header::before, main > section::before {
    content: counter(part); position: absolute; right: 12px; top: 12px; width: 36px; line-height: 36px;
    border-radius: 50%; background: #b3261e; color: white; text-align: center; font: bold 20px/36px sans-serif }
"""
PARTS = {  # of each page: the first and the last numbered part of a picture
    "run": {"run-answer": (1, 3), "run-scores": (4, 6), "run-samples": (7, 8), "run-work": (9, 11)},
    "sweep": {"sweep-answer": (1, 2), "sweep-charts": (3, 4), "sweep-tables": (5, 7)},
}
TALLEST = 1500  # pixels: what is below is cut off


def main() -> None:
    """Run the default command and a sweep, and draw their pages."""
    with TemporaryDirectory() as folder, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name, words in (("run", []), ("sweep", SWEEP)):
            kind = "sweep" if words else "run"
            output = f"hydra.{kind}.dir={name}"
            subprocess.run([sys.executable, "-m", "defense", *words, output], cwd=folder, check=True)
            page = browser.new_page(viewport={"width": 1280, "height": 720})
            page.goto((Path(folder) / name / "report.html").as_uri())
            if name == "run":
                keep(page.screenshot(), "page")
            page.set_viewport_size({"width": 1060, "height": 720})
            page.add_style_tag(content=NUMBERS)
            for picture, (first, last) in PARTS[name].items():
                keep(parts(page, first, last), picture)


def parts(page: Page, first: int, last: int) -> bytes:
    """Return a picture of some parts of a page, which are counted from 1."""
    boxes = page.locator("main > header, main > section").all()[first - 1 : last]
    top, bottom = boxes[0].bounding_box(), boxes[-1].bounding_box()
    assert top is not None
    assert bottom is not None
    height = min(bottom["y"] + bottom["height"] - top["y"] + 2 * SPACE, TALLEST)
    clip = {"x": 0, "y": top["y"] - SPACE, "width": 1060, "height": height}
    return page.screenshot(full_page=True, clip=clip)


def keep(picture: bytes, name: str) -> None:
    """Write a picture with few colours, which takes a third of the bytes."""
    with Image.open(BytesIO(picture)) as image:
        few = image.convert("RGB").quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        few.save(PICTURES / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
