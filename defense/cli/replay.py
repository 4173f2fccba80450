"""Run again what was run: the config that Hydra wrote beside a run, as the settings that make it.

The overrides that a run was started with are given once more; a value that they do not make, of another version or
changed by hand, becomes a setting of its own. A config with defaults is a primary config that a person wrote.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from defense.cli.errors import one_line
from defense.cli.quoting import written
from defense.config.compose import CONF, OTHER, refuse_other
from defense.errors import InputError

PRIMARY = "config"  # the name of the primary config, here and in what Hydra writes
OVERRIDES = "overrides.yaml"  # what Hydra writes beside it
SUBDIR = ".hydra"  # where, in the folder of a run
FIELD = "--config-path"


class Groups(SearchPathPlugin):
    """Let a primary config elsewhere find the groups of conf/."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Put conf/ behind the folder of the primary config."""
        search_path.append("defense", str(CONF))


def repeated(folder: Path, name: str, given: Sequence[str], beside: str | None) -> list[str] | None:
    """Return the overrides of the run whose settings are in folder/name.yaml, then `given`.

    beside: a folder with more groups. None if the file has defaults: Hydra composes it. Raises InputError if it is
    not the config of a run of this version.
    """
    file = folder / f"{name}.yaml"
    if not file.is_file():
        inside = (folder / SUBDIR / f"{name}.yaml").is_file()
        expected = f"{folder / SUBDIR}" if inside else "the folder of a config, as in RUN/.hydra"
        raise InputError(FIELD, folder, f"no {name}.yaml in it; expected {expected}")
    found = loaded(file)
    if not isinstance(found, dict) or ("hydra" in found and "defaults" not in found):
        raise InputError(FIELD, file, "expected the settings of a run, as Hydra writes RUN/.hydra/config.yaml")
    if "defaults" in found:
        return None
    recorded = folder / OVERRIDES
    words = loaded(recorded) if recorded.exists() else []
    if not isinstance(words, list):
        raise InputError(FIELD, recorded, "expected a list of overrides, as Hydra writes it")
    words = [str(word) for word in words if not str(word).startswith("launcher=")]
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            made = compose(PRIMARY, [*words, *searching(beside)])
    except (HydraException, OmegaConfBaseException) as error:
        raise InputError(FIELD, recorded, f"not of this version of defense ({one_line(error)})") from error
    changes = list(differences(found, made, str(file)))
    keys = {key_of(word) for word in given}
    kept = [word for word in [*words, *changes] if key_of(word) not in keys]
    groups = tuple(f"{key}." for key in keys)
    return [*(word for word in kept if word in words or not word.lstrip("+~").startswith(groups)), *given]


def searching(beside: str | None) -> list[str]:
    """Return the override that makes Hydra look for groups in a folder, too."""
    return [] if beside is None else [f"hydra.searchpath={written([f'file://{Path(beside).absolute()}'])}"]


def loaded(file: Path) -> Any:
    """Return the content of a YAML file, interpolations as written; raises InputError if it is none."""
    try:
        return OmegaConf.to_container(OmegaConf.load(file))
    except (OSError, ValueError, YAMLError, OmegaConfBaseException) as error:
        raise InputError(FIELD, file, f"not readable as YAML ({error})") from error


def key_of(word: str) -> str:
    """Return what an override sets, without how; a deletion is apart from what it deletes."""
    return word.partition("=")[0].lstrip("+")


def differences(found: dict[str, Any], made: DictConfig, file: str, prefix: str = "") -> Iterator[str]:
    """Yield the overrides that turn the settings `made` into those `found` in a file.

    Raises InputError if a setting is missing, or is not known: keys are free in some mappings alone.
    """
    known = OmegaConf.to_container(made, resolve=False, enum_to_str=True)
    assert isinstance(known, dict)
    free = OmegaConf.get_type(made) is dict
    for key in [*known, *(key for key in found if key not in known)]:
        path = f"{prefix}{key}"
        if key not in found and not free:
            expected = "expected all settings of this version of defense, or defaults that begin with config"
            raise InputError(FIELD, file, f"has no {path}; {expected}")
        if key not in known and not free:
            raise InputError(FIELD, file, f"{path} is no setting of this version of defense")
        if key not in found:
            yield f"~{path}"
        elif key not in known:
            yield f"+{path}={written(found[key])}"
        elif isinstance(found[key], dict) and isinstance(known[key], dict):
            yield from differences(found[key], made[key], file, f"{path}.")
        elif found[key] != known[key]:
            yield f"{path}={written(found[key])}"


def check_primary(name: str, *, path: str | None, beside: str | None, asked: bool) -> None:
    """Raise InputError unless the primary config `name` is that of a run, composed on top of conf/config.yaml.

    path: the folder that it is in, conf/ if None. beside: a folder that is looked into after conf/. asked: whether
    the command names the config.
    """
    if beside is not None and not Path(beside).is_dir():
        raise InputError("--config-dir", beside, "no such folder")
    if beside is not None and path is None and (Path(beside) / f"{name}.yaml").is_file():
        of_run = (Path(beside) / OVERRIDES).exists()
        if of_run or (asked and (CONF / f"{name}.yaml").exists()):
            said = f"its {name}.yaml is not read: that of defense comes first; expected --config-path {beside}"
            raise InputError("--config-dir", beside, said)
    Plugins.instance().register(Groups)
    if path is not None and not Path(path).is_absolute():
        return  # inside a package: looked at when it is composed
    main = path or (str(Path(beside).absolute()) if beside is not None else str(CONF))
    with initialize_config_dir(main, version_base="1.3"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the run itself warns
        composed = compose(name, searching(beside), return_hydra_config=True)
    if OmegaConf.select(composed, "hydra.callbacks.report") is None:
        raise InputError("--config-name", name, OTHER)
    refuse_other(composed, name)
