"""What the site takes from outside docs/: reports of runs, settings, examples, CONTRIBUTING and CHANGELOG.

Links of the pages hold in the repository: they leave docs/ as ../runs/reports/..., and CONTRIBUTING names docs/...
In the site these files are beside the pages, and a link loses its first step.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
REPORTS = "runs/reports/"
TAKEN = ["CONTRIBUTING.md", "CHANGELOG.md", "conf/**/*.yaml", "examples/*.py", f"{REPORTS}**/*.*"]
STEP = re.compile(  # of a link from docs/ to a file outside it, and of one from outside into docs/
    rf"(?<=\]\()(\.\./(?={REPORTS}|conf/|examples/|CONTRIBUTING\.md|CHANGELOG\.md)|docs/)"
)
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)#:\s]+)\)")  # neither a picture nor an address


def on_files(files: Files, config: Any) -> Files:
    """Add the files from outside docs/ under the paths that they have in the repository."""
    for pattern in TAKEN:
        for file in sorted(ROOT.glob(pattern)):
            name = file.relative_to(ROOT).as_posix()
            files.append(File.generated(config, name, abs_src_path=str(file)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Return a page with links that hold in the site; the tables of reports are left out of the search."""
    source = page.file.src_uri
    if not source.startswith(REPORTS):
        return STEP.sub("", markdown)
    page.meta["search"] = {"exclude": True}

    def linked(link: re.Match[str]) -> str:
        """Return a link if its file is in the site; if not, as a run that is not published, its text."""
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), link[2]))
        return link[0] if files.get_file_from_path(target) else link[1]

    return LINK.sub(linked, markdown)
