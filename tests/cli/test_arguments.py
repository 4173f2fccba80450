"""The words of a command: flags anywhere, values that Hydra cannot read, and runs that are run again."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf

from defense.cli.arguments import arguments
from defense.cli.quoting import typed_for
from defense.cli.report import main as report
from defense.config.compose import CONF, is_text, register
from defense.errors import InputError

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def schema() -> None:
    register()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("scorer=ip,random -m seed=0,1,2", "--multirun scorer=ip,random seed=0,1,2"),
        ("-m seed=0 --cfg job scorer=ip", "--cfg=job --multirun seed=0 scorer=ip"),
        ("seed=1 -c job scorer=loss -p train", "--cfg=job --package=train seed=1 scorer=loss"),
        ("seed=1 --info=searchpath ~track name=a", "--info=searchpath seed=1 ~track name=a"),
        ("train.epochs=2 --help", "--help train.epochs=2"),
        ("-m hydra/launcher=joblib seed=0", "--multirun launcher=joblib seed=0"),
        ("hydra/launcher=basic seed=0", "hydra/launcher=basic seed=0"),
        ("model={_target_:my.Net} data=npz,digits -m", "--multirun model={_target_:my.Net} data=npz,digits"),
        ("seed=1 data._target_=my.sets", "data=dataset seed=1 data._target_=my.sets"),
        ("data=npz data._target_=my.sets", "data=npz data._target_=my.sets"),
        ("scorer=glob(ip*) -m", "--multirun scorer=glob(ip*)"),
        ("", ""),
    ],
)
def test_flags_may_stand_anywhere(words: str, expected: str) -> None:
    found = arguments(words.split())
    overrides = [word for word in expected.split() if not word.startswith("--")]
    assert found[len(found) - len(overrides) :] == overrides  # in the order that they were given in
    assert sorted(found) == sorted(expected.split())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("seed=1 --nosuch", "--nosuch: no such flag"),
        ("--seed=3", "--seed=3: no such flag; settings have no dashes: seed=3"),
        ("seed=1 --cfg", "argument --cfg/-c: expected one argument"),
        ("--cfg jobs", "invalid choice: 'jobs'"),
        ("run", "run: expected NAME=VALUE without spaces, as in seed=1"),
        ("seed =1", "seed: expected NAME=VALUE"),
        ("=3", "=3: expected NAME=VALUE"),
        ("model=null", "model=null: expected one of cnn, huggingface, logistic, lora, mlp"),
        ("data=1,2 -m", "data=1,2: expected one of adult"),
        ("experiment=3", "experiment=3: expected one of benchmark/cifar10n"),
        ("--experimental-rerun config.pickle", "--experimental-rerun=config.pickle: nothing is unpickled"),
    ],
)
def test_a_word_that_is_not_valid_is_named(words: str, said: str) -> None:
    with pytest.raises((InputError, HydraException)) as error:
        arguments(words.split())
    assert said in str(error.value)
    assert "\n" not in str(error.value)


VALUES = [
    "my data (1).npz",
    "(1).npz",
    "f(1).npz",
    "[1].npz",
    "{a}.npz",
    "a[b.npz",
    "a=b.npz",
    "a#b.npz",
    "données.npz",
    "汚れ.npz",
    'a"b.npz',
    "it's.npz",
    "a;b!c&d<e>`f^.npz",
    "a\\(b.npz'",
    'ends with \\"',
    "a${b.npz",
    "größe (cm), 2",
]


def path_of(word: str) -> Any:
    """The path that Hydra reads in an override, and OmegaConf makes of it."""
    return OmegaConf.create({"path": OverridesParser.create().parse_override(word).value()}).path


@pytest.mark.parametrize("value", VALUES)
def test_the_line_says_what_to_type_and_that_works(value: str) -> None:
    """A shell turns what is to be typed into one word, of which Hydra makes the very value."""
    with pytest.raises(InputError) as error:
        arguments([f"data.path={value}"])
    said = str(error.value)
    assert said.startswith(" ".join(f"data.path={value}: ".split()))
    typed = said.partition("if the value is text, type ")[2]
    (word,) = shlex.split(typed)
    assert arguments([word]) == [word]
    assert path_of(word) == value


@pytest.mark.parametrize(
    "value", ["a,b.npz", "a${b}.npz", "C:\\data\\", "null", "1e5", "2024_01", " a ", "x:", ""]
)
def test_the_quoted_form_keeps_what_hydra_would_read_otherwise(value: str) -> None:
    typed = typed_for(f"data.path={value}")
    assert typed is not None
    (word,) = shlex.split(typed)
    assert path_of(word) == value


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("data.path=2024_01_15", 'data.path="2024_01_15"'),
        ("name=1e5", 'name="1e5"'),
        ("data.target=true", 'data.target="true"'),
        ("data.path=2024_01,b", 'data.path="2024_01","b"'),
        ("data.path=2024", "data.path=2024"),
        ("data.path=null", "data.path=null"),
        ("data.path=a.npz,b.npz", "data.path=a.npz,b.npz"),
        ("threat.eps=1e-2", "threat.eps=1e-2"),
        ("train.learning_rate=1e-2", "train.learning_rate=1e-2"),
        ("train.epochs=1_000", "train.epochs=1_000"),
        ("model.name=1_0", "model.name=1_0"),
        ("name=choice(1_0,b)", "name=choice(1_0,b)"),
    ],
)
def test_text_that_looks_like_a_number_stays_text(word: str, expected: str) -> None:
    assert arguments(["-m", word]) == ["--multirun", expected]


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("data.path=a,b.npz", ["type -m first", "'data.path=\"a,b.npz\"'"]),
        ("data.columns=a,b", ["type -m first", "'data.columns=[a,b]'"]),
        ("train.epochs=range(3)", ["to run each, type -m first"]),
    ],
)
def test_several_values_in_a_single_run_are_one_line(command: Command, word: str, meant: list[str]) -> None:
    code, _, err = command(word, "data=table", "data.target=y")
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith(f"defense: {word}: several values in a single run; ")
    assert all(each in err for each in meant)
    assert ("[" in err) == (word == "data.columns=a,b")


def test_a_home_folder_is_written_out_and_lists_are_quoted_word_by_word() -> None:
    home = os.path.expanduser("~/a.npz")
    assert typed_for("data.path=~/a.npz") == shlex.quote(f'data.path="{home}"')
    assert typed_for("data.columns=[age,hours (h)]") == shlex.quote('data.columns=[age,"hours (h)"]')
    assert typed_for("data.path=a (1),b", sweep=True) == shlex.quote('data.path="a (1)",b')
    assert typed_for("run") is None


def test_numbers_are_not_to_be_quoted() -> None:
    text = ("data.path", "data.columns", "model.width", "hydra.run.dir", "nosuch")
    assert all(is_text(name) for name in text)
    others = ("train.epochs", "seed", "treatment.names", "scorer.direction", "scorer")
    assert not any(is_text(name) for name in others)
    with pytest.raises(InputError) as error:
        arguments(["train.epochs=range(3"])
    assert "if the value is text" not in str(error.value)


def settings(words: list[str]) -> Any:
    """The settings that Hydra makes of the words of a command, without its own."""
    found = as_yaml(*(word for word in words if not word.startswith("-")))
    return OmegaConf.to_container(OmegaConf.create(found))


@cache
def as_yaml(*overrides: str) -> str:
    """What Hydra writes of the settings of a run."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return OmegaConf.to_yaml(compose("config", [*overrides]))


