"""Cells composed over one composition of what they share, against Hydra's own composition of each."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import ConfigCompositionException
from hydra.types import RunMode
from omegaconf import OmegaConf, open_dict

from defense.cli.composition import CellComposer, first_of_each
from defense.config.compose import CONF, register

CELLS = [
    "seed=1 scorer=ip treatment.budget=0.1",
    "scorer.batch_size=7 seed=2 scorer=ekfac treatment.budget=0.2",  # a value before the group that it is of
    "experiment=benchmark/metagradient seed=3 scorer.proxy=null",
    "model=cnn model.width=8 +model.groups=2 ++model.width=9",
    "treatment=optimize 'data.columns=[a,b]' ~train",
    "'+model={depth: 3}' 'name=a b'",
    "evaluation.attacks.pgd.steps=3 ~evaluation.attacks.fgsm",
    "seed=4 hydra.job.chdir=true hydra.job.config.override_dirname.exclude_keys=[seed]",
    "data=npz 'data.path=/pictures/${name}.npz'",
    "launcher=serial seed=1",
]
WRONG = ["treatment.budgets=1", "scorer=unknown", "~model.width", "+seed=1", "seed=one"]


@pytest.fixture
def hydra() -> Iterator[tuple[Any, Any]]:
    """Hydra's loader, and the settings of a sweep."""
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        loader = hydra.config_loader
        yield loader, loader.load_configuration("config", ["seed=1,2", "hydra.sweep.dir=x"], RunMode.MULTIRUN)


def test_a_cell_is_what_hydra_composes(hydra: tuple[Any, Any]) -> None:
    loader, master = hydra
    composer = CellComposer(loader, master)
    for cell in map(shlex.split, CELLS):
        for _ in range(2):  # the second time over what is kept
            ours, theirs = composer.compose(cell, 3), loader.load_sweep_config(master, cell)
            with open_dict(theirs):
                theirs.hydra.job.id = theirs.hydra.job.num = 3  # as a launcher of Hydra does
            assert OmegaConf.to_yaml(ours) == OmegaConf.to_yaml(theirs)
            assert ours.hydra.sweep.dir == "x"


@pytest.mark.parametrize("cell", WRONG)
def test_a_wrong_cell_is_refused_as_by_hydra(hydra: tuple[Any, Any], cell: str) -> None:
    loader, master = hydra
    with pytest.raises(ConfigCompositionException) as theirs:
        loader.load_sweep_config(master, [cell])
    with pytest.raises(type(theirs.value)) as ours:
        CellComposer(loader, master).compose([cell], 0)
    assert str(ours.value) == str(theirs.value)


def test_a_cell_does_not_change_the_next(hydra: tuple[Any, Any]) -> None:
    composer = CellComposer(*hydra)
    composer.compose(["scorer=ip", "seed=7", "+model.width=9"], 0)
    after = composer.compose(["scorer=ip"], 1)
    assert after.seed == 0
    assert "width" not in after.model


def test_groups_are_composed_once(hydra: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    loader, master = hydra
    composer, calls, own = CellComposer(loader, master), [], loader.load_configuration
    monkeypatch.setattr(
        loader, "load_configuration", lambda *given, **named: calls.append(given) or own(*given, **named)
    )
    for seed in range(3):
        for scorer in ("ip", "loss"):
            composer.compose([f"seed={seed}", f"scorer={scorer}"], seed)
    assert len(calls) == 2


def test_each_value_is_checked_in_one_cell() -> None:
    cells = [[f"seed={seed}", f"scorer={scorer}"] for seed in range(3) for scorer in ("ip", "loss")]
    assert first_of_each(cells) == [cells[0], cells[1], cells[2], cells[4]]


def test_a_group_on_another_path_is_composed_by_hydra(tmp_path: Path, hydra: tuple[Any, Any]) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/small.yaml").write_text("# @package _global_\ntreatment:\n  budget: 0.05\n")
    loader, _ = hydra
    master = loader.load_configuration("config", [f"hydra.searchpath=[{tmp_path}]", "seed=1,2"], RunMode.MULTIRUN)
    found = CellComposer(loader, master).compose(["+mine=small", "seed=5"], 0)
    assert (found.treatment.budget, found.seed) == (0.05, 5)
