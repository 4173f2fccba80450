"""What went wrong, for people: one line where they can mend it, a traceback where the project has to be."""

from __future__ import annotations

import re
import traceback
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import get_type_hints

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    InterpolationKeyError,
    InterpolationResolutionError,
    OmegaConfBaseException,
)

from defense.config.dotted import OF_A_PATH
from defense.config.schema import Config
from defense.errors import USER_ERRORS, nearest_first

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
    if text := unknown_choice(error) or unknown_setting(error, cause) or unknown_value(error, cause):
        return text
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
    said = dict.fromkeys(line.strip() for line in lines if line.strip())  # each once, in order
    return " ".join(line for line in said if not line.startswith(tuple(noise)))


def unknown_choice(error: BaseException) -> str:
    """Return the line for a choice that a group does not have, as model=unknown; nothing for another error."""
    if not isinstance(error, MissingConfigException) or not error.options:
        return ""
    group, _, choice = str(error.missing_cfg_file).rpartition("/")
    if group.startswith("hydra/"):
        return ""
    return f"{group}={choice}: expected one of {', '.join(nearest_first(choice, error.options))}"


def unknown_setting(error: BaseException, cause: OmegaConfBaseException | None) -> str:
    """Return the line for a setting that no part has, as data.pth=x; nothing for another error."""
    parent = cause.parent_node if isinstance(cause, ConfigKeyError | ConfigAttributeError) else None
    name = re.match(r"Could not override '(.+?)'", str(error))
    if name is None or not isinstance(parent, DictConfig) or not is_dataclass(OmegaConf.get_type(parent)):
        return ""
    last = name[1].rpartition(".")[2]
    known = sorted((str(key) for key in parent), key=OF_A_PATH.__contains__)
    elsewhere = [] if "." in name[1] else settings_called(last)
    valid = elsewhere or nearest_first(last, known)
    return f"{name[1]}: no such setting; expected {'' if len(valid) == 1 else 'one of '}{', '.join(valid)}"


def settings_called(name: str) -> list[str]:
    """Return the dotted names of the settings of parts that have a last name, as data.harm for harm."""
    kinds = {part: kind for part, kind in get_type_hints(Config).items() if is_dataclass(kind)}
    return [f"{part}.{name}" for part, kind in kinds.items() if name in {field.name for field in fields(kind)}]


def unknown_value(error: BaseException, cause: OmegaConfBaseException | None) -> str:
    """Return the line for a value that a closed choice lacks, as task=defned; nothing for another error."""
    override = re.match(r"Error merging override (?P<name>[^=]+)=", str(error))
    value = re.match(r"Invalid value '(?P<value>.*)', expected one of \[(?P<names>.*)\]", str(cause or ""))
    if override is None or value is None:
        return ""
    names = nearest_first(value["value"], value["names"].split(", "))
    return f"{override['name'].lstrip('+~')}={value['value']}: expected one of {', '.join(names)}"


def place_of(error: BaseException) -> list[str]:
    """Return the line of Hydra that raised an exception whose words alone say little: a key that is missing."""
    if not isinstance(error, LookupError | AssertionError | AttributeError) or not of_hydra(error):
        return []
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "hydra" in frame.filename]
    return [f"(Hydra, {frames[-1].name}: {frames[-1].line})"] if frames else []