def run_of(folder: Path, *overrides: str) -> Path:
    """Write what Hydra writes beside a run of these overrides; return the folder of the files."""
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra/config.yaml").write_text(as_yaml(*overrides))
    (folder / ".hydra/overrides.yaml").write_text(OmegaConf.to_yaml(list(overrides)))
    return folder / ".hydra"


STARTED = [
    "scorer=ip_ensemble",
    "scorer.count=3",
    "train.learning_rate=1e-3",
    "+model.noise=0.5",
    "threat.eps=${data.eps}",
    '+evaluation.attacks.x={name: pgd, steps: 3, step_size: "1/255"}',
    "~evaluation.attacks.fgsm",
    'name="a, b"',
    "data.train_size=null",
]


def test_a_run_is_run_again_from_what_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_of(tmp_path / "one", *STARTED, "seed=3")
    monkeypatch.chdir(tmp_path)
    same = arguments(["--config-path", "one/.hydra", "--config-name", "config"])
    assert same == [*STARTED, "seed=3", "hydra.mode=RUN"]
    assert arguments(["-cp", str(tmp_path / "one/.hydra/config.yaml")]) == same
    assert settings(same) == settings([*STARTED, "seed=3"])
    other = arguments(["seed=4", "--config-path=one/.hydra", "scorer=loss"])
    assert other == [*STARTED[1:], "seed=4", "scorer=loss", "hydra.mode=RUN"]
    sweep = arguments(["-m", "--config-path=one/.hydra", "seed=0,1", "hydra/launcher=joblib"])
    assert sweep == ["--multirun", *STARTED, "seed=0,1", "launcher=joblib"]


def test_what_the_overrides_do_not_make_becomes_a_setting(tmp_path: Path) -> None:
    """As where defaults have changed since, a hand has changed a value, or the overrides are lost."""
    folder = run_of(tmp_path, *STARTED, "seed=3")
    before = settings([*STARTED, "seed=3"])
    text = (folder / "config.yaml").read_text("utf-8")
    (folder / "config.yaml").write_text(text.replace("seed: 3", "seed: 5").replace("budget: 0.1", "budget: 0.25"))
    words = arguments(["--config-path", str(folder)])
    assert words == [*STARTED, "seed=3", "seed=5", "treatment.budget=0.25", "hydra.mode=RUN"]
    assert settings(words) == before | {"seed": 5, "treatment": before["treatment"] | {"budget": 0.25}}
    (folder / "overrides.yaml").unlink()
    (folder / "config.yaml").write_text(text)
    assert settings(arguments(["--config-path", str(folder)])) == before
    words = arguments(["--config-path", str(folder), "scorer=loss"])
    assert "scorer=loss" in words
    assert not [word for word in words if word.startswith("scorer.")]  # nothing of the ensemble is left


