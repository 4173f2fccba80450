"""What went wrong, for people: one line where they can mend it, a traceback where the project has to be."""

from __future__ import annotations

from dataclasses import is_dataclass

from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from defense.errors import InputError

MENDABLE = (
    InputError,
    FloatingPointError,  # numbers of a model or a sample: nothing to debug in this project, so no traceback
    HydraException,
    OmegaConfBaseException,
    NotADirectoryError,
    PermissionError,
    FileExistsError,
)


def one_line(error: BaseException) -> str:
    """Return what is wrong and what would be valid, without Hydra's advice on how to debug Hydra."""
    if not isinstance(error, MENDABLE):
        return f"{type(error).__name__}: {' '.join(str(error).split())}"
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else None
    lines = [*str(error).splitlines(), *str(cause or "").splitlines()]
    noise = ["Config search path", "provider=", "reference_type", "object_type", "full_key", "See https"]
    if isinstance(error, OverrideParseException):
        lines[0] = f"{error.override}: {lines[0]}"
    parent = cause.parent_node if isinstance(cause, ConfigKeyError | ConfigAttributeError) else None
    if isinstance(parent, DictConfig) and is_dataclass(OmegaConf.get_type(parent)):
        lines.append(f"expected one of {', '.join(map(str, parent))}")
        noise.append("To append to your config")  # a field that is not in the schema cannot be appended
    said = dict.fromkeys(line.strip() for line in lines if line.strip())  # each once, in order
    return " ".join(line for line in said if not line.startswith(tuple(noise)))
