"""The devices of a run, through lightning-fabric."""

from __future__ import annotations

from lightning_fabric import Fabric

from defense.errors import InputError
from defense.schema import Devices


def make_fabric(devices: Devices) -> Fabric:
    """Return the devices of a run; raises InputError where they are not there or cannot do the precision."""
    accelerator, precision = devices.accelerator, devices.precision
    try:
        fabric = Fabric(accelerator=accelerator, devices=1, precision=precision)
    except (ValueError, RuntimeError) as error:
        raise InputError("fabric.accelerator", accelerator, f"with precision {precision}: {error}") from error
    if precision == "16-mixed" and fabric.device.type == "cpu":
        raise InputError("fabric.precision", precision, "not for the CPU; expected 32-true or bf16-mixed")
    return fabric
