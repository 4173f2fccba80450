"""A finished run for TensorBoard or Weights & Biases: the curves of its arms, its numbers and its settings.

Written when the run has ended, from what its stages hold: one that comes from the store is tracked like any other.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd

from defense.config.choices import Tracker
from defense.config.schema import Track
from defense.errors import InputError

Curves = Mapping[str, pd.DataFrame]  # by arm: a row for every epoch
UNTRACKED = (
    "config",
    "versions",
    "overrides",
    "keys",
    "checks",
    "candidates",
    "reused",
    "seed",
    "health",
    "one_class",
)


def check_tracker(track: Track) -> None:
    """Raise InputError where the package of the tracker is missing, or its login."""
    if track.name is None:
        return
    found = find_spec(str(track.name))
    if found is None or found.loader is None:  # the latter: a folder of that name, as wandb makes
        raise InputError("track", track.name, 'not installed; expected it from pip install -e ".[track]"')
    if track.name is Tracker.wandb and track.online:
        import wandb as library

        if not library.api.api_key:
            raise InputError("track.online", "true", "no login; expected `wandb login`, or track.online=false")


def tracked(track: Track, numbers: dict[str, Any], curves: Curves, output: Path) -> None:
    """Hand a run to its tracker, if it has one. numbers: the content of result.json; output: its folder."""
    if track.name is not None:
        TRACKERS[track.name](track, numbers, curves, output)


def tensorboard(track: Track, numbers: dict[str, Any], curves: Curves, output: Path) -> None:
    """Write event files into `output`/tensorboard, in place of those of an earlier attempt."""
    from torch.utils.tensorboard import SummaryWriter

    folder = output / "tensorboard"
    shutil.rmtree(folder, ignore_errors=True)
    with SummaryWriter(str(folder)) as writer:
        for arm, table in curves.items():
            for row in table.to_dict("records"):
                for name, value in row.items():
                    writer.add_scalar(f"{arm}/{name}", float(value), int(row["epoch"]))
        settings = {
            name: value if isinstance(value, bool | int | float | str) else str(value)
            for name, value in leaves(numbers["config"]).items()
        }
        writer.add_hparams(settings, measures(numbers), run_name=".")  # beside the curves


def wandb(track: Track, numbers: dict[str, Any], curves: Curves, output: Path) -> None:
    """Log to Weights & Biases; the runs of one sweep are a group."""
    import wandb as library

    try:
        run = library.init(
            project=track.project,
            group=output.parent.name,
            name=f"{numbers['name']} {output.name}",
            dir=str(output),
            mode="online" if track.online else "offline",
            config=numbers["config"],
            settings=library.Settings(silent=True, console="off"),
            reinit="finish_previous",
        )
    except (library.errors.CommError, library.errors.UsageError) as error:
        raise InputError(
            "track.online", track.online, f"{error}; expected a login, or track.online=false"
        ) from error
    with run:
        run.define_metric("*", step_metric="epoch")
        epochs: dict[int, dict[str, float]] = {}
        for arm, table in curves.items():
            for row in table.to_dict("records"):
                named = {f"{arm}/{name}": float(value) for name, value in row.items() if name != "epoch"}
                epochs.setdefault(int(row["epoch"]), {}).update(named)
        for epoch, values in sorted(epochs.items()):
            run.log({"epoch": epoch, **values})
        run.summary.update(measures(numbers))


TRACKERS: dict[Tracker, Callable[[Track, dict[str, Any], Curves, Path], None]] = {
    Tracker.tensorboard: tensorboard,
    Tracker.wandb: wandb,
}


def measures(numbers: dict[str, Any]) -> dict[str, float]:
    """Return the numbers of a result that are worth comparing, by dotted name: 'arms.defended.clean'."""
    found = leaves({name: value for name, value in numbers.items() if name not in UNTRACKED})
    return {name: float(value) for name, value in found.items() if isinstance(value, int | float)}


def leaves(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return what nested mappings hold, by dotted name."""
    found: dict[str, Any] = {}
    for name, value in nested.items():
        found |= leaves(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return found
