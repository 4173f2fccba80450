"""Hydra's door to the sweeps of `defense`: it takes plugins from packages below `hydra_plugins` alone.

hydra/sweeper=grid      every combination, as `basic`; each value is checked once and not once a cell
hydra/launcher=serial   one cell after another, as `basic`; in memory that does not grow with their number
hydra/launcher=plan     no cell: `grid` says what is done and what is left
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra._internal.core_plugins.basic_launcher import BasicLauncher, BasicLauncherConf
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper, BasicSweeperConf
from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn

from defense.cli.composition import CellComposer, first_of_each
from defense.cli.serial import run_cells
from defense.cli.sweep_files import planned


class GridSweeper(BasicSweeper):
    """Runs every combination of the values that are swept."""

    def sweep(self, arguments: list[str]) -> Any:
        """Run or plan all cells; a plan leaves no folder."""
        if not isinstance(self.launcher, PlanLauncher):
            return super().sweep(arguments)
        from defense.cli.plan import plan_cells  # torch: not for --help

        assert self.hydra_context is not None
        assert self.config is not None
        cells = planned(self.config.hydra.sweeper, arguments, self.hydra_context.config_loader)
        assert cells is not None  # checked before the sweep began
        self.validate_batch_is_legal(cells)
        return plan_cells(self.hydra_context, self.config, cells)

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Raise what Hydra raises for a value that is no setting of a cell."""
        assert self.hydra_context is not None
        assert self.config is not None
        composer = CellComposer(self.hydra_context.config_loader, self.config)
        for number, cell in enumerate(first_of_each(batch)):
            composer.compose(cell, number)
        if isinstance(self.launcher, SerialLauncher):
            self.launcher.composer = composer  # it composes the same groups


class SerialLauncher(BasicLauncher):
    """Runs cells one after another in this process."""

    composer: CellComposer | None = None  # with groups that are composed

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        """Return how each cell has ended, without its settings."""
        assert self.hydra_context is not None
        assert self.config is not None
        assert self.task_function is not None
        composer = self.composer or CellComposer(self.hydra_context.config_loader, self.config)
        return run_cells(self.hydra_context, self.task_function, composer, job_overrides, initial_job_idx)


class PlanLauncher(BasicLauncher):
    """Lets the sweeper `grid` print what is known of each cell before it runs."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        """Raise NotImplementedError: a plan runs no cell, and other sweepers are refused before they begin."""
        raise NotImplementedError("launcher=plan runs no cell")


for group, name, base, ours in (
    ("hydra/sweeper", "grid", BasicSweeperConf, GridSweeper),
    ("hydra/launcher", "serial", BasicLauncherConf, SerialLauncher),
    ("hydra/launcher", "plan", BasicLauncherConf, PlanLauncher),
):
    node = base(_target_=f"{ours.__module__}.{ours.__qualname__}")
    ConfigStore.instance().store(group=group, name=name, node=node, provider="defense")
