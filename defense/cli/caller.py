"""The folder that the command was given in: relative paths are of it, and modules there can be imported."""

from __future__ import annotations

import os
import sys

from hydra.core.hydra_config import HydraConfig

from defense.errors import InputError


def enter_folder_of_caller() -> None:
    """Go back to the folder that the command was given in, and let `model._target_=my_file.Net` find files there.

    Raises InputError if this machine does not have that folder.
    """
    settings = HydraConfig.get()
    if settings.job.chdir:
        try:
            os.chdir(settings.runtime.cwd)
        except OSError as error:
            where = f"{settings.runtime.cwd}, which relative paths are of: {error.strerror}"
            raise InputError("hydra.job.chdir", True, f"cannot go back to {where}; expected false") from error
    find_modules_here()


def find_modules_here() -> None:
    """Let modules in the current folder be imported, after all others."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
