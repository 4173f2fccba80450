"""The device of this process, through lightning-fabric, and the processes that share a run, through torch."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import LightningEnvironment
from torch import Tensor

from defense.config.schema import Devices
from defense.errors import InputError
from defense.runtime.distributed import Ranks
from defense.runtime.ranks import RankInfo

T = TypeVar("T")
BACKENDS = "cpu:gloo,cuda:nccl"
MEETING = timedelta(minutes=10)  # for all processes to have started
WAITING = timedelta(days=30)  # one waits while another computes alone; whoever started them ends them on an error


def make_fabric(devices: Devices, info: RankInfo | None = None) -> Fabric:
    """Return the device of one process, the one at `place` of several.

    Raises InputError if it is not there or cannot do the precision.
    """
    accelerator, precision = devices.accelerator, devices.precision
    own: dict[str, Any] = {"plugins": [LightningEnvironment()]}  # one device each: what srun says is not for it
    try:
        fabric = Fabric(accelerator=accelerator, devices=1, precision=precision, **own)
        if devices.processes > 1 and fabric.device.type != "cpu":
            index = index_of(fabric.device, devices.devices, info)
            fabric = Fabric(accelerator=accelerator, devices=[index], precision=precision, **own)
    except InputError:
        raise
    except (ValueError, RuntimeError) as error:
        raise InputError("fabric.accelerator", accelerator, f"with precision {precision}: {error}") from error
    if precision == "16-mixed" and fabric.device.type == "cpu":
        raise InputError("fabric.precision", precision, "not for the CPU; expected 32-true or bf16-mixed")
    return fabric


def index_of(device: torch.device, count: int, info: RankInfo | None) -> int:
    """Return which device of a machine is the one of the process at `place`.

    Raises InputError if there are not `count`. Where srun shows each process a device of its own, that is the
    first one that it sees.
    """
    there = torch.cuda.device_count() if device.type == "cuda" else 1
    if info is not None and info.external and there == 1:
        return 0
    if count > there:
        raise InputError("fabric.devices", count, f"expected at most {there}, those of {device.type} here")
    return 0 if info is None else info.local_rank


def join_process_group(info: RankInfo, device: torch.device) -> Ranks:
    """Return the ranks of the processes that share the run, this one on `device`, once all have come.

    Raises InputError if they do not come. It stays for the next run of a sweep; see `part`.
    """
    if not dist.is_initialized():
        if device.type == "cuda":
            torch.cuda.set_device(device)
        try:
            meeting = dist.rendezvous(info.init_method, info.rank, info.size, timeout=MEETING)
            store, rank, size = next(iter(meeting))
            store.set_timeout(MEETING)
            backends = BACKENDS if device.type == "cuda" else "gloo"
            dist.init_process_group(backends, store=store, rank=rank, world_size=size, timeout=WAITING)
        except (dist.DistError, ValueError) as error:
            found = f"process {info.rank} did not meet the others at {info.init_method} ({error})"
            raise InputError("fabric.devices", info.size, found) from error
    return DistributedRanks(device)


def leave_process_group() -> None:
    """Leave the ranks, at the end of this process."""
    if dist.is_initialized():
        dist.destroy_process_group()


class DistributedRanks:
    """The ranks of a process group of torch; see `defense.runtime.distributed.Ranks`."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.rank, self.size = device, dist.get_rank(), dist.get_world_size()

    def gather(self, values: Tensor) -> Tensor:
        """Return the rows (n_rank, ...) of all processes in order of rank: (n, ...), on the CPU."""
        values = values.cpu()
        forms = self.exchange((tuple(values.shape), values.dtype))
        (_, *tail), dtype = next((form for form in forms if form[0][0]), forms[0])  # who has no row knows neither
        out = torch.empty((sum(shape[0] for shape, _ in forms), *tail), dtype=dtype)
        own = out.view(torch.uint8) if dtype is torch.bool else out
        begin = 0
        for rank, (shape, _) in enumerate(forms):
            piece = own[begin : begin + shape[0]]
            if rank == self.rank and shape[0]:
                out[begin : begin + shape[0]] = values
            if piece.numel():
                dist.broadcast(piece, src=rank)
            begin += shape[0]
        return out

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Replace each of `tensors`, of one device and type, by its sum over the processes."""
        flat = torch.cat([tensor.detach().flatten() for tensor in tensors])
        dist.all_reduce(flat)
        for tensor, total in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.detach().copy_(total.view_as(tensor))

    def broadcast(self, value: T) -> T:
        """Return the value that the process of rank 0 gave."""
        box: list[Any] = [value]
        dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        sent: T = box[0]
        return sent

    def exchange(self, value: T) -> list[T]:
        """Return the values of all processes in order of rank."""
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value)
        return found
