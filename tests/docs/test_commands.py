"""Every command and every block of Python of README and docs: composed or parsed, and run at small sizes.

`<!-- not run: reason -->` above a block or a table leaves it out of the real run. RUN and SWEEP are the folders of
a finished run and of a finished sweep.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
import yaml
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import open_dict
from omegaconf._utils import get_yaml_loader

from defense.cli import report
from defense.cli.arguments import arguments
from defense.cli.composition import CellComposer
from defense.config.compose import CONF, checked, register
from tests.conftest import LAUNCHERS, run_here
from tests.docs.files import CLASSES, names_of_a_reader, write_files
from tests.docs.parsing import BLOCKS, COMMANDS, PAGES, Command

INFORMING = {"--help", "--version"}
SMALL = {
    "data.train_size": "200",
    "data.validation_size": "40",
    "data.test_size": "40",
    "train.epochs": "10",
    "evaluation.checked": "0",
    "faithfulness.count": "4",
    "speed.works": "[[32,16]]",
    "speed.rounds": "1",
    "treatment.rounds": "2",
}
SEEDS, SIDE = "seed=0,1", "data.image_size=16"  # of commands that have more seeds, or larger pictures
ELSEWHERE = re.compile(  # words of commands that need a network, a cluster, or files that are not here
    r"data=(mnist|fashion_mnist|cifar10|cifar100)$|launcher=(ray|submitit_\w+)$|.+=(FOLDER|FILE|NAME)|.+=/shared/"
)


def marked(command: Command) -> Any:
    """Return a command as a case, which needs the package of its launcher."""
    launchers = [LAUNCHERS[name] for name in LAUNCHERS if f"launcher={name}" in command.words]
    return pytest.param(command, id=str(command), marks=[pytest.mark.extra(name) for name in launchers])


OF_RUNS = [each for each in COMMANDS if each.words[0] == "defense"]
OF_REPORTS = [each for each in COMMANDS if each.words[0] == "defense-report"]
TO_RUN = [each for each in COMMANDS if not (each.block.reason or any(map(ELSEWHERE.match, each.words)))]
PYTHON = {
    page: [block for block in BLOCKS if block.page == page and block.language == "python"]
    for page in dict.fromkeys(block.page for block in BLOCKS if block.language == "python")
}


def test_commands_are_found() -> None:
    """In all pages that have a shell, and most of them are run for real."""
    assert len(PAGES) >= 20
    assert len(OF_RUNS) >= 150
    assert len(OF_REPORTS) >= 10
    assert len(TO_RUN) >= 100
    shells = {block.page for block in BLOCKS if block.language == "sh" and "defense " in "\n".join(block.lines)}
    assert shells <= {each.block.page for each in COMMANDS}


LOAD = yaml.load


@cache
def loaded(text: str) -> Any:
    """Return a text of YAML as OmegaConf reads it, once."""
    return LOAD(text, Loader=get_yaml_loader())


@pytest.fixture(scope="module")
def composer() -> CellComposer:
    """What composes a command; groups that several commands choose are composed once."""
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        loader: Any = hydra.config_loader
        return CellComposer(loader, loader.load_configuration("config", [SEEDS], RunMode.MULTIRUN))


@pytest.mark.parametrize("command", [marked(each) for each in OF_RUNS])
def test_a_command_composes(command: Command, composer: CellComposer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yaml, "load", lambda file, Loader: loaded(file if isinstance(file, str) else file.read()))
    words = list(command.words[1:])
    if INFORMING & set(words) or "--config-path" in words:  # the first end there, the second needs a run
        return
    settings = [word for word in arguments(words) if not word.startswith("--")]
    for cell in cells_of(OverridesParser.create(composer.loader).parse_overrides(settings)):
        found = composer.compose(cell, 0)
        with open_dict(found):
            del found["hydra"]
        checked(found)


def cells_of(parsed: Sequence[Override]) -> Iterator[list[str]]:
    """Return as few cells of a sweep as have every value of every setting."""
    values = []
    for each in parsed:
        several = each.is_sweep_override() and not each.is_hydra_override()
        name = each.get_key_element()
        found = [f"{name}={value}" for value in each.sweep_string_iterator()] if several else [each.input_line]
        values.append([word for word in found if word])
    for number in range(max(map(len, values), default=1)):
        yield [several[number % len(several)] for several in values]


class Parsed(Exception):
    """The words of a command were valid."""


@pytest.mark.parametrize("command", OF_REPORTS, ids=str)
def test_a_report_command_is_parsed(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    parse = argparse.ArgumentParser.parse_args

    def parse_alone(parser: argparse.ArgumentParser, words: Any = None, namespace: Any = None) -> NoReturn:
        parse(parser, words, namespace)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_alone)
    with pytest.raises(Parsed):
        report.main(list(command.words[1:]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the files of a reader, which the commands of all pages are run in."""
    found = tmp_path_factory.mktemp("reader")
    write_files(found)
    for block in BLOCKS:
        if block.language == "python" and block.file:
            with (found / block.file).open("a", encoding="utf-8") as file:
                file.write("\n".join([*block.lines, "", ""]))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(found)
        patch.syspath_prepend(str(found))
        network = import_module("my_net").Net(classes=len(CLASSES), input_shape=(1, 8, 8))
        torch.save(network.state_dict(), "mine.pt")
        yield found


@pytest.fixture(scope="module")
def finished(folder: Path) -> None:
    """A run in RUN, and a sweep in SWEEP."""
    assert run_here(*small(["hydra.run.dir=RUN"])) == 0
    assert run_here("-m", *small([SEEDS, "hydra.sweep.dir=SWEEP"])) == 0


def small(words: Sequence[str]) -> list[str]:
    """Return the words of a command with small sizes and two seeds at most."""
    kept = [word for word in words if word.partition("=")[0] not in SMALL]
    smaller = {"seed=range": SEEDS, "data.image_size=": SIDE}
    found = [next((new for old, new in smaller.items() if word.startswith(old)), word) for word in kept]
    return [*found, *("=".join(pair) for pair in SMALL.items())]


@pytest.mark.slow
@pytest.mark.parametrize("command", [marked(each) for each in TO_RUN])
@pytest.mark.usefixtures("finished")
def test_a_command_runs(command: Command, capfd: pytest.CaptureFixture[str]) -> None:
    program, *words = command.words
    if program == "defense":
        code = run_here(*(words if INFORMING & set(words) else small(words)))
    else:
        code = exit_code_of_report(words)
    assert code == 0, capfd.readouterr()


def exit_code_of_report(words: Sequence[str]) -> int:
    """Run `defense-report` in this process; return its exit code."""
    try:
        report.main(words)
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.mark.parametrize("page", PYTHON)
def test_python_of_a_page_runs(page: str, folder: Path, request: pytest.FixtureRequest) -> None:
    """In one namespace that begins with what a reader has, and block after block."""
    blocks = PYTHON[page]
    if any("RUN/" in line for block in blocks for line in block.lines):
        request.getfixturevalue("finished")
    namespace = {"__name__": "page", **names_of_a_reader()}
    for block in blocks:
        code = compile("\n" * block.line + "\n".join(block.lines), block.page, "exec")
        if not block.reason and not block.file:
            exec(code, namespace)