@pytest.mark.extra("hydra_plugins.hydra_joblib_launcher")
def test_a_cell_of_an_experiment_is_not_the_whole_sweep_again(tmp_path: Path) -> None:
    folder = run_of(tmp_path, "experiment=benchmark/digits", "seed=1", "scorer=loss", "launcher=joblib")
    words = arguments(["--config-path", str(folder)])
    assert words == ["experiment=benchmark/digits", "seed=1", "scorer=loss", "hydra.mode=RUN"]


OLD, NEW = "  held_out: 0.5\n", "  epochs: 20\n"
OTHER = "--config-name=config: not the settings of a run"
CHANGED: dict[str, tuple[Callable[[str], str], str]] = {
    "a setting less": (lambda text: text.replace(OLD, ""), "has no treatment.held_out; expected all settings"),
    "a setting more": (lambda text: f"{text}newer: 3\n", "newer is no setting of this version"),
    "one more in a part": (lambda text: text.replace(NEW, f"{NEW}  beats: 3\n"), "train.beats is no setting of"),
    "a list": (lambda _: "- a", "expected the settings of a run"),
    "settings of Hydra": (lambda _: "hydra: {}", "expected the settings of a run"),
    "a few settings": (lambda _: "seed: 3", "has no name; expected all settings"),
    "no YAML": (lambda _: "a: [", "not readable as YAML"),
    "the schema alone": (lambda _: "defaults: [schema, _self_]", OTHER),
    "a group alone": (lambda _: "defaults: [data: digits, _self_]", OTHER),
}


@pytest.mark.parametrize("name", CHANGED)
def test_a_config_of_another_version_is_one_line(tmp_path: Path, name: str) -> None:
    change, said = CHANGED[name]
    folder = run_of(tmp_path)
    (folder / "overrides.yaml").unlink()
    (folder / "config.yaml").write_text(change((folder / "config.yaml").read_text("utf-8")))
    with pytest.raises(InputError) as error:
        arguments(["--config-path", str(folder)])
    assert said in str(error.value)


def test_folders_that_have_no_such_config_are_named(tmp_path: Path) -> None:
    folder = run_of(tmp_path)
    for words, said in (
        (["--config-path", str(tmp_path)], f"no config.yaml in it; expected {folder}"),
        (["--config-path", str(tmp_path / "no")], "no config.yaml in it; expected the folder of a config"),
        (["--config-dir", str(folder)], f"its config.yaml is not read: .* expected --config-path {folder}"),
        (["--config-dir", "nowhere"], "--config-dir=nowhere: no such folder"),
    ):
        with pytest.raises(InputError, match=said):
            arguments(words)
    (folder / "overrides.yaml").write_text("[treatment.gone=1]")
    with pytest.raises(InputError, match=r"overrides.yaml: not of this version of defense \(.*treatment.gone"):
        arguments(["--config-path", str(folder)])


def test_a_primary_config_and_groups_of_ones_own(command: Command, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    (mine / "scorer").mkdir(parents=True)
    (mine / "mine.yaml").write_text("defaults:\n  - config\n  - override /scorer: ours\n  - _self_\nseed: 7\n")
    (mine / "scorer/ours.yaml").write_text("name: ip\ncount: 9\n")
    for flags in (["--config-path", "mine"], ["--config-dir", "mine"]):
        code, out, err = command(*flags, "--config-name", "mine", "--cfg", "job", "train.epochs=3")
        assert (code, err) == (0, "")
        found = OmegaConf.create(out)
        assert (found.seed, found.scorer.count, found.train.epochs) == (7, 9, 3)


def test_version_is_that_of_defense(capsys: pytest.CaptureFixture[str]) -> None:
    for ask in (arguments, report):
        with pytest.raises(SystemExit) as stop:
            ask(["--version"])
        assert stop.value.code == 0
        assert capsys.readouterr().out == f"defense {version('defense')}\n"


REFUSED = {
    "two modes": ["--multirun", "--run"],
    "nothing to resolve": ["--resolve"],
    "a variable that is not set": ["train.epochs=${oc.env:NO_SUCH_VARIABLE}"],
    "a setting that is not there": ["train.epochs=${nosuch}"],
    "a variable to copy that is not set": ["hydra.job.env_copy=[NO_SUCH_VARIABLE]"],
    "a log that cannot be written": ["hydra.job_logging.handlers.file.filename=/dev/null/x"],
    "no sweep": ["-m", "seed=range(0)"],
    "a completion of no shell": ["--shell-completion", "query=foo"],
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_hydra_refuses_is_one_line(command: Command, tmp_path: Path, name: str) -> None:
    code, out, err = command(*REFUSED[name])
    assert code == 2
    assert err.startswith("defense: ")
    assert err.count("\n") == 1
    assert "Traceback" not in out + err
