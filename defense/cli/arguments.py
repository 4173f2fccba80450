"""Read the words of a command before Hydra does: flags anywhere, settings that it cannot parse, earlier runs."""

from __future__ import annotations

import shlex
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override
from hydra.errors import ConfigCompositionException, HydraException, OverrideParseException

from defense.cli.quoting import as_text, parsed, typed_for
from defense.cli.replay import PRIMARY, check_primary, repeated
from defense.config.compose import CONF, is_list, is_text, kind_of
from defense.errors import InputError

TEXTS = (str(str), str(str | None))  # types of settings that are text
PACKAGED = "pkg://"  # how Hydra is told of a folder inside a package


def arguments(words: Sequence[str]) -> list[str]:
    """Return the words of a command as Hydra is to get them: flags first, then settings that it can parse.

    Raises InputError or HydraException for the first word that is not valid.
    """
    given, settings = split(words)
    for word in settings:
        check_setting(word, sweep=given.multirun)
    if given.experimental_rerun is not None:
        expected = "nothing is unpickled here; expected --config-path RUN/.hydra, which runs it again"
        raise InputError("--experimental-rerun", given.experimental_rerun, expected)
    settings = with_primary(given, with_source([kept_text(word) for word in settings]))
    return [*flags(given), *settings]


def split(words: Sequence[str]) -> tuple[Namespace, list[str]]:
    """Return the flags of a command and its settings, whichever stood first."""
    parser = Parser(parents=[get_args_parser()], add_help=False, conflict_handler="resolve")
    parser.add_argument("--version", action="version", version=f"defense {version('defense')}")
    given, unknown = parser.parse_known_intermixed_args(list(words))
    for word in unknown:
        meant = word.lstrip("-")
        advice = f"settings have no dashes: {meant}" if "=" in word else "defense --hydra-help lists all"
        raise HydraException(f"{word}: no such flag; {advice}")
    return given, [with_launcher(word) for word in given.overrides]


class Parser(ArgumentParser):
    """A parser of flags whose complaints are exceptions, in place of its usage and the end."""

    def error(self, message: str) -> NoReturn:
        """Raise HydraException."""
        raise HydraException(message)


def flags(given: Namespace) -> list[str]:
    """Return flags as words again, each in its long form."""
    found = {name: value for name, value in vars(given).items() if name != "overrides"}
    names = {name: f"--{name.replace('_', '-')}" for name in found}
    return [
        names[name] if value is True else f"{names[name]}={value}"
        for name, value in found.items()
        if value is not None and value is not False
    ]


def with_launcher(word: str) -> str:
    """Return hydra/launcher=NAME, as it is elsewhere, as launcher=NAME where conf/launcher has that."""
    group, _, name = word.partition("=")
    ours = group == "hydra/launcher" and (CONF / "launcher" / f"{name}.yaml").exists()
    return f"launcher={name}" if ours else word


def with_source(settings: list[str]) -> list[str]:
    """Return settings with data=dataset before them if they name Datasets of the user and choose no data.

    The choice is a file of conf/, whose sizes and harm are not those of the usual data.
    """
    names = [word.partition("=")[0].lstrip("+") for word in settings]
    return ["data=dataset", *settings] if "data._target_" in names and "data" not in names else settings


def check_setting(word: str, *, sweep: bool) -> None:
    """Raise InputError if Hydra cannot parse a setting; its line says what to type if the value is text."""
    name, equals, value = word.partition("=")
    if not name or not (equals or word.startswith("~")):
        raise HydraException(f"{word}: expected NAME=VALUE without spaces, as in seed=1")
    try:
        (override,) = OverridesParser.create().parse_overrides([word])
    except OverrideParseException as error:
        reason = str(error).splitlines()[0]
        typed = typed_for(word, sweep=sweep) if is_text(name.lstrip("+~")) else None
        if reason.startswith(("Lexer", "Error parsing")):
            reason = "has signs that need quotes" if typed else "has signs that cannot stand there"
        advice = f"; if the value is text, type {typed}" if typed else ""
        raise InputError(name, value, f"{reason}{advice}") from error
    check_choice(name, value, override)


def kept_text(word: str) -> str:
    """Return a setting so that Hydra reads as text what is text: data.path=2024_01 is a folder and no number."""
    name, _, text = word.partition("=")
    override = parsed(word)
    if override is None or kind_of(name) not in TEXTS:
        return word
    value, texts = override.value(), [text]
    if isinstance(value, ChoiceSweep) and value.simple_form:
        texts = text.split(",")
    values = value.list if isinstance(value, ChoiceSweep) else [value]
    odd = any(isinstance(each, int | float) and str(each) != own for each, own in zip(values, texts, strict=False))
    return f"{name}={','.join(map(as_text, texts))}" if odd and len(values) == len(texts) else word


def check_choice(group: str, text: str, override: Override) -> None:
    """Raise InputError if a group of conf/ is to be a number or null, which no file in it is called."""
    value = override.value()
    values = value.list if isinstance(value, ChoiceSweep) else [value]
    if (CONF / group).is_dir() and any(each is None or isinstance(each, int | float) for each in values):
        files = sorted((CONF / group).rglob("*.yaml"))
        choices = ", ".join(file.relative_to(CONF / group).with_suffix("").as_posix() for file in files)
        raise InputError(group, text, f"expected one of {choices}; or leave it out")


def several(error: Exception, words: Sequence[str]) -> Exception:
    """Return an error; of a setting with several values in a single run, one that says what may be meant."""
    for word in words if "--multirun" not in words else ():
        override = parsed(word) if "=" in word and isinstance(error, ConfigCompositionException) else None
        if override is None or not override.is_sweep_override() or f"'{word}'" not in str(error):
            continue
        name, _, value = word.partition("=")
        meant = ["to run each, type -m first"]
        if isinstance(override.value(), ChoiceSweep) and is_text(name):
            meant.append(f"for text with a comma {shlex.quote(f'{name}={as_text(value)}')}")
        if isinstance(override.value(), ChoiceSweep) and is_list(name):
            meant.append(f"for a list {shlex.quote(f'{name}=[{value}]')}")
        return InputError(name, value, f"several values in a single run; {'; '.join(meant)}")
    return error


def with_primary(given: Namespace, settings: list[str]) -> list[str]:
    """Return the settings of a command that names a primary config of its own, and make its flags Hydra's.

    A config that an earlier run has written becomes the settings that make that run again. Relative paths are
    those of the folder that the command was given in. Raises InputError if there is no such config of a run.
    """
    name = (given.config_name or PRIMARY).removesuffix(".yaml")
    if given.config_path is not None and not given.config_path.startswith(PACKAGED):
        folder = Path(given.config_path).absolute()
        if given.config_name is None and folder.suffix == ".yaml" and folder.is_file():
            folder, name = folder.parent, folder.stem
        again = repeated(folder, name, settings, given.config_dir)
        if again is not None:
            given.config_path = given.config_name = None
            return again if given.multirun else [*again, "hydra.mode=RUN"]
        given.config_path, given.config_name = str(folder), name
    if given.config_path or given.config_name or given.config_dir:
        check_primary(name, path=given.config_path, beside=given.config_dir, asked=given.config_name is not None)
    return settings
