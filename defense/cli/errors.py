"""What went wrong, for people: one line where they can mend it, a traceback where the project has to be."""

from __future__ import annotations

import traceback
from dataclasses import is_dataclass
from pathlib import Path

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    InterpolationKeyError,
    InterpolationResolutionError,
    OmegaConfBaseException,
)

from defense.errors import USER_ERRORS

IN_ONE_LINE = (*USER_ERRORS, HydraException, OmegaConfBaseException)
REFUSED = (ValueError, TypeError, LookupError, AttributeError, AssertionError, ImportError, OSError)
PACKAGE = Path(__file__).resolve().parents[1]


def of_hydra(error: BaseException) -> bool:
    """Return whether Hydra, or a launcher, refuses the command by an exception of Python, not raised by our code.

    A launcher that has lost a process raises another kind.
    """
    frames = [Path(frame.filename) for frame in traceback.extract_tb(error.__traceback__)]
    ours = {frame.name for frame in frames if PACKAGE in frame.parents}
    return isinstance(error, REFUSED) and ours <= {"__main__.py"}


def one_line(error: BaseException) -> str:
    """Return what is wrong and what would be valid, without Hydra's advice on how to debug Hydra."""
    if not isinstance(error, IN_ONE_LINE):
        words = [f"{type(error).__name__}: {error}", *([str(error.__cause__)] if error.__cause__ else [])]
        return " ".join(" ".join([*words, *place_of(error)]).split())
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else None
    lines = [*str(error).splitlines(), *str(cause or "").splitlines()]
    noise = ["Config search path", "provider=", "reference_type", "object_type", "full_key", "See https"]
    if isinstance(error, OverrideParseException):
        lines[0] = f"{error.override}: {lines[0]}"
    if isinstance(error, InterpolationResolutionError) and error.full_key:
        lines[0] = f"{error.full_key}: {lines[0]}"
    if isinstance(error, MissingConfigException) and str(error.missing_cfg_file).startswith("hydra/launcher/"):
        lines.append('(joblib, ray and submitit come with pip install -e ".[sweep]")')
    if isinstance(error, InterpolationKeyError):
        lines.append("(in text, ${ is typed \\${ within double quotes)")
    parent = cause.parent_node if isinstance(cause, ConfigKeyError | ConfigAttributeError) else None
    if isinstance(parent, DictConfig) and is_dataclass(OmegaConf.get_type(parent)):
        lines.append(f"expected one of {', '.join(map(str, parent))}")
        noise.append("To append to your config")  # a field that is not in the schema cannot be appended
    said = dict.fromkeys(line.strip() for line in lines if line.strip())  # each once, in order
    return " ".join(line for line in said if not line.startswith(tuple(noise)))


def place_of(error: BaseException) -> list[str]:
    """Return the line of Hydra that raised an exception whose words alone say little: a key that is missing."""
    if not isinstance(error, LookupError | AssertionError | AttributeError) or not of_hydra(error):
        return []
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "hydra" in frame.filename]
    return [f"(Hydra, {frames[-1].name}: {frames[-1].line})"] if frames else []
